package deploy_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/redistest"
)

// instruction is one line of a Dockerfile, continuations joined.
type instruction struct{ name, args string }

// lastStage returns all instructions of a Dockerfile, and those of its last
// stage, which is the image that ships.
func lastStage(t *testing.T, file string) (all, last []instruction) {
	t.Helper()
	for line := range strings.Lines(strings.ReplaceAll(read(t, file), "\\\n", " ")) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, args, _ := strings.Cut(line, " ")
		all = append(all, instruction{strings.ToUpper(name), strings.TrimSpace(args)})
	}
	i := len(all) - 1
	for i > 0 && all[i].name != "FROM" {
		i--
	}
	return all, all[i:]
}

// only returns the arguments of the one instruction of that name.
func only(t *testing.T, in []instruction, name string) string {
	t.Helper()
	var found []string
	for _, i := range in {
		if i.name == name {
			found = append(found, i.args)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d instructions %s, want 1: %q", len(found), name, found)
	}
	return found[0]
}

func TestTheImageHoldsAStaticBinary(t *testing.T) {
	all, last := lastStage(t, "Dockerfile")
	if base := only(t, last, "FROM"); base != "scratch" {
		t.Errorf("the image is built on %q, want scratch", base)
	}
	i := slices.IndexFunc(all, func(i instruction) bool { return i.name == "RUN" && strings.Contains(i.args, "go build") })
	if i < 0 {
		t.Fatal("no RUN with go build")
	}
	for _, want := range []string{"CGO_ENABLED=0", "-trimpath", "./cmd/otpq"} {
		if !strings.Contains(all[i].args, want) {
			t.Errorf("go build runs as %q, want %q in it", all[i].args, want)
		}
	}
}

// The linker says nothing about a variable that is not there, and the version
// would be empty.
func TestBuildsSetAVariableThatExists(t *testing.T) {
	sources, err := filepath.Glob("../cmd/otpq/*.go")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources of cmd/otpq: %v", err)
	}
	var code strings.Builder
	for _, file := range sources {
		code.WriteString(read(t, file))
	}
	set := regexp.MustCompile(`-X main\.(\w+)=`)
	for _, file := range []string{"Dockerfile", "../Makefile"} {
		m := set.FindStringSubmatch(read(t, file))
		if m == nil {
			t.Errorf("%s sets no version", file)
			continue
		}
		declared := regexp.MustCompile(`(?m)^(var)?\s*` + m[1] + `( string\b|\s*=)`)
		if !declared.MatchString(code.String()) {
			t.Errorf("%s sets main.%s, which cmd/otpq does not declare", file, m[1])
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestTheImageRunsAsANumberedUserWhoIsNotRoot(t *testing.T) {
	_, last := lastStage(t, "Dockerfile")
	if user := only(t, last, "USER"); !numberedAndNotRoot(user) {
		t.Errorf("USER %s, want a number that is not 0: Kubernetes' runAsNonRoot cannot judge a name", user)
	}
}

// numberedAndNotRoot reports whether a container's user, "USER" or
// "USER:GROUP", is a number other than root's.
func numberedAndNotRoot(user string) bool {
	id, _, _ := strings.Cut(user, ":")
	n, err := strconv.Atoi(id)
	return err == nil && n > 0
}

// The shell form would make a shell, and not otpq, receive SIGTERM; scratch has
// none anyway.
func TestTheEntrypointIsOtpqItself(t *testing.T) {
	_, last := lastStage(t, "Dockerfile")
	var got []string
	if err := json.Unmarshal([]byte(only(t, last, "ENTRYPOINT")), &got); err != nil {
		t.Fatalf("ENTRYPOINT is not in exec form: %v", err)
	}
	if diff := cmp.Diff([]string{"/otpq"}, got); diff != "" {
		t.Errorf("ENTRYPOINT (-want +got):\n%s", diff)
	}
}

// scratch has neither, and both are missed late: at the first HTTPS request and
// the first time in a named zone.
func TestTheImageHasCertificatesAndTimeZones(t *testing.T) {
	_, last := lastStage(t, "Dockerfile")
	for _, want := range []instruction{
		{"COPY", "--from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/"},
		{"COPY", "--from=build /zoneinfo.zip /"},
		{"ENV", "ZONEINFO=/zoneinfo.zip"},
	} {
		if !slices.Contains(last, want) {
			t.Errorf("the last stage lacks %s %s", want.name, want.args)
		}
	}
}

func TestSecretsStayOutOfImagesAndCommits(t *testing.T) {
	for _, file := range []string{"../.dockerignore", "../.gitignore"} {
		lines := strings.Split(read(t, file), "\n")
		for _, want := range []string{".env", ".env.*"} {
			if !slices.Contains(lines, want) {
				t.Errorf("%s does not name %s, where keys and tokens live", file, want)
			}
		}
	}
}

// What the image has and no more: the binary alone, a user who is nobody and may write
// nowhere. Whoever is not root here is no other user and sees the other files.
func TestTheBinaryRunsAsTheImageRunsIt(t *testing.T) {
	t.Parallel()
	_, last := lastStage(t, "Dockerfile")
	user, _, _ := strings.Cut(only(t, last, "USER"), ":")
	uid, err := strconv.Atoi(user)
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(otpqBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "otpq"), binary, 0o755); err != nil { //nolint:gosec // another user runs it
		t.Fatal(err)
	}
	if err := os.Chmod(root, 0o555); err != nil { //nolint:gosec // and finds it
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Chmod(root, 0o700) }) //nolint:gosec // it is deleted next
	redis := redistest.Start(t).URL()
	for command, ready := range map[string]string{
		"worker": "worker started", "dashboard --listen 127.0.0.1:0": "dashboard listens", "sandbox --listen 127.0.0.1:0": "sandbox at",
	} {
		t.Run(strings.Fields(command)[0], func(t *testing.T) {
			said := &logged{}
			cmd := exec.CommandContext(t.Context(), filepath.Join(root, "otpq"), strings.Fields(command)...)
			if os.Geteuid() == 0 {
				cmd.Path = "/otpq"
				cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
			}
			cmd.Env = []string{
				"OTPQ_REDIS_URL=" + redis, keys, "OTPQ_ADMIN_LISTEN=127.0.0.1:0", "OTPQ_PROVIDERS_UNIMEDBH_BASE_URL=http://127.0.0.1:1",
			}
			cmd.Dir, cmd.Stdout, cmd.Stderr = "/", said, said
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }()
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for !strings.Contains(said.String(), ready) {
				select {
				case err := <-ended:
					t.Fatalf("it ended with %v\n%s", err, said)
				case <-tick.C:
				}
			}
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := <-ended; err != nil {
				t.Errorf("SIGTERM ends it with %v\n%s", err, said)
			}
		})
	}
}
