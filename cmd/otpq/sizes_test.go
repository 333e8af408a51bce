package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
)

// operations is a page whose figures are measured here.
func operations(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// tableRow is the numbers in a line of a page that begins with a name.
func tableRow(t *testing.T, page, name string) []float64 {
	t.Helper()
	line := regexp.MustCompile(`(?m)^\| ` + regexp.QuoteMeta(name) + ` \|(.*)\|$`).FindStringSubmatch(page)
	if line == nil {
		t.Fatalf("docs/operations.md has no line %q", name)
	}
	var out []float64
	for cell := range strings.SplitSeq(line[1], "|") {
		n, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(cell), ",", ""), 64)
		if err != nil {
			break // words come after the numbers
		}
		out = append(out, n)
	}
	return out
}

// What docs/operations.md says of memory: the names of its lines.
const (
	sizeWaiting  = "a message that waits: task and record"
	sizeFinished = "a finished message: its record"
	sizeDead     = "a dead letter"
	sizeExpired  = "a message that expired"
	sizeKey      = "an idempotency key"
	sizeRow      = "a campaign's row, to the end of its retention"
)

// TestWhatRedisHoldsIsWhatThePageSays measures each kind of thing on a real Redis, and
// prints it.
func TestWhatRedisHoldsIsWhatThePageSays(t *testing.T) {
	t.Parallel()
	const n = 4000
	r := newRig(t)
	measured := map[string]int{}
	each := func(name string, do func()) {
		t.Helper()
		before := r.usedMemory()
		do()
		measured[name] = (r.usedMemory() - before) / n
	}
	each(sizeFinished, func() {
		finishMany(t, r, n, func(int) (status.State, string, string) { return status.Accepted, "", "accepted" })
	})
	each(sizeDead, func() { bury(t, r, n) })
	each(sizeExpired, func() {
		finishMany(t, r, n, func(int) (status.State, string, string) { return status.Expired, "deadline", "retry_later" })
	})
	each(sizeWaiting, func() { r.sendMany(n, "") })
	each(sizeKey, func() { r.sendMany(n, "login-") })
	measured[sizeKey] -= measured[sizeWaiting]
	measured[sizeRow] = r.campaignRow(2000)

	page := operations(t)
	for name, bytes := range measured {
		t.Logf("%-50s %5d bytes", name, bytes)
		says := tableRow(t, page, name)[0]
		if float64(bytes) > 1.1*says || float64(bytes) < 0.7*says {
			t.Errorf("%s takes %d bytes, and docs/operations.md says %.0f", name, bytes, says)
		}
	}
}

// sendMany queues messages; with idempotency keys that begin with key, when it has any.
func (r *rig) sendMany(n int, key string) {
	r.t.Helper()
	items := make([]enqueue.Item, n)
	for i := range items {
		items[i].Request = unimedbh.Request{Username: fmt.Sprintf("pessoa%d.%s", i, person), Type: "EMAIL"}
		if key != "" {
			items[i].Options = []enqueue.Option{enqueue.IdempotencyKey(key + strconv.Itoa(i))}
		}
	}
	if _, err := r.client.SendBatch(r.t.Context(), items); err != nil {
		r.t.Fatal(err)
	}
}

// campaignRow runs a campaign to its end and tells what is left of each row, the
// records of its messages aside.
func (r *rig) campaignRow(n int) int {
	t := r.t
	t.Helper()
	r.rdb.FlushAll(t.Context())
	start(t, []string{"OTPQ_CONFIG=" + r.file, "OTPQ_PROVIDERS_UNIMEDBH_CONCURRENCY_BULK=64"}, "worker").says("worker started")
	// Names that pack as badly as people's do.
	var rows strings.Builder
	rows.WriteString("email,type\n")
	for range n {
		fmt.Fprintf(&rows, "%s@empresa.example,EMAIL\n", strings.ToLower(rand.Text()[:14]))
	}
	r.create("november", writeFile(t, rows.String()), "--rate", "1000", "--window", "500")
	r.otpq("campaign", "start", "november", "--detach").want(t, exitDone)
	waitFor(t, "the campaign to end", func() bool { return r.campaign("november").State == campaign.Completed })
	keys, err := r.rdb.Keys(t.Context(), "otpq:campaign:{november}*").Result()
	if err != nil {
		t.Fatal(err)
	}
	bytes := 0
	for _, key := range keys {
		size, err := r.rdb.MemoryUsage(t.Context(), key, 0).Result()
		if errors.Is(err, redis.Nil) {
			continue // the feeder's lease ended
		}
		if err != nil {
			t.Fatal(err)
		}
		bytes += int(size)
	}
	return bytes / n
}

// TestTheWorkedExamplesOfMemoryAreRight does the sums of docs/operations.md again.
func TestTheWorkedExamplesOfMemoryAreRight(t *testing.T) {
	t.Parallel()
	page := operations(t)
	size := func(name string) float64 { return tableRow(t, page, name)[0] }
	row := func(name string) []float64 {
		t.Helper()
		numbers := tableRow(t, page, name)
		if len(numbers) != 3 {
			t.Fatalf("line %q has %d examples, want 3", name, len(numbers))
		}
		return numbers
	}
	day, days, window := row("messages a day"), row("`status.retention`, days"), row("of them with an idempotency key, kept a day")
	waiting, dead, expired, rows := row("waiting at the worst moment"), row("dead letters kept"), row("expired messages kept"), row("campaign rows kept")
	for i, says := range row("**together, MB**") {
		sum := (day[i]*days[i]*size(sizeFinished) + window[i]*size(sizeKey) + waiting[i]*size(sizeWaiting) +
			dead[i]*size(sizeDead) + expired[i]*size(sizeExpired) + rows[i]*size(sizeRow)) / 1e6
		if math.Abs(sum-says) > 0.02*sum+1 {
			t.Errorf("example %d comes to %.0f MB, and the page says %.0f", i+1, sum, says)
		}
		if most := row("`maxmemory`, MB")[i]; most < 1.9*sum {
			t.Errorf("example %d: a maxmemory of %.0f MB is not twice %.0f", i+1, most, sum)
		}
	}
}
