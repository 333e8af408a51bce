package status_test

import (
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

func endedIDs(t testing.TB, s *status.Redis, f status.EndedFilter) []string {
	t.Helper()
	ids := []string{}
	for m, err := range s.Ended(t.Context(), "kinpos", f) {
		must(t, err)
		ids = append(ids, m.ID)
	}
	return ids
}

// expired is a message that expired behind an open breaker, in two round trips.
func expired(t testing.TB, s *status.Redis, now time.Time) string {
	t.Helper()
	r := newRecord("kinpos")
	must(t, s.Move(t.Context(), status.Move{
		ID: r.ID, Seed: &r, Provider: "kinpos", To: status.Expired, Reason: "deadline", Payload: []byte("sealed " + r.ID), Now: now,
	}))
	return r.ID
}

func TestWhatEndedIsListedByStateReasonAndTime(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		name := map[string]string{}
		for i, m := range []struct {
			name   string
			to     status.State
			reason string
		}{
			{"first", status.Expired, "deadline"},
			{"second", status.Unknown, "timeout"},
			{"not this", status.Accepted, ""},
			{"third", status.Exhausted, "timeout"},
			{"nor this", status.Deferred, "timeout"},
			{"fourth", status.Expired, "maybe_sent"},
			{"fifth", status.Rejected, "recipient_unknown"},
		} {
			r := sent(t, s, "kinpos", m.to, m.reason, at(time.Duration(i)*time.Second))
			name[r.ID] = m.name
		}
		sent(t, s, "medsenior", status.Expired, "deadline", start)
		for about, tt := range map[string]struct {
			filter status.EndedFilter
			want   string
		}{
			"no filter lists all, oldest first":       {status.EndedFilter{}, "first second third fourth fifth"},
			"what a campaign is made from":            {status.EndedFilter{States: []status.State{status.Exhausted, status.Expired, status.Unknown}}, "first second third fourth"},
			"one state":                               {status.EndedFilter{States: []status.State{status.Expired}}, "first fourth"},
			"a state that keeps nothing":              {status.EndedFilter{States: []status.State{status.Accepted}}, ""},
			"such a state with another":               {status.EndedFilter{States: []status.State{status.Canceled, status.Rejected}}, "fifth"},
			"by reason, of several states":            {status.EndedFilter{Reason: "timeout"}, "second third"},
			"by reason and state":                     {status.EndedFilter{Reason: "deadline", States: []status.State{status.Expired}}, "first"},
			"since a moment, which counts":            {status.EndedFilter{Since: at(3 * time.Second)}, "third fourth fifth"},
			"until a moment, which counts":            {status.EndedFilter{Until: at(time.Second)}, "first second"},
			"since and until, in both lists":          {status.EndedFilter{Since: at(time.Second), Until: at(5 * time.Second)}, "second third fourth"},
			"a reason that nothing ended for":         {status.EndedFilter{Reason: "panic"}, ""},
			"since after all":                         {status.EndedFilter{Since: at(time.Hour)}, ""},
			"the same state twice lists nobody twice": {status.EndedFilter{States: []status.State{status.Expired, status.Expired}}, "first fourth"},
		} {
			t.Run(about, func(t *testing.T) {
				var got []string
				for _, id := range endedIDs(t, s, tt.filter) {
					got = append(got, name[id])
				}
				if strings.Join(got, " ") != tt.want {
					t.Errorf("Ended() = %v, want %v", got, tt.want)
				}
			})
		}
		for m, err := range s.Ended(t.Context(), "kinpos", status.EndedFilter{}) {
			must(t, err)
			r, err := s.Get(t.Context(), m.ID)
			if diff := cmp.Diff(r, m.Record); err != nil || diff != "" || string(m.Payload) != "sealed "+m.ID {
				t.Errorf("payload %q, %v (-Get +Ended):\n%s", m.Payload, err, diff)
			}
		}
	})
}

