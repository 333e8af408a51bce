package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/kinpos"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func init() {
	redisconn.LogTo(zerolog.Nop()) // failed dials are what many tests are about
}

// meter counts what goes to Redis from the clients it is on. It does not see
// go-redis's own repetition of a command, of which there is one at most.
type meter struct {
	commands, dials atomic.Int64
}

var _ redis.Hook = (*meter)(nil)

// startMetered runs a worker whose client m counts. A cluster's commands are
// counted where they go to its nodes, each redirection and repetition too.
func (r *rig) startMetered(m *meter, list ...ProviderConfig) *Worker {
	r.t.Helper()
	rdb, below := r.newClient(), redis.Hook(m)
	if cluster, ok := rdb.(*redis.ClusterClient); ok {
		cluster.OnNewNode(func(node *redis.Client) { node.AddHook(m) })
		below = nil
	}
	w, _ := r.startOn(rdb, below, nil, list...)
	return w
}

func (m *meter) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		m.dials.Add(1)
		return next(ctx, network, addr)
	}
}

func (m *meter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		m.commands.Add(1)
		return next(ctx, cmd)
	}
}

func (m *meter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		m.commands.Add(int64(len(cmds)))
		return next(ctx, cmds)
	}
}

// crowd is all three providers. It counts the requests for each person and holds
// them until it is opened.
type crowd struct {
	mu   sync.Mutex
	seen map[string]int
	open chan struct{}
}

func newCrowd() *crowd { return &crowd{seen: map[string]int{}, open: make(chan struct{})} }

func (c *crowd) Send(ctx context.Context, r providers.Request) providers.Outcome {
	c.mu.Lock()
	c.seen[r.Personal()[0]]++
	c.mu.Unlock()
	select {
	case <-c.open:
		return accepted
	case <-ctx.Done():
		return providers.Unknown(providers.ReasonTimeout, nil)
	}
}

// requests is how many requests there were for the person of r.
func (c *crowd) requests(r providers.Request) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen[r.Personal()[0]]
}

// people is how many there were requests for.
func (c *crowd) people() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.seen)
}

// crowdSlots is how many requests the interactive lanes of configs hold.
const crowdSlots = 3 * 2

// configs are three providers with two lanes each.
func (c *crowd) configs() []ProviderConfig {
	var list []ProviderConfig
	for _, def := range all.All() {
		pc := (&fake{}).config()
		pc.Name, pc.Provider, pc.Decode, pc.Timeout = def.Name, c, def.Decode, 15*time.Second
		pc.Concurrency = map[tasks.Lane]int{tasks.Interactive: 2, tasks.Bulk: 1}
		list = append(list, pc)
	}
	return list
}

// somebody makes the n-th request: each is for another person, of the providers in turn.
func somebody(n int) providers.Request {
	switch n % 3 {
	case 0:
		return unimedbh.Request{Username: fmt.Sprint("user", n), Type: "EMAIL"}
	case 1:
		return medsenior.Request{CPF: fmt.Sprintf("%011d", n), EmailID: "x", PrimeiroAcesso: new(false)}
	default:
		return kinpos.Request{MobileNumber: strconv.Itoa(10_000_000 + n)}
	}
}

// sent is one Send and what came of it.
type sent struct {
	request providers.Request
	key     string // the idempotency key, if it had one
	id      string // empty when Send failed
	err     error
	took    time.Duration
}

// producer is an app that sends messages, each for another person.
type producer struct {
	r      *rig
	client *enqueue.Client
	mu     sync.Mutex
	list   []sent
	// before is how many were sent before Redis was in trouble.
	before int
}

// newProducer is a producer whose Sends only their ctx ends, not a timeout of the
// connection to Redis.
func (r *rig) newProducer() *producer {
	r.t.Helper()
	client, err := enqueue.Open(enqueue.Config{RedisURL: r.url + "?read_timeout=20s", Keys: []tasks.Key{r.key}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = client.Close() })
	return &producer{r: r, client: client}
}

const (
	// sendPatience is the ctx of a Send while Redis is in trouble, and sendLimit
	// how long it may take all the same on a busy machine.
	sendPatience = 300 * time.Millisecond
	sendLimit    = 2 * time.Second
)

// send queues the next message in a lane. Every second one has an idempotency key.
func (p *producer) send(patience time.Duration, lane tasks.Lane) {
	p.mu.Lock()
	n := len(p.list)
	s := sent{request: somebody(n)}
	p.list = append(p.list, s)
	p.mu.Unlock()

	opts := []enqueue.Option{enqueue.InLane(lane)}
	if n%2 == 0 {
		s.key = fmt.Sprint("login ", n)
		opts = append(opts, enqueue.IdempotencyKey(s.key))
	}
	// Not of the test's: a Send that outlasts its ctx must not be ended by it.
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	start := time.Now()
	receipt, err := p.client.Send(ctx, s.request, opts...)
	s.id, s.err, s.took = receipt.ID, err, time.Since(start)
	p.mu.Lock()
	p.list[n] = s
	p.mu.Unlock()
}

