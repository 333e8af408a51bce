package worker

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"regexp"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// countedStore counts what is asked of a store that makes first claims.
type countedStore struct {
	*status.Redis
	claims, unclaims atomic.Int64
}

func (s *countedStore) Claim(ctx context.Context, c status.Claim) (status.Claimed, error) {
	s.claims.Add(1)
	return s.Redis.Claim(ctx, c)
}

func (s *countedStore) Unclaim(ctx context.Context, id string, now time.Time, tokens ...string) error {
	s.unclaims.Add(1)
	return s.Redis.Unclaim(ctx, id, now, tokens...)
}

// counted has a worker's store counted.
func counted(s *countedStore) func(*Config) {
	return func(cfg *Config) {
		s.Redis = cfg.Store.(*status.Redis)
		cfg.Store = s
	}
}

// TestOnlyAMessageThatComesAloneIsClaimedWhereItIsTaken: what is behind others, or may
// wait here, is not "sending" yet, and a crash there is not "maybe sent".
func TestOnlyAMessageThatComesAloneIsClaimedWhereItIsTaken(t *testing.T) {
	for name, c := range map[string]struct {
		messages int
		change   func(*ProviderConfig)
		claims   int64
		alone    int64 // claims of a message that comes alone afterwards
	}{
		"one":                     {1, func(*ProviderConfig) {}, 0, 0},
		"several":                 {3, func(*ProviderConfig) {}, 3, 0},
		"one behind a rate limit": {1, func(pc *ProviderConfig) { pc.RateLimit = RateLimit{Limit: 1000, Period: time.Second} }, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			s := &countedStore{}
			ids := r.sendMany(c.messages)
			r.start(counted(s), always(accepted).config(c.change))
			for _, id := range ids {
				rec := r.awaitState(id, status.Accepted)
				if len(rec.Attempts) != 1 || rec.Attempts[0].Outcome != "accepted" {
					t.Errorf("attempts = %+v, want one that was accepted", rec.Attempts)
				}
			}
			if n := s.claims.Load(); n != c.claims || s.unclaims.Load() != 0 {
				t.Errorf("%d claims and %d taken back, want %d and none", n, s.unclaims.Load(), c.claims)
			}
			before := s.claims.Load()
			r.awaitIdle(2)
			r.awaitState(r.send(), status.Accepted) // it wakes the lane
			if n := s.claims.Load() - before; n != c.alone {
				t.Errorf("%d claims for a message that woke the lane, want %d", n, c.alone)
			}
		})
	}
}

