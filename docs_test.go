package otpq_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// markdown lists the pages of the repository.
func markdown(t *testing.T) []string {
	t.Helper()
	var pages []string
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && file != "." && (strings.HasPrefix(name, ".") || name == "node_modules" || name == "testdata") {
			return fs.SkipDir
		}
		if strings.HasSuffix(file, ".md") {
			pages = append(pages, filepath.ToSlash(file))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 10 {
		t.Fatalf("there are only %d pages: is this the root of the repository?", len(pages))
	}
	return pages
}

var (
	fence = regexp.MustCompile("(?ms)^[ \t]*```.*?^[ \t]*```[ \t]*$")
	// link is one to a page or a picture, with the text in brackets before it.
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?)[ #]*$`)
	testRef = regexp.MustCompile("`(?:((?:[a-z0-9_]+/)*[a-z0-9_]+)\\.)?(Test[A-Z][A-Za-z0-9]*)`")
	// runRef is a test in a command to run.
	runRef = regexp.MustCompile(`go test \./(\S+) -run (Test[A-Za-z0-9]+)`)
)

// anchors are those that a page has, as GitHub names them.
func anchors(page string) map[string]bool {
	out := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(page, ""), -1) {
		text := link.ReplaceAllString(m[1], "]")
		name := strings.Map(func(r rune) rune {
			switch r = unicode.ToLower(r); {
			case r == ' ':
				return '-'
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return r
			}
			return -1
		}, text)
		unique := name
		for n := 1; out[unique]; n++ {
			unique = name + "-" + strconv.Itoa(n)
		}
		out[unique] = true
	}
	return out
}

// brokenLink says what is wrong with a page's link; "" when it leads somewhere, or out
// of the repository.
func brokenLink(t *testing.T, page, to string) string {
	t.Helper()
	if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
		return ""
	}
	file, anchor, hasAnchor := strings.Cut(to, "#")
	target := page
	if file != "" {
		target = filepath.Join(filepath.Dir(page), file)
	}
	info, err := os.Stat(target)
	if err != nil {
		return "there is no " + target
	}
	if !hasAnchor || info.IsDir() {
		return ""
	}
	text, err := os.ReadFile(target)
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasSuffix(target, ".md") && !anchors(string(text))[anchor] {
		return target + " has no heading for #" + anchor
	}
	return ""
}

func TestEveryLinkOfTheDocumentsLeadsSomewhere(t *testing.T) {
	seen := 0
	for _, page := range markdown(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(string(text), ""), -1) {
			seen++
			if problem := brokenLink(t, page, m[1]); problem != "" {
				t.Errorf("%s links to %s: %s", page, m[1], problem)
			}
		}
	}
	if seen < 40 {
		t.Errorf("only %d links were looked at: the form has changed", seen)
	}
}

func TestLinksAreJudgedAsGitHubDoes(t *testing.T) {
	got := anchors("# A user of Redis's own\n## 10×, 100× `x_y` [z](u)\n```\n# no heading\n```\n## Twice\n## Twice\n")
	for _, want := range []string{"a-user-of-rediss-own", "10-100-x_y-z", "twice", "twice-1"} {
		if !got[want] {
			t.Errorf("anchors() = %v, want %s in it", got, want)
		}
	}
	if got["no-heading"] {
		t.Error("a line of code is taken for a heading")
	}
	for to, broken := range map[string]bool{
		"guarantees.md": false, "guarantees.md#promised": false, "guarantees.md#nosuch": true, "nosuch.md": true, "../README.md#states": false,
		"#nosuch": true, "https://example.org/x": false, "adr": false,
	} {
		if problem := brokenLink(t, "docs/scaling.md", to); (problem != "") != broken {
			t.Errorf("brokenLink(%s) = %q, want a problem: %v", to, problem, broken)
		}
	}
}

// TestEveryTestThatTheDocumentsNameExists reads all pages, also those of decisions.
func TestEveryTestThatTheDocumentsNameExists(t *testing.T) {
	seen := 0
	for _, page := range markdown(t) {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range testRef.FindAllStringSubmatch(string(text), -1) {
			if m[1] == "" || strings.HasPrefix(page, "docs/adr/") {
				continue // of a run by its beginning, or of its day
			}
			seen++
			if !hasTest(t, m[1], m[2]) {
				t.Errorf("%s names %s in %s, which is not there", page, m[2], m[1])
			}
		}
		for _, m := range runRef.FindAllStringSubmatch(string(text), -1) {
			seen++
			if !hasTestThatBegins(t, m[1], m[2]) {
				t.Errorf("%s tells to run %s in %s, which is not there", page, m[2], m[1])
			}
		}
	}
	if seen < 60 {
		t.Errorf("only %d tests are named: the form has changed", seen)
	}
}

