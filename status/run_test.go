package status_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
)

// Many callers at once share round trips; each still gets its own answer.
func TestManyAtOnceGetTheirOwnAnswers(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := newStore(rdb)
	const n = 400
	var wg sync.WaitGroup
	errs := make([]error, n)
	records := make([]status.Record, n)
	for i := range records {
		records[i] = newRecord("kinpos")
	}
	for _, err := range s.CreateAll(t.Context(), records[:n/2]) { // the others are created by their claim
		must(t, err)
	}
	before := readsOf(t, rdb)
	for i, r := range records {
		wg.Go(func() { errs[i] = live(t, s, r, i) })
	}
	wg.Wait()
	// Two changes each, or three; by themselves they would take as many round trips.
	if took := readsOf(t, rdb) - before; took > n/2 {
		t.Errorf("the changes of %d messages at once took %d reads of Redis, want few", n, took)
	}
	for i, err := range errs {
		if err != nil {
			t.Errorf("message %d: %v", i, err)
			continue
		}
		want := endOf(i)
		got, err := s.Get(t.Context(), records[i].ID)
		if i%5 == 0 && want != status.Accepted {
			want = status.Sending
		} else if got.Reason != fmt.Sprint("reason", i) {
			t.Errorf("message %d ended for %q", i, got.Reason)
		}
		if err != nil || got.State != want {
			t.Errorf("message %d is %s, %v; want %s", i, got.State, err, want)
		}
	}
}

// readsOf is how often Redis has read from a socket.
func readsOf(t *testing.T, rdb *redis.Client) (n int) {
	t.Helper()
	stats := rdb.Info(t.Context(), "stats").Val()
	_, after, _ := strings.Cut(stats, "total_reads_processed:")
	if _, err := fmt.Sscan(after, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func endOf(i int) status.State {
	return []status.State{status.Accepted, status.Expired, status.Deferred}[i%3]
}

// live makes an attempt at a message, which ends as its number says.
func live(t *testing.T, s *status.Redis, r status.Record, i int) error {
	t.Helper()
	to := endOf(i)
	c, err := s.Claim(t.Context(), status.Claim{Seed: r, Token: fmt.Sprint("token", i), Now: start, AbandonedAfter: 1})
	if err != nil || c.Result != status.ClaimedNow || c.Attempt != 1 {
		return fmt.Errorf("Claim() = %+v, %w", c, err)
	}
	f := finishOf(r, 1, to, fmt.Sprint("reason", i), start)
	if i%5 == 0 {
		f.Token = "another's"
	} else {
		f.Token = fmt.Sprint("token", i)
	}
	err = s.Finish(t.Context(), f)
	if refused := new(status.RefusedError); i%5 == 0 && to != status.Accepted {
		if !errors.As(err, &refused) || refused.ID != r.ID || refused.From != status.Sending {
			return fmt.Errorf("Finish() under another's token = %w", err)
		}
		return nil
	}
	return err
}

// A record that somebody broke costs its own message, not those beside it.
func TestABrokenRecordHarmsNoOther(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := newStore(rdb)
	const n = 64
	records := make([]status.Record, n)
	for i := range records {
		records[i] = newRecord("kinpos")
		if i%8 == 0 {
			must(t, rdb.Set(t.Context(), "otpq:msg:"+records[i].ID, "not a hash", 0).Err())
		}
	}
	errs := make([]error, n)
	var wg sync.WaitGroup
	for i, r := range records {
		wg.Go(func() {
			_, errs[i] = s.Claim(t.Context(), status.Claim{Seed: r, Token: token, Now: start, AbandonedAfter: 1})
		})
	}
	wg.Wait()
	for i, err := range errs {
		if (err != nil) != (i%8 == 0) {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

// Redis may forget its scripts at any time.
func TestForgottenScriptsAreLoadedAgain(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := newStore(rdb)
	for range 3 {
		must(t, rdb.ScriptFlush(t.Context()).Err())
		var wg sync.WaitGroup
		for range 32 {
			wg.Go(func() {
				r := newRecord("kinpos")
				if err := s.Create(t.Context(), r); err != nil {
					t.Error(err)
				}
				if _, err := s.Claim(t.Context(), status.Claim{Seed: r, Token: token, Now: start, AbandonedAfter: 1}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
