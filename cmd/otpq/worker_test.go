package main

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/status"
)

// get returns the status and the body at a URL.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	reply, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply.StatusCode, string(body)
}

// admin returns the URL of a worker's admin server, from its log.
func (b *background) admin() string {
	b.t.Helper()
	b.says("admin server listens")
	for line := range strings.Lines(b.err.String()) {
		var entry struct{ Message, Address string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			b.t.Fatalf("log line %q is not JSON: %v", line, err)
		}
		if entry.Message == "admin server listens" {
			return "http://" + entry.Address
		}
	}
	b.t.Fatal("no address in the log")
	return ""
}

func TestWorkerAnswersItsAdminPort(t *testing.T) {
	r := newRig(t)
	b := r.worker(r.writeConfig("admin: {listen: 127.0.0.1:0}"))
	url := b.admin()
	for _, path := range []string{"/healthz", "/readyz"} {
		waitFor(t, path, func() bool { code, _ := get(t, url+path); return code == http.StatusOK })
		if _, body := get(t, url+path); !strings.HasPrefix(body, `{"status":"ok"`) {
			t.Errorf("%s = %s, want ok", path, body)
		}
	}
	r.otpq("send", "unimedbh", request, "--wait").want(t, exitDone)
	var body string
	for _, want := range []string{
		`otpq_attempts_total{lane="interactive",outcome="accepted",provider="unimedbh",reason=""} 1`, "go_goroutines", "process_",
	} {
		// The worker counts an attempt after its record, which ends --wait.
		waitFor(t, "/metrics with "+want, func() bool { _, body = get(t, url+"/metrics"); return strings.Contains(body, want) })
	}
	if strings.Contains(body, person) || strings.Contains(b.err.String(), person) {
		t.Error("a person is named in metrics or log")
	}
	if b.out.String() != "" {
		t.Errorf("stdout = %q, want the log on stderr alone", b.out)
	}
	// A Redis that hangs makes it unready, not unhealthy.
	r.redis.Pause()
	if code, body := get(t, url+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "redis does not answer") {
		t.Errorf("/readyz = %d %s, want 503", code, body)
	}
	if code, _ := get(t, url+"/healthz"); code != http.StatusOK {
		t.Errorf("/healthz = %d, want 200: restarting the worker mends no Redis", code)
	}
	r.redis.Resume()
	waitFor(t, "/readyz again", func() bool { code, _ := get(t, url+"/readyz"); return code == http.StatusOK })
}

func TestWorkerFinishesWhatIsInFlightAndLeavesTheRest(t *testing.T) {
	r := newRig(t)
	if err := r.sandbox.SetFault("unimedbh", sandbox.Fault{Latency: sandbox.Duration(500 * time.Millisecond)}); err != nil {
		t.Fatal(err)
	}
	ids := []string{r.send(), r.send(), r.send()}
	b := r.worker(r.file) // one message at a time
	waitFor(t, "a request", func() bool { c, err := r.sandbox.Counts("unimedbh"); return err == nil && c.Received > 0 })
	if code := b.end(); code != exitDone {
		t.Errorf("exit code = %d, want %d\n%s", code, exitDone, b.err)
	}
	got := []status.State{}
	for _, id := range ids {
		got = append(got, r.record(id).State)
	}
	if !slices.Equal(got, []status.State{status.Accepted, status.Queued, status.Queued}) {
		t.Errorf("states = %v, want the one in flight accepted and the others queued", got)
	}
	// The next worker takes up what is left.
	r.worker(r.file)
	for _, id := range ids {
		waitFor(t, "the rest", func() bool { return r.record(id).State == status.Accepted })
	}
}

func TestWorkerEndsAtASignal(t *testing.T) {
	r := newRig(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		var log buffer
		cmd := command(t, []string{"OTPQ_CONFIG=" + r.file}, "worker")
		cmd.Stderr = &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the worker", func() bool { return strings.Contains(log.String(), "worker started") })
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil || !strings.Contains(log.String(), "worker stopped") {
			t.Errorf("%v: worker ended with %v\n%s", sig, err, log.String())
		}
	}
}

func TestWorkerRefusesWhatCannotWork(t *testing.T) {
	r := newRig(t)
	key := "OTPQ_KEYS=k:" + r.key.Secret.Reveal()
	redis := "OTPQ_REDIS_URL=" + r.redis.URL()
	for name, c := range map[string]struct {
		env   []string
		words []string
	}{
		"no keys":                    {[]string{redis}, []string{"otpq keygen"}},
		"a timeout that is too long": {[]string{redis, key, "OTPQ_PROVIDERS_UNIMEDBH_TIMEOUT=29s"}, []string{"providers.unimedbh.timeout", "too long"}},
	} {
		t.Run(name, func(t *testing.T) {
			res := otpq(t, append(c.env, "OTPQ_ADMIN_LISTEN=127.0.0.1:0"), "", "worker").want(t, exitFailed, c.words...)
			if res.out != "" {
				t.Errorf("stdout = %q, want nothing", res.out)
			}
		})
	}
	err := noProvider([]offProvider{{"a", "needs a token"}, {"b", "needs a base URL"}})
	for _, want := range []string{"no provider is on", "a needs a token", "b needs a base URL"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("noProvider = %q, want %q in it", err, want)
		}
	}
}

