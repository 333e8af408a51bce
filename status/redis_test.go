package status_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

const (
	keepRecords = 3 * time.Hour
	keepDead    = 48 * time.Hour
	validity    = 5 * time.Minute
	token       = "t"
)

func newRecord(provider string) status.Record {
	return status.NewRecord(tasks.Message{
		ID: tasks.NewID(), Provider: provider, Lane: tasks.Interactive, CreatedAt: start, NotAfter: at(validity),
	}, "+504 ••••7766")
}

func newStore(rdb redis.UniversalClient) *status.Redis {
	return status.NewRedis(rdb, status.Retention{Records: keepRecords, DeadLetters: keepDead})
}

func must(t interface {
	Helper()
	Fatal(args ...any)
}, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func claim(t testing.TB, s *status.Redis, seed status.Record, now time.Time) status.Claimed {
	t.Helper()
	c, err := s.Claim(t.Context(), status.Claim{Seed: seed, Token: token, Now: now, AbandonedAfter: 40 * time.Second})
	must(t, err)
	return c
}

// sent creates a message, makes one attempt at it and ends it in the state.
func sent(t testing.TB, s *status.Redis, provider string, to status.State, reason string, now time.Time) status.Record {
	t.Helper()
	r := newRecord(provider)
	must(t, s.Create(t.Context(), r))
	c := claim(t, s, r, now)
	must(t, s.Finish(t.Context(), finishOf(r, c.Attempt, to, reason, now)))
	return r
}

func finishOf(r status.Record, number int, to status.State, reason string, now time.Time) status.Finish {
	return status.Finish{
		ID: r.ID, Provider: r.Provider, Token: token, Attempt: status.Attempt{Number: number, StartedAt: now, DurationMS: 1, Outcome: "x"},
		Spent: true, State: to, Reason: reason, Payload: []byte("sealed " + r.ID), Now: now,
	}
}

// wantTTL checks how long a key is kept; reading it takes a moment of its own.
func wantTTL(t *testing.T, rdb *redis.Client, key string, want time.Duration) {
	t.Helper()
	const slack = 30 * time.Second
	got, err := rdb.PTTL(t.Context(), key).Result()
	if err != nil || got > want || got < want-slack {
		t.Errorf("%s is kept for %v, %v; want %v", key, got, err, want)
	}
}

func TestRecordsAreKeptAsLongAsTheirStateSays(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		for name, tt := range map[string]struct {
			do   func(t *testing.T, r status.Record)
			want time.Duration
		}{
			"queued: until its deadline, and then as any": {func(t *testing.T, r status.Record) {
				t.Helper()
				must(t, s.Create(t.Context(), r))
			}, validity + keepRecords},
			"sending: as before, for its time runs in Redis": {func(t *testing.T, r status.Record) {
				t.Helper()
				must(t, s.Create(t.Context(), r))
				claim(t, s, r, at(time.Minute))
			}, validity + keepRecords},
			"sending, with a record that the claim wrote": {func(t *testing.T, r status.Record) {
				t.Helper()
				claim(t, s, r, at(time.Minute))
			}, validity - time.Minute + keepRecords},
			"past its deadline: as any": {func(t *testing.T, r status.Record) {
				t.Helper()
				claim(t, s, r, at(time.Hour))
			}, keepRecords},
			"deferred by a move: no shorter than before": {func(t *testing.T, r status.Record) {
				t.Helper()
				must(t, s.Create(t.Context(), r))
				must(t, s.Move(t.Context(), status.Move{ID: r.ID, To: status.Deferred, Next: at(time.Second), Now: start}))
			}, validity + keepRecords},
			"deferred by a move that wrote the record: until its deadline": {func(t *testing.T, r status.Record) {
				t.Helper()
				must(t, s.Move(t.Context(), status.Move{ID: r.ID, Seed: &r, To: status.Deferred, Next: at(time.Second), Now: start}))
			}, validity + keepRecords},
			"deferred after an attempt: no shorter than before": {func(t *testing.T, r status.Record) {
				t.Helper()
				c := claim(t, s, r, start)
				f := finishOf(r, c.Attempt, status.Deferred, "timeout", start)
				f.Next = at(time.Second)
				must(t, s.Finish(t.Context(), f))
			}, validity + keepRecords},
			"canceled": {func(t *testing.T, r status.Record) {
				t.Helper()
				must(t, s.Create(t.Context(), r))
				must(t, s.Move(t.Context(), status.Move{ID: r.ID, To: status.Canceled, Now: at(time.Second)}))
			}, keepRecords},
			"canceled long before it is due: until no task of it can come": {func(t *testing.T, r status.Record) {
				t.Helper()
				r.NotAfter = at(96 * time.Hour)
				must(t, s.Create(t.Context(), r))
				must(t, s.Move(t.Context(), status.Move{ID: r.ID, To: status.Canceled, Now: start}))
			}, 96*time.Hour + 3*time.Minute},
			"expired, with a record that the move wrote": {func(t *testing.T, r status.Record) {
				t.Helper()
				must(t, s.Move(t.Context(), status.Move{ID: r.ID, Seed: &r, To: status.Expired, Now: at(time.Hour)}))
			}, keepRecords},
			"unreadable": {func(t *testing.T, r status.Record) {
				t.Helper()
				must(t, s.Move(t.Context(), status.Move{ID: r.ID, Seed: &r, Provider: "kinpos", To: status.Rejected, Payload: []byte("x"), Now: start}))
			}, keepDead},
			"a dead letter that was dropped": {func(t *testing.T, r status.Record) {
				t.Helper()
				must(t, s.Move(t.Context(), status.Move{ID: r.ID, Seed: &r, Provider: "kinpos", To: status.Rejected, Payload: []byte("x"), Now: start}))
				must(t, s.DropDead(t.Context(), "kinpos", r.ID))
			}, keepRecords},
			"unknown that turned out accepted": {func(t *testing.T, r status.Record) {
				t.Helper()
				c := claim(t, s, r, start)
				must(t, s.Finish(t.Context(), finishOf(r, c.Attempt, status.Unknown, "timeout", start)))
				must(t, s.Finish(t.Context(), finishOf(r, c.Attempt, status.Accepted, "", at(time.Second))))
			}, keepRecords},
		} {
			t.Run(name, func(t *testing.T) {
				r := newRecord("kinpos")
				tt.do(t, r)
				wantTTL(t, rdb, "otpq:msg:"+r.ID, tt.want)
			})
		}
		for _, to := range []status.State{status.Accepted, status.Expired, status.Rejected, status.Exhausted, status.Unknown} {
			t.Run("sent and "+string(to), func(t *testing.T) {
				want := keepRecords
				if to.Dead() {
					want = keepDead
				}
				wantTTL(t, rdb, "otpq:msg:"+sent(t, s, "kinpos", to, "", start).ID, want)
			})
		}
		wantNothingForEver(t, rdb)
	})
}