// hasTestThatBegins is for what follows -run.
func hasTestThatBegins(t *testing.T, folder, name string) bool {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(files, func(file string) bool {
		code, err := os.ReadFile(file)
		return err == nil && strings.Contains(string(code), "func "+name)
	})
}

// TestTheFieldsOfTheAttemptLineAreExplained compares what worker/observe.go writes with
// the table of docs/operations.md.
func TestTheFieldsOfTheAttemptLineAreExplained(t *testing.T) {
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(page), "**`attempt`** is written")
	table, _, ok2 := strings.Cut(rest, "\nOthers that tell")
	if !ok || !ok2 {
		t.Fatal("docs/operations.md has no table of the attempt line's fields")
	}
	var told []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\|").FindAllStringSubmatch(table, -1) {
		told = append(told, m[1])
	}
	written := []string{"level", "time", "message"} // by zerolog itself
	file, err := parser.ParseFile(token.NewFileSet(), "worker/observe.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	writers := []string{"Str", "Int", "Int64", "Dur", "Bool", "Time", "AnErr", "Float64", "Strs"}
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) == 0 {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !slices.Contains(writers, method.Sel.Name) {
			return true
		}
		if name, ok := call.Args[0].(*ast.BasicLit); ok {
			field, err := strconv.Unquote(name.Value)
			if err != nil {
				t.Fatal(err)
			}
			written = append(written, field)
		}
		return true
	})
	slices.Sort(told)
	slices.Sort(written)
	if !slices.Equal(told, slices.Compact(written)) {
		t.Errorf("docs/operations.md explains the fields %q, and worker/observe.go writes %q", told, written)
	}
}

// TestTheLogLinesThatAreExplainedAreWritten finds one that was reworded.
func TestTheLogLinesThatAreExplainedAreWritten(t *testing.T) {
	page, err := os.ReadFile("docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "\nOthers that tell")
	lines := regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (?:info|warn|error|debug)").FindAllStringSubmatch(table, -1)
	if len(lines) < 10 {
		t.Fatalf("%d lines are explained: the form has changed", len(lines))
	}
	var code strings.Builder
	for _, folder := range []string{"cmd/otpq", "worker", "providers/internal/vendorhttp"} {
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(file, "_test.go") {
				code.Write(text)
			}
		}
	}
	for _, m := range lines {
		if !strings.Contains(code.String(), `Msg("`+m[1]+`")`) {
			t.Errorf("docs/operations.md explains the line %q, which nobody writes", m[1])
		}
	}
}

// licences are what the text of a licence that otpq can be shipped with says.
var licences = []string{
	"Permission is hereby granted, free of charge",      // MIT
	"Redistribution and use in source and binary forms", // BSD
	"Apache License", // Apache 2.0
	"Permission to use, copy, modify, and/or distribute this softw", // ISC
}

// TestEveryModuleThatIsBuiltInHasALicenceThatAllowsIt is what docs/security.md says of
// dependencies.
func TestEveryModuleThatIsBuiltInHasALicenceThatAllowsIt(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-buildvcs=false", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}", "./cmd/otpq")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	slices.Sort(lines)
	lines = slices.Compact(lines)
	if len(lines) < 10 {
		t.Fatalf("only %d modules are built in: go list has another form", len(lines))
	}
	t.Logf("%d modules", len(lines))
	for _, line := range lines {
		module, dir, _ := strings.Cut(line, " ")
		files, err := filepath.Glob(filepath.Join(dir, "LICEN[CS]E*"))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(files, func(file string) bool {
			text, err := os.ReadFile(file)
			return err == nil && slices.ContainsFunc(licences, func(words string) bool { return strings.Contains(string(text), words) })
		}) {
			t.Errorf("%s has no licence that is known here: %q", module, files)
		}
	}
}

// TestEveryFolderIsInTheArchitecture finds one that was added or moved.
func TestEveryFolderIsInTheArchitecture(t *testing.T) {
	page, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\n## Folders\n")
	table, _, _ := strings.Cut(rest, "\n## ")
	told := map[string]bool{}
	for line := range strings.Lines(table) {
		first, _, _ := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		for _, m := range regexp.MustCompile("`([a-z/]+)`").FindAllStringSubmatch(first, -1) {
			told[m[1]] = true
			if _, err := os.Stat(m[1]); err != nil {
				t.Errorf("docs/architecture.md tells of the folder %s: %v", m[1], err)
			}
		}
	}
	err = filepath.WalkDir(".", func(folder string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() || folder == "." {
			return err
		}
		if err := enterFolder(folder, d); err != nil {
			return err
		}
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil || files == nil {
			return err
		}
		for part := filepath.ToSlash(folder); part != "."; part = filepath.ToSlash(filepath.Dir(part)) {
			if told[part] {
				return nil
			}
		}
		t.Errorf("docs/architecture.md does not say what %s is for", folder)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
