package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// rig is a real Redis with a producer; tests start workers on it.
type rig struct {
	t      *testing.T
	redis  *redistest.Server // nil on a rig of newRigAt
	url    string
	rdb    redis.UniversalClient
	key    tasks.Key
	client *enqueue.Client
	store  *status.Redis
	log    *lockedBuffer
}

func newRig(t *testing.T) *rig {
	t.Helper()
	t.Parallel()
	server := redistest.Start(t)
	r := newRigAt(t, server.URL())
	r.redis = server
	return r
}

// newRigAt is a rig on the Redis of the URL, of any kind.
func newRigAt(t *testing.T, url string) *rig {
	t.Helper()
	r := &rig{t: t, url: url, key: tasks.Key{ID: "test", Secret: tasks.GenerateSecret()}, log: &lockedBuffer{}}
	r.rdb = r.newClient()
	r.store = status.NewRedis(r.rdb, status.Retention{})
	var err error
	if r.client, err = enqueue.Open(enqueue.Config{Redis: r.rdb, Keys: []tasks.Key{r.key}}); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *rig) newClient() redis.UniversalClient {
	r.t.Helper()
	c, err := redisconn.Open(r.url, redisconn.Options{PoolSize: 200})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func (r *rig) keyring() *tasks.Keyring {
	r.t.Helper()
	ring, err := tasks.NewKeyring(r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	return ring
}

// start runs a worker until the test ends, or until the returned stop.
func (r *rig) start(change func(*Config), list ...ProviderConfig) (w *Worker, stop func()) {
	r.t.Helper()
	return r.startOn(r.newClient(), nil, change, list...)
}

// startOn is start with a client of the test's own and a hook, if any, that
// stands between the worker's and Redis.
func (r *rig) startOn(rdb redis.UniversalClient, below redis.Hook, change func(*Config), list ...ProviderConfig) (w *Worker, stop func()) {
	r.t.Helper()
	cfg := Config{
		Redis: rdb, Keys: r.keyring(), Store: status.NewRedis(rdb, status.Retention{}), Providers: list,
		Metrics: metrics.NewWorker(prometheus.NewRegistry()), Log: zerolog.New(r.log),
	}
	if change != nil {
		change(&cfg)
	}
	w, err := New(cfg)
	if err != nil {
		r.t.Fatalf("New() = %v", err)
	}
	if below != nil {
		rdb.AddHook(below)
	}
	if err := w.Start(r.t.Context()); err != nil {
		r.t.Fatalf("Start() = %v", err)
	}
	stop = sync.OnceFunc(w.Shutdown)
	r.t.Cleanup(stop)
	return w, stop
}

// send queues a request for unimedbh, the provider of [fake].
func (r *rig) send(opts ...enqueue.Option) string {
	r.t.Helper()
	return r.sendTo(example, opts...)
}

var example = unimedbh.Request{Username: "teste@gmail.com", Type: "EMAIL"}

func (r *rig) sendTo(req providers.Request, opts ...enqueue.Option) string {
	r.t.Helper()
	receipt, err := r.client.Send(r.t.Context(), req, opts...)
	if err != nil {
		r.t.Fatalf("Send() = %v", err)
	}
	return receipt.ID
}

func (r *rig) get(id string) status.Record {
	r.t.Helper()
	rec, err := r.store.Get(r.t.Context(), id)
	if err != nil {
		r.t.Fatalf("Get(%s) = %v", id, err)
	}
	return rec
}

// await waits until a record is as wanted, and returns it.
func (r *rig) await(id, what string, ok func(status.Record) bool) status.Record {
	r.t.Helper()
	var rec status.Record
	eventually(r.t, func() bool { rec = r.get(id); return ok(rec) }, func() string {
		text, _ := json.Marshal(rec)
		return "message never " + what + "; its record: " + string(text)
	})
	return rec
}

func (r *rig) awaitState(id string, want status.State) status.Record {
	r.t.Helper()
	return r.await(id, "became "+string(want), func(rec status.Record) bool { return rec.State == want })
}

// patience only ends tests that would hang; machines are shared and slow at times.
const patience = time.Minute

func eventually(t *testing.T, ok func() bool, otherwise func() string) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal(otherwise())
		}
	}
}