func TestWorkerNamesWhatIsOff(t *testing.T) {
	r := newRig(t)
	env := []string{
		"OTPQ_REDIS_URL=" + r.redis.URL(), "OTPQ_KEYS=k:" + r.key.Secret.Reveal(), "OTPQ_ADMIN_LISTEN=127.0.0.1:0",
		"OTPQ_PROVIDERS_UNIMEDBH_BASE_URL=" + r.url,
	}
	b := start(t, env, "worker")
	b.says("worker started")
	for _, want := range []string{`"provider":"medsenior","why":"needs a token`, `"provider":"kinpos","why":"needs a base URL`} {
		if !strings.Contains(b.err.String(), want) {
			t.Errorf("log lacks %s:\n%s", want, b.err)
		}
	}
}

func TestASecondWorkerStartsWithTheDefaultPortTaken(t *testing.T) {
	// Whoever has it, this test or somebody else on the machine.
	if l, err := net.Listen("tcp", defaultAdmin); err == nil {
		defer l.Close()
	}
	r := newRig(t)
	b := r.worker(r.file)
	if !strings.Contains(b.err.String(), "set admin.listen to a free address") {
		t.Errorf("log = %s, want a warning", b.err)
	}
	r.otpq("send", "unimedbh", request, "--wait").want(t, exitDone)
}

func TestAPortThatWasAskedForAndIsTakenFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	r := newRig(t)
	id := r.send()
	r.otpq("worker", "--config", r.writeConfig("admin: {listen: "+taken.Addr().String()+"}")).want(t, exitFailed, "admin.listen: ", "address already in use")
	if got := r.record(id).State; got != status.Queued {
		t.Errorf("state = %s, want queued: a worker that cannot start takes no message", got)
	}
}

func TestWorkerWithoutAnAdminPort(t *testing.T) {
	r := newRig(t)
	b := r.worker(r.writeConfig(`admin: {listen: ""}`))
	if strings.Contains(b.err.String(), "admin server") {
		t.Errorf("log = %s, want no admin server", b.err)
	}
}

func TestWorkerWaitsForRedis(t *testing.T) {
	r := newRig(t)
	file := r.writeConfig("admin: {listen: 127.0.0.1:0}")
	r.redis.Stop()
	var log buffer
	cmd := command(t, []string{"OTPQ_CONFIG=" + file}, "worker")
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the complaint", func() bool { return strings.Contains(log.String(), "waiting for redis") })
	// A liveness probe asks for this, and a restart would help nobody.
	url := regexp.MustCompile(`"address":"([^"]+)"`).FindStringSubmatch(log.String())[1]
	if code, body := get(t, "http://"+url+"/healthz"); code != http.StatusOK || !strings.Contains(body, `"status":"waiting for redis"`) {
		t.Errorf("/healthz = %d %s, want 200 and that it waits", code, body)
	}
	if code, body := get(t, "http://"+url+"/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, `"loops":"the worker has not started yet: it waits for redis"`) {
		t.Errorf("/readyz = %d %s, want 503", code, body)
	}
	r.redis.Restart()
	waitFor(t, "the worker", func() bool { return strings.Contains(log.String(), "worker started") })
	waitFor(t, "/healthz to be about its loops", func() bool {
		code, body := get(t, "http://"+url+"/healthz")
		return code == http.StatusOK && strings.Contains(body, `"status":"ok"`)
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("worker ended with %v", err)
	}
}

func TestAWorkerThatWaitsForRedisNoLongerIsNotHealthy(t *testing.T) {
	h := &health{loops: func() error { return errors.New("the worker's heartbeat has not started yet") }}
	ask := func() (int, string) {
		answer := httptest.NewRecorder()
		h.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/healthz", nil))
		return answer.Code, answer.Body.String()
	}
	h.waits()
	if code, body := ask(); code != http.StatusOK {
		t.Errorf("/healthz = %d %s, want 200", code, body)
	}
	h.waited.Store(time.Now().Add(-time.Minute).UnixNano())
	if code, body := ask(); code != http.StatusServiceUnavailable || !strings.Contains(body, "waits for redis last turned 1m") {
		t.Errorf("/healthz = %d %s, want 503 and which loop it is", code, body)
	}
	h.started()
	if code, body := ask(); code != http.StatusServiceUnavailable || !strings.Contains(body, "heartbeat") {
		t.Errorf("/healthz = %d %s, want 503 and the worker's own loop", code, body)
	}
}

func TestLogFormats(t *testing.T) {
	r := newRig(t)
	b := start(t, []string{"OTPQ_CONFIG=" + r.file, "OTPQ_LOG_FORMAT=console"}, "worker")
	b.says("worker started")
	if log := b.err.String(); strings.Contains(log, "{") || strings.Contains(log, "\x1b") {
		t.Errorf("log = %q, want lines for people, without colour where no terminal is", log)
	}
	b = start(t, []string{"OTPQ_CONFIG=" + r.file}, "worker")
	b.says("worker started")
	decodeLines[map[string]any](t, b.err.String())
}
