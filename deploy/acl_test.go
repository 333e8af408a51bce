package deploy_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/tasks"
)

const (
	password = "p+a/s=s of the test"
	sealing  = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

// restricted starts a Redis with the users of otpq.acl, and one for the test, and
// returns it with the URL for otpq's. The default user stays for redistest's sake.
func restricted(t *testing.T) (server *redistest.Server, admin *redis.Client, asOtpq string) {
	t.Helper()
	text := read(t, "redis/otpq.acl")
	for old, replacement := range map[string]string{
		"user default off":    "user default on nopass ~* &* +@all",
		"REPLACE-WITH-SHA256": fmt.Sprintf("%x", sha256.Sum256([]byte(password))),
	} {
		if strings.Count(text, old) != 1 {
			t.Fatalf("otpq.acl has %q %d times, want once", old, strings.Count(text, old))
		}
		text = strings.Replace(text, old, replacement, 1)
	}
	file := filepath.Join(t.TempDir(), "users.acl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server = redistest.Start(t, redistest.AOF(), redistest.Args("--aclfile", file, "--acllog-max-len", "1000"))
	admin = server.Client()
	return server, admin, "redis://" + url.UserPassword("otpq", password).String() + "@" + server.Addr() + "/0"
}

// site is a sandbox, and a configuration that leads to it.
type site struct {
	t       *testing.T
	sandbox *sandbox.Server
	config  string
}

func newSite(t *testing.T, redisURL string) *site {
	t.Helper()
	apis := map[string]http.Handler{}
	for _, def := range all.All() {
		apis[def.Name] = def.Sandbox()
	}
	s := &site{t: t, sandbox: sandbox.New(sandbox.Options{Providers: apis, Seed: 1})}
	listening := httptest.NewServer(s.sandbox.Handler())
	t.Cleanup(func() { s.sandbox.Close(); listening.Close() })
	s.config = filepath.Join(t.TempDir(), "otpq.yaml")
	text := fmt.Sprintf(`
redis: {url: %q}
keys: [{id: k, secret: %q}]
admin: {listen: "127.0.0.1:0"}
log: {format: json, level: debug}
providers:
  unimedbh:
    base_url: %q
    rate_limit: {limit: 500, period: 1s}
    retry: {initial: 1ms, max: 1ms}
    breaker: {consecutive_failures: 1000, failure_ratio: 1, minimum_requests: 1000}
`, redisURL, sealing, listening.URL)
	if err := os.WriteFile(s.config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs a command to its end, which has to be one of the codes, and returns stdout.
func (s *site) run(codes []int, args ...string) string {
	s.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(s.t.Context(), otpqBinary(s.t), args...)
	cmd.Env = []string{"OTPQ_CONFIG=" + s.config}
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if cmd.ProcessState == nil || !slices.Contains(codes, cmd.ProcessState.ExitCode()) {
		s.t.Fatalf("otpq %q: %v\n%s%s", args, err, out.String(), errs.String())
	}
	return out.String() + errs.String()
}

// logged keeps what a process writes, for a reader beside it.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// worker starts one; it is killed when the test ends, if it still runs.
func (s *site) worker() (*exec.Cmd, *logged) {
	s.t.Helper()
	log := &logged{}
	cmd := exec.Command(otpqBinary(s.t), "worker") // the test's context ends before its cleanups run
	cmd.Env = []string{"OTPQ_CONFIG=" + s.config}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	s.until("a worker: "+log.String(), func() bool { return strings.Contains(log.String(), "worker started") })
	return cmd, log
}

func (s *site) until(what string, ok func() bool) {
	s.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !ok(); <-tick.C {
		if time.Now().After(end) {
			s.t.Fatalf("waited a minute for %s", what)
		}
	}
}

func (s *site) send(args ...string) string {
	s.t.Helper()
	return strings.Fields(s.run([]int{0, 1}, append([]string{"send", "unimedbh", `{"username":"teste@gmail.com","type":"EMAIL"}`}, args...)...))[0]
}

func (s *site) awaitState(id, state string) {
	s.t.Helper()
	s.until(id+" to be "+state, func() bool {
		var record struct{ State string }
		if err := json.Unmarshal([]byte(s.run([]int{0}, "status", id, "--json")), &record); err != nil {
			s.t.Fatal(err)
		}
		return record.State == state
	})
}

func (s *site) fault(f sandbox.Fault) {
	s.t.Helper()
	if err := s.sandbox.SetFault("unimedbh", f); err != nil {
		s.t.Fatal(err)
	}
}

func (s *site) received() int {
	s.t.Helper()
	c, err := s.sandbox.Counts("unimedbh")
	if err != nil {
		s.t.Fatal(err)
	}
	return c.Received
}

// denials lists what Redis refused otpq's user, but for what otpq does well without.
func denials(t *testing.T, admin *redis.Client) []string {
	t.Helper()
	entries, err := admin.ACLLog(t.Context(), 1000).Result()
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		// Go-redis names its library to Redis, and otpq check asks for appendfsync.
		if !slices.Contains([]string{"client|setinfo", "client", "config|get"}, e.Object) {
			out = append(out, e.Reason+" "+e.Object+" as "+e.Username)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// unused are the commands that the run below does not come to: another database than 0,
// and the return of a task that somebody archived by hand.
var unused = []string{"select", "lpos"}

// As the user of otpq.acl, everything works: apps, workers, what becomes of a killed
// worker's messages, and the command line.
func TestOtpqNeedsNoMoreThanItsRedisUserMayDo(t *testing.T) {
	t.Parallel()
	_, admin, address := restricted(t)
	s := newSite(t, address)
	first, _ := s.worker()

	s.send("--wait", "--key", "once")
	s.send("--wait", "--key", "once")
	s.awaitState(s.send("--lane", "bulk"), "accepted")

	// A retry.
	s.fault(sandbox.Fault{ErrorRate: 1, ErrorStatus: http.StatusServiceUnavailable})
	before := s.received()
	again := s.send()
	s.until("an attempt that fails", func() bool { return s.received() > before })
	s.fault(sandbox.Fault{})
	s.awaitState(again, "accepted")

	// A dead letter, replayed and given up.
	s.fault(sandbox.Fault{ErrorRate: 1, ErrorStatus: http.StatusNotFound})
	dead := s.send()
	s.until(dead+" to be a dead letter", func() bool { return strings.Contains(s.run([]int{0}, "dead", "list"), dead) })
	s.run([]int{0}, "dead", "show", dead)
	before = s.received()
	s.run([]int{0}, "dead", "replay", dead)
	s.until("the replay", func() bool { return s.received() > before })
	s.until("it to be a dead letter", func() bool {
		list := s.run([]int{0}, "dead", "list")
		return strings.Contains(list, "unimedbh") && !strings.Contains(list, dead) // which a replay takes off it
	})
	s.run([]int{0}, "dead", "discard", "--all")
	s.fault(sandbox.Fault{})

	// What a killed worker had in hand.
	s.fault(sandbox.Fault{Latency: sandbox.Duration(5 * time.Second)})
	before = s.received()
	held := s.send()
	s.until("the request", func() bool { return s.received() > before })
	if err := first.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	s.run([]int{0}, "cancel", s.send())
	s.fault(sandbox.Fault{})
	second, log := s.worker()
	s.awaitState(held, "accepted")

	// An app of its own, and a message that waits.
	client, err := enqueue.Open(enqueue.Config{RedisURL: address, Keys: []tasks.Key{{ID: "k", Secret: sealing}}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, at := range []time.Time{{}, time.Now().Add(time.Hour)} {
		receipt, err := client.Send(t.Context(), unimedbh.Request{Username: "teste@gmail.com", Type: "EMAIL"}, enqueue.At(at))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Status(t.Context(), receipt.ID); err != nil {
			t.Error(err)
		}
	}

	if out := s.run([]int{0}, "providers"); !strings.Contains(out, "unimedbh") {
		t.Errorf("otpq providers says:\n%s", out)
	}
	if out := s.run([]int{0}, "audit"); strings.Contains(out, "NOPERM") {
		t.Errorf("otpq audit says:\n%s", out)
	}
	out := s.run([]int{0, 1}, "check")
	if strings.Contains(out, "NOPERM") || !regexp.MustCompile(`redis fsync.*this user may not`).MatchString(out) {
		t.Errorf("otpq check says nothing of use to this user:\n%s", out)
	}
	metrics := s.metrics(log)
	for _, want := range []string{
		"otpq_redis_up 1", `otpq_redis_errors_total{kind="denied"} 0`, "otpq_redis_memory_used_bytes ", "otpq_workers ",
		"asynq_queue_memory_usage_approx_bytes{",
	} {
		if !strings.Contains(metrics, "\n"+want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if err := second.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("the worker ended with %v\n%s", err, log)
	}
	if refused := denials(t, admin); len(refused) > 0 {
		t.Errorf("Redis refused otpq's user:\n%s", strings.Join(refused, "\n"))
	}
	if strings.Contains(log.String(), "NOPERM") {
		t.Errorf("the worker's log tells of a command that it may not use:\n%s", log)
	}
	if diff := cmp.Diff(unused, neverCalled(t, admin)); diff != "" {
		t.Errorf("commands that the user may use and nobody does (-known +found):\n%s", diff)
	}
}

// metrics are what the worker serves; its address is in its log.
func (s *site) metrics(log *logged) string {
	s.t.Helper()
	m := regexp.MustCompile(`"address":"([^"]+)"`).FindStringSubmatch(log.String())
	if len(m) == 0 {
		s.t.Fatalf("no address in the log:\n%s", log)
	}
	reply, err := http.Get("http://" + m[1] + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer reply.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(reply.Body); err != nil {
		s.t.Fatal(err)
	}
	return b.String()
}

// neverCalled lists the commands of otpq.acl that the server was never asked.
func neverCalled(t *testing.T, admin *redis.Client) []string {
	t.Helper()
	info, err := admin.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, m := range regexp.MustCompile(` \+([a-z|]+)`).FindAllStringSubmatch(read(t, "redis/otpq.acl"), -1) {
		if !strings.Contains(info, "cmdstat_"+m[1]+":") {
			out = append(out, m[1])
		}
	}
	return out
}

func TestTheRedisUserMayNotDoHarm(t *testing.T) {
	t.Parallel()
	_, admin, address := restricted(t)
	options, err := redis.ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	options.DisableIdentity = true
	rdb := redis.NewClient(options)
	defer rdb.Close()
	ctx := t.Context()
	if err := rdb.Set(ctx, "otpq:test", "x", 0).Err(); err != nil {
		t.Fatalf("its own key: %v", err)
	}
	admin.Set(ctx, "another:key", "x", 0)
	for _, command := range []string{
		"FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG SET maxmemory 1", "CONFIG GET *", "CONFIG REWRITE", "SHUTDOWN NOSAVE",
		"SAVE", "BGREWRITEAOF", "REPLICAOF 127.0.0.1 1", "MONITOR", "ACL LIST", "ACL SETUSER otpq +@all", "CLIENT KILL TYPE normal",
		"CLIENT LIST", "SCRIPT FLUSH", "FUNCTION FLUSH", "SWAPDB 0 1", "MIGRATE 127.0.0.1 1 otpq:test 0 1", "RENAME otpq:test asynq:x",
		"GET another:key", "SET another:key y", "DEL another:key", "PUBLISH another x", "EVAL return(redis.call('FLUSHALL')) 0",
		"EVAL return(redis.call('GET','another:key')) 0",
	} {
		args := []any{}
		for _, w := range strings.Fields(command) {
			args = append(args, w)
		}
		// A script's own commands are refused in other words.
		if err := rdb.Do(ctx, args...).Err(); err == nil || !regexp.MustCompile("NOPERM|user executing the script can't|ACL failure").MatchString(err.Error()) {
			t.Errorf("%s: %v, want it refused", command, err)
		}
	}
	if n, err := admin.DBSize(ctx).Result(); err != nil || n != 2 {
		t.Errorf("%d keys are left, %v, want both", n, err)
	}
}

// As it is shipped the file lets nobody in, so that no Redis runs with a password that
// everybody can read here.
func TestTheFileIsRefusedUntilItHasAPassword(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for line := range strings.Lines(read(t, "redis/otpq.acl")) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "user" || words[1] != "otpq" {
			continue
		}
		args := []any{"ACL", "SETUSER"}
		for _, w := range words[1:] {
			args = append(args, w)
		}
		if err := server.Client().Do(t.Context(), args...).Err(); err == nil || !strings.Contains(err.Error(), "REPLACE-WITH-SHA256") {
			t.Errorf("Redis takes the user as it is shipped: %v", err)
		}
		return
	}
	t.Error("there is no user otpq")
}