// wantNothingForEver checks that every key there is ends on its own: what has
// no end fills a Redis that must not evict.
func wantNothingForEver(t *testing.T, rdb *redis.Client) {
	t.Helper()
	keys, err := rdb.Keys(t.Context(), "*").Result()
	must(t, err)
	if len(keys) == 0 {
		t.Error("there is no key to look at")
	}
	for _, key := range keys {
		if ttl, err := rdb.PTTL(t.Context(), key).Result(); err != nil || ttl <= 0 {
			t.Errorf("%s is kept for %v, %v; want an end", key, ttl, err)
		}
	}
}

func TestRetentionDefaults(t *testing.T) {
	rdb := redistest.Start(t).Client()
	for name, keep := range map[string]status.Retention{"zero": {}, "negative": {Records: -1, DeadLetters: -1}} {
		t.Run(name, func(t *testing.T) {
			s := status.NewRedis(rdb, keep)
			// Not shortened by the minutes that the message could have waited.
			wantTTL(t, rdb, "otpq:msg:"+sent(t, s, "kinpos", status.Accepted, "", start).ID, 72*time.Hour+validity)
			wantTTL(t, rdb, "otpq:msg:"+sent(t, s, "kinpos", status.Rejected, "", start).ID, 30*24*time.Hour)
		})
	}
}

func TestARecordKeepsTheLastHundredAttempts(t *testing.T) {
	t.Parallel()
	s := newStore(redistest.Start(t).Client())
	r := newRecord("kinpos")
	for n := 1; n <= 130; n++ {
		if c := claim(t, s, r, start); c.Attempt != n {
			t.Fatalf("attempt %d has number %d", n, c.Attempt)
		}
		must(t, s.Finish(t.Context(), finishOf(r, n, status.Deferred, "rate_limited", start)))
	}
	got, err := s.Get(t.Context(), r.ID)
	must(t, err)
	if n := len(got.Attempts); n != 100 || got.Attempts[0].Number != 31 || got.Attempts[99].Number != 130 {
		t.Errorf("%d attempts, want those from 31 to 130", n)
	}
}

// TestOnlyWhatMayBeSentAgainKeepsAPayload: it is the largest part of a record.
func TestOnlyWhatMayBeSentAgainKeepsAPayload(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		kept := func(id string) bool { return rdb.HExists(t.Context(), "otpq:msg:"+id, "payload").Val() }
		for _, to := range []status.State{status.Accepted, status.Expired, status.Deferred, status.Rejected, status.Exhausted, status.Unknown} {
			want := slices.Contains(status.EndedStates(), to)
			if r := sent(t, s, "kinpos", to, "", start); kept(r.ID) != want {
				t.Errorf("%s: payload kept is %v, want %v", to, !want, want)
			}
		}
		for _, to := range []status.State{status.Deferred, status.Canceled, status.Expired, status.Rejected} {
			want, r := slices.Contains(status.EndedStates(), to), newRecord("kinpos")
			must(t, s.Move(t.Context(), status.Move{ID: r.ID, Seed: &r, Provider: "kinpos", To: to, Payload: []byte("x"), Now: start}))
			if kept(r.ID) != want {
				t.Errorf("moved to %s: payload kept is %v, want %v", to, !want, want)
			}
		}
		r := sent(t, s, "kinpos", status.Unknown, "timeout", start)
		must(t, s.Finish(t.Context(), finishOf(r, 1, status.Accepted, "", at(time.Second))))
		if kept(r.ID) {
			t.Error("a dead letter that turned out accepted keeps its payload")
		}
	})
}

