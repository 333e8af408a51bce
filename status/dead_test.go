package status_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// deadIDs lists the dead letters that match, in the order they come.
func deadIDs(t testing.TB, s *status.Redis, provider string, f status.DeadFilter) []string {
	t.Helper()
	ids := []string{}
	for d, err := range s.Dead(t.Context(), provider, f) {
		must(t, err)
		ids = append(ids, d.ID)
	}
	return ids
}

// unreadable makes a dead letter in two round trips.
func unreadable(t testing.TB, s *status.Redis, provider string, now time.Time) string {
	t.Helper()
	r := newRecord(provider)
	must(t, s.Move(t.Context(), status.Move{
		ID: r.ID, Seed: &r, Provider: provider, To: status.Rejected, Reason: "undecodable", Payload: []byte("sealed " + r.ID), Now: now,
	}))
	return r.ID
}

func TestEveryWayToDieLeadsToTheDeadLetters(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		want := map[string]status.State{}
		for i, to := range []status.State{status.Rejected, status.Exhausted, status.Unknown, status.Accepted, status.Expired, status.Deferred} {
			r := sent(t, s, "kinpos", to, "timeout", at(time.Duration(i)*time.Second))
			if to.Dead() {
				want[r.ID] = to
			}
		}
		want[unreadable(t, s, "kinpos", start)] = status.Rejected
		got := map[string]status.State{}
		for d, err := range s.Dead(t.Context(), "kinpos", status.DeadFilter{}) {
			must(t, err)
			got[d.ID] = d.State
			if string(d.Payload) != "sealed "+d.ID {
				t.Errorf("payload %q, want that of %s", d.Payload, d.ID)
			}
			one, err := s.DeadLetter(t.Context(), d.ID)
			if !d.Listed.Equal(d.UpdatedAt) {
				t.Errorf("listed as of %s, want its end, %s", d.Listed, d.UpdatedAt)
			}
			d.Listed = time.Time{} // which one alone has not
			if diff := cmp.Diff(d, one); err != nil || diff != "" {
				t.Errorf("DeadLetter() = %v, and differs from Dead (-list +one):\n%s", err, diff)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("dead letters (-want +got):\n%s", diff)
		}
		if ids := deadIDs(t, s, "medsenior", status.DeadFilter{}); len(ids) != 0 {
			t.Errorf("another provider has the dead letters %v, want none", ids)
		}
	})
}

func TestDeadFilters(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		name := map[string]string{}
		for _, l := range []struct {
			name   string
			to     status.State
			reason string
			died   time.Time
		}{
			{"first", status.Rejected, "invalid_request", start},
			{"second", status.Unknown, "timeout", at(time.Second)},
			{"third", status.Exhausted, "timeout", at(2 * time.Second)},
			{"fourth", status.Rejected, "recipient_unknown", at(2*time.Second + time.Millisecond)},
		} {
			name[sent(t, s, "kinpos", l.to, l.reason, l.died).ID] = l.name
		}
		for about, tt := range map[string]struct {
			filter status.DeadFilter
			want   string
		}{
			"no filter lists all, oldest first":   {status.DeadFilter{}, "first second third fourth"},
			"by state":                            {status.DeadFilter{State: status.Rejected}, "first fourth"},
			"by reason":                           {status.DeadFilter{Reason: "timeout"}, "second third"},
			"by state and reason":                 {status.DeadFilter{State: status.Unknown, Reason: "timeout"}, "second"},
			"by a reason that nobody died of":     {status.DeadFilter{Reason: "panic"}, ""},
			"by a state that is no dead letter's": {status.DeadFilter{State: status.Accepted}, ""},
			"since a moment, which counts":        {status.DeadFilter{Since: at(time.Second)}, "second third fourth"},
			"until a moment, which counts":        {status.DeadFilter{Until: at(2 * time.Second)}, "first second third"},
			"a moment":                            {status.DeadFilter{Since: at(2 * time.Second), Until: at(2 * time.Second)}, "third"},
			"since after all":                     {status.DeadFilter{Since: at(time.Hour)}, ""},
			"until before all":                    {status.DeadFilter{Until: at(-time.Millisecond)}, ""},
			"all at once":                         {status.DeadFilter{State: status.Rejected, Reason: "invalid_request", Since: start, Until: start}, "first"},
		} {
			t.Run(about, func(t *testing.T) {
				var got []string
				for _, id := range deadIDs(t, s, "kinpos", tt.filter) {
					got = append(got, name[id])
				}
				if strings.Join(got, " ") != tt.want {
					t.Errorf("Dead() = %v, want %v", got, tt.want)
				}
			})
		}
	})
}

