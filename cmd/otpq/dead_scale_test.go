package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// graves is how many dead letters there are in one queue: five times what asynq's
// own archive would keep.
const graves = 50_000

// cemetery is one queue's dead letters, a fifth of them unknown, a tenth exhausted
// and the rest rejected, that died one after another, some in the same millisecond.
type cemetery struct {
	*rig
	ids   []string
	first time.Time // when the first of them died
}

// died is when the i-th letter did.
func (c *cemetery) died(i int) time.Time { return c.first.Add(time.Duration(i/3) * time.Millisecond) }

func fateOf(i int) (state status.State, reason, outcome string) {
	switch i % 10 {
	case 0, 1:
		return status.Unknown, "connection_lost", "ambiguous"
	case 2:
		return status.Exhausted, "provider_error", "retry_later"
	}
	return status.Rejected, "recipient_unknown", "rejected"
}

// bury makes n dead letters as a worker would.
func bury(t *testing.T, r *rig, n int) *cemetery {
	t.Helper()
	return finishMany(t, r, n, fateOf)
}

// finishMany brings n messages to the ends that fate says.
func finishMany(t *testing.T, r *rig, n int, fate func(i int) (state status.State, reason, outcome string)) *cemetery {
	t.Helper()
	c := &cemetery{rig: r, ids: make([]string, n), first: time.Now().Add(-time.Hour).Truncate(time.Second)}
	ring, err := tasks.NewKeyring(r.key)
	if err != nil {
		t.Fatal(err)
	}
	c.work(n, func(ctx context.Context, store *status.Redis, i int) error {
		now := c.died(i)
		m := tasks.Message{
			ID: tasks.NewID(), Provider: "unimedbh", Lane: tasks.Interactive, Request: json.RawMessage(request),
			CreatedAt: now.Add(-time.Second), NotAfter: now.Add(5 * time.Minute),
		}
		c.ids[i] = m.ID
		payload, err := tasks.Encode(ring, m)
		if err != nil {
			return err
		}
		state, reason, outcome := fate(i)
		return finish(ctx, store, m, state, reason, outcome, payload, now)
	})
	return c
}

// finish brings a message to its end with one attempt.
func finish(ctx context.Context, store *status.Redis, m tasks.Message, state status.State, reason, outcome string, payload []byte, now time.Time) error {
	seed := status.NewRecord(m, "m***a@example.com")
	seed.Who = seed.ID[len(seed.ID)-10:] // as long as a recipient's print
	_, err := store.Claim(ctx, status.Claim{Seed: seed, Token: "w", Now: now, AbandonedAfter: time.Minute})
	if err != nil {
		return err
	}
	return store.Finish(ctx, status.Finish{
		ID: m.ID, Provider: m.Provider, Token: "w", State: state, Reason: reason, Payload: payload, Now: now,
		Attempt: status.Attempt{Number: 1, StartedAt: now, DurationMS: 412.5, Outcome: outcome, Reason: reason, HTTPStatus: 404},
	})
}

// work calls do for 0 to n-1, many at a time.
func (c *cemetery) work(n int, do func(ctx context.Context, store *status.Redis, i int) error) {
	c.t.Helper()
	const at = 256
	rdb := redis.NewClient(&redis.Options{Addr: c.redis.Addr(), PoolSize: at, ContextTimeoutEnabled: true})
	defer rdb.Close()
	pipe, err := rdb.AutoPipeline() // what many ask at once goes out together
	if err != nil {
		c.t.Fatal(err)
	}
	defer pipe.Close()
	store := status.NewRedis(pipe, status.Retention{})
	var (
		next atomic.Int64
		wait sync.WaitGroup
	)
	for range at {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := do(c.t.Context(), store, i); err != nil {
					c.t.Error(err)
					return
				}
			}
		})
	}
	if wait.Wait(); c.t.Failed() {
		c.t.FailNow()
	}
}

