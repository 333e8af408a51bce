package status_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
)

// strangers writes n records of others.
func strangers(t *testing.T, s *status.Redis, n int) {
	t.Helper()
	records := make([]status.Record, n)
	for i := range records {
		records[i] = newRecord("kinpos")
		records[i].Who = fmt.Sprintf("other%05d", i)
	}
	for some := range slices.Chunk(records, 1000) {
		must(t, errors.Join(s.CreateAll(t.Context(), some)...))
	}
}

// of writes n records of somebody, a second apart, and returns their ids, the newest
// first.
func of(t *testing.T, s *status.Redis, who string, n int) []string {
	t.Helper()
	var ids []string
	for i := range n {
		r := newRecord("kinpos")
		r.Who, r.CreatedAt = who, at(time.Duration(i)*time.Second)
		must(t, s.Create(t.Context(), r))
		ids = append([]string{r.ID}, ids...)
	}
	return ids
}

func idsOf(records []status.Record) []string {
	ids := []string{}
	for _, r := range records {
		ids = append(ids, r.ID)
	}
	return ids
}

// findAll goes on to the end, and returns how many calls it took.
func findAll(t *testing.T, s *status.Redis, keys int, between func(), prints ...string) (ids []string, looked, calls int) {
	t.Helper()
	found := map[string]bool{}
	for from := ""; ; {
		f, err := s.FindRecipient(t.Context(), prints, from, keys)
		must(t, err)
		for i, r := range f.Records {
			found[r.ID] = true
			if i > 0 && r.CreatedAt.After(f.Records[i-1].CreatedAt) {
				t.Errorf("%s comes after %s, which is older", r.ID, f.Records[i-1].ID)
			}
		}
		looked += f.Looked
		if calls++; calls > 10_000 {
			t.Fatal("the search goes round in circles")
		}
		if from = f.Next; from == "" {
			return slices.Sorted(maps.Keys(found)), looked, calls
		}
		if between != nil {
			between()
		}
	}
}

func TestARecipientsRecordsAreFoundAmong50000(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newStore(server.Client())
	want := of(t, s, "m|ria|\x00\xff!|", 3)
	strangers(t, s, 50_000)
	want = slices.Sorted(slices.Values(append(want, of(t, s, "maria-new!", 4)...)))
	without := newRecord("kinpos") // an older otpq's
	must(t, s.Create(t.Context(), without))
	must(t, server.Client().Set(t.Context(), "otpq:msg:odd", "no record", 0).Err())

	got, looked, calls := findAll(t, s, 1_000_000, nil, "maria-new!", "m|ria|\x00\xff!|", "")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("found (-want +got):\n%s", diff)
	}
	if looked < 50_009 || calls != 1 {
		t.Errorf("%d records were looked at in %d calls, want all 50009 in one", looked, calls)
	}
	// Others come and go while the search goes on, as the hash table grows.
	got, _, calls = findAll(t, s, 2000, func() { strangers(t, s, 1000) }, "maria-new!", "m|ria|\x00\xff!|")
	if diff := cmp.Diff(want, got); diff != "" || calls < 20 {
		t.Errorf("found in %d steps (-want +got):\n%s", calls, diff)
	}
	if got, _, _ = findAll(t, s, 1_000_000, nil, "nobody----"); len(got) != 0 {
		t.Errorf("for nobody there are %q", got)
	}
}

func TestASearchFindsTheNewestFirstAndEndsAtAPage(t *testing.T) {
	t.Parallel()
	s := newStore(redistest.Start(t).Client())
	want := of(t, s, "maria-----", 30)
	f, err := s.FindRecipient(t.Context(), []string{"maria-----"}, "", 1000)
	must(t, err)
	if diff := cmp.Diff(want, idsOf(f.Records)); diff != "" || f.Next != "" || f.Looked != 30 {
		t.Errorf("%d looked at, then %q; found (-want +got):\n%s", f.Looked, f.Next, diff)
	}
	many := slices.Sorted(slices.Values(append(want, of(t, s, "maria-----", 2000)...)))
	f, err = s.FindRecipient(t.Context(), []string{"maria-----"}, "", 1_000_000)
	must(t, err)
	if n := len(f.Records); n < 100 || n > 1000 || f.Next == "" {
		t.Errorf("%d found and then %q, want some hundred and the rest later", n, f.Next)
	}
	if got, _, _ := findAll(t, s, 1_000_000, nil, "maria-----"); !slices.Equal(got, many) {
		t.Errorf("%d found, want all %d", len(got), len(many))
	}
}

