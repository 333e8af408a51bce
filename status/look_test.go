package status_test

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/status"
)

// TestALookTellsWhatTheRecordDoes: who watches a campaign sees no other state, reason
// or time than who asks for one message.
func TestALookTellsWhatTheRecordDoes(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		queued, deferred, again, waits := newRecord("kinpos"), newRecord("kinpos"), newRecord("kinpos"), newRecord("kinpos")
		for _, r := range []status.Record{queued, deferred, waits} {
			must(t, s.Create(t.Context(), r))
		}
		wait := status.Move{ID: deferred.ID, To: status.Deferred, Reason: "breaker_open", Next: at(time.Minute), Now: at(time.Second)}
		must(t, s.Move(t.Context(), wait))
		wait.ID = waits.ID
		must(t, s.Move(t.Context(), wait))
		claim(t, s, waits, at(2*time.Minute)) // what it waited for is over
		c := claim(t, s, again, start)
		f := finishOf(again, c.Attempt, status.Deferred, "timeout", at(time.Second))
		f.Next = at(3 * time.Second)
		must(t, s.Finish(t.Context(), f))

		ids := []string{"none", queued.ID, deferred.ID, again.ID, waits.ID}
		for i, to := range status.States() {
			if to.Terminal() && to != status.Canceled {
				ids = append(ids, sent(t, s, "kinpos", to, "timeout", at(time.Duration(i)*time.Second)).ID)
			}
		}
		looks, errs := s.Looks(t.Context(), ids)
		must(t, errors.Join(errs...))
		for i, id := range ids {
			r, err := s.Get(t.Context(), id)
			if id != "none" {
				must(t, err)
			}
			want := status.Look{State: r.State, Reason: r.Reason, UpdatedAt: r.UpdatedAt, NextAttemptAt: r.NextAttemptAt, NotAfter: r.NotAfter}
			if diff := cmp.Diff(want, looks[i]); diff != "" {
				t.Errorf("a message that is %q (-record +look):\n%s", r.State, diff)
			}
		}
		if looks[2].Reason != "breaker_open" || looks[2].NextAttemptAt.IsZero() || !looks[4].NextAttemptAt.IsZero() {
			t.Errorf("looks of one that waits and one that waited: %+v, %+v", looks[2], looks[4])
		}
		if looks, errs := s.Looks(t.Context(), nil); len(looks) != 0 || len(errs) != 0 {
			t.Errorf("Looks(none) = %v, %v", looks, errs)
		}
	})
}
