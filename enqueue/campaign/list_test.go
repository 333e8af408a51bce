package campaign

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

func TestARepeatedCreateChangesNoOrder(t *testing.T) {
	r := newRig(t)
	r.create(settings("a"), people(0, 1)...)
	if err := sleep(t.Context(), 2*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	r.create(settings("b"), people(0, 2)...)
	if err := sleep(t.Context(), 2*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Create(t.Context(), settings("a"), source(people(0, 1)...), CreateOptions{}); !errors.Is(err, ErrExists) {
		t.Fatalf("Create() = %v, want ErrExists", err)
	}
	if list, err := r.List(t.Context()); err != nil || list[0].ID != "b" {
		t.Errorf("List() = %v, %v; want b first", list, err)
	}
}

// trips counts round trips and the commands in them, and may do something before each.
type trips struct {
	n, commands atomic.Int64
	before      func(redis.Cmder)
}

func (h *trips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.n.Add(1)
		h.commands.Add(1)
		if h.before != nil {
			h.before(cmd)
		}
		return next(ctx, cmd)
	}
}

func (h *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		h.n.Add(1)
		h.commands.Add(int64(len(cmds)))
		for _, cmd := range cmds {
			if h.before != nil {
				h.before(cmd)
			}
		}
		return next(ctx, cmds)
	}
}

func TestManyCampaignsThatAreOverCostLittle(t *testing.T) {
	r := newRig(t)
	const many = 300
	for n := range many {
		r.create(settings("old"+strconv.Itoa(n)), people(0, 1)...)
		if err := r.Cancel(t.Context(), "old"+strconv.Itoa(n)); err != nil {
			t.Fatal(err)
		}
	}
	r.look.ZAdd(t.Context(), indexKey, redis.Z{Score: 1, Member: "gone"})
	h := &trips{}
	rdb := r.connect()
	rdb.AddHook(h)
	c := r.open(func(cfg *Config) { cfg.Redis = rdb })
	list, err := c.List(t.Context())
	if err != nil || len(list) != many || h.n.Load() > 10 {
		t.Errorf("List() of %d campaigns = %d of them, %v, in %d round trips; want all in a few", many, len(list), err, h.n.Load())
	}
	if n := r.look.ZCard(t.Context(), indexKey).Val(); n != many {
		t.Errorf("the index has %d, want those %d that there are", n, many)
	}

	h.commands.Store(0)
	ctx, stop := context.WithCancel(t.Context())
	var feeding sync.WaitGroup
	defer feeding.Wait()
	defer stop()
	feeding.Go(func() {
		c.FeedDetached(ctx, "test", func(_ string, err error) { t.Errorf("FeedDetached reports %v", err) })
	})
	wait := func(what string, so func() bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		for !so() {
			if sleep(ctx, turn) != nil {
				t.Fatalf("waited for %s in vain", what)
			}
		}
	}
	wait("the first look", func() bool { return h.commands.Load() > 3*many }) // fields, counts and lease of each
	h.commands.Store(0)
	h.n.Store(0)
	wait("three more", func() bool { return h.n.Load() >= 3 })
	if n := h.commands.Load(); n > 30 {
		t.Errorf("to look three times more took %d commands, want a few", n)
	}
	// Another of an old one's name is fed all the same.
	r.look.Del(t.Context(), campaignKey("old7"))
	r.create(settings("old7"), people(7, 9)...)
	if err := r.Start(t.Context(), "old7", true); err != nil {
		t.Fatal(err)
	}
	r.work(nil)
	r.until("old7", "over", isIn(Completed))
}

func TestAReportToldWhileRowsEndHasNoneThatWaitsAgain(t *testing.T) {
	r := newRig(t)
	s := settings("moving")
	s.Window = 50
	r.create(s, people(0, 50)...)
	r.start("moving")
	_, stop := r.feed(r.Campaigns, "moving")
	r.until("moving", "in the queue", func(k Campaign) bool { return k.Counts.Queued == 50 })
	stop()
	h := &trips{}
	var once sync.Once
	h.before = func(cmd redis.Cmder) {
		if cmd.Name() != "hmget" || fmt.Sprint(cmd.Args()[1]) != liveKey("moving") {
			return
		}
		// Between the report's looks all rows come to their end.
		once.Do(func() {
			r.work(nil)
			r.until("moving", "over", isIn(Completed))
		})
	}
	rdb := r.connect()
	rdb.AddHook(h)
	c := r.open(func(cfg *Config) { cfg.Redis = rdb })
	for row, err := range c.Report(t.Context(), "moving", false) {
		if err != nil {
			t.Fatal(err)
		}
		if row.State != "accepted" || row.MessageID == "" {
			t.Fatalf("the report has %+v, want it accepted", row)
		}
	}
}

func TestThePaceIsKnownWithinTheFirstSecond(t *testing.T) {
	g := gentle{tempo: usualTempo}
	began := time.Now()
	if got := g.pace(); got != "0" {
		t.Errorf("at the begin the pace is %s, want 0", got)
	}
	ended := make([]result, 10)
	for i := range ended {
		ended[i] = result{state: "accepted", final: "yes"}
	}
	g.note(began, nil)
	for ms := 100; ms <= 1000; ms += 100 {
		now := began.Add(time.Duration(ms) * time.Millisecond)
		g.note(now, ended)
		if got, err := strconv.ParseFloat(g.pace(), 64); ms >= 500 && (err != nil || got != 100) {
			t.Errorf("after %d ms of 100/s the pace is %v, want 100", ms, got)
		}
	}
}

func TestACampaignIsPausedAndCanceledThoughRedisIsFull(t *testing.T) {
	r := newRig(t)
	r.create(settings("full"), people(0, 10)...)
	r.create(settings("wrong"), people(0, 10)...)
	r.start("full")
	if err := r.look.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if err := r.Pause(t.Context(), "full"); err != nil {
		t.Errorf("Pause() with a full Redis = %v", err)
	}
	if k := r.status("full"); k.State != Paused {
		t.Errorf("then it is %s, want paused", k.State)
	}
	if err := r.Cancel(t.Context(), "wrong"); err != nil {
		t.Errorf("Cancel() with a full Redis = %v", err)
	}
	if err := r.look.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if k := r.status("wrong"); k.State != Canceled || k.Counts.Canceled != 10 {
		t.Errorf("it is %+v, want all canceled", k)
	}
}

func TestACreateThatWasHeldUpOverwritesNoRows(t *testing.T) {
	r := newRig(t)
	k := &creation{c: r.Campaigns, token: "held up"}
	if err := k.begin(t.Context(), settings("mine"), source(), ""); err != nil {
		t.Fatal(err)
	}
	r.look.Del(t.Context(), leaseKey("mine")) // it is not heard of for ten seconds
	r.create(settings("mine"), people(0, 10)...)
	var late []entry
	for _, row := range people(100, 110) {
		e, err := newEntry(row)
		if err != nil {
			t.Fatal(err)
		}
		late = append(late, e)
	}
	if err := k.keep(t.Context(), 0, late); !errors.Is(err, ErrCreating) {
		t.Errorf("keep() after another has begun = %v, want ErrCreating", err)
	}
	for row, err := range r.Report(t.Context(), "mine", true) {
		if err != nil || !strings.Contains(string(row.Request), fmt.Sprintf("person%d@", row.Line-1)) {
			t.Fatalf("line %d is %s, %v: another's rows", row.Line, row.Request, err)
		}
	}
}