// TestWhatExpiredIsNoDeadLetter: `otpq dead` neither lists, shows nor replays it.
func TestWhatExpiredIsNoDeadLetter(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		id := expired(t, s, start)
		// A late result that was refused puts it on the other list, too, and one that
		// was about to expire may be a dead letter.
		var refused *status.RefusedError
		late := status.Move{ID: id, Provider: "kinpos", To: status.Rejected, Payload: []byte("x"), Now: at(time.Second)}
		if err := s.Move(t.Context(), late); !errors.As(err, &refused) {
			t.Fatalf("a late Move = %v, want a refusal", err)
		}
		letter := unreadable(t, s, "kinpos", at(2*time.Second))
		late.ID, late.To = letter, status.Expired
		if err := s.Move(t.Context(), late); !errors.As(err, &refused) {
			t.Fatalf("a late Move = %v, want a refusal", err)
		}
		for _, key := range []string{"otpq:dead:kinpos", "otpq:expired:kinpos"} {
			if n := rdb.ZCard(t.Context(), key).Val(); n != 2 {
				t.Fatalf("%d entries in %s, want 2 for this test to mean something", n, key)
			}
		}
		if diff := cmp.Diff([]string{letter}, deadIDs(t, s, "kinpos", status.DeadFilter{})); diff != "" {
			t.Errorf("dead letters (-want +got):\n%s", diff)
		}
		if ids := deadIDs(t, s, "kinpos", status.DeadFilter{State: status.Expired}); len(ids) != 0 {
			t.Errorf("dead letters that expired: %v, want none", ids)
		}
		if diff := cmp.Diff([]string{id, letter}, endedIDs(t, s, status.EndedFilter{})); diff != "" {
			t.Errorf("each is listed once, where it belongs (-want +got):\n%s", diff)
		}
		_, one := s.DeadLetter(t.Context(), id)
		_, two := s.MarkReplayed(t.Context(), id, "new", "")
		for _, err := range []error{one, two} {
			if !errors.As(err, &refused) || refused.From != status.Expired {
				t.Errorf("asked for as a dead letter: %v, want a refusal", err)
			}
		}
	})
}

// TestWhatExpiredIsKeptAsLongAsItsRecord and not as long as a dead letter: there may
// be millions.
func TestWhatExpiredIsKeptAsLongAsItsRecord(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		letter := unreadable(t, s, "kinpos", start)
		expired(t, s, start)
		second := expired(t, s, at(time.Second))
		last := sent(t, s, "kinpos", status.Expired, "deadline", at(keepRecords)).ID // which ends the first
		wantTTL(t, rdb, "otpq:msg:"+last, keepRecords)
		wantTTL(t, rdb, "otpq:expired:kinpos", keepRecords+time.Hour)
		if diff := cmp.Diff([]string{second, last}, rdb.ZRange(t.Context(), "otpq:expired:kinpos", 0, -1).Val()); diff != "" {
			t.Errorf("the index (-want +got):\n%s", diff)
		}
		if ids := deadIDs(t, s, "kinpos", status.DeadFilter{}); !slices.Equal(ids, []string{letter}) {
			t.Errorf("dead letters = %v, want %s, whose time is longer", ids, letter)
		}
		wantTTL(t, rdb, "otpq:dead:kinpos", keepDead+time.Hour)
		wantNothingForEver(t, rdb)
	})
}

