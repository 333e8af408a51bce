package audit

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/status"
)

// Options says how to look at a live Redis. Zero fields mean the defaults.
type Options struct {
	// Grace is how late a message may come to its end, and how long an attempt
	// may be under way, before that is a finding. Zero means [DefaultGrace].
	Grace time.Duration
	// Settle is how long after the first look a second one confirms what may
	// only have been in the making. Zero means 5 s.
	Settle time.Duration
	// Page is how many records are read in one round trip. Zero means 200.
	Page int
	// Rate bounds how many records are read in a second. Zero means no bound.
	Rate int
	// Queues are the names of the queues to look at, beside those that Redis
	// itself lists.
	Queues []string
	// DeadRetention is how long dead letters are listed; see [status.Retention].
	// Zero means 30 days.
	DeadRetention time.Duration
	// Refused reports whether the app was told that its Send failed: it was
	// promised nothing, and a message that is stranded is then a note. It may
	// be nil.
	Refused func(id string) bool
}

const (
	// DefaultGrace is above what a dead worker's message takes to go on (10 s)
	// and one execution of it ([tasks.TaskTimeout]), with as much to spare.
	DefaultGrace = time.Minute

	// A record is written before its task, by a Send that may take seconds.
	defaultSettle = 5 * time.Second
	// defaultPage keeps one round trip at a few milliseconds of Redis's time.
	defaultPage          = 200
	defaultDeadRetention = 30 * 24 * time.Hour

	// maxSuspects bounds what waits for a second look, at some 500 bytes each.
	maxSuspects = 1000
)

// Totals is what was looked at and found.
type Totals struct {
	Records int                  `json:"records"`
	States  map[status.State]int `json:"states"`
	Tasks   TaskTotals           `json:"tasks"`
	// Findings counts by kind; notes are not among them.
	Findings map[Kind]int `json:"findings"`
	Notes    int          `json:"notes"`
}

// Found is how many findings there are, notes aside.
func (t Totals) Found() int {
	n := 0
	for _, count := range t.Findings {
		n += count
	}
	return n
}

// NewTotals makes totals of nothing.
func NewTotals() Totals {
	return Totals{States: map[status.State]int{}, Findings: map[Kind]int{}}
}

// Count adds a finding.
func (t *Totals) Count(f Finding) {
	if f.Note {
		t.Notes++
		return
	}
	t.Findings[f.Kind]++
}

// Live looks at every record and every task in Redis, on all masters of a
// cluster, and calls report with each finding; an error of report ends it. What it
// holds in memory does not grow with how many there are. It only reads, and may
// run beside apps and workers: what may be in the making is looked at twice. A
// record that moves while Redis rearranges its keys may be counted twice.
func Live(ctx context.Context, rdb redis.UniversalClient, o Options, report func(Finding) error) (Totals, error) {
	l := newLive(rdb, o, report)
	if err := l.readQueues(ctx); err != nil {
		return l.totals, err
	}
	nodes, err := masters(ctx, rdb)
	if err != nil {
		return l.totals, err
	}
	for _, node := range nodes {
		if err := l.scan(ctx, node); err != nil {
			return l.totals, err
		}
	}
	if err := l.lookAgain(ctx); err != nil {
		return l.totals, err
	}
	return l.totals, l.tasks(ctx)
}

// live is one look at a live Redis.
type live struct {
	Options
	rdb      redis.UniversalClient
	report   func(Finding) error
	totals   Totals
	suspects map[string]suspect // by id
	resume   time.Time          // when the next page may be read
	queues   []string           // see readQueues
}

// suspect is a message that seems to lack something that another key holds.
type suspect struct {
	record  record
	finding Finding
	seen    time.Time
}

func newLive(rdb redis.UniversalClient, o Options, report func(Finding) error) *live {
	orDefault := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	orDefault(&o.Grace, DefaultGrace)
	orDefault(&o.Settle, defaultSettle)
	orDefault(&o.DeadRetention, defaultDeadRetention)
	if o.Page <= 0 {
		o.Page = defaultPage
	}
	return &live{Options: o, rdb: rdb, report: report, totals: NewTotals(), suspects: map[string]suspect{}}
}

