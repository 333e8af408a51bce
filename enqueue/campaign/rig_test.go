package campaign

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

// rig is a real Redis with campaigns, a provider behind a real socket, and workers
// that tests start.
type rig struct {
	*Campaigns
	t      *testing.T
	redis  *redistest.Server
	look   redis.UniversalClient
	key    tasks.Key
	vendor *vendor
	// connectTo is a Redis of another kind than redis.
	connectTo string
}

// quick is a tempo for tests.
var quick = tempo{breaker: 50 * time.Millisecond, failures: 200 * time.Millisecond, longest: time.Second, ramp: 50 * time.Millisecond}

func newRig(t *testing.T, opts ...redistest.Option) *rig {
	t.Helper()
	t.Parallel()
	return newRigAlone(t, opts...)
}

// newRigAlone is a rig of a test that no other runs beside.
func newRigAlone(t *testing.T, opts ...redistest.Option) *rig {
	t.Helper()
	r := &rig{
		t: t, redis: redistest.Start(t, opts...), key: tasks.Key{ID: "test", Secret: tasks.GenerateSecret()}, vendor: newVendor(t),
	}
	r.look = r.connect()
	r.Campaigns = r.open(nil)
	return r
}

func (r *rig) connect() redis.UniversalClient {
	r.t.Helper()
	url := r.connectTo
	if url == "" {
		url = r.redis.URL()
	}
	rdb, err := redisconn.Open(url, redisconn.Options{PoolSize: 50})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// open opens campaigns of another process.
func (r *rig) open(change func(*Config)) *Campaigns {
	r.t.Helper()
	cfg := Config{
		Redis: r.connect(), Keys: []tasks.Key{r.key}, Definitions: []providers.Definition{unimedbh.Definition()},
	}
	if change != nil {
		change(&cfg)
	}
	c, err := Open(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	c.tempo = quick
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

// vendor is unimedbh's sandbox, which counts who was sent to.
type vendor struct {
	*httptest.Server
	mu    sync.Mutex
	count map[string]int
	// answer, when not nil, may answer in the sandbox's place: it returns a status, or
	// 0 to leave it to the sandbox.
	answer func(username string) int
}

func newVendor(t *testing.T) *vendor {
	v := &vendor{count: map[string]int{}}
	sandbox := unimedbh.Sandbox()
	v.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var req unimedbh.Request
		_ = json.Unmarshal(body, &req)
		v.mu.Lock()
		v.count[req.Username]++
		answer := v.answer
		v.mu.Unlock()
		if answer != nil {
			if code := answer(req.Username); code != 0 {
				w.WriteHeader(code)
				return
			}
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		sandbox.ServeHTTP(w, r)
	}))
	t.Cleanup(v.Close)
	return v
}

func (v *vendor) answers(f func(username string) int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.answer = f
}

// counts is how many requests each person was in.
func (v *vendor) counts() map[string]int {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := map[string]int{}
	for k, n := range v.count {
		out[k] = n
	}
	return out
}

// work runs a worker until the test ends, or until the returned stop.
func (r *rig) work(change func(*worker.ProviderConfig)) (stop func()) {
	r.t.Helper()
	p, err := unimedbh.New(providers.Settings{BaseURL: r.vendor.URL, Log: zerolog.Nop()})
	if err != nil {
		r.t.Fatal(err)
	}
	cfg := worker.ProviderConfig{
		Name: unimedbh.Name, Provider: p, Decode: unimedbh.Decode, Timeout: 5 * time.Second,
		Concurrency: map[tasks.Lane]int{tasks.Interactive: 4, tasks.Bulk: 16},
		Breaker:     worker.BreakerConfig{ConsecutiveFailures: 1e6, FailureRatio: 1, MinimumRequests: 1e6, OpenFor: time.Second},
		Retry:       worker.Retry{MaxAttempts: 2, Initial: 10 * time.Millisecond, Max: 20 * time.Millisecond},
	}
	if change != nil {
		change(&cfg)
	}
	rdb := r.connect()
	ring, err := tasks.NewKeyring(r.key)
	if err != nil {
		r.t.Fatal(err)
	}
	w, err := worker.New(worker.Config{
		Redis: rdb, Keys: ring, Store: status.NewRedis(rdb, status.Retention{}), Providers: []worker.ProviderConfig{cfg}, Log: zerolog.New(os.Stderr).Level(zerolog.ErrorLevel),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := w.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	stop = sync.OnceFunc(w.Shutdown)
	r.t.Cleanup(stop)
	return stop
}

// feed feeds a campaign in the background; its end ends the test with an error.
func (r *rig) feed(c *Campaigns, id string) (ended <-chan error, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var once sync.WaitGroup
	once.Go(func() { done <- c.Feed(ctx, id, "test") })
	stop = func() { cancel(); once.Wait() }
	r.t.Cleanup(stop)
	return done, stop
}

// people are valid rows, of persons that are told apart by their numbers.
func people(from, to int) []rows.Row {
	var out []rows.Row
	for n := from; n < to; n++ {
		out = append(out, rows.Row{Line: n + 1, Request: person(n)})
	}
	return out
}

func person(n int) unimedbh.Request {
	return unimedbh.Request{Username: fmt.Sprintf("person%d@example.org", n), Type: "EMAIL"}
}

// source yields rows.
func source(list ...rows.Row) Source {
	return Source{Name: "test", Rows: func(yield func(rows.Row, error) bool) {
		for _, row := range list {
			if !yield(row, nil) {
				return
			}
		}
	}}
}

func settings(id string) Settings { return Settings{ID: id, Provider: unimedbh.Name} }

func (r *rig) create(s Settings, list ...rows.Row) Campaign {
	r.t.Helper()
	k, _, err := r.Create(r.t.Context(), s, source(list...), CreateOptions{})
	if err != nil {
		r.t.Fatalf("Create() = %v", err)
	}
	return k
}

func (r *rig) start(id string) {
	r.t.Helper()
	if err := r.Start(r.t.Context(), id, false); err != nil {
		r.t.Fatalf("Start() = %v", err)
	}
}

func (r *rig) status(id string) Campaign {
	r.t.Helper()
	k, err := r.Status(r.t.Context(), id)
	if err != nil {
		r.t.Fatalf("Status() = %v", err)
	}
	return k
}

// until waits for a campaign to be so, and checks at every look that its counts add up.
func (r *rig) until(id, what string, so func(Campaign) bool) Campaign {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 60*time.Second)
	defer cancel()
	for {
		k, err := r.Status(ctx, id)
		switch {
		case err == nil:
			r.wantSum(k)
			if so(k) {
				return k
			}
		case !IsUnreachable(err): // Redis may be starting
			r.t.Fatalf("Status() = %v", err)
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			r.t.Fatalf("the campaign is not %s: %+v", what, k)
		}
	}
}

func isIn(states ...State) func(Campaign) bool {
	return func(k Campaign) bool {
		for _, s := range states {
			if k.State == s {
				return true
			}
		}
		return false
	}
}

func (r *rig) wantSum(k Campaign) {
	r.t.Helper()
	n := k.Counts
	if least := min(n.Invalid, n.Duplicate, n.Waiting, n.Queued, n.Sending, n.Deferred, n.Accepted, n.Rejected, n.Exhausted, n.Unknown, n.Expired, n.Canceled); least < 0 {
		r.t.Fatalf("a count is below nothing: %+v", n)
	}
	if sum := n.Invalid + n.Duplicate + n.Waiting + n.inFlight() + n.Accepted + n.Rejected + n.Exhausted + n.Unknown + n.Expired + n.Canceled; sum != n.Rows {
		r.t.Fatalf("the counts add up to %d, not to %d rows: %+v", sum, n.Rows, n)
	}
}
