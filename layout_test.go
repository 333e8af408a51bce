package otpq_test

import (
	"errors"
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/otpq/otpq"

// folderRule says which of otpq's own packages a folder may import. Both sides
// are patterns of [path.Match]; "/..." at the end means "and all below". The
// first rule that matches a folder counts.
type folderRule struct {
	folder string
	may    []string
	// never lists modules from elsewhere that the folder stays free of.
	never []string
}

// queueModules are what a provider stays free of: it hands one request
// to one vendor and knows nothing of queues.
var queueModules = []string{"github.com/hibiken/asynq", "github.com/redis/go-redis"}

var layout = []folderRule{
	{folder: "."},
	{folder: "cmd/...", may: []string{"..."}},

	// What every app and every worker agree on stands on nothing.
	{folder: "tasks", may: []string{"internal/secret"}},
	{folder: "status", may: []string{"tasks", "internal/coalesce", "internal/redisscript"}},
	{folder: "status/statustest", may: []string{"status", "tasks"}},
	{folder: "enqueue", may: []string{"tasks", "status", "providers", "internal/redisconn", "internal/asynqredis", "internal/redisscript", "internal/coalesce", "internal/secret"}},
	{folder: "enqueue/oteltrace", may: []string{"enqueue"}},
	{folder: "enqueue/campaign", may: []string{"enqueue", "enqueue/campaign/rows", "tasks", "status", "providers", "internal/redisscript"}},
	{folder: "enqueue/campaign/rows", may: []string{"tasks", "status", "providers"}},

	{folder: "providers", may: []string{"internal/secret"}, never: queueModules},
	{folder: "providers/all", may: []string{"providers", "providers/*"}, never: queueModules},
	{folder: "providers/sandbox", may: []string{"providers", "providers/internal/...", "internal/secret"}, never: queueModules},
	{folder: "providers/providertest", may: []string{"providers", "providers/internal/...", "providers/sandbox", "internal/secret"}, never: queueModules},
	{folder: "providers/internal/...", may: []string{"providers", "providers/internal/...", "internal/secret"}, never: queueModules},
	// A vendor's folder: never another vendor's.
	{folder: "providers/*", may: []string{"providers", "providers/internal/...", "internal/secret"}, never: queueModules},

	// Not enqueue: replaying a dead letter is for the command to wire.
	{folder: "worker/...", may: []string{"worker/...", "tasks", "status", "providers", "internal/..."}},

	{folder: "internal/secret"},
	{folder: "internal/redistest"},
	{folder: "internal/redisconn", may: []string{"internal/secret"}},
	// Not providers/all: main hands it the list.
	{folder: "internal/config", may: []string{"internal/secret", "internal/redisconn", "tasks", "providers"}},
	// Not worker: an auditor that shared code with what it audits would share its mistakes.
	{folder: "internal/audit", may: []string{"status", "tasks", "providers"}},
	{folder: "internal/coalesce"},
	{folder: "internal/redisscript"},
	{folder: "internal/asynqredis", may: []string{"internal/coalesce", "internal/redisscript"}},
	{folder: "internal/backlog", may: []string{"internal/secret", "internal/redisconn", "internal/redisscript", "tasks", "status", "providers"}},
	// Worker, because the workers themselves tell how the breakers are.
	{folder: "internal/overview", may: []string{"internal/backlog", "tasks", "worker"}},
	// Not enqueue: replaying is for the command to wire.
	{folder: "internal/dashboard", may: []string{"worker", "enqueue/campaign", "internal/overview", "internal/backlog", "internal/metrics", "internal/secret", "tasks", "status", "providers"}},
	// Tests alone: they build and run the command itself.
	{folder: "internal/chaos"},
	// Spans of what it is told: it knows no message.
	{folder: "internal/tracing"},
	{folder: "internal/metrics", may: []string{"internal/secret", "internal/backlog", "tasks", "status", "providers"}},

	{folder: "deploy"},
}

// testOnly are packages for tests; nothing that ships may contain them.
var testOnly = []string{"internal/redistest", "providers/providertest"}

// matches reports whether the folder matches the pattern.
func matches(pattern, folder string) bool {
	if pattern == "..." {
		return true
	}
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return folder == tree || strings.HasPrefix(folder, tree+"/")
	}
	ok, err := path.Match(pattern, folder)
	return ok && err == nil
}