// TestManyThatEndedAreReadPageByPage: after an outage hundreds expire within a
// millisecond, while others die.
func TestManyThatEndedAreReadPageByPage(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		want := map[string]bool{}
		for i := range 600 { // all in one millisecond, more than two pages
			want[expired(t, s, start)] = true
			if i%2 == 0 {
				want[unreadable(t, s, "kinpos", start)] = true
			}
		}
		for i := range 300 {
			want[expired(t, s, at(time.Duration(1+i/10)*time.Millisecond))] = true
		}
		got, last := map[string]bool{}, time.Time{}
		for m, err := range s.Ended(t.Context(), "kinpos", status.EndedFilter{}) {
			must(t, err)
			if got[m.ID] || m.UpdatedAt.Before(last) {
				t.Fatalf("%s is listed twice, or too late", m.ID)
			}
			got[m.ID], last = true, m.UpdatedAt
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("listed (-want +got):\n%s", diff)
		}
		// As a campaign does it: what was read is taken off while the rest is read.
		dropped := 0
		for m, err := range s.Ended(t.Context(), "kinpos", status.EndedFilter{}) {
			must(t, err)
			must(t, errors.Join(s.DropEnded(t.Context(), "kinpos", []string{m.ID})...))
			dropped++
		}
		if left := endedIDs(t, s, status.EndedFilter{}); dropped != len(want) || len(left) != 0 {
			t.Errorf("%d were dropped and %d are left, want %d and none", dropped, len(left), len(want))
		}
		for _, key := range []string{"otpq:dead:kinpos", "otpq:expired:kinpos"} {
			if n := rdb.ZCard(t.Context(), key).Val(); n != 0 {
				t.Errorf("%d entries are left in %s", n, key)
			}
		}
	})
}

func TestOneMessageTakesAnothersPlace(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		var ids []string
		for range 100 {
			for _, to := range status.EndedStates() {
				ids = append(ids, sent(t, s, "kinpos", to, "timeout", start).ID)
			}
		}
		// Several mark the same messages at once, as two campaigns and an operator would.
		const markers = 4
		answers := make([][]string, markers)
		var wg sync.WaitGroup
		for i := range markers {
			wg.Go(func() {
				resends := make([]status.Resend, len(ids))
				for j, id := range ids {
					resends[j] = status.Resend{ID: id, NewID: fmt.Sprintf("new-%d-%d", i, j)}
				}
				var errs []error
				answers[i], errs = s.MarkResent(t.Context(), resends)
				if err := errors.Join(errs...); err != nil {
					t.Errorf("MarkResent() = %v", err)
				}
			})
		}
		wg.Wait()
		for i, as := range answers {
			if diff := cmp.Diff(answers[0], as); diff != "" {
				t.Fatalf("marker %d was told other ids (-first +it):\n%s", i, diff)
			}
		}
		for j, as := range answers[0] {
			if r, err := s.Get(t.Context(), ids[j]); err != nil || r.ReplayedAs != as || !strings.HasSuffix(as, fmt.Sprintf("-%d", j)) {
				t.Fatalf("message %d is replayed as %q, %v; its markers were told %q", j, r.ReplayedAs, err, as)
			}
		}
		// Who marks and dies finds them again, and is told the same.
		if got := endedIDs(t, s, status.EndedFilter{}); len(got) != len(ids) {
			t.Errorf("%d are listed before they are dropped, want %d", len(got), len(ids))
		}
		must(t, rdb.ScriptFlush(t.Context()).Err())
		for range 2 {
			must(t, errors.Join(s.DropEnded(t.Context(), "kinpos", ids)...))
		}
		as, errs := s.MarkResent(t.Context(), []status.Resend{{ID: ids[3], NewID: "late"}, {ID: ids[1], NewID: "instead", Replace: answers[0][1]}})
		if errs[0] != nil || as[0] != answers[0][3] {
			t.Errorf("marked again after its end: %q, %v; want %q", as[0], errs[0], answers[0][3])
		}
		if errs[1] == nil {
			t.Errorf("replaced by %q after its end, want a refusal: its payload is gone", as[1])
		}
		if got := endedIDs(t, s, status.EndedFilter{}); len(got) != 0 {
			t.Errorf("%d are listed after they were dropped", len(got))
		}
		wantTTL(t, rdb, "otpq:msg:"+ids[0], keepRecords) // a dead letter no longer
	})
}