// usedMemory is what Redis says it holds, in bytes.
func (r *rig) usedMemory() int {
	r.t.Helper()
	info := r.rdb.InfoMap(r.t.Context(), "memory")
	if err := info.Err(); err != nil {
		r.t.Fatal(err)
	}
	n, err := strconv.Atoi(info.Val()["Memory"]["used_memory"])
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

// lineCounter counts what is written to it, and forgets it.
type lineCounter struct {
	lines  int
	every  int
	called func(lines int)
}

func (w *lineCounter) Write(p []byte) (int, error) {
	for range bytes.Count(p, []byte("\n")) {
		if w.lines++; w.every > 0 && w.lines%w.every == 0 {
			w.called(w.lines)
		}
	}
	return len(p), nil
}

// command runs a command that may take its time.
func (r *rig) long(ctx context.Context, out io.Writer, args ...string) (code int, said string) {
	r.t.Helper()
	var errs bytes.Buffer
	code = run(ctx, args, streams{in: strings.NewReader(""), out: out, err: &errs}, []string{"OTPQ_CONFIG=" + r.file})
	return code, errs.String()
}

func (r *rig) wantLong(out io.Writer, said string, args ...string) {
	r.t.Helper()
	if code, got := r.long(r.t.Context(), out, args...); code != exitDone || !strings.Contains(got, said) {
		r.t.Fatalf("otpq %q ended with %d and said %q, want %q", args, code, got, said)
	}
}

// changes is how often Redis was written to.
func (r *rig) changes() string {
	r.t.Helper()
	info := r.rdb.InfoMap(r.t.Context(), "persistence")
	if err := info.Err(); err != nil {
		r.t.Fatal(err)
	}
	return info.Val()["Persistence"]["rdb_changes_since_last_save"]
}

// What the README says of memory.
func TestWhatRedisHoldsForAMessage(t *testing.T) {
	r := newRig(t)
	const n = 10_000
	empty := r.usedMemory()
	finishMany(t, r, n, func(int) (status.State, string, string) { return status.Accepted, "", "accepted" })
	finished := r.usedMemory()
	bury(t, r, n)
	buried := r.usedMemory()
	finishMany(t, r, n, func(int) (status.State, string, string) { return status.Expired, "deadline", "retry_later" })
	record, letter, late := (finished-empty)/n, (buried-finished)/n, (r.usedMemory()-buried)/n
	t.Logf("%d bytes for the record of a finished message, %d for a dead letter, %d for one that expired", record, letter, late)
	if record > 500 || letter > 1700 || late > 1700 {
		t.Errorf("Redis holds %d bytes for the record of a finished message, %d for a dead letter and %d for one that expired: more than the README says",
			record, letter, late)
	}
}

// timed says how long a part of the test took; it is no condition.
func timed(t *testing.T, what string, do func()) {
	t.Helper()
	began := time.Now()
	do()
	t.Logf("%s: %s", what, time.Since(began).Round(time.Millisecond))
}

func TestFiftyThousandDeadLetters(t *testing.T) {
	r := newRig(t)
	var c *cemetery
	timed(t, "burying", func() { c = bury(t, r, graves) })
	c.areListedInLittleMemory()
	c.areFiltered()
	before := r.changes()
	for verb, done := range map[string]string{"replay": "replayed", "discard": "discarded"} {
		out := &lineCounter{}
		c.wantLong(out, fmt.Sprint(graves, " would be ", done, ", 0 failed"), "dead", verb, "--all", "--dry-run")
		if out.lines != graves {
			t.Errorf("dead %s --dry-run: %d lines, want %d", verb, out.lines, graves)
		}
	}
	if after := r.changes(); after != before {
		t.Errorf("Redis was changed %s times by dry runs, from %s", after, before)
	}

	crashed := c.crash()
	c.areReplayedOnce(crashed)

	const others = 5_000
	timed(t, "burying", func() { bury(t, r, others) })
	timed(t, "discarding", func() { c.wantLong(io.Discard, fmt.Sprint(others, " discarded, 0 failed"), "dead", "discard", "--all") })
	c.wantLong(io.Discard, "0 dead letters", "dead", "list")
}

// areListedInLittleMemory lists them all. Together they are some 60 MiB.
func (c *cemetery) areListedInLittleMemory() {
	c.t.Helper()
	least, most := uint64(math.MaxUint64), uint64(0)
	list := &lineCounter{every: graves / 10, called: func(int) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		least, most = min(least, m.HeapAlloc), max(most, m.HeapAlloc)
	}}
	timed(c.t, "listing as JSON", func() { c.wantLong(list, "", "dead", "list", "--json") })
	if list.lines != graves {
		c.t.Errorf("dead list --json: %d lines, want %d", list.lines, graves)
	}
	if most-least > 4<<20 {
		c.t.Errorf("the heap grew by %d KiB within a list, want less than 4 MiB", (most-least)>>10)
	}
	timed(c.t, "listing for people", func() { c.wantLong(io.Discard, fmt.Sprint(graves, " dead letters"), "dead", "list") })
}

func (c *cemetery) areFiltered() {
	c.t.Helper()
	from, to := graves/4, graves/2
	within, exhausted := 0, 0
	for i := range graves {
		if c.died(i).Before(c.died(from)) || c.died(i).After(c.died(to)) {
			continue
		}
		within++
		if state, _, _ := fateOf(i); state == status.Exhausted {
			exhausted++
		}
	}
	window := []string{"--since", c.died(from).Format(time.RFC3339Nano), "--until", c.died(to).Format(time.RFC3339Nano)}
	for _, f := range []struct {
		flags []string
		want  int
	}{
		{[]string{"--state", "unknown"}, graves / 5},
		{[]string{"--reason", "provider_error"}, graves / 10},
		{[]string{"--state", "rejected", "--reason", "provider_error"}, 0},
		{[]string{"--provider", "kinpos"}, 0},
		{[]string{"--limit", fmt.Sprint(graves / 3)}, graves / 3},
		{window, within},
		{append(window, "--state", "exhausted"), exhausted},
	} {
		out := &lineCounter{}
		c.wantLong(out, fmt.Sprint(f.want, " would be discarded"), append([]string{"dead", "discard", "--dry-run"}, f.flags...)...)
		if out.lines != f.want {
			c.t.Errorf("%q: %d lines, want %d", f.flags, out.lines, f.want)
		}
	}
}