// TestManyDeadLettersAreReadPageByPage: a page is 256, and a campaign may well
// bury hundreds within a millisecond.
func TestManyDeadLettersAreReadPageByPage(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		want := map[string]bool{}
		same := at(time.Second)
		bury := func(n int, died func(i int) time.Time) {
			for i := range n {
				want[unreadable(t, s, "kinpos", died(i))] = true
			}
		}
		bury(100, func(i int) time.Time { return at(time.Duration(i) * time.Millisecond) })
		bury(700, func(int) time.Time { return same })
		bury(300, func(i int) time.Time { return same.Add(time.Duration(1+i/100) * time.Millisecond) })

		check := func(about string, f status.DeadFilter, n int) {
			t.Helper()
			got := map[string]bool{}
			last := time.Time{}
			for d, err := range s.Dead(t.Context(), "kinpos", f) {
				must(t, err)
				if got[d.ID] || !want[d.ID] {
					t.Errorf("%s: %s is listed twice or is no dead letter", about, d.ID)
				}
				got[d.ID] = true
				if d.UpdatedAt.Before(last) {
					t.Errorf("%s: %v comes after %v, want the oldest first", about, d.UpdatedAt, last)
				}
				last = d.UpdatedAt
			}
			if len(got) != n {
				t.Errorf("%s: %d dead letters, want %d", about, len(got), n)
			}
		}
		check("all", status.DeadFilter{}, 1100)
		check("one millisecond", status.DeadFilter{Since: same, Until: same}, 700)
		check("from the crowded millisecond on", status.DeadFilter{Since: same}, 1000)

		var first []string
		for d, err := range s.Dead(t.Context(), "kinpos", status.DeadFilter{}) {
			must(t, err)
			if first = append(first, d.ID); len(first) == 300 {
				break // a reader may stop in any page
			}
		}
		if all := deadIDs(t, s, "kinpos", status.DeadFilter{}); !slices.Equal(first, all[:300]) {
			t.Error("a reader that stops saw other letters than one that goes on")
		}

		// Letters are dropped while they are listed, as `otpq dead discard` does.
		dropped := 0
		for d, err := range s.Dead(t.Context(), "kinpos", status.DeadFilter{}) {
			must(t, err)
			must(t, s.DropDead(t.Context(), "kinpos", d.ID))
			dropped++
		}
		if left := deadIDs(t, s, "kinpos", status.DeadFilter{}); dropped != 1100 || len(left) != 0 {
			t.Errorf("%d were dropped and %d are left, want 1100 and none", dropped, len(left))
		}
	})
}

func TestEntriesThatAreNoDeadLettersArePassedOver(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		dead := unreadable(t, s, "kinpos", at(time.Hour))

		ended := unreadable(t, s, "kinpos", start)
		must(t, rdb.Del(t.Context(), "otpq:msg:"+ended).Err())

		settled := sent(t, s, "kinpos", status.Unknown, "timeout", at(time.Second))
		must(t, s.Finish(t.Context(), finishOf(settled, 1, status.Accepted, "", at(2*time.Second))))

		// A crash between the index and the record leaves this.
		early := newRecord("kinpos")
		must(t, s.Create(t.Context(), early))
		must(t, rdb.ZAdd(t.Context(), "otpq:dead:kinpos", redis.Z{Score: float64(start.UnixMilli()), Member: early.ID}).Err())

		// A late result of a discarded letter puts it on the index again.
		gone := sent(t, s, "kinpos", status.Unknown, "timeout", at(time.Second))
		must(t, s.DropDead(t.Context(), "kinpos", gone.ID))
		var refused *status.RefusedError
		if err := s.Finish(t.Context(), finishOf(gone, 1, status.Rejected, "late", at(3*time.Second))); !errors.As(err, &refused) {
			t.Fatalf("a late Finish = %v, want a refusal", err)
		}

		if n := rdb.ZCard(t.Context(), "otpq:dead:kinpos").Val(); n != 5 {
			t.Fatalf("%d entries in the index, want 5 for this test to mean something", n)
		}
		if diff := cmp.Diff([]string{dead}, deadIDs(t, s, "kinpos", status.DeadFilter{})); diff != "" {
			t.Errorf("dead letters (-want +got):\n%s", diff)
		}
	})
}

func TestDeadLetterSaysWhyThereIsNone(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		both := func(t *testing.T, id string) [2]error {
			t.Helper()
			_, one := s.DeadLetter(t.Context(), id)
			_, two := s.MarkReplayed(t.Context(), id, "new", "")
			return [2]error{one, two}
		}
		for _, err := range both(t, tasks.NewID()) {
			if !errors.Is(err, status.ErrNotFound) {
				t.Errorf("an unknown id: %v, want ErrNotFound", err)
			}
		}
		wantRefused := func(t *testing.T, id string, from status.State) {
			t.Helper()
			for _, err := range both(t, id) {
				var refused *status.RefusedError
				if !errors.As(err, &refused) {
					t.Fatalf("%v, want a RefusedError", err)
				}
				if diff := cmp.Diff(&status.RefusedError{ID: id, From: from, To: status.Queued}, refused); diff != "" {
					t.Errorf("refusal (-want +got):\n%s", diff)
				}
			}
			r, err := s.Get(t.Context(), id)
			if err != nil || r.ReplayedAs != "" || r.State != from {
				t.Errorf("the record is %s, replayed as %q, %v; want it as it was", r.State, r.ReplayedAs, err)
			}
		}
		for _, to := range []status.State{status.Accepted, status.Expired, status.Deferred} {
			t.Run(string(to), func(t *testing.T) {
				wantRefused(t, sent(t, s, "kinpos", to, "", start).ID, to)
			})
		}
		t.Run("discarded", func(t *testing.T) {
			id := unreadable(t, s, "kinpos", start)
			must(t, s.DropDead(t.Context(), "kinpos", id))
			wantRefused(t, id, status.Rejected)
		})
	})
}

