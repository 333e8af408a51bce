package campaign

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// patience is for how long a feeder goes on though Redis does not answer, and
	// again how long it waits between two tries.
	patience = 30 * time.Second
	again    = 500 * time.Millisecond
	// adopted is how long a campaign that is not detached waits for a feeder of its own
	// before the workers take it for left.
	adopted = 10 * time.Second
)

// Feed feeds a campaign until it is over or ctx ends; while it is paused, it waits. It
// fails with [ErrFed] when another process feeds it already, or took it over, with
// [ErrNotFound], as [tasks.Keyring.Open] does, and when Redis does not answer for half a
// minute. who tells others who feeds.
func (c *Campaigns) Feed(ctx context.Context, id, who string) error {
	f := newFeeder(c, id, who)
	var failing time.Time
	for {
		err := f.run(ctx)
		if err == nil || !IsUnreachable(err) || ctx.Err() != nil {
			f.release(ctx)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
		switch now := time.Now(); {
		case failing.IsZero() || f.wellAt.After(failing):
			failing = now
		case now.Sub(failing) > patience:
			f.release(ctx)
			return fmt.Errorf("campaign %s is not fed any more: %w", id, err)
		}
		if err := sleep(ctx, again); err != nil {
			return err
		}
	}
}

// FeedDetached feeds whatever campaigns are running and have no feeder, until ctx ends.
// It never fails: what goes wrong is given to report, and tried again.
func (c *Campaigns) FeedDetached(ctx context.Context, who string, report func(id string, err error)) {
	ended := make(chan string)
	feeding, over := map[string]bool{}, map[string]float64{}
	defer func() {
		for len(feeding) > 0 {
			delete(feeding, <-ended)
		}
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		list, err := c.list(ctx, over)
		if err != nil && ctx.Err() == nil {
			report("", err)
		}
		for _, k := range list {
			if feeding[k.ID] || !c.wantsFeeder(k) {
				continue
			}
			feeding[k.ID] = true
			go func() {
				err := c.Feed(ctx, k.ID, who)
				if err != nil && !errors.Is(err, ErrFed) && !errors.Is(err, ErrNotFound) && ctx.Err() == nil {
					report(k.ID, err)
					_ = sleep(ctx, patience) // another may have what this one lacks
				}
				ended <- k.ID
			}()
		}
		for waiting := true; waiting; {
			select {
			case id := <-ended:
				delete(feeding, id)
			case <-tick.C:
				waiting = false
			case <-ctx.Done():
				return
			}
		}
	}
}

// wantsFeeder reports whether a worker is to feed a campaign.
func (c *Campaigns) wantsFeeder(k Campaign) bool {
	left := k.Detached || c.now().Sub(k.askedAt) > adopted
	switch {
	case k.Feeder != "" || !left:
		return false
	case k.State == Running, k.State == Paused && k.Reason != ReasonOperator:
		return true
	case k.State == Paused, k.State == Canceled:
		return k.Counts.inFlight() > 0 || k.State == Canceled && k.Counts.Waiting > 0
	}
	return false
}
