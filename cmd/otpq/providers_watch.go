package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/otpq/otpq/internal/overview"
)

// shortestWatch is as often as a person can see, and a small load for Redis.
const shortestWatch = 100 * time.Millisecond

// providersWatch shows how the providers are until it is stopped: drawn over itself
// on a terminal, in blocks with their time elsewhere, and in lines with --json.
type providersWatch struct {
	a    *app
	read func(context.Context) ([]overview.Provider, error)

	last  []overview.Provider
	at    time.Time // when that was read
	since time.Time // when Redis was first found away
	drawn redrawn
}

// watched is a line of --watch --json.
type watched struct {
	Time      time.Time           `json:"time"`
	Providers []overview.Provider `json:"providers,omitempty"`
	// Error says why they are not known now.
	Error string `json:"error,omitempty"`
}

// run ends without error when ctx does. Only the first look may fail: Redis may go
// and come back later on.
func (w *providersWatch) run(ctx context.Context, interval time.Duration) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for first := true; ; first = false {
		look, cancel := withTimeout(ctx)
		began := time.Now() // a Redis that hangs is away from here on, not from when we gave up
		views, err := w.read(look)
		cancel()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && first:
			return err
		}
		if err := w.show(views, err, began); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// show shows what was read, or why it could not be.
func (w *providersWatch) show(views []overview.Provider, failed error, now time.Time) error {
	back := failed == nil && !w.since.IsZero()
	switch {
	case failed == nil:
		w.last, w.at, w.since = views, now, time.Time{}
	case w.since.IsZero():
		w.since = now
	}
	if w.a.json {
		line := watched{Time: now, Providers: views}
		if failed != nil {
			line = watched{Time: now, Error: failed.Error()}
		}
		return w.a.printJSON(line)
	}
	if isTerminal(w.a.out) {
		return w.draw(failed)
	}
	var err error
	switch {
	case failed != nil:
		_, err = fmt.Fprintf(w.a.out, "%s  redis does not answer since %s: %v\n", clock(now), clock(w.since), failed)
		return err
	case back:
		_, err = fmt.Fprintf(w.a.out, "%s  redis answers again\n", clock(now))
	default:
		_, err = fmt.Fprintln(w.a.out, clock(now))
	}
	if err != nil {
		return err
	}
	w.a.printProviders(views)
	_, err = fmt.Fprintln(w.a.out)
	return err
}

// draw draws what is known over what was drawn before.
func (w *providersWatch) draw(failed error) error {
	page := &drawing{colours: w.a.colours(w.a.out)}
	b := *w.a
	b.out = page
	b.printProviders(w.last)
	lines := strings.Split(strings.TrimRight(page.String(), "\n"), "\n")
	foot := clock(w.at) + "  Ctrl-C ends it"
	if failed != nil {
		foot = fmt.Sprintf("redis does not answer since %s; this is from %s: %v", clock(w.since), clock(w.at), failed)
	}
	return w.drawn.draw(w.a.out, slices.Concat(lines, []string{foot}))
}
