package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// killer is the recipient whose messages kill the process that reads them.
const killer = "kill@example.com"

// processSettings is what a worker in a process of its own is told, through the
// environment.
type processSettings struct {
	Redis, Provider string
	Key             string
	Concurrency     int
	Queues          int
	StopAmbiguous   bool
	OneTask         bool // asynq gets the first task of a lane and no other: see [gate]
}

const processEnv = "OTPQ_TEST_WORKER_PROCESS"

// TestMain runs a worker instead of the tests when a test asks for a process that
// it can kill.
func TestMain(m *testing.M) {
	if settings := os.Getenv(processEnv); settings != "" {
		if err := beWorker(settings); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func beWorker(settings string) error {
	var s processSettings
	if err := json.Unmarshal([]byte(settings), &s); err != nil {
		return err
	}
	ring, err := tasks.NewKeyring(tasks.Key{ID: "test", Secret: tasks.Secret(s.Key)})
	if err != nil {
		return err
	}
	rdb := redis.NewClient(&redis.Options{Addr: s.Redis, ContextTimeoutEnabled: true, MaxRetries: 1, PoolSize: 50})
	provider, err := unimedbh.Definition().New(providers.Settings{BaseURL: s.Provider, Log: zerolog.Nop()})
	if err != nil {
		return err
	}
	pc := (&fake{}).config(func(pc *ProviderConfig) {
		pc.Provider, pc.Timeout = provider, 10*time.Second
		pc.Concurrency = map[tasks.Lane]int{tasks.Interactive: s.Concurrency, tasks.Bulk: s.Concurrency}
		pc.Queues = s.Queues
		pc.Retry.StopAmbiguous = s.StopAmbiguous
		decode := pc.Decode
		pc.Decode = func(b []byte) (providers.Request, error) {
			if strings.Contains(string(b), killer) {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			return decode(b)
		}
	})
	if s.OneTask {
		rdb.AddHook(newGate())
	}
	w, err := New(Config{
		Redis: rdb, Keys: ring, Store: status.NewRedis(rdb, status.Retention{}), Providers: []ProviderConfig{pc},
		Log: zerolog.New(os.Stderr).With().Timestamp().Logger(),
	})
	if err != nil {
		return err
	}
	go func() { // a test that was killed leaves nobody behind
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if err := w.Start(ctx); err != nil {
		return err
	}
	<-ctx.Done()
	w.Shutdown()
	return nil
}

// process is a worker in a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	log    *lockedBuffer
	exited chan struct{}
}

// startProcess runs a worker that the test may kill; it is killed when the test
// ends at the latest.
func (r *rig) startProcess(providerURL string, change ...func(*processSettings)) *process {
	r.t.Helper()
	s := processSettings{Redis: r.redis.Addr(), Provider: providerURL, Key: r.key.Secret.Reveal(), Concurrency: 8}
	for _, c := range change {
		c(&s)
	}
	settings, err := json.Marshal(s)
	if err != nil {
		r.t.Fatal(err)
	}
	p := &process{t: r.t, cmd: exec.Command(os.Args[0]), log: &lockedBuffer{}, exited: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), processEnv+"="+string(settings))
	p.cmd.Stderr, p.cmd.Stdout = p.log, p.log
	if _, err := p.cmd.StdinPipe(); err != nil { // open for as long as this process lives
		r.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // "signal: killed" is what was asked for
		close(p.exited)
	}()
	r.t.Cleanup(p.kill)
	r.t.Cleanup(func() {
		if r.t.Failed() {
			r.t.Logf("worker process %d said:\n%s", p.cmd.Process.Pid, p.log)
		}
	})
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // fails only when it has ended already
	<-p.exited
}

func (p *process) signal(sig os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Fatalf("send %v to the worker process: %v", sig, err)
	}
}

// desk is Unimed-BH's API for processes: it counts what arrives and answers as the
// test says.
type desk struct {
	*httptest.Server
	mu      sync.Mutex
	arrived map[string][]time.Time // by username
	answer  func(w http.ResponseWriter, r *http.Request, username string, n int)
}

// newDesk opens a desk; a nil answer accepts all.
func newDesk(t *testing.T, answer func(w http.ResponseWriter, r *http.Request, username string, n int)) *desk {
	t.Helper()
	d := &desk{arrived: map[string][]time.Time{}, answer: answer}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Username string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			http.Error(w, "no request", http.StatusBadRequest)
			return
		}
		d.mu.Lock()
		d.arrived[body.Username] = append(d.arrived[body.Username], time.Now())
		n := len(d.arrived[body.Username])
		d.mu.Unlock()
		if d.answer != nil {
			d.answer(w, r, body.Username, n)
			return
		}
		takes(w)
	}))
	t.Cleanup(func() { d.CloseClientConnections(); d.Close() })
	return d
}

// takes is the page's answer to a request that was taken.
func takes(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprint(w, `{"type":"EMAIL","sended":true,"requestedAt":"2026-11-20T12:00:00.000Z"}`)
}

// requests is what has arrived for one recipient.
func (d *desk) requests(username string) []time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]time.Time(nil), d.arrived[username]...)
}

// recipients is how many different ones were asked for.
func (d *desk) recipients() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.arrived)
}