// masters are the nodes that hold keys.
func masters(ctx context.Context, rdb redis.UniversalClient) ([]redis.Cmdable, error) {
	cluster, ok := rdb.(*redis.ClusterClient)
	if !ok {
		return []redis.Cmdable{rdb}, nil
	}
	var mu sync.Mutex
	var nodes []redis.Cmdable
	err := cluster.ForEachMaster(ctx, func(_ context.Context, node *redis.Client) error {
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("find the cluster's masters: %w", err)
	}
	return nodes, nil
}

func (l *live) say(f Finding) error {
	l.totals.Count(f)
	return l.report(f)
}

// scan looks at all records of one node.
func (l *live) scan(ctx context.Context, node redis.Cmdable) error {
	var cursor uint64
	for {
		// A node's SCAN names its own keys; they are read through l.rdb, which
		// follows a key that moves to another.
		keys, next, err := node.ScanType(ctx, cursor, recordKey("*"), int64(l.Page), "hash").Result()
		if err != nil {
			return fmt.Errorf("list records: %w", err)
		}
		for page := range slices.Chunk(keys, l.Page) {
			if err := l.page(ctx, page); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// page looks at some records.
func (l *live) page(ctx context.Context, keys []string) error {
	if err := l.pace(ctx, len(keys)); err != nil {
		return err
	}
	ids := make([]string, len(keys))
	for i, key := range keys {
		ids[i] = strings.TrimPrefix(key, recordKey(""))
	}
	records, err := readRecords(ctx, l.rdb, ids)
	if err != nil {
		return err
	}
	now := time.Now()
	suspects, err := l.lacking(ctx, records, now)
	if err != nil {
		return err
	}
	for id, r := range records {
		l.totals.Records++
		l.totals.States[r.State]++
		found := r.broken()
		if f, ok := suspects[id]; ok {
			l.suspects[id] = suspect{r, f, now}
		} else if f, ok := r.unfinished(now, l.Grace); ok {
			found = append(found, f)
		}
		for _, f := range found {
			if err := l.say(f); err != nil {
				return err
			}
		}
	}
	if len(l.suspects) >= maxSuspects {
		return l.lookAgain(ctx)
	}
	return nil
}

// pace waits until n more records may be read.
func (l *live) pace(ctx context.Context, n int) error {
	if l.Rate <= 0 {
		return ctx.Err()
	}
	now := time.Now()
	if wait := l.resume.Sub(now); wait > 0 {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return ctx.Err()
		}
		now = l.resume
	}
	l.resume = now.Add(time.Duration(n) * time.Second / time.Duration(l.Rate))
	return nil
}

// lookAgain confirms the suspects: what they lacked they lack still, and nothing
// has happened to them in between. It waits until the youngest has settled.
func (l *live) lookAgain(ctx context.Context) error {
	if len(l.suspects) == 0 {
		return nil
	}
	var ids []string
	var youngest time.Time
	for id, s := range l.suspects {
		ids = append(ids, id)
		if s.seen.After(youngest) {
			youngest = s.seen
		}
	}
	select {
	case <-time.After(time.Until(youngest.Add(l.Settle))):
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := l.readQueues(ctx); err != nil {
		return err
	}
	before := l.suspects
	l.suspects = map[string]suspect{}
	for page := range slices.Chunk(ids, l.Page) {
		records, err := readRecords(ctx, l.rdb, page)
		if err != nil {
			return err
		}
		now := time.Now()
		still, err := l.lacking(ctx, records, now)
		if err != nil {
			return err
		}
		if err := l.dropMoved(ctx, records, still); err != nil {
			return err
		}
		for id, r := range records {
			f, ok := still[id]
			switch was := before[id].record; {
			case ok && r.State == was.State && r.UpdatedAt.Equal(was.UpdatedAt) && r.claimed.Equal(was.claimed):
			case ok: // it lives
				continue
			default:
				if f, ok = r.unfinished(now, l.Grace); !ok {
					continue
				}
			}
			if err := l.say(f); err != nil {
				return err
			}
		}
	}
	return nil
}