// crash leaves what replays leave that die with a letter in hand: some have chosen
// the new message's id, some have written its record too. It returns the new ids by
// the old.
func (c *cemetery) crash() map[string]string {
	c.t.Helper()
	ctx, left := c.t.Context(), map[string]string{}
	for i := 0; i < graves; i += graves / 100 {
		old, own := c.ids[i], tasks.NewID()
		if _, err := c.store.MarkReplayed(ctx, old, own, ""); err != nil {
			c.t.Fatal(err)
		}
		left[old] = own
		if i%2 == 0 {
			continue
		}
		now := time.Now()
		r := status.NewRecord(tasks.Message{
			ID: own, Provider: "unimedbh", Lane: tasks.Interactive, CreatedAt: now, NotAfter: now.Add(time.Hour), ReplayOf: old,
		}, "")
		state, _, _ := fateOf(i)
		r.PossibleDuplicate = state == status.Unknown
		if err := c.store.Create(ctx, r); err != nil {
			c.t.Fatal(err)
		}
	}
	return left
}

// areReplayedOnce replays them all, though the first command is interrupted.
func (c *cemetery) areReplayedOnce(crashed map[string]string) {
	c.t.Helper()
	args := []string{"dead", "replay", "--all", "--json", "--valid-for", "2h", "--rate", "1000000"}
	ctx, interrupt := context.WithCancel(c.t.Context())
	defer interrupt()
	first := &lineCounter{every: graves * 2 / 5, called: func(int) { interrupt() }}
	var said string
	timed(c.t, "replaying the first part", func() {
		var code int
		if code, said = c.long(ctx, first, args...); code != exitFailed {
			c.t.Fatalf("an interrupted replay ended with %d and said %q", code, said)
		}
	})
	if !strings.Contains(said, fmt.Sprint(first.lines, " replayed, 0 failed")) || !strings.Contains(said, "interrupted") {
		c.t.Errorf("an interrupted replay of %d said %q", first.lines, said)
	}
	rest := graves - first.lines
	if rest <= 0 {
		c.t.Fatalf("nothing was left when the replay was interrupted")
	}
	c.wantLong(io.Discard, fmt.Sprint(rest, " dead letters"), "dead", "list") // left alone, as it says
	timed(c.t, fmt.Sprintf("replaying the other %d", rest), func() {
		c.wantLong(io.Discard, fmt.Sprint(rest, " replayed, 0 failed"), args...)
	})
	c.wantLong(io.Discard, "0 dead letters", "dead", "list")
	c.wantLong(io.Discard, "0 replayed, 0 failed", args...)

	queued, err := c.rdb.LRange(c.t.Context(), "asynq:{"+tasks.QueueName("unimedbh", tasks.Interactive)+"}:pending", 0, -1).Result()
	if err != nil {
		c.t.Fatal(err)
	}
	unseen := make(map[string]bool, graves)
	for _, id := range queued {
		unseen[id] = true
	}
	if len(queued) != graves || len(unseen) != graves {
		c.t.Fatalf("%d messages of %d ids are queued, want %d", len(queued), len(unseen), graves)
	}
	var mu sync.Mutex
	c.work(graves, func(ctx context.Context, store *status.Redis, i int) error {
		old, err := store.Get(ctx, c.ids[i])
		if err != nil {
			return err
		}
		r, err := store.Get(ctx, old.ReplayedAs)
		if err != nil {
			return err
		}
		mu.Lock()
		fresh := unseen[r.ID]
		delete(unseen, r.ID)
		mu.Unlock()
		if want := crashed[old.ID]; want != "" && want != r.ID {
			return fmt.Errorf("the replay of %s that died is %s, want %s", old.ID, r.ID, want)
		}
		state, _, _ := fateOf(i)
		if !fresh || r.ReplayOf != old.ID || r.State != status.Queued || r.PossibleDuplicate != (state == status.Unknown) ||
			time.Until(r.NotAfter) < 30*time.Minute || len(r.Attempts) != 0 {
			return fmt.Errorf("letter %d: record = %+v, queued %v; want a new message for %s", i, r, fresh, old.ID)
		}
		return nil
	})
	if len(unseen) > 0 {
		c.t.Errorf("%d messages are queued that no letter is linked to", len(unseen))
	}
}