// idleWorker is one that was not started, with its interactive lane.
func (r *rig) idleWorker(s *countedStore, change func(*ProviderConfig)) (*Worker, *pipeline) {
	r.t.Helper()
	rdb := r.newClient()
	s.Redis = status.NewRedis(rdb, status.Retention{})
	w, err := New(Config{
		Redis: rdb, Keys: r.keyring(), Store: s, Providers: []ProviderConfig{always(accepted).config(change)}, Log: zerolog.Nop(),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return w, w.handlers[0]
}

func TestNothingIsClaimedWhereItIsTakenWhileItMayWait(t *testing.T) {
	r := newRig(t)
	trips := func(pc *ProviderConfig) { pc.Breaker.ConsecutiveFailures = 1 }
	board := func(p *pipeline) []any { return p.rider().Board() }
	_, p := r.idleWorker(&countedStore{}, trips)
	if a, b := board(p), board(p); len(a) == 0 || cmp.Equal(a, b) {
		t.Errorf("told %q and %q, want two tokens", a, b)
	}
	p.limiter.pause(time.Now(), time.Minute)
	if told := board(p); told != nil {
		t.Errorf("while the provider wants none: told %q", told)
	}
	_, p = r.idleWorker(&countedStore{}, trips)
	permit, _, _ := p.breaker.allow(time.Now())
	permit.report(providers.Retry(providers.ReasonNotSent, 0, nil))
	if told := board(p); p.breaker.state() != BreakerOpen || told != nil {
		t.Errorf("behind an %s breaker: told %q", p.breaker.state(), told)
	}
	p.store = struct{ status.Store }{p.store}
	if p.rider() != nil {
		t.Error("a store that cannot make first claims is asked to")
	}
}

// TestAFirstClaimThatIsOldIsAskedForAgain: by then the worker may have been taken for
// dead, and the message be another's.
func TestAFirstClaimThatIsOldIsAskedForAgain(t *testing.T) {
	r := newRig(t)
	s := &countedStore{}
	_, p := r.idleWorker(s, func(*ProviderConfig) {})
	for name, c := range map[string]struct {
		age      time.Duration
		released bool
		want     status.ClaimResult
		claims   int64
	}{
		"young":                        {freshClaim - time.Second, false, status.ClaimedNow, 0},
		"old":                          {freshClaim, false, status.ClaimedNow, 1},
		"old, and taken from this one": {freshClaim, true, status.ClaimAbandoned, 1},
	} {
		id := r.send()
		record := r.get(id)
		a := &attempt{messageID: id, first: p.newToken(), firstAsked: time.Now().Add(-c.age)}
		a.message = tasks.Message{ID: id, Provider: "unimedbh", Lane: tasks.Interactive, CreatedAt: record.CreatedAt, NotAfter: record.NotAfter}
		token := a.first
		if _, err := r.store.Claim(t.Context(), status.Claim{Seed: record, Token: token, Now: time.Now(), AbandonedAfter: abandonedAfter}); err != nil {
			t.Fatal(err)
		}
		if c.released {
			if err := r.store.Release(t.Context(), id, p.worker); err != nil {
				t.Fatal(err)
			}
		}
		before := s.claims.Load()
		got, err := p.claimed(t.Context(), a)
		if err != nil || got.Result != c.want || got.Attempt != 1 || s.claims.Load()-before != c.claims || a.token != token {
			t.Errorf("%s: %+v, %v, asked %d times, token %q; want %s, %d times, %q", name, got, err, s.claims.Load()-before, a.token, c.want, c.claims, token)
		}
	}
}

// TestAFirstClaimThatIsNotUsedIsTakenBack has a message that nobody can send, and one
// that is put back.
func TestAFirstClaimThatIsNotUsedIsTakenBack(t *testing.T) {
	r := newRig(t)
	s := &countedStore{}
	m := tasks.Message{
		ID: tasks.NewID(), Provider: "unimedbh", Lane: tasks.Interactive, Request: json.RawMessage(`{"username":7}`),
		CreatedAt: time.Now().Truncate(time.Millisecond), NotAfter: time.Now().Add(5 * time.Minute).Truncate(time.Millisecond),
	}
	if err := r.store.Create(t.Context(), status.NewRecord(m, "t***@***")); err != nil {
		t.Fatal(err)
	}
	r.put(m, tasks.QueueName("unimedbh", tasks.Interactive))
	r.start(counted(s), always(accepted).config())
	rec := r.awaitState(m.ID, status.Rejected)
	if len(rec.Attempts) != 0 || rec.Reason != string(providers.ReasonInvalidRequest) || s.unclaims.Load() != 1 {
		t.Errorf("record = %+v, %d taken back; want no attempt, and one", rec, s.unclaims.Load())
	}

	_, p := r.idleWorker(&countedStore{}, func(*ProviderConfig) {})
	left := status.NewRecord(tasks.Message{ID: tasks.NewID(), Provider: "unimedbh", Lane: tasks.Interactive, CreatedAt: m.CreatedAt, NotAfter: m.NotAfter}, "t***@***")
	if err := r.store.Create(t.Context(), left); err != nil {
		t.Fatal(err)
	}
	token := p.newToken()
	if _, err := r.store.Claim(t.Context(), status.Claim{Seed: left, Token: token, Now: time.Now(), AbandonedAfter: abandonedAfter}); err != nil {
		t.Fatal(err)
	}
	p.rider().Leave(t.Context(), left.ID, &asynqredis.Ride{Args: []any{token}})
	if got := r.get(left.ID); got.State != status.Deferred || len(got.Attempts) != 0 {
		t.Errorf("what was put back is %+v, want deferred and without an attempt", got)
	}
}

// cutTaken ends the connections on which the next answers with a task that came alone
// arrive, so that nobody above hears of them: also not the client, which would ask again.
type cutTaken struct {
	passHook
	left atomic.Int64
}

func (c *cutTaken) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }

func (c *cutTaken) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := next(ctx, network, addr)
		return &cutConn{conn, c}, err
	}
}

// loneTask is an answer of three values: an id, a message, which is longer than the
// holder's name that stands there in the list of what is in hand, and the claim.
var loneTask = regexp.MustCompile(`\*3\r\n\$36\r\n[0-9a-f-]{36}\r\n\$[0-9]{3,}\r\n`)

type cutConn struct {
	net.Conn
	c *cutTaken
}

func (c *cutConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if loneTask.Match(b[:n]) && c.c.left.Add(-1) >= 0 {
		_ = c.Close()
		return 0, io.EOF
	}
	return n, err
}

// TestWhatWasTakenAndNotHeardOfIsNotMaybeSent has Redis give a task, claimed, and its
// answer be lost. No request was made, so the policy for what may have been sent says
// nothing of it.
func TestWhatWasTakenAndNotHeardOfIsNotMaybeSent(t *testing.T) {
	for name, idle := range map[string]bool{"by a lane that waited": true, "by a lane that looked": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			cut, s, f := &cutTaken{}, &countedStore{}, always(accepted)
			rdb := r.newClient()
			rdb.AddHook(cut)
			start := func() {
				r.startOn(rdb, nil, counted(s), f.config(func(pc *ProviderConfig) { pc.Retry.StopAmbiguous = true }))
			}
			var id string
			if idle {
				start()
				r.awaitState(r.send(), status.Accepted) // Redis knows the scripts
				r.awaitIdle(2)
				cut.left.Store(1)
				id = r.send()
			} else {
				_, stop := r.start(nil, f.config())
				r.awaitState(r.send(), status.Accepted)
				stop()
				cut.left.Store(1)
				id = r.send()
				start()
			}
			eventually(t, func() bool { return cut.left.Load() <= 0 }, func() string { return "no answer was lost" })
			rec := r.await(id, "came to its end", func(rec status.Record) bool { return rec.State.Terminal() })
			if rec.State != status.Accepted || len(rec.Attempts) != 1 || rec.PossibleDuplicate {
				t.Errorf("record = %+v; want accepted at the first attempt", rec)
			}
			if s.unclaims.Load() != 1 || len(f.requests()) != 2 {
				t.Errorf("%d claims were taken back and %d requests made, want 1 and 2", s.unclaims.Load(), len(f.requests()))
			}
		})
	}
}

