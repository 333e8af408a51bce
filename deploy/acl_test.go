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

// The users of otpq.acl.
const (
	theUser      = "otpq"
	theOnlooker  = "otpq-dashboard"
	passwordHash = "REPLACE-WITH-SHA256"
)

// restricted starts a Redis with the users of otpq.acl, and one for the test, and
// returns a client of the last and the URLs for the others. The default user stays for
// redistest's sake.
func restricted(t *testing.T) (admin *redis.Client, as map[string]string) {
	t.Helper()
	text := read(t, "redis/otpq.acl")
	for _, w := range []struct {
		old, replacement string
		times            int
	}{
		{"user default off", "user default on nopass ~* &* +@all", 1},
		{passwordHash, fmt.Sprintf("%x", sha256.Sum256([]byte(password))), 2},
	} {
		if strings.Count(text, w.old) != w.times {
			t.Fatalf("otpq.acl has %q %d times, want %d", w.old, strings.Count(text, w.old), w.times)
		}
		text = strings.ReplaceAll(text, w.old, w.replacement)
	}
	file := filepath.Join(t.TempDir(), "users.acl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	server := redistest.Start(t, redistest.AOF(), redistest.Args("--aclfile", file, "--acllog-max-len", "1000"))
	as = map[string]string{}
	for _, user := range []string{theUser, theOnlooker} {
		as[user] = "redis://" + url.UserPassword(user, password).String() + "@" + server.Addr() + "/0"
	}
	return server.Client(), as
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

// start starts a process that says ready in its log; it is killed when the test ends, if
// it still runs.
func (s *site) start(ready string, args ...string) (*exec.Cmd, *logged) {
	s.t.Helper()
	log := &logged{}
	cmd := exec.Command(otpqBinary(s.t), args...) // the test's context ends before its cleanups run
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
	s.until("otpq "+args[0]+" to say "+ready, func() bool {
		// What has ended is a zombie until it is waited for: its log says why.
		return strings.Contains(log.String(), ready)
	})
	return cmd, log
}

func (s *site) worker() (*exec.Cmd, *logged) {
	s.t.Helper()
	return s.start("worker started", "worker")
}

// dashboard starts one, which asks nobody for a password, and returns where it is.
func (s *site) dashboard(flags ...string) (at string, cmd *exec.Cmd, log *logged) {
	s.t.Helper()
	cmd, log = s.start("dashboard listens", append([]string{"dashboard", "--listen", "127.0.0.1:0"}, flags...)...)
	return regexp.MustCompile(`"url":"([^"]+)"`).FindStringSubmatch(log.String())[1], cmd, log
}

// ends tells a process to end, and wants it to end well.
func (s *site) ends(cmd *exec.Cmd, log *logged) {
	s.t.Helper()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		s.t.Errorf("%s ended with %v\n%s", cmd.Args[1], err, log)
	}
	if strings.Contains(log.String(), "NOPERM") {
		s.t.Errorf("the log of %s tells of a command that it may not use:\n%s", cmd.Args[1], log)
	}
}

// ask asks an address and returns what it says, which has to be 200.
func (s *site) ask(at string) string {
	s.t.Helper()
	reply, err := http.Get(at)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.said(at, reply)
}

// post sends a form, as the dashboard's own pages do.
func (s *site) post(at string, form url.Values) string {
	s.t.Helper()
	reply, err := http.PostForm(at, form)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.said(at, reply)
}

func (s *site) said(at string, reply *http.Response) string {
	s.t.Helper()
	defer reply.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(reply.Body); err != nil {
		s.t.Fatal(err)
	}
	if reply.StatusCode < 200 || reply.StatusCode > 299 {
		s.t.Errorf("%s answers %d:\n%.1000s", at, reply.StatusCode, b.String())
	}
	return b.String()
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

// unused are the commands that the run below does not come to: another database than 0.
var unused = []string{"select"}

// As the user of otpq.acl, everything works: apps, workers, what becomes of a killed
// worker's messages, and the command line.
func TestOtpqNeedsNoMoreThanItsRedisUserMayDo(t *testing.T) {
	t.Parallel()
	admin, as := restricted(t)
	address := as[theUser]
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
	together := []string{s.send(), s.send()} // which are taken in one go
	second, log := s.worker()
	for _, id := range append(together, held) {
		s.awaitState(id, "accepted")
	}

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
	s.campaigns()
	letter := s.actInTheDashboard(admin)
	s.until("the replay of "+letter, func() bool { return !strings.Contains(s.run([]int{0}, "dead", "list"), letter) })

	s.has(s.metrics(log), "otpq_redis_up 1", `otpq_redis_errors_total{kind="denied"} 0`, "otpq_redis_memory_used_bytes ", "otpq_workers ",
		"asynq_queue_memory_usage_approx_bytes{", `otpq_campaign_rows{campaign="november",provider="unimedbh",state="accepted"} 2`)
	s.ends(second, log)
	if refused := denials(t, admin); len(refused) > 0 {
		t.Errorf("Redis refused otpq's user:\n%s", strings.Join(refused, "\n"))
	}
	if diff := cmp.Diff(unused, neverCalled(t, admin, theUser)); diff != "" {
		t.Errorf("commands that the user may use and nobody does (-known +found):\n%s", diff)
	}
}

// campaigns runs some, fed by the worker, to their ends.
func (s *site) campaigns() {
	s.t.Helper()
	create := func(id string, people ...string) {
		file := filepath.Join(s.t.TempDir(), "people.csv")
		if err := os.WriteFile(file, []byte("email\n"+strings.Join(people, "\n")+"\n"), 0o600); err != nil {
			s.t.Fatal(err)
		}
		s.run([]int{0}, "campaign", "create", id, file, "--provider", "unimedbh", "--map", "username=email", "--map", "type==EMAIL", "--window", "1")
	}
	over := func(id string) {
		s.until("campaign "+id+" to be over", func() bool {
			var c struct {
				State       string
				CompletedAt time.Time `json:"completed_at"`
			}
			if err := json.Unmarshal([]byte(s.run([]int{0}, "campaign", "status", id, "--json")), &c); err != nil {
				s.t.Fatal(err)
			}
			return !c.CompletedAt.IsZero()
		})
	}
	create("november", "ana@example.com", "rui@example.com", "ana@example.com")
	create("december", "ana@example.com", "rui@example.com", "eva@example.com")

	// One that is held while a message of its is under way, and one that is taken back.
	s.fault(sandbox.Fault{Latency: sandbox.Duration(2 * time.Second)})
	before := s.received()
	s.run([]int{0}, "campaign", "start", "november", "--detach")
	s.until("a request of november's", func() bool { return s.received() > before })
	s.run([]int{0}, "campaign", "pause", "november")
	s.run([]int{0}, "campaign", "report", "november") // while rows of it wait
	s.run([]int{0}, "campaign", "start", "december", "--detach")
	s.until("a request of december's", func() bool { return s.received() > before+1 })
	s.run([]int{0}, "campaign", "cancel", "december")
	s.fault(sandbox.Fault{})
	s.run([]int{0}, "campaign", "resume", "november")
	over("november")
	over("december")
	s.run([]int{0}, "campaign", "list")
	s.run([]int{0}, "campaign", "report", "november")

	// Failures that are tried again, by the campaign and by what records say.
	create("january", "ana@example.com")
	s.fault(sandbox.Fault{ErrorRate: 1, ErrorStatus: http.StatusNotFound})
	s.run([]int{0}, "campaign", "start", "january", "--detach")
	over("january")
	s.fault(sandbox.Fault{})
	s.run([]int{0}, "campaign", "create", "outage", "--from-status", "--provider", "unimedbh", "--state", "failed", "--since", "1h", "--start", "--detach")
	s.run([]int{0}, "campaign", "retry-failed", "january", "--state", "failed", "--start", "--detach")
	over("january.2")
	over("outage")
}

// pages asks all that a dashboard shows, and Asynqmon's own pages ask.
func (s *site) pages(at, waiting, dead string) {
	s.t.Helper()
	for path, words := range map[string]string{
		"/deliveries": "unimedbh", "/deliveries/message?id=" + waiting: waiting, "/deliveries/dead": dead,
		"/deliveries/message?id=" + dead: dead, "/deliveries/campaigns": "november", "/readyz": "ok", "/metrics": `otpq_redis_errors_total{kind="denied"} 0`,
	} {
		if page := s.ask(at + path); !strings.Contains(page, words) {
			s.t.Errorf("%s does not say %q:\n%.2000s", path, words, page)
		}
	}
	const queue = "queues/otpq:unimedbh:interactive"
	for path, words := range map[string]string{
		"queues": "otpq:unimedbh:bulk", queue: "interactive", "queue_stats": "interactive", "servers": "servers", "redis_info": "used_memory",
		"scheduler_entries": "entries", queue + "/pending_tasks": waiting, queue + "/active_tasks": "tasks", queue + "/scheduled_tasks": "tasks",
		queue + "/retry_tasks": "tasks", queue + "/archived_tasks": "tasks", queue + "/completed_tasks": "tasks", queue + "/groups": "groups",
		queue + "/tasks/" + waiting: waiting,
	} {
		if reply := s.ask(at + "/asynqmon/api/" + path); !strings.Contains(reply, words) {
			s.t.Errorf("Asynqmon's %s does not say %q:\n%.2000s", path, words, reply)
		}
	}
}

// actInTheDashboard looks at all pages of one that may act, replays a dead letter, whose
// id it returns, and has Asynqmon pause, resume and archive.
func (s *site) actInTheDashboard(admin *redis.Client) (letter string) {
	s.t.Helper()
	s.fault(sandbox.Fault{ErrorRate: 1, ErrorStatus: http.StatusNotFound})
	letter = s.send()
	s.until(letter+" to be a dead letter", func() bool { return strings.Contains(s.run([]int{0}, "dead", "list"), letter) })
	s.fault(sandbox.Fault{})
	at, cmd, log := s.dashboard("--write")
	api := at + "/asynqmon/api/queues/otpq:unimedbh:interactive"
	s.post(api+":pause", nil)
	s.until("asynq to see that", func() bool { // a look that has begun takes one more
		return admin.Exists(s.t.Context(), "asynq:{otpq:unimedbh:interactive}:paused").Val() == 1
	})
	var waiting string
	s.until("a message that nobody takes", func() bool {
		waiting = s.send()
		return admin.LLen(s.t.Context(), "asynq:{otpq:unimedbh:interactive}:pending").Val() > 0
	})
	s.pages(at, waiting, letter)
	s.post(api+"/pending_tasks/"+waiting+":archive", nil)
	s.post(api+":resume", nil)
	s.post(at+"/deliveries/act", url.Values{"do": {"replay"}, "id": {letter}})
	s.ends(cmd, log)
	return letter
}

// A dashboard that only shows needs no command that writes.
func TestADashboardThatOnlyShowsNeedsNoMoreThanItsRedisUserMayDo(t *testing.T) {
	t.Parallel()
	admin, as := restricted(t)
	s := newSite(t, as[theUser])
	worker, _ := s.worker()
	s.fault(sandbox.Fault{ErrorRate: 1, ErrorStatus: http.StatusNotFound})
	dead := s.send()
	s.until(dead+" to be a dead letter", func() bool { return strings.Contains(s.run([]int{0}, "dead", "list"), dead) })
	s.run([]int{0}, "campaign", "create", "november", "--from-status", "--provider", "unimedbh", "--state", "failed", "--since", "1h")
	deferred := s.send("--at", "1h")
	_ = worker.Process.Kill() // so that what is sent waits, and Redis is asked by nobody else
	_ = worker.Wait()
	waiting := s.send()
	if err := admin.ConfigResetStat(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}

	s.config = newSite(t, as[theOnlooker]).config
	at, cmd, log := s.dashboard()
	s.pages(at, waiting, dead)
	s.ask(at + "/deliveries/message?id=" + deferred)
	if page := s.post(at+"/deliveries/find", url.Values{"provider": {"unimedbh"}, "recipient": {"teste@gmail.com"}}); !strings.Contains(page, waiting) {
		t.Errorf("it does not find a recipient's message:\n%.2000s", page)
	}
	s.ends(cmd, log)
	if refused := denials(t, admin); len(refused) > 0 {
		t.Errorf("Redis refused the dashboard's user:\n%s", strings.Join(refused, "\n"))
	}
	if diff := cmp.Diff([]string{"select"}, neverCalled(t, admin, theOnlooker)); diff != "" {
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
	return s.ask("http://" + m[1] + "/metrics")
}

// has wants lines that begin with each of prefixes, and shows those of the same metric
// where there is another.
func (s *site) has(metrics string, prefixes ...string) {
	s.t.Helper()
	for _, want := range prefixes {
		if strings.Contains("\n"+metrics, "\n"+want) {
			continue
		}
		series := strings.TrimRight(want, " 0123456789")
		there := regexp.MustCompile(`(?m)^`+regexp.QuoteMeta(series)+`.*$`).FindAllString(metrics, -1)
		s.t.Errorf("/metrics has no line %q; of that series it has %q", want, there)
	}
}

// rules are the words of a user in otpq.acl.
func rules(t *testing.T, user string) string {
	t.Helper()
	for line := range strings.Lines(read(t, "redis/otpq.acl")) {
		if rest, ok := strings.CutPrefix(line, "user "+user+" "); ok {
			return rest
		}
	}
	t.Fatalf("there is no user %s", user)
	return ""
}

// neverCalled lists the commands that the user may use and the server was never asked.
func neverCalled(t *testing.T, admin *redis.Client, user string) []string {
	t.Helper()
	info, err := admin.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	out := []string{}
	for _, m := range regexp.MustCompile(`[ (]\+([a-z|]+)`).FindAllStringSubmatch(rules(t, user), -1) {
		if !strings.Contains(info, "cmdstat_"+m[1]+":") {
			out = append(out, m[1])
		}
	}
	return out
}

func TestTheRedisUsersMayNotDoHarm(t *testing.T) {
	t.Parallel()
	admin, as := restricted(t)
	ctx := t.Context()
	admin.Set(ctx, "another:key", "x", 0)
	admin.Set(ctx, "otpq:test", "x", 0)
	nobody := []string{
		"FLUSHALL", "FLUSHDB", "KEYS *", "CONFIG SET maxmemory 1", "CONFIG GET *", "CONFIG REWRITE", "SHUTDOWN NOSAVE",
		"SAVE", "BGREWRITEAOF", "REPLICAOF 127.0.0.1 1", "MONITOR", "ACL LIST", "ACL SETUSER otpq +@all", "CLIENT KILL TYPE normal",
		"CLIENT LIST", "SCRIPT FLUSH", "FUNCTION FLUSH", "SWAPDB 0 1", "MIGRATE 127.0.0.1 1 otpq:test 0 1", "RENAME otpq:test asynq:x",
		"GET another:key", "SET another:key y", "DEL another:key", "PUBLISH another x", "PUBLISH asynq:cancel x", "EVAL return(redis.call('FLUSHALL')) 0",
		"EVAL return(redis.call('GET','another:key')) 0",
	}
	onlooker := []string{
		"SET otpq:test y", "DEL otpq:test", "EXPIRE otpq:test 1", "LPUSH otpq:list x", "ZADD otpq:set 1 x", "HSET otpq:hash a b",
		"EVAL return(redis.call('DEL',KEYS[1])) 1 otpq:test", "ZREMRANGEBYSCORE otpq:set 0 1", "SUBSCRIBE asynq:cancel",
	}
	for user, refused := range map[string][]string{theUser: nobody, theOnlooker: append(slices.Clone(nobody), onlooker...)} {
		options, err := redis.ParseURL(as[user])
		if err != nil {
			t.Fatal(err)
		}
		options.DisableIdentity = true
		rdb := redis.NewClient(options)
		t.Cleanup(func() { _ = rdb.Close() })
		if err := rdb.Get(ctx, "otpq:test").Err(); err != nil {
			t.Fatalf("%s, a key of its own: %v", user, err)
		}
		for _, command := range refused {
			args := []any{}
			for _, w := range strings.Fields(command) {
				args = append(args, w)
			}
			// A script's own commands are refused in other words.
			if err := rdb.Do(ctx, args...).Err(); err == nil || !regexp.MustCompile("NOPERM|user executing the script can't|ACL failure").MatchString(err.Error()) {
				t.Errorf("%s, %s: %v, want it refused", user, command, err)
			}
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
	rdb := redistest.Start(t).Client()
	for _, user := range []string{theUser, theOnlooker} {
		args := []any{"ACL", "SETUSER", user}
		for _, w := range strings.Fields(rules(t, user)) {
			args = append(args, w)
		}
		if err := rdb.Do(t.Context(), args...).Err(); err == nil || !strings.Contains(err.Error(), passwordHash) {
			t.Errorf("Redis takes the user %s as it is shipped: %v", user, err)
		}
	}
}
