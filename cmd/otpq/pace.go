package main

import (
	"context"
	"time"
)

// pace spaces what is begun, so that no second has more than a number of it. It is
// for one goroutine.
type pace struct {
	interval time.Duration
	// slack is how far ahead of its time a beginning may come: a hundredth of a
	// second's, which is taken off the rate, makes up for timers that fire late.
	slack time.Duration
	due   time.Time
}

// newPace takes the most beginnings in a second, which is more than 0.
func newPace(rate float64) *pace {
	// One a nanosecond is no limit; one in ten days is as good as none at all.
	rate = max(min(rate, float64(time.Second)), 1e-6)
	ahead := float64(int(rate / 100))
	p := &pace{interval: time.Duration(float64(time.Second)/(rate-ahead)) + 1}
	p.slack = time.Duration(ahead) * p.interval
	return p
}

// wait returns when the next may begin, or with ctx's error when that ends first.
func (p *pace) wait(ctx context.Context) error {
	if wait := time.Until(p.due.Add(-p.slack)); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if now := time.Now(); p.due.Before(now) {
		p.due = now
	}
	p.due = p.due.Add(p.interval)
	return ctx.Err()
}
