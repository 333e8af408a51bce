package worker

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/status"
)

// deafStore makes the first claims and does not hear that they were.
type deafStore struct {
	status.Store
	mu   sync.Mutex
	left int
}

func (s *deafStore) Claim(ctx context.Context, c status.Claim) (status.Claimed, error) {
	claimed, err := s.Store.Claim(ctx, c)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left > 0 {
		s.left--
		return status.Claimed{}, errBroken
	}
	return claimed, err
}

// TestAClaimThatWasNotHeardOfIsNoLostWorker has Redis take a claim and its answer
// be lost: no request was made under it, so the message is neither late nor maybe
// sent.
func TestAClaimThatWasNotHeardOfIsNoLostWorker(t *testing.T) {
	for name, workers := range map[string]int{"one worker": 1, "another may have it next": 2} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			f := always(accepted)
			var ids []string
			for range 6 {
				ids = append(ids, r.send(enqueue.MaxAttempts(1)))
			}
			for range workers {
				r.start(func(cfg *Config) { cfg.Store = &deafStore{Store: cfg.Store, left: 2} }, f.config(func(pc *ProviderConfig) {
					pc.Retry.StopAmbiguous = true
				}))
			}
			for _, id := range ids {
				rec := r.await(id, "came to its end", func(rec status.Record) bool { return rec.State.Terminal() })
				if rec.State != status.Accepted || rec.PossibleDuplicate || rec.UpdatedAt.Sub(rec.CreatedAt) >= abandonedAfter {
					t.Errorf("record = %+v; want accepted soon, and no duplicate", rec)
				}
			}
			if n := len(f.requests()); n != len(ids) {
				t.Errorf("%d requests for %d messages", n, len(ids))
			}
		})
	}
}

// deafPipelines runs pipelines on a key and their answers are lost.
type deafPipelines struct {
	key  string
	left int
}

func (d *deafPipelines) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (d *deafPipelines) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (d *deafPipelines) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if d.left > 0 && cmds[0].Args()[1] == d.key {
			d.left--
			return errors.New("connection reset by the test")
		}
		return err
	}
}

// TestASuspectWhoseBeginWasNotHeardOfIsNotCountedAgain has a message that killed
// nobody be begun again and again, because Redis's answers are lost.
func TestASuspectWhoseBeginWasNotHeardOfIsNotCountedAgain(t *testing.T) {
	r := newRig(t)
	rdb := r.newClient()
	rdb.AddHook(&deafPipelines{key: suspectKey("m"), left: 3 * maxDeaths})
	s := newSuspects(rdb, zerolog.Nop())
	a := &attempt{messageID: "m"}
	for range 3 * maxDeaths {
		if _, err := s.begin(t.Context(), a); err == nil {
			t.Fatal("no reply was lost")
		}
	}
	if deaths, err := s.begin(t.Context(), a); err != nil || deaths != 0 {
		t.Errorf("begin() = %d deaths, %v; want none", deaths, err)
	}
	s.clear(a)
	end := time.Now().Add(suspicionTTL)
	if deaths, err := newSuspects(r.rdb, zerolog.Nop()).begin(t.Context(), &attempt{messageID: "m"}); err != nil || deaths != 0 {
		t.Errorf("begin() of another process = %d deaths, %v; want none", deaths, err)
	}
	if ttl := r.rdb.PTTL(t.Context(), suspectKey("m")).Val(); ttl <= 0 || time.Now().Add(ttl).After(end.Add(time.Minute)) {
		t.Errorf("the count is kept for %s, want about %s", ttl, suspicionTTL)
	}
}

func TestWhatIsToBeSettledIsTriedUntilItIsAndBounded(t *testing.T) {
	t.Parallel()
	r := newResults()
	begun, release := make(chan struct{}), make(chan struct{})
	r.Settle(func(context.Context) error { close(begun); <-release; return nil })
	<-begun
	var mu sync.Mutex
	tries, settled := 0, 0
	done := make(chan struct{})
	for range maxUnsettled + 10 {
		r.Settle(func(context.Context) error {
			mu.Lock()
			defer mu.Unlock()
			if tries++; tries <= 2 {
				return errBroken
			}
			if settled++; settled == maxUnsettled {
				close(done)
			}
			return nil
		})
	}
	close(release)
	<-done // two failures and their pauses later
	r.close(time.Minute)
	if settled != maxUnsettled || tries != maxUnsettled+2 {
		t.Errorf("%d were settled in %d tries, want %d in two more", settled, tries, maxUnsettled)
	}
	r.Settle(func(context.Context) error { t.Error("something was begun after close"); return nil })

	stuck := newResults()
	stuck.Settle(func(context.Context) error { return errBroken })
	stuck.close(10 * time.Millisecond) // returns, or the test hangs
}