func TestAMarkSaysWhyItIsNotMade(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		accepted, waits := sent(t, s, "kinpos", status.Accepted, "", start).ID, sent(t, s, "kinpos", status.Deferred, "timeout", start).ID
		given, first := expired(t, s, start), expired(t, s, start)
		must(t, errors.Join(s.DropEnded(t.Context(), "kinpos", []string{given})...))
		bad := tasks.NewID()
		must(t, rdb.Set(t.Context(), "otpq:msg:"+bad, "no hash", time.Hour).Err())

		resends := []status.Resend{
			{ID: "none", NewID: "n"}, {ID: accepted, NewID: "n"}, {ID: bad, NewID: "n"}, {ID: waits, NewID: "n"},
			{ID: given, NewID: "n"}, {ID: first, NewID: "n"}, {ID: first, NewID: "m"}, {ID: first, NewID: "o", Replace: "n"},
		}
		as, errs := s.MarkResent(t.Context(), resends)
		if diff := cmp.Diff([]string{"", "", "", "", "", "n", "n", "o"}, as); diff != "" {
			t.Errorf("MarkResent() (-want +got):\n%s", diff)
		}
		if !errors.Is(errs[0], status.ErrNotFound) || !status.IsUnreachable(errs[2]) || errors.Join(errs[5:]...) != nil {
			t.Errorf("errors = %v", errs)
		}
		for i, from := range map[int]status.State{1: status.Accepted, 3: status.Deferred, 4: status.Expired} {
			var refused *status.RefusedError
			if !errors.As(errs[i], &refused) || refused.From != from || refused.ID != resends[i].ID {
				t.Errorf("%s: %v, want a refusal", from, errs[i])
			}
		}
		errs = s.DropEnded(t.Context(), "kinpos", []string{"none", bad, first})
		if errs[0] != nil || errs[1] == nil || errs[2] != nil {
			t.Errorf("DropEnded() = %v, want an error for the second alone", errs)
		}
		if ids := endedIDs(t, s, status.EndedFilter{}); len(ids) != 0 {
			t.Errorf("listed after all were dropped: %v", ids)
		}
	})
}

func TestNothingIsListedOrMarkedWithoutRedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newStore(server.Client())
	id := expired(t, s, start)
	server.Stop()
	n := 0
	for _, err := range s.Ended(t.Context(), "kinpos", status.EndedFilter{}) {
		if n++; !status.IsUnreachable(err) || n > 1 {
			t.Errorf("Ended() yielded %v as number %d, want one error", err, n)
		}
	}
	as, errs := s.MarkResent(t.Context(), []status.Resend{{ID: id, NewID: "n"}})
	if n != 1 || as[0] != "" || !status.IsUnreachable(errs[0]) {
		t.Errorf("%d errors of Ended; MarkResent() = %q, %v, want an error", n, as, errs)
	}
	if errs := s.DropEnded(t.Context(), "kinpos", []string{id}); !status.IsUnreachable(errs[0]) {
		t.Errorf("DropEnded() = %v, want an error", errs)
	}
	r := newRecord("kinpos")
	if err := s.Move(t.Context(), status.Move{ID: r.ID, Seed: &r, Provider: "kinpos", To: status.Expired, Now: start}); !status.IsUnreachable(err) {
		t.Errorf("Move() = %v, want an error", err)
	}
}

// TestAllThatEndAtOnceAreListed: those that end at the same time are indexed together.
func TestAllThatEndAtOnceAreListed(t *testing.T) {
	rdb := redistest.Start(t).Client()
	s := newStore(rdb)
	const n = 400
	var wg sync.WaitGroup
	ids, errs := make([]string, n), make([]error, n)
	before := readsOf(t, rdb)
	for i := range n {
		r := newRecord("kinpos")
		ids[i] = r.ID
		to := []status.State{status.Expired, status.Rejected, status.Expired}[i%3]
		wg.Go(func() {
			errs[i] = s.Move(t.Context(), status.Move{
				ID: r.ID, Seed: &r, Provider: "kinpos", To: to, Payload: []byte("x"), Now: at(time.Duration(i) * time.Second),
			})
		})
	}
	wg.Wait()
	must(t, errors.Join(errs...))
	if took := readsOf(t, rdb) - before; took > n/2 {
		t.Errorf("the ends of %d messages at once took %d reads of Redis, want few", n, took)
	}
	if diff := cmp.Diff(ids, endedIDs(t, s, status.EndedFilter{})); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
}