func TestDurationsSurviveToTheMicrosecond(t *testing.T) {
	s := newStore(redistest.Start(t).Client())
	for _, us := range []int64{1, 999, 1001, 8193, 250125, 1000001, 9999999} {
		r := newRecord("kinpos")
		c := claim(t, s, r, start)
		f := finishOf(r, c.Attempt, status.Accepted, "", start)
		f.Attempt.DurationMS = float64(us) / 1000
		must(t, s.Finish(t.Context(), f))
		got, err := s.Get(t.Context(), r.ID)
		must(t, err)
		if diff := cmp.Diff([]status.Attempt{f.Attempt}, got.Attempts); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}
	}
}

// everyCall calls each method that reaches for Redis and returns its error.
func everyCall(s *status.Redis) map[string]func(context.Context) error {
	r := newRecord("kinpos")
	return map[string]func(context.Context) error{
		"Create": func(ctx context.Context) error { return s.Create(ctx, r) },
		"Get":    func(ctx context.Context) error { _, err := s.Get(ctx, r.ID); return err },
		"Claim": func(ctx context.Context) error {
			_, err := s.Claim(ctx, status.Claim{Seed: r, Token: token, Now: start, AbandonedAfter: time.Minute})
			return err
		},
		"Finish":             func(ctx context.Context) error { return s.Finish(ctx, finishOf(r, 1, status.Accepted, "", start)) },
		"Finish of the dead": func(ctx context.Context) error { return s.Finish(ctx, finishOf(r, 1, status.Rejected, "", start)) },
		"Move": func(ctx context.Context) error {
			return s.Move(ctx, status.Move{ID: r.ID, To: status.Canceled, Now: start})
		},
		"Move of the dead": func(ctx context.Context) error {
			return s.Move(ctx, status.Move{ID: r.ID, Provider: "kinpos", To: status.Rejected, Now: start})
		},
		"Dead": func(ctx context.Context) error {
			n := 0
			var last error
			for _, err := range s.Dead(ctx, "kinpos", status.DeadFilter{}) {
				n, last = n+1, err
			}
			if n > 1 {
				return fmt.Errorf("the error was yielded %d times", n)
			}
			return last
		},
		"DeadLetter":   func(ctx context.Context) error { _, err := s.DeadLetter(ctx, r.ID); return err },
		"MarkReplayed": func(ctx context.Context) error { _, err := s.MarkReplayed(ctx, r.ID, "new", ""); return err },
		"DropDead":     func(ctx context.Context) error { return s.DropDead(ctx, "kinpos", r.ID) },
	}
}

func TestAHungRedisIsLeftWhenCtxEnds(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: redistest.Hung(t), MaxRetries: -1, ContextTimeoutEnabled: true})
	t.Cleanup(func() { _ = rdb.Close() })
	for name, call := range everyCall(newStore(rdb)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began := time.Now()
			err := call(ctx)
			if took := time.Since(began); took > 2*time.Second { // go-redis's own read timeout is 3 s
				t.Errorf("it took %v, want an end soon after ctx's", took)
			}
			if !status.IsUnreachable(err) {
				t.Errorf("error %v, want one that means unreachable", err)
			}
		})
	}
}

func TestAnUnreachableRedisIsToldApart(t *testing.T) {
	server := redistest.Start(t)
	// One dial each: go-redis tries five times, half a second a call.
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { _ = rdb.Close() })
	s := newStore(rdb)
	server.Stop()
	for name, call := range everyCall(s) {
		if err := call(t.Context()); !status.IsUnreachable(err) || strings.Contains(err.Error(), "times") {
			t.Errorf("%s = %v, want one error that means unreachable", name, err)
		}
	}
}

// TestAnAnswerThatIsNoRecordIsAnError: another program's key under our name.
func TestAnAnswerThatIsNoRecordIsAnError(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := newStore(rdb)
	r := newRecord("kinpos")
	must(t, rdb.Set(t.Context(), "otpq:msg:"+r.ID, "no hash", time.Minute).Err())
	if _, err := s.Get(t.Context(), r.ID); !status.IsUnreachable(err) {
		t.Errorf("Get() = %v, want an error", err)
	}
	must(t, rdb.ZAdd(t.Context(), "otpq:dead:kinpos", redis.Z{Score: 1, Member: r.ID}).Err())
	var errs []error
	for _, err := range s.Dead(t.Context(), "kinpos", status.DeadFilter{}) {
		errs = append(errs, err)
	}
	if len(errs) != 1 || errs[0] == nil {
		t.Errorf("Dead() yielded %v, want one error", errs)
	}
}
