package chaos

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/audit"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// wish is one message that the app wants to have sent. Seed and number decide it.
type wish struct {
	tag      string
	lane     tasks.Lane
	validity time.Duration
	delay    time.Duration // for enqueue.At
	key      string
	twice    bool          // two Sends at once with the same key
	repeat   time.Duration // and one more, later
	cancel   time.Duration // after the Send; zero for never
}

// recipients is what every recipient's name begins with. It may stand nowhere but
// in a request to the provider.
const recipients = "chaos-recipient-"

var (
	shortValidity = between{10 * second, 30 * second}
	longValidity  = between{60 * second, 120 * second}
)

func wishFor(seed uint64, number int) wish {
	r := random(seed, fmt.Sprint("wish ", number))
	chance := func(percent int) bool { return r.IntN(100) < percent }
	w := wish{tag: fmt.Sprintf("%s%06d@example.com", recipients, number), lane: tasks.Interactive, validity: longValidity.pick(r)}
	if chance(20) {
		w.lane = tasks.Bulk
	}
	if chance(30) {
		w.validity = shortValidity.pick(r)
	}
	if chance(3) {
		w.delay = between{second, 5 * second}.pick(r)
	}
	if chance(40) {
		w.key = fmt.Sprint("key-", number)
		w.twice = chance(15)
		if chance(10) {
			w.repeat = between{second, 4 * second}.pick(r)
		}
	}
	if chance(6) {
		w.cancel = between{time.Millisecond, 3 * second}.pick(r)
	}
	return w
}

const (
	// sendTimeout is what an app gives one Send: less than some troubles last.
	sendTimeout = 1500 * time.Millisecond
	// lastTries is how long after the last trouble a keyed Send is still tried.
	lastTries = 20 * time.Second
)

// app sends messages and writes down what it is told.
type app struct {
	t      *testing.T
	client *enqueue.Client
	seed   uint64
	sends  sync.WaitGroup
	ends   chan struct{} // closed when no Send is tried any more
	giveUp func()        // closes ends

	mu   sync.Mutex
	told []audit.Told
	did  map[string]int
}

func newApp(t *testing.T, redisURL string, key tasks.Key, seed uint64) *app {
	t.Helper()
	client, err := enqueue.Open(enqueue.Config{RedisURL: redisURL, Keys: []tasks.Key{key}, Queues: map[string]int{"unimedbh": 3}})
	if err != nil {
		t.Fatal(err)
	}
	a := &app{t: t, client: client, seed: seed, ends: make(chan struct{}), did: map[string]int{}}
	a.giveUp = sync.OnceFunc(func() { close(a.ends) })
	t.Cleanup(func() {
		a.giveUp()
		a.sends.Wait()
		_ = client.Close()
	})
	return a
}

// run sends so many messages a second until ctx ends. Sends that are under way
// then go on for a while: wait for them.
func (a *app) run(ctx context.Context, rate int) {
	tick := time.NewTicker(second / time.Duration(rate))
	defer tick.Stop()
	for number := 0; ; number++ {
		w := wishFor(a.seed, number)
		a.sends.Go(func() { a.want(w) })
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// want does with a message what its wish says.
func (a *app) want(w wish) {
	a.count("messages")
	at := time.Time{}
	if w.delay > 0 {
		at = time.Now().Add(w.delay)
	}
	if w.twice {
		a.sends.Go(func() { a.send(w, at) })
	}
	id := a.send(w, at)
	if id == "" {
		return
	}
	a.read(id)
	if w.repeat > 0 && a.wait(w.repeat) {
		if again := a.send(w, at); again != "" && again != id {
			a.t.Errorf("the same key led to the message %s and then to %s", id, again)
		}
	}
	if w.cancel > 0 && a.wait(w.cancel) {
		a.cancel(id, w)
	}
}

// wait waits, and reports false when it is not to go on.
func (a *app) wait(d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-a.ends:
		return false
	}
}

// send sends until it succeeds, as the documentation of [enqueue.UnavailableError]
// has it: again with the same key, and without one not at all. It returns the
// message's id, or nothing.
func (a *app) send(w wish, at time.Time) string {
	end := time.Now().Add(w.validity)
	for {
		ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
		opts := []enqueue.Option{enqueue.ValidFor(w.validity), enqueue.InLane(w.lane), enqueue.At(at), enqueue.IdempotencyKey(w.key)}
		receipt, err := a.client.Send(ctx, unimedbh.Request{Username: w.tag, Type: "EMAIL"}, opts...)
		cancel()
		var unavailable *enqueue.UnavailableError
		switch {
		case err == nil:
			a.hear(audit.Told{ID: receipt.ID, Tag: w.tag, NotAfter: receipt.NotAfter}, "told that it is queued")
			return receipt.ID
		case !errors.As(err, &unavailable):
			a.t.Errorf("Send of %s = %v, want success or an UnavailableError", w.tag, err)
			return ""
		}
		a.hear(audit.Told{ID: unavailable.ID, Tag: w.tag, NotAfter: time.Now().Add(w.validity + w.delay), Failed: true}, "told that Send failed")
		if w.key == "" || time.Now().After(end) {
			return ""
		}
		if !a.wait(200*time.Millisecond + rand.N(200*time.Millisecond)) {
			return ""
		}
	}
}

// read looks at the status, which can be read from the moment that Send returned.
func (a *app) read(id string) {
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	if _, err := a.client.Status(ctx, id); errors.Is(err, status.ErrNotFound) {
		a.t.Errorf("Status of %s = %v right after Send returned", id, err)
	}
}

func (a *app) cancel(id string, w wish) {
	ctx, cancel := context.WithTimeout(context.Background(), sendTimeout)
	defer cancel()
	err := a.client.Cancel(ctx, id)
	var refused *status.RefusedError
	switch {
	case err == nil:
		a.hear(audit.Told{ID: id, Tag: w.tag, NotAfter: time.Now().Add(w.validity), CanceledAt: time.Now()}, "told that it is canceled")
	case errors.Is(err, status.ErrNotFound):
		a.t.Errorf("Cancel of %s, which is queued = %v", id, err)
	case errors.As(err, &refused):
		a.count("told that it is too late to cancel")
	}
}

func (a *app) hear(t audit.Told, what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.told = append(a.told, t)
	a.did[what]++
}

func (a *app) count(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.did[what]++
}

// heard returns what was told so far.
func (a *app) heard() (told []audit.Told, did map[string]int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	did = map[string]int{}
	for what, n := range a.did {
		did[what] = n
	}
	return append(told, a.told...), did
}
