package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// keyRow is a line of the table "What is in Redis" of docs/architecture.md.
type keyRow struct {
	pattern string
	kind    string // Redis's type
	lasts   bool   // it has no time to live
	is      *regexp.Regexp
}

// placeholders are what the words in capitals of a pattern stand for.
var placeholders = map[string]string{
	"ID": `[A-Za-z0-9_-]+`, "TASK": `[A-Za-z0-9_~-]+`, "PROVIDER": `[a-z0-9-]+`, "QUEUE": `otpq:[a-z0-9-]+:(interactive|bulk)(:[0-9]+)?`, "WORKER": `[0-9a-f-]{36}`,
	"SERVER": `[^{}]+:[0-9]+:[0-9a-f-]{36}`, "DATE": `[0-9]{4}-[0-9]{2}-[0-9]{2}`, "XX": `[0-9a-f]{2}`, "HASH": `[0-9a-f]{40}`,
	"CAMPAIGN": `[A-Za-z0-9_.-]+`, "N": `[0-9]+`,
}

var tableLine = regexp.MustCompile("(?m)^\\| `([a-z]+:[^`]*)` \\| (\\w+) \\|.*\\| ([^|]+) \\| [^|]+ \\|$")

// keyTable reads the table.
func keyTable(t *testing.T) []keyRow {
	t.Helper()
	page, err := os.ReadFile("../../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []keyRow
	capitals := regexp.MustCompile(`[A-Z]+`)
	for _, m := range tableLine.FindAllStringSubmatch(string(page), -1) {
		expr := capitals.ReplaceAllStringFunc(regexp.QuoteMeta(m[1]), func(word string) string {
			if placeholders[word] == "" {
				t.Errorf("%q: it is not said what %s stands for", m[1], word)
			}
			return placeholders[word]
		})
		rows = append(rows, keyRow{m[1], m[2], strings.HasPrefix(m[3], "for good"), regexp.MustCompile("^" + expr + "$")})
	}
	if len(rows) < 20 {
		t.Fatalf("the table has %d lines: its form has changed", len(rows))
	}
	return rows
}

// rowOf is the line of a key. Each key has one.
func rowOf(rows []keyRow, key string) (keyRow, error) {
	var found []keyRow
	for _, r := range rows {
		if r.is.MatchString(key) {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		return keyRow{}, fmt.Errorf("key %s is in %d lines of the table, want one", key, len(found))
	}
	return found[0], nil
}

// kinds are the types that commands make, by what Redis tells of them.
var kinds = map[string]string{
	"set": "string", "incrby": "string", "hset": "hash", "hincrby": "hash", "lpush": "list", "rpush": "list", "lmove": "list",
	"zadd": "zset", "zincr": "zset", "sadd": "set",
}

// written notes every key that is written, whoever does it and however soon it is
// gone, with its type. Call what it returns at the end.
func (r *rig) written() func() map[string]string {
	r.t.Helper()
	if err := r.rdb.ConfigSet(r.t.Context(), "notify-keyspace-events", "EA").Err(); err != nil {
		r.t.Fatal(err)
	}
	events := r.rdb.PSubscribe(r.t.Context(), "__keyevent@0__:*")
	if _, err := events.Receive(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	var mu sync.Mutex
	seen := map[string]string{}
	go func() {
		for e := range events.Channel() {
			_, command, _ := strings.Cut(e.Channel, ":")
			mu.Lock()
			if kind := kinds[command]; kind != "" || seen[e.Payload] == "" {
				seen[e.Payload] = kind
			}
			mu.Unlock()
		}
	}()
	r.t.Cleanup(func() { _ = events.Close() })
	return func() map[string]string {
		r.t.Helper()
		const last = "the last of all"
		waitFor(r.t, "Redis's last word", func() bool {
			r.rdb.Set(r.t.Context(), last, 1, time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			_, told := seen[last]
			return told
		})
		mu.Lock()
		defer mu.Unlock()
		delete(seen, last)
		return maps.Clone(seen)
	}
}

// TestEveryKeyOfRedisIsInTheTable lives a whole life, of messages, a dead worker, a
// campaign and what somebody did with asynq's tools, and compares each key that was
// written in it with the table of docs/architecture.md, and the table with them.
func TestEveryKeyOfRedisIsInTheTable(t *testing.T) {
	t.Parallel()
	r := newRig(t, redistest.Args("--timeout", "0"))
	rows := keyTable(t)
	written := r.written()
	costs := map[string]int64{}
	r.liveAWholeLife(func() { r.weigh(rows, costs) })
	for _, row := range rows {
		t.Logf("%-42s %6d bytes", row.pattern, costs[row.pattern])
	}

	met := map[string]bool{}
	for key, kind := range written() {
		row, err := rowOf(rows, key)
		switch {
		case err != nil:
			t.Error(err)
			continue
		case kind != "" && kind != row.kind:
			t.Errorf("%s is a %s, and the table says that %s is a %s", key, kind, row.pattern, row.kind)
		}
		met[row.pattern] = true
	}
	for _, row := range rows {
		if !met[row.pattern] {
			t.Errorf("no key like %s was written: does the table have one too many?", row.pattern)
		}
	}
	r.keysLastAsTheTableSays(rows)
}

// keysLastAsTheTableSays looks at the keys that are there.
func (r *rig) keysLastAsTheTableSays(rows []keyRow) {
	r.t.Helper()
	wrong := func() (all []string) {
		keys, err := r.rdb.Keys(r.t.Context(), "*").Result()
		if err != nil {
			r.t.Fatal(err)
		}
		for _, key := range keys {
			left := r.rdb.PTTL(r.t.Context(), key).Val()
			row, err := rowOf(rows, key)
			if err == nil && left != -2 && row.lasts != (left == -1) {
				all = append(all, fmt.Sprintf("%s has %s to live, and the table says %q: for good %v", key, left, row.pattern, row.lasts))
			}
		}
		slices.Sort(all)
		return all
	}
	// What is written and given its time in two steps is right a moment later.
	var last []string
	defer func() {
		for _, text := range last {
			r.t.Error(text)
		}
	}()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); <-tick.C {
		if last = wrong(); last == nil {
			return
		}
	}
}

// weigh notes the largest key of each line, for the page's last column. It is no
// condition: what a message costs in all is measured elsewhere.
func (r *rig) weigh(rows []keyRow, costs map[string]int64) {
	r.t.Helper()
	keys, err := r.rdb.Keys(r.t.Context(), "*").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, key := range keys {
		if row, err := rowOf(rows, key); err == nil {
			costs[row.pattern] = max(costs[row.pattern], r.rdb.MemoryUsage(r.t.Context(), key, 0).Val())
		}
	}
}

// liveAWholeLife has everything happen that leaves something in Redis. It calls look
// now and then.
func (r *rig) liveAWholeLife(look func()) {
	t := r.t
	t.Helper()
	ctx := t.Context()
	file := r.writeConfig("")
	env := []string{
		"OTPQ_CONFIG=" + file, "OTPQ_LOG_LEVEL=debug", "OTPQ_ADMIN_LISTEN=127.0.0.1:0", "OTPQ_PROVIDERS_UNIMEDBH_RATE_LIMIT_LIMIT=500",
		"OTPQ_PROVIDERS_UNIMEDBH_RETRY_ON_AMBIGUOUS=stop", "OTPQ_PROVIDERS_UNIMEDBH_BREAKER_CONSECUTIVE_FAILURES=1000",
	}
	fault := func(f sandbox.Fault) {
		t.Helper()
		if err := r.sandbox.SetFault("unimedbh", f); err != nil {
			t.Fatal(err)
		}
	}
	inspector := asynq.NewInspectorFromRedisClient(r.rdb)
	queue := tasks.QueueName("unimedbh", tasks.Interactive)

	// Somebody archives a message and pauses a queue.
	archived := r.send()
	if err := inspector.ArchiveTask(queue, archived); err != nil {
		t.Fatal(err)
	}
	if err := inspector.PauseQueue(queue); err != nil {
		t.Fatal(err)
	}
	late := r.send("--valid-for", "1s", "--key", "login-1")
	r.send("--at", "2s")
	look()
	// A worker dies with a message in its hands.
	fault(sandbox.Fault{Hang: true})
	held := r.send()
	waitFor(t, "the late one's deadline", func() bool { return time.Now().After(r.record(late).NotAfter) })
	if err := inspector.UnpauseQueue(queue); err != nil {
		t.Fatal(err)
	}
	doomed := command(t, env, "worker")
	if err := doomed.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a message in the worker's hands", func() bool { return r.record(held).State == status.Sending })
	waitFor(t, "asynq to tell of it", func() bool { return len(r.rdb.Keys(ctx, "asynq:workers:{*").Val()) > 0 })
	look()
	if err := doomed.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = doomed.Wait()
	fault(sandbox.Fault{})
	worker := start(t, env, "worker")
	worker.says("worker started")
	waitFor(t, "the archived message to be a dead letter", func() bool { return r.record(archived).State == status.Rejected })
	waitFor(t, "the late one to expire", func() bool { return r.record(late).State == status.Expired })
	// It was in a dead worker's hands: a request may have left.
	waitFor(t, "the dead worker's message to end", func() bool { return r.record(held).State.Terminal() })
	r.otpq("dead", "replay", archived).want(t, exitDone)
	waitFor(t, "the replayed one to be accepted", func() bool { // and not to take the faults that follow
		again := r.record(archived).ReplayedAs
		return again != "" && r.record(again).State == status.Accepted
	})

	// A retry, and a campaign of which one ends unknown.
	fault(sandbox.Fault{FailNext: 1, ErrorStatus: 503})
	retried := r.send()
	waitFor(t, "the retried one to be accepted", func() bool { return r.record(retried).State == status.Accepted })
	fault(sandbox.Fault{CutNext: 1})
	r.create("november", peopleFile(t, 120))
	r.otpq("campaign", "start", "november", "--detach").want(t, exitDone)
	look()
	waitFor(t, "the campaign to end", func() bool { return r.campaign("november").State == campaign.CompletedWithFailures })
	look()
}
