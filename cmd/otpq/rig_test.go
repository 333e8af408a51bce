package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// person is whom the tests' requests name. No command may print it unasked.
const person = "maria.souza@example.com"

// request is person's, as the provider's page writes it.
const request = `{"username":"` + person + `","type":"EMAIL"}`

// result is what a command left behind.
type result struct {
	code     int
	out, err string
}

// otpq runs a command to its end, with no more in its environment than env.
func otpq(t *testing.T, env []string, stdin string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	// Long enough for a slow machine; a command that hangs fails here.
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	code := run(ctx, args, streams{in: strings.NewReader(stdin), out: &out, err: &errs}, env)
	if ctx.Err() != nil {
		t.Fatalf("otpq %q did not end", args)
	}
	r := result{code, out.String(), errs.String()}
	if strings.Contains(r.out+r.err, "\x1b") {
		t.Errorf("otpq %q wrote terminal codes where no terminal is:\n%q", args, r.out+r.err)
	}
	if !slices.Contains(args, "--reveal") && strings.Contains(r.out+r.err, person) {
		t.Errorf("otpq %q named a person:\n%s%s", args, r.out, r.err)
	}
	return r
}

// mainEnv makes the test binary be otpq itself.
const mainEnv = "OTPQ_TEST_BE_OTPQ"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// command is otpq as a process of its own, where a test is about signals or
// about what go-redis, with its one logger for a process, writes itself.
func command(t *testing.T, env []string, args ...string) *exec.Cmd {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	// A binary with coverage complains when it does not know where to put it.
	cmd.Env = slices.Concat(env, []string{mainEnv + "=1", "GOCOVERDIR=" + t.TempDir()})
	return cmd
}

// otpqProcess runs a command to its end in a process of its own.
func otpqProcess(t *testing.T, env []string, args ...string) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := command(t, env, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// want fails unless the command ended with the code and said, on stderr, all of
// the words.
func (r result) want(t *testing.T, code int, words ...string) result {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code = %d, want %d\nstdout: %s\nstderr: %s", r.code, code, r.out, r.err)
	}
	for _, w := range words {
		if !strings.Contains(r.err, w) {
			t.Errorf("stderr = %q, want %q in it", r.err, w)
		}
	}
	return r
}

// wantOut fails unless stdout has all of the words.
func (r result) wantOut(t *testing.T, words ...string) result {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(r.out, w) {
			t.Errorf("stdout = %q, want %q in it", r.out, w)
		}
	}
	return r
}

// decode reads stdout, which must be one JSON value and nothing else.
func decode[V any](t *testing.T, r result) V {
	t.Helper()
	var v V
	if err := json.Unmarshal([]byte(r.out), &v); err != nil {
		t.Fatalf("stdout is not one JSON value: %v\n%s", err, r.out)
	}
	return v
}

// decodeLines reads stdout as JSON, a value a line.
func decodeLines[V any](t *testing.T, out string) []V {
	t.Helper()
	var vs []V
	for line := range strings.Lines(out) {
		var v V
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatalf("line %q is not JSON: %v", line, err)
		}
		vs = append(vs, v)
	}
	return vs
}

// rig is a Redis, a sandbox and a configuration file that leads to both.
type rig struct {
	t       *testing.T
	redis   *redistest.Server
	rdb     *redis.Client
	sandbox *sandbox.Server
	url     string // of the sandbox
	key     tasks.Key
	file    string
	store   *status.Redis
	client  *enqueue.Client
}

func newRig(t *testing.T, opts ...redistest.Option) *rig {
	t.Helper()
	r := &rig{t: t, redis: redistest.Start(t, opts...), sandbox: newSandbox(1)}
	server := httptest.NewServer(r.sandbox.Handler())
	t.Cleanup(func() { r.sandbox.Close(); server.Close() })
	r.url = server.URL
	r.rdb = r.redis.Client()
	r.store = status.NewRedis(r.rdb, status.Retention{})
	r.key = tasks.Key{ID: "k", Secret: tasks.GenerateSecret()}
	client, err := enqueue.Open(enqueue.Config{Redis: r.rdb, Keys: []tasks.Key{r.key}})
	if err != nil {
		t.Fatal(err)
	}
	r.client = client
	r.file = r.writeConfig("")
	return r
}