func TestASearchCoversAllMastersOfACluster(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	s := newStore(cluster.Client())
	want := slices.Sorted(slices.Values(of(t, s, "maria-----", 40)))
	strangers(t, s, 3000)
	for _, keys := range []int{1, 700, 100_000} {
		got, looked, _ := findAll(t, s, keys, nil, "maria-----")
		if !slices.Equal(got, want) || looked < 3040 {
			t.Errorf("%d keys at a time: %d found of %d, want all 40 of 3040", keys, len(got), looked)
		}
	}
}

func TestASearchThatCannotGoOnSaysSo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Args("--appendonly", "yes"))
	s := newStore(server.Client())
	strangers(t, s, 3000)
	f, err := s.FindRecipient(t.Context(), []string{"maria-----"}, "", 500)
	must(t, err)
	if f.Next == "" {
		t.Fatal("the search is over")
	}
	all, _, _ := strings.Cut(f.Next, ".")
	for _, from := range []string{"x", "1.2", "1.0.0", all + ".0", all + ".1.0", all + ".-1.0", all + ".0.x", f.Next + ".0"} {
		if _, err := s.FindRecipient(t.Context(), nil, from, 500); !errors.Is(err, status.ErrSearchLost) || status.IsUnreachable(err) {
			t.Errorf("FindRecipient from %q = %v, want ErrSearchLost", from, err)
		}
	}
	server.Restart()
	if _, err := s.FindRecipient(t.Context(), nil, f.Next, 500); !errors.Is(err, status.ErrSearchLost) {
		t.Errorf("after a restart: %v, want ErrSearchLost", err)
	}
}

// stopAfter ends a search's ctx when that many SCANs were made.
type stopAfter struct {
	left int
	stop context.CancelFunc
}

func (h *stopAfter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *stopAfter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd.Name() == "scan" {
			if h.left == 0 {
				h.stop()
			}
			h.left--
		}
		return next(ctx, cmd)
	}
}

func (h *stopAfter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// TestASearchAmongOthersKeysGoesOnToo: most of what is in Redis are no records.
func TestASearchAmongOthersKeysGoesOnToo(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	for i := range 3000 {
		must(t, rdb.Set(t.Context(), fmt.Sprintf("another:%d", i), "", 0).Err())
	}
	ctx, cancel := context.WithCancel(t.Context())
	rdb.AddHook(&stopAfter{left: 2, stop: cancel})
	f, err := newStore(rdb).FindRecipient(ctx, []string{"maria-----"}, "", 1_000_000)
	if err != nil || f.Next == "" {
		t.Errorf("FindRecipient() = %+v, %v; want where to go on", f, err)
	}
}

func TestASearchEndsWithItsContextAndGoesOn(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	s := newStore(rdb)
	want := slices.Sorted(slices.Values(of(t, s, "maria-----", 90)))
	strangers(t, s, 5000)
	h := &stopAfter{}
	rdb.AddHook(h)
	var got []string
	from, calls := "", 0
	for {
		ctx, cancel := context.WithCancel(t.Context())
		h.left, h.stop = 2, cancel
		f, err := s.FindRecipient(ctx, []string{"maria-----"}, from, 1_000_000)
		cancel()
		must(t, err)
		got = append(got, idsOf(f.Records)...)
		if calls++; calls > 1000 {
			t.Fatal("the search goes round in circles")
		}
		if from = f.Next; from == "" {
			break
		}
	}
	slices.Sort(got)
	if !slices.Equal(slices.Compact(got), want) || calls < 5 {
		t.Errorf("%d found in %d calls, want 90 in several", len(got), calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	h.left, h.stop = 0, cancel
	if f, err := s.FindRecipient(ctx, nil, "", 1000); err == nil {
		t.Errorf("a search that could look at nothing = %+v, want an error", f)
	}
}