// TestWhatCannotBeListedDoesNotEnd: nobody would find it. Others are not held up.
func TestWhatCannotBeListedDoesNotEnd(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		s := newStore(rdb)
		must(t, rdb.Set(t.Context(), "otpq:expired:kinpos", "no index", time.Hour).Err())
		const n = 60
		var wg sync.WaitGroup
		for i := range n {
			r, to := newRecord("kinpos"), []status.State{status.Expired, status.Rejected}[i%2]
			must(t, s.Create(t.Context(), r))
			wg.Go(func() {
				err := s.Move(t.Context(), status.Move{ID: r.ID, Provider: "kinpos", To: to, Payload: []byte("x"), Now: start})
				got, getErr := s.Get(t.Context(), r.ID)
				if listed := err == nil && got.State == to; listed != (to == status.Rejected) || getErr != nil {
					t.Errorf("Move() to %s = %v, and it is %s, %v", to, err, got.State, getErr)
				}
			})
		}
		wg.Wait()
		if ids := deadIDs(t, s, "kinpos", status.DeadFilter{}); len(ids) != n/2 {
			t.Errorf("%d dead letters, want %d", len(ids), n/2)
		}
	})
}

// TestACrashNeverHidesWhatExpired: as for dead letters, the index comes first.
func TestACrashNeverHidesWhatExpired(t *testing.T) {
	rdb := redistest.Start(t).Client()
	whole, dying := newStore(rdb), newStore(crash{rdb})
	finished, moved := newRecord("kinpos"), newRecord("kinpos")
	claim(t, whole, finished, start)
	for _, err := range []error{
		dying.Finish(t.Context(), finishOf(finished, 1, status.Expired, "x", start)),
		dying.Move(t.Context(), status.Move{ID: moved.ID, Seed: &moved, Provider: "kinpos", To: status.Expired, Now: start}),
	} {
		if !errors.Is(err, errCrash) {
			t.Fatalf("%v, want the crash before the record is written", err)
		}
	}
	if n := rdb.ZCard(t.Context(), "otpq:expired:kinpos").Val(); n != 2 {
		t.Errorf("%d entries in the index when the records are about to be written, want 2", n)
	}
	if ids := endedIDs(t, whole, status.EndedFilter{}); len(ids) != 0 {
		t.Errorf("what never ended is listed: %v", ids)
	}
}

func TestWhatMayHaveBeenSent(t *testing.T) {
	outcomes := func(all ...string) (attempts []status.Attempt) {
		for i, o := range all {
			attempts = append(attempts, status.Attempt{Number: i + 1, Outcome: o})
		}
		return attempts
	}
	for about, tt := range map[string]struct {
		record status.Record
		want   bool
	}{
		"it expired, and nothing was asked":              {status.Record{State: status.Expired, Reason: "deadline"}, false},
		"the provider refused":                           {status.Record{State: status.Rejected, Attempts: outcomes("retry_later", "rejected")}, false},
		"nobody knows":                                   {status.Record{State: status.Unknown}, true},
		"an earlier attempt was lost":                    {status.Record{State: status.Exhausted, Attempts: outcomes("ambiguous", "retry_later")}, true},
		"the record says so":                             {status.Record{State: status.Exhausted, PossibleDuplicate: true}, true},
		"it expired after an attempt that was lost":      {status.Record{State: status.Expired, Reason: status.ReasonMaybeSent}, true},
		"its end was written before the provider's word": {status.Record{State: status.Expired, Attempts: outcomes("accepted")}, true},
	} {
		if got := tt.record.MaybeSent(); got != tt.want {
			t.Errorf("%s: MaybeSent() = %v, want %v", about, got, tt.want)
		}
	}
}
