package status_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
)

// TestAFirstClaimIsThatOfAClaim has one of two messages claimed by the function that
// runs where tasks are taken, and the other one by Claim.
func TestAFirstClaimIsThatOfAClaim(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	s := newStore(rdb)
	ride := rider(t, rdb, s)
	asClaimed, asRidden := newRecord("unimedbh"), newRecord("unimedbh")
	for _, r := range []status.Record{asClaimed, asRidden} {
		must(t, s.Create(t.Context(), r))
	}
	claim(t, s, asClaimed, at(time.Second))
	if got := ride(asRidden.ID, at(time.Second)); got != "1" {
		t.Fatalf("the function answered %q, want that it claimed", got)
	}
	fields := func(id string) map[string]string {
		f := rdb.HGetAll(t.Context(), "otpq:msg:"+id).Val()
		if f["claim"] != token {
			t.Errorf("the claim is %q, want %q", f["claim"], token)
		}
		return f
	}
	if diff := cmp.Diff(fields(asClaimed.ID), fields(asRidden.ID)); diff != "" {
		t.Errorf("record (-claimed +claimed where it was taken):\n%s", diff)
	}
	must(t, s.Finish(t.Context(), finishOf(asRidden, 1, status.Accepted, "", at(2*time.Second))))
}

// TestWhatIsNotToBeSentAtOnceIsNotClaimed has the function meet all that Claim is for.
func TestWhatIsNotToBeSentAtOnceIsNotClaimed(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	s := newStore(rdb)
	ride := rider(t, rdb, s)
	made := func(change func(*status.Record)) string {
		r := newRecord("unimedbh")
		change(&r)
		must(t, s.Create(t.Context(), r))
		return r.ID
	}
	retried := newRecord("unimedbh")
	must(t, s.Create(t.Context(), retried))
	claim(t, s, retried, at(time.Second))
	must(t, s.Finish(t.Context(), finishOf(retried, 1, status.Deferred, "timeout", at(2*time.Second))))
	busy := newRecord("unimedbh")
	must(t, s.Create(t.Context(), busy))
	claim(t, s, busy, at(time.Second))
	canceled := made(func(*status.Record) {})
	must(t, status.Cancel(t.Context(), s, canceled, at(time.Second)))
	must(t, rdb.RPush(t.Context(), "otpq:msg:list", "x").Err())
	now := at(time.Minute)
	for name, id := range map[string]string{
		"a retry":                         retried.ID,
		"what another has claimed":        busy.ID,
		"what was canceled":               canceled,
		"what was for later":              made(func(r *status.Record) { r.NextAttemptAt = at(30 * time.Second) }),
		"what is too late":                made(func(r *status.Record) { r.NotAfter = now }),
		"what has no record":              "none",
		"what is no record":               "list",
		"a task that was taken over once": made(func(*status.Record) {}) + "~1",
	} {
		before := rdb.Dump(t.Context(), "otpq:msg:"+id).Val()
		if got := ride(id, now); got != "" {
			t.Errorf("%s: the function answered %q, want that it did nothing", name, got)
		}
		if after := rdb.Dump(t.Context(), "otpq:msg:"+id).Val(); after != before {
			t.Errorf("%s was changed", name)
		}
	}
}

// rider calls the function that claims first attempts.
func rider(t *testing.T, rdb redis.UniversalClient, s status.FirstClaims) func(id string, now time.Time) string {
	script := redis.NewScript(s.FirstClaimLua() + "return ride(ARGV[1], ARGV[2], {unpack(ARGV, 3)})")
	return func(id string, now time.Time) string {
		t.Helper()
		got, err := script.Run(t.Context(), rdb, nil, append([]any{id, now.UnixMilli()}, s.FirstClaim(token)...)...).Text()
		must(t, err)
		return got
	}
}

func TestOnAClusterNothingIsClaimedWhereItIsTaken(t *testing.T) {
	t.Parallel()
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{"127.0.0.1:1"}})
	defer rdb.Close()
	if told := newStore(rdb).FirstClaim(token); told != nil {
		t.Errorf("the function is told %q, want it not to be run", told)
	}
}