func matchesAny(patterns []string, folder string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, folder) })
}

// checkFolder returns what is wrong with the folder's being there at all.
func checkFolder(folder string) error {
	if !slices.ContainsFunc(layout, func(r folderRule) bool { return matches(r.folder, folder) }) {
		return fmt.Errorf("folder %s has no rule: say in the table `layout` of layout_test.go what it may import", folder)
	}
	return nil
}

// checkImport returns what is wrong with a file of the folder importing the
// package. Tests may import what they like, but nothing may import cmd.
func checkImport(folder, imported string, isTest bool) error {
	own, isOwn := strings.CutPrefix(imported, module+"/")
	if isOwn && matches("cmd/...", own) && !matches("cmd/...", folder) {
		return fmt.Errorf("%s imports %s: nothing imports cmd; move what is needed out of it", folder, own)
	}
	if isTest {
		return nil
	}
	i := slices.IndexFunc(layout, func(r folderRule) bool { return matches(r.folder, folder) })
	if i < 0 {
		return nil // checkFolder's to say
	}
	rule := layout[i]
	switch {
	case isOwn && slices.Contains(testOnly, own):
		return fmt.Errorf("%s imports %s, which is for tests only", folder, own)
	case isOwn && !matchesAny(rule.may, own):
		return fmt.Errorf("%s imports %s; it may import of otpq only %q", folder, own, rule.may)
	}
	for _, m := range rule.never {
		if imported == m || strings.HasPrefix(imported, m+"/") {
			return fmt.Errorf("%s imports %s, which it must stay free of", folder, imported)
		}
	}
	return nil
}