// TestAFirstClaimIsNotTakenBackForLong: what is put back is to be in its queue before the
// worker ends, whatever becomes of its claim.
func TestAFirstClaimIsNotTakenBackForLong(t *testing.T) {
	r := newRig(t)
	w, p := r.idleWorker(&countedStore{}, func(*ProviderConfig) {})
	if err := w.cfg.Redis.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	p.rider().Leave(ctx, tasks.NewID(), &asynqredis.Ride{Args: []any{p.newToken()}})
	if ctx.Err() != nil {
		t.Error("it was tried for a minute, want a second")
	}
}

// TestWhatWasNotHeardOfGoesBackAtShutdown has Redis give a task, claimed, its answer be
// lost, and the worker end before it would have missed it.
func TestWhatWasNotHeardOfGoesBackAtShutdown(t *testing.T) {
	r := newRig(t)
	cut, s, f := &cutTaken{}, &countedStore{}, always(accepted)
	config := f.config(func(pc *ProviderConfig) { pc.Retry.StopAmbiguous = true })
	rdb := r.newClient()
	rdb.AddHook(cut)
	_, stop := r.startOn(rdb, nil, counted(s), config)
	r.awaitState(r.send(), status.Accepted) // Redis knows the scripts
	r.awaitIdle(2)
	cut.left.Store(1)
	id := r.send()
	eventually(t, func() bool { return cut.left.Load() <= 0 }, func() string { return "no answer was lost" })
	stop()
	if waiting := r.list("pending"); len(waiting) != 1 || s.unclaims.Load() != 1 {
		t.Errorf("%d messages wait after the worker's end, and %d claims were taken back; want 1 and 1", len(waiting), s.unclaims.Load())
	}
	r.start(nil, config)
	rec := r.await(id, "came to its end", func(rec status.Record) bool { return rec.State.Terminal() })
	if rec.State != status.Accepted || len(rec.Attempts) != 1 || rec.PossibleDuplicate || len(f.requests()) != 2 {
		t.Errorf("record = %+v after %d requests; want accepted at the first attempt", rec, len(f.requests())-1)
	}
}

// slowHand is a hook above the worker's own, which hands asynq its next task late.
type slowHand struct {
	passHook
	armed  atomic.Bool
	holds  chan struct{}
	handed chan struct{}
}

func (h *slowHand) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		args := cmd.Args()
		if err == nil && len(args) > 5 && args[0] == "evalsha" && args[3] == laneKey("pending") && args[5] == laneKey("active") && h.armed.CompareAndSwap(true, false) {
			close(h.holds)
			<-h.handed
		}
		return err
	}
}

// TestWhatWasTakenAndNotBegunIsNotMaybeSent has a worker stand still between a task's
// being taken, claimed, and its first step, for so long that the worker itself takes it
// for lost.
func TestWhatWasTakenAndNotBegunIsNotMaybeSent(t *testing.T) {
	r := newRig(t)
	h, s, f := &slowHand{holds: make(chan struct{}), handed: make(chan struct{})}, &countedStore{}, always(accepted)
	rdb := r.newClient()
	rdb.AddHook(h)
	r.startOn(rdb, nil, counted(s), f.config(func(pc *ProviderConfig) { pc.Retry.StopAmbiguous = true }))
	hand := sync.OnceFunc(func() { close(h.handed) })
	t.Cleanup(hand)
	r.awaitIdle(2)
	h.armed.Store(true)
	id := r.send()
	<-h.holds
	if state := r.get(id).State; state != status.Sending {
		t.Fatalf("the message is %s, want it claimed", state)
	}
	eventually(t, func() bool { return s.unclaims.Load() == 1 }, func() string { return "the claim was never taken back" })
	hand()
	rec := r.await(id, "came to its end", func(rec status.Record) bool { return rec.State.Terminal() })
	if rec.State != status.Accepted || len(rec.Attempts) != 1 || rec.PossibleDuplicate || len(f.requests()) != 1 {
		t.Errorf("record = %+v after %d requests; want accepted at the first attempt, and one", rec, len(f.requests()))
	}
}

func TestTheUnheardAreBounded(t *testing.T) {
	t.Parallel()
	u := &unheard{}
	for range mostUnheard {
		u.add("old")
	}
	u.add("new")
	if all := u.all(); len(all) != mostUnheard || all[len(all)-1] != "new" {
		t.Errorf("%d are kept, the last one %q", len(all), all[len(all)-1])
	}
}
