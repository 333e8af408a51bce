package campaign

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/tasks"
)

func TestNothingIsSentInQuietHours(t *testing.T) {
	r := newRig(t)
	r.work(nil)
	night := time.Date(2026, 11, 23, 23, 0, 0, 0, time.UTC)
	c := r.open(nil)
	c.now = func() time.Time { return night }
	s := settings("polite")
	s.QuietHours = QuietHours{From: "21:00", To: "08:00", Zone: "UTC"}
	r.create(s, people(0, 300)...)
	r.start("polite")
	r.feed(c, "polite")
	k := r.until("polite", "held", func(k Campaign) bool { return k.Reason == ReasonQuietHours })
	if want := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC); k.State != Running || !k.Until.Equal(want) {
		t.Errorf("in quiet hours it is %s until %s, want running until %s", k.State, k.Until, want)
	}
	// Whoever resumes it lets nothing through either.
	if err := r.Pause(t.Context(), "polite"); err != nil {
		t.Fatal(err)
	}
	if err := r.Resume(t.Context(), "polite"); err != nil {
		t.Fatal(err)
	}
	r.until("polite", "held again", func(k Campaign) bool { return k.Reason == ReasonQuietHours })
	if err := sleep(t.Context(), 2*turn); err != nil {
		t.Fatal(err)
	}
	if k := r.status("polite"); k.Counts.Waiting != 300 {
		t.Errorf("in quiet hours %d rows were fed", 300-k.Counts.Waiting)
	}
}

// An outage may begin before the quiet hours do, and end in them.
func TestACampaignThatGoesOnByItselfInQuietHoursFeedsNothing(t *testing.T) {
	for _, why := range []string{ReasonBreakerOpen, ReasonFailures} {
		t.Run(why, func(t *testing.T) {
			r := newRig(t)
			s := settings("night")
			s.QuietHours = QuietHours{From: "21:00", To: "08:00", Zone: "UTC"}
			r.create(s, people(0, 300)...)
			r.start("night")
			evening := time.Date(2026, 11, 23, 20, 59, 0, 0, time.UTC)
			f := r.feederAt("night")
			if err := f.hold(t.Context(), Paused, why, evening.Add(2*time.Hour)); err != nil {
				t.Fatal(err)
			}
			r.look.Del(t.Context(), leaseKey("night"))
			c := r.open(nil)
			c.now = func() time.Time { return evening.Add(3 * time.Hour) }
			r.feed(c, "night")
			r.until("night", "held", func(k Campaign) bool { return k.State == Running && k.Reason == ReasonQuietHours })
			if k := r.status("night"); k.Counts.Waiting != 300 {
				t.Errorf("in quiet hours %d rows were fed", 300-k.Counts.Waiting)
			}
		})
	}
}

func TestADetachedCampaignStaysDetached(t *testing.T) {
	r := newRig(t)
	r.create(settings("left"), people(0, 3)...)
	if err := r.Start(t.Context(), "left", true); err != nil {
		t.Fatal(err)
	}
	r.start("left") // somebody looks in from a terminal
	if !r.status("left").Detached {
		t.Error("after a start from a terminal no worker feeds it any more")
	}
}

func TestAProcessWithoutTheKeyLeavesACampaignToOthers(t *testing.T) {
	r := newRig(t)
	r.work(nil)
	r.create(settings("sealed"), people(0, 3)...)
	if err := r.Start(t.Context(), "sealed", true); err != nil {
		t.Fatal(err)
	}
	var looks atomic.Int32
	rdb := r.connect()
	rdb.AddHook(&trips{before: func(cmd redis.Cmder) {
		if cmd.Name() == "zrevrange" {
			looks.Add(1)
		}
	}})
	other := r.open(func(cfg *Config) {
		cfg.Redis, cfg.Keys = rdb, []tasks.Key{{ID: "other", Secret: tasks.GenerateSecret()}}
	})
	began := time.Now()
	if err := other.Feed(t.Context(), "sealed", "other"); !errors.Is(err, tasks.ErrKeyUnknown) || time.Since(began) > patience/2 {
		t.Errorf("Feed() without the key = %v after %s, want ErrKeyUnknown at once", err, time.Since(began))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var detached sync.WaitGroup
	defer detached.Wait()
	defer cancel()
	var reports atomic.Int32
	detached.Go(func() {
		other.FeedDetached(ctx, "other", func(string, error) { reports.Add(1) })
	})
	// It is first to try, says so once however often it looks, and keeps nobody from it.
	for reports.Load() == 0 || looks.Load() < 4 {
		if err := sleep(t.Context(), turn); err != nil {
			t.Fatal(err)
		}
	}
	detached.Go(func() { r.FeedDetached(ctx, "one with the key", func(string, error) {}) })
	r.until("sealed", "over", isIn(Completed))
	if n := reports.Load(); n != 1 {
		t.Errorf("who lacks the key said so %d times, want once", n)
	}
}