func TestADeadLetterIsReplayedOnce(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		id := unreadable(t, s, "kinpos", start)
		const replayers = 30
		answers := make([]string, replayers)
		var wg sync.WaitGroup
		for i := range replayers {
			wg.Go(func() {
				var err error
				if answers[i], err = s.MarkReplayed(t.Context(), id, fmt.Sprint("new", i), ""); err != nil {
					t.Errorf("MarkReplayed() = %v", err)
				}
			})
		}
		wg.Wait()
		if ids := slices.Compact(answers); len(ids) != 1 || !strings.HasPrefix(ids[0], "new") {
			t.Fatalf("one letter lives on as %v, want one message", ids)
		}
		r, err := s.Get(t.Context(), id)
		if err != nil || r.ReplayedAs != answers[0] || r.State != status.Rejected {
			t.Errorf("the record is %s, replayed as %q, %v; want rejected and %s", r.State, r.ReplayedAs, err, answers[0])
		}
		// A replay that died here must be found again, with all it needs.
		if d, err := s.DeadLetter(t.Context(), id); err != nil || len(d.Payload) == 0 {
			t.Errorf("DeadLetter() in the middle of a replay = %v, payload %q; want the letter", err, d.Payload)
		}
		if diff := cmp.Diff([]string{id}, deadIDs(t, s, "kinpos", status.DeadFilter{})); diff != "" {
			t.Errorf("dead letters in the middle of a replay (-want +got):\n%s", diff)
		}
		must(t, s.DropDead(t.Context(), "kinpos", id))
		must(t, s.DropDead(t.Context(), "kinpos", id))
		if again, err := s.MarkReplayed(t.Context(), id, "another", ""); err != nil || again != answers[0] {
			t.Errorf("MarkReplayed() after the end of a replay = %q, %v; want %s", again, err, answers[0])
		}
		if ids := deadIDs(t, s, "kinpos", status.DeadFilter{}); len(ids) != 0 {
			t.Errorf("after DropDead the letter is still listed: %v", ids)
		}
		if n := rdb.ZCard(t.Context(), "otpq:dead:kinpos").Val(); n != 0 {
			t.Errorf("%d entries in the index, want none", n)
		}
	})
}

func TestTheIndexEndsWithWhatItLists(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		unreadable(t, s, "kinpos", start)
		unreadable(t, s, "kinpos", at(time.Millisecond))
		last := unreadable(t, s, "kinpos", at(keepDead))
		// Both bounds: what died exactly a retention ago has ended.
		if n := rdb.ZCard(t.Context(), "otpq:dead:kinpos").Val(); n != 2 {
			t.Errorf("%d entries in the index, want 2: the first one's retention has ended", n)
		}
		wantTTL(t, rdb, "otpq:dead:kinpos", keepDead+time.Hour)
		record := rdb.PTTL(t.Context(), "otpq:msg:"+last).Val()
		if index := rdb.PTTL(t.Context(), "otpq:dead:kinpos").Val(); index <= record {
			t.Errorf("the index ends in %v, before its last letter in %v", index, record)
		}
		wantNothingForEver(t, rdb)
	})
}

// crash is a Redis client whose process dies before a record is changed.
type crash struct {
	redis.UniversalClient
}

var errCrash = errors.New("the process died")

func (crash) Process(_ context.Context, cmd redis.Cmder) error {
	cmd.SetErr(errCrash)
	return errCrash
}

// TestACrashNeverHidesADeadLetter: the index comes before the record. In the
// other order a process that dies in between leaves a letter nobody finds.
func TestACrashNeverHidesADeadLetter(t *testing.T) {
	rdb := redistest.Start(t).Client()
	whole, dying := newStore(rdb), newStore(crash{rdb})
	for name, die := range map[string]func(r status.Record) error{
		"in Finish": func(r status.Record) error {
			claim(t, whole, r, start)
			return dying.Finish(t.Context(), finishOf(r, 1, status.Rejected, "x", start))
		},
		"in Move": func(r status.Record) error {
			return dying.Move(t.Context(), status.Move{ID: r.ID, Seed: &r, Provider: "kinpos", To: status.Rejected, Now: start})
		},
	} {
		r := newRecord("kinpos")
		if err := die(r); !errors.Is(err, errCrash) {
			t.Fatalf("%s: %v, want the crash before the record is written", name, err)
		}
		if err := rdb.ZScore(t.Context(), "otpq:dead:kinpos", r.ID).Err(); err != nil {
			t.Errorf("%s: the letter is not in the index (%v) when its record is about to be written", name, err)
		}
	}
	if ids := deadIDs(t, whole, "kinpos", status.DeadFilter{}); len(ids) != 0 {
		t.Errorf("letters that never came to be are listed: %v", ids)
	}
}