// writeConfig writes a configuration with more added at its end, and returns
// the file's path.
func (r *rig) writeConfig(more string) string {
	r.t.Helper()
	return writeFile(r.t, fmt.Sprintf(`
redis: {url: %q}
keys:
  - {id: %q, secret: %q}
providers:
  medsenior: {base_url: %[4]q, token: t0ken-of-the-test}
  unimedbh:
    base_url: %[4]q
    concurrency: {interactive: 1, bulk: 1}
    retry: {initial: 1ms, max: 1ms}
  kinpos: {base_url: %[4]q}
%[5]s
`, r.redis.URL(), r.key.ID, r.key.Secret.Reveal(), r.url, more))
}

func writeFile(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "otpq.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// otpq runs a command with the rig's configuration.
func (r *rig) otpq(args ...string) result {
	r.t.Helper()
	return otpq(r.t, []string{"OTPQ_CONFIG=" + r.file}, "", args...)
}

func (r *rig) record(id string) status.Record {
	r.t.Helper()
	record, err := r.store.Get(r.t.Context(), id)
	if err != nil {
		r.t.Fatalf("record of %s: %v", id, err)
	}
	return record
}

// send queues a message and returns its id.
func (r *rig) send(args ...string) string {
	r.t.Helper()
	return strings.TrimSpace(r.otpq(append([]string{"send", "unimedbh", request}, args...)...).want(r.t, exitDone).out)
}

// dead makes a dead letter, as a worker would, and returns its id.
func (r *rig) dead(provider, body string, state status.State, reason string, died time.Time) string {
	r.t.Helper()
	ctx := r.t.Context()
	id := strings.TrimSpace(r.otpq("send", provider, body).want(r.t, exitDone).out)
	queue := tasks.QueueName(provider, tasks.Interactive)
	inspector := asynq.NewInspectorFromRedisClient(r.rdb)
	info, err := inspector.GetTaskInfo(queue, id)
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = r.store.Claim(ctx, status.Claim{Seed: r.record(id), Token: "w", Now: died, AbandonedAfter: time.Minute})
	if err != nil {
		r.t.Fatal(err)
	}
	err = r.store.Finish(ctx, status.Finish{
		ID: id, Provider: provider, Token: "w", State: state, Reason: reason, Payload: info.Payload, Now: died,
		Attempt: status.Attempt{Number: 1, StartedAt: died, DurationMS: 12.5, Outcome: "rejected", Reason: reason, HTTPStatus: 404},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := inspector.DeleteTask(queue, id); err != nil {
		r.t.Fatal(err)
	}
	return id
}

// background is a command that runs until it is stopped.
type background struct {
	t        *testing.T
	out, err *buffer
	stop     context.CancelFunc
	ended    chan struct{}
	code     int
}

// start runs a command in the background. It is stopped when the test ends.
func start(t *testing.T, env []string, args ...string) *background {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	b := &background{t: t, out: &buffer{}, err: &buffer{}, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(b.ended)
		b.code = run(ctx, args, streams{in: strings.NewReader(""), out: b.out, err: b.err}, env)
	}()
	t.Cleanup(func() { stop(); <-b.ended })
	return b
}

// end stops the command, as a signal does, and returns its exit code.
func (b *background) end() int {
	b.t.Helper()
	b.stop()
	return b.wait()
}

// wait returns the exit code of a command that ends by itself.
func (b *background) wait() int {
	b.t.Helper()
	select {
	case <-b.ended:
		return b.code
	case <-time.After(60 * time.Second):
		b.t.Fatalf("the command did not end\nstdout: %s\nstderr: %s", b.out, b.err)
		return -1
	}
}

// says waits until the command has written the words to either stream.
func (b *background) says(words string) {
	b.t.Helper()
	waitFor(b.t, fmt.Sprintf("%q", words), func() bool {
		select {
		case <-b.ended:
			if !strings.Contains(b.out.String()+b.err.String(), words) {
				b.t.Fatalf("the command ended with %d and never said %q\nstdout: %s\nstderr: %s", b.code, words, b.out, b.err)
			}
		default:
		}
		return strings.Contains(b.out.String()+b.err.String(), words)
	})
}

// worker starts a worker and waits until it drains the queues.
func (r *rig) worker(file string) *background {
	r.t.Helper()
	b := start(r.t, []string{"OTPQ_CONFIG=" + file, "OTPQ_LOG_LEVEL=debug"}, "worker")
	b.says("worker started")
	return b
}

// buffer is a bytes.Buffer for a writer and readers that run at once.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// waitFor waits until the condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(45 * time.Second); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited 45 s for %s", what)
		}
	}
}