func TestImportsFollowTheLayout(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return enterFolder(file, d)
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		files++
		folder := filepath.ToSlash(filepath.Dir(file))
		if err := checkFolder(folder); err != nil {
			t.Error(err)
			return fs.SkipDir
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range f.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if err := checkImport(folder, imported, strings.HasSuffix(file, "_test.go")); err != nil {
				t.Errorf("%s: %v", file, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 2 {
		t.Errorf("only %d Go files were seen: is this the root of the repository?", files)
	}
}

// enterFolder skips what the go command skips too, and other modules.
func enterFolder(folder string, d fs.DirEntry) error {
	if folder == "." {
		return nil
	}
	if name := d.Name(); name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_") {
		return fs.SkipDir
	}
	switch _, err := os.Stat(filepath.Join(folder, "go.mod")); {
	case err == nil:
		return fs.SkipDir
	case errors.Is(err, fs.ErrNotExist):
		return nil
	default:
		return err
	}
}

func TestTheLayoutIsEnforced(t *testing.T) {
	for name, tc := range map[string]struct {
		folder, imported string
		isTest, wrong    bool
	}{
		"tasks may use secret":                         {folder: "tasks", imported: module + "/internal/secret"},
		"tasks may not use status":                     {folder: "tasks", imported: module + "/status", wrong: true},
		"an app's library may not use the worker":      {folder: "enqueue", imported: module + "/worker", wrong: true},
		"an app's library may not choose the vendors":  {folder: "enqueue", imported: module + "/providers/all", wrong: true},
		"the worker may use any internal package":      {folder: "worker", imported: module + "/internal/redisconn"},
		"the worker may not enqueue":                   {folder: "worker", imported: module + "/enqueue", wrong: true},
		"a vendor may use the shared client":           {folder: "providers/kinpos", imported: module + "/providers/internal/vendorhttp"},
		"a vendor may not use another vendor":          {folder: "providers/kinpos", imported: module + "/providers/medsenior", wrong: true},
		"a vendor may not use asynq":                   {folder: "providers/kinpos", imported: "github.com/hibiken/asynq", wrong: true},
		"a vendor may not use a later go-redis":        {folder: "providers/kinpos", imported: "github.com/redis/go-redis/v9", wrong: true},
		"the list of providers may use every vendor":   {folder: "providers/all", imported: module + "/providers/medsenior"},
		"the sandbox serves no vendor by name":         {folder: "providers/sandbox", imported: module + "/providers/medsenior", wrong: true},
		"cmd may use everything":                       {folder: "cmd/otpq", imported: module + "/worker"},
		"cmd may not ship the tests' Redis":            {folder: "cmd/otpq", imported: module + "/internal/redistest", wrong: true},
		"a test may use what its folder may not":       {folder: "tasks", imported: module + "/internal/redistest", isTest: true},
		"a test may not use cmd":                       {folder: "worker", imported: module + "/cmd/otpq", isTest: true, wrong: true},
		"nothing may use cmd":                          {folder: "worker", imported: module + "/cmd/otpq/run", wrong: true},
		"a folder whose name starts the same is other": {folder: "tasks", imported: module + "/internal/secrets", wrong: true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := checkImport(tc.folder, tc.imported, tc.isTest); (err != nil) != tc.wrong {
				t.Errorf("checkImport(%q, %q, %v) = %v, want an error: %v", tc.folder, tc.imported, tc.isTest, err, tc.wrong)
			}
		})
	}
	if err := checkFolder("utils"); err == nil {
		t.Error(`checkFolder("utils") = nil, want an error that tells to write a rule`)
	}
}

// An app that enqueues should not have to build, scan or update what only
// workers and the command need.
func TestAnAppThatEnqueuesPullsInNoWorkerCode(t *testing.T) {
	unwanted := []string{
		module + "/worker", module + "/cmd", module + "/internal/config", module + "/providers/all",
		"github.com/sony/gobreaker", "github.com/spf13/cobra", "github.com/knadh/koanf", "github.com/goccy/go-yaml",
		"github.com/alicebob/miniredis", "github.com/prometheus/client_golang", "github.com/jedib0t/go-pretty", "go.opentelemetry.io", "testing",
	}
	for _, dep := range dependencies(t, "./enqueue") {
		for _, u := range unwanted {
			if dep == u || strings.HasPrefix(dep, u+"/") {
				t.Errorf("./enqueue depends on %s; `go list -deps -f '{{.ImportPath}}: {{.Imports}}' ./enqueue` shows through whom", dep)
			}
		}
	}
}

// dependencies lists the import paths of all that the package is built from.
func dependencies(t *testing.T, pkg string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-buildvcs=false", "-deps", pkg)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list -deps %s: %v\n%s", pkg, err, stderr.String())
	}
	deps := strings.Fields(string(out))
	if !slices.Contains(deps, module+strings.TrimPrefix(pkg, ".")) {
		t.Fatalf("go list -deps %s = %q, want %s itself among them", pkg, deps, pkg)
	}
	return deps
}

// TestNoErrorOfAPipelineIsDropped: where Redis refuses the connection, go-redis says so
// in what Pipelined returns and nowhere else. Who asks the commands alone for their
// errors takes what it was not told for what is not there.
func TestNoErrorOfAPipelineIsDropped(t *testing.T) {
	dropped := regexp.MustCompile(`(?m)^\s*(_, _ = |_ = )?[\w.()]*\.(Tx)?(Pipelined|Exec)\(ctx[,)]`)
	kept := regexp.MustCompile(`(?m)(:=|, err =|return) [\w.()]*\.(Tx)?Pipelined\(`)
	seen := 0
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return enterFolder(file, d)
		case !strings.HasSuffix(file, ".go"), strings.HasSuffix(file, "_test.go"), strings.HasPrefix(file, "internal/redisscript/"):
			return nil
		}
		code, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		seen += len(kept.FindAll(code, -1))
		for _, call := range dropped.FindAll(code, -1) {
			if !strings.Contains(string(call), "redisscript.") {
				t.Errorf("%s: %s drops an error that no command has: use redisscript.Pipelined", file, strings.TrimSpace(string(call)))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if seen < 5 {
		t.Errorf("%d calls of Pipelined were seen: the form has changed", seen)
	}
}