// fake is a provider whose outcomes the test chooses. It counts what really
// matters: the requests that would have left.
type fake struct {
	mu     sync.Mutex
	starts []time.Time
	last   map[string]time.Time // by username
	send   func(ctx context.Context, n int) providers.Outcome
}

func (f *fake) Send(ctx context.Context, r providers.Request) providers.Outcome {
	f.mu.Lock()
	f.starts = append(f.starts, time.Now())
	if f.last == nil {
		f.last = map[string]time.Time{}
	}
	f.last[r.(unimedbh.Request).Username] = time.Now()
	n := len(f.starts)
	f.mu.Unlock()
	return f.send(ctx, n)
}

func (f *fake) requests() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]time.Time(nil), f.starts...)
}

// always answers every request the same.
func always(o providers.Outcome) *fake {
	return &fake{send: func(context.Context, int) providers.Outcome { return o }}
}

// inTurn answers the first request with the first outcome and so on; the last
// goes on for ever.
func inTurn(list ...providers.Outcome) *fake {
	return &fake{send: func(_ context.Context, n int) providers.Outcome { return list[min(n, len(list))-1] }}
}

// hanging answers nothing until ctx ends.
func hanging() *fake {
	return &fake{send: func(ctx context.Context, _ int) providers.Outcome {
		<-ctx.Done()
		return providers.Unknown(providers.ReasonTimeout, nil)
	}}
}

var accepted = providers.AcceptedFor(0)

// config is a fast worker's configuration for a fake unimedbh.
func (f *fake) config(change ...func(*ProviderConfig)) ProviderConfig {
	pc := ProviderConfig{
		Name: "unimedbh", Provider: f, Decode: unimedbh.Definition().Decode, Timeout: 2 * time.Second,
		Concurrency: map[tasks.Lane]int{tasks.Interactive: 8, tasks.Bulk: 4},
		Breaker:     BreakerConfig{ConsecutiveFailures: 1000, FailureRatio: 1, MinimumRequests: 1000, OpenFor: time.Minute},
		Retry:       Retry{MaxAttempts: 5, Initial: time.Millisecond, Max: 10 * time.Millisecond},
	}
	for _, c := range change {
		c(&pc)
	}
	return pc
}

// sandboxToken is what the page of medsenior shows.
const sandboxToken = "TOKEN_GERADO_NA_AUTENTICACAO"

// sandboxed serves the real APIs and makes the real providers for them.
func (r *rig) sandboxed(change func(*ProviderConfig)) (*sandbox.Server, []ProviderConfig) {
	r.t.Helper()
	apis := map[string]http.Handler{}
	for _, def := range all.All() {
		apis[def.Name] = def.Sandbox()
	}
	server := sandbox.New(sandbox.Options{Providers: apis, Seed: 1})
	listening := httptest.NewServer(server.Handler())
	r.t.Cleanup(func() { server.Close(); listening.Close() })
	var list []ProviderConfig
	for _, def := range all.All() {
		settings := providers.Settings{BaseURL: listening.URL, Log: zerolog.New(r.log)}
		if def.NeedsToken {
			settings.Token = sandboxToken
		}
		p, err := def.New(settings)
		if err != nil {
			r.t.Fatal(err)
		}
		pc := (&fake{}).config(change)
		pc.Name, pc.Provider, pc.Decode = def.Name, p, def.Decode
		list = append(list, pc)
	}
	return server, list
}

// lockedBuffer takes log lines from many goroutines.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// brokenStore fails chosen calls before they reach the real store.
type brokenStore struct {
	status.Store
	mu   sync.Mutex
	fail map[string]int // calls left to fail, by method
}

var errBroken = errors.New("store is broken by the test")

func (s *brokenStore) broken(method string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail[method] == 0 {
		return false
	}
	s.fail[method]--
	return true
}

func (s *brokenStore) Claim(ctx context.Context, c status.Claim) (status.Claimed, error) {
	if s.broken("claim") {
		return status.Claimed{}, errBroken
	}
	return s.Store.Claim(ctx, c)
}

func (s *brokenStore) Finish(ctx context.Context, f status.Finish) error {
	if s.broken("finish") {
		return errBroken
	}
	return s.Store.Finish(ctx, f)
}

func (s *brokenStore) Move(ctx context.Context, m status.Move) error {
	if s.broken("move") {
		return errBroken
	}
	return s.Store.Move(ctx, m)
}