// sendFor sends ten messages a second for a while, none waiting for another, and
// returns when all have their answer.
func (p *producer) sendFor(d time.Duration) {
	var sends sync.WaitGroup
	defer sends.Wait()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(d)
	defer end.Stop()
	for n := 0; ; n++ {
		sends.Go(func() { p.send(sendPatience, tasks.Lanes()[n/3%2]) })
		select {
		case <-tick.C:
		case <-end.C:
			return
		}
	}
}

// checkSends checks what Send answered in the trouble, and then does what an app
// does: it sends again what was not confirmed, with the same idempotency key.
func (p *producer) checkSends() {
	t := p.r.t
	t.Helper()
	confirmed := 0
	var longest time.Duration
	for n := range p.list {
		s := &p.list[n]
		if n >= p.before {
			longest = max(longest, s.took)
		}
		var unavailable *enqueue.UnavailableError
		switch {
		case s.err == nil:
			confirmed++
			continue
		case n < p.before:
			t.Fatalf("Send() = %v before the trouble", s.err)
		case !errors.As(s.err, &unavailable) || unavailable.ID == "":
			t.Fatalf("Send() = %v, want nil or an UnavailableError with an id", s.err)
		case s.key == "":
			continue
		}
		eventually(t, func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			receipt, err := p.client.Send(ctx, s.request, enqueue.IdempotencyKey(s.key))
			s.id, s.err = receipt.ID, err
			return err == nil
		}, func() string { return "Send never works again: " + s.err.Error() })
	}
	if longest > sendLimit {
		t.Errorf("a Send took %s with a ctx of %s", longest, sendPatience)
	}
	t.Logf("%d of %d messages sent in trouble were confirmed, the slowest answer after %s",
		confirmed-p.before, len(p.list)-p.before, longest.Round(time.Millisecond))
}

// checkEnds awaits the end of all messages. What Send confirmed was accepted by
// one request; what it did not was sent once or not at all, and is not left
// "queued".
func (p *producer) checkEnds(c *crowd) {
	t := p.r.t
	t.Helper()
	for n, s := range p.list {
		id := s.id
		var unavailable *enqueue.UnavailableError
		if errors.As(s.err, &unavailable) {
			id = unavailable.ID
		}
		var rec status.Record
		var err error
		eventually(t, func() bool {
			rec, err = p.r.store.Get(t.Context(), id)
			return err == nil && rec.State.Terminal() || s.err != nil && errors.Is(err, status.ErrNotFound)
		}, func() string { return fmt.Sprintf("message %d never came to its end: %+v, %v", n, rec, err) })
		times := c.requests(s.request)
		switch {
		case s.err != nil && times > 1:
			t.Errorf("message %d, not confirmed, was sent %d times: %+v", n, times, rec)
		case s.err == nil && (rec.State != status.Accepted || times != 1):
			t.Errorf("message %d was sent %d times, its record: %+v; want accepted by one request", n, times, rec)
		case rec.PossibleDuplicate:
			t.Errorf("message %d is marked as a possible duplicate: %+v", n, rec)
		case len(rec.Attempts) > 0 && rec.UpdatedAt.Sub(rec.Attempts[0].StartedAt) >= abandonedAfter:
			t.Errorf("message %d had its result written only when its claim counted as abandoned: %+v", n, rec)
		}
	}
}

// checkNothingIsLeft awaits that no task of any lane is in Redis.
func (r *rig) checkNothingIsLeft(w *Worker) {
	r.t.Helper()
	for _, q := range w.queues() {
		left := map[string]int64{}
		eventually(r.t, func() bool {
			ctx := r.t.Context()
			left = map[string]int64{"pending": r.rdb.LLen(ctx, "asynq:{"+q+"}:pending").Val(), "active": r.rdb.LLen(ctx, "asynq:{"+q+"}:active").Val()}
			for _, set := range []string{"lease", "retry", "scheduled", "archived"} {
				left[set] = r.rdb.ZCard(ctx, "asynq:{"+q+"}:"+set).Val()
			}
			for _, n := range left {
				if n > 0 {
					return false
				}
			}
			return true
		}, func() string { return fmt.Sprintf("%s still has tasks: %v", q, left) })
	}
}

// checkSame awaits that Redis knows this worker, which never ended, and no other.
func (r *rig) checkSame(w *Worker) {
	r.t.Helper()
	eventually(r.t, func() bool {
		living, err := Workers(r.t.Context(), r.rdb)
		return err == nil && len(living) == 1 && living[0].ID == w.presence.self.ID && w.Healthy() == nil
	}, func() string { return fmt.Sprintf("the worker is not there as before: Healthy() = %v", w.Healthy()) })
}
