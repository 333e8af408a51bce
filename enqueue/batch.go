package enqueue

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/otpq/otpq/providers"
)

// batchWorkers is how many chunks of a batch are worked on at once: while Redis is
// busy with one, the others are validated and sealed.
const batchWorkers = 3

// Item is one message of a batch: what [Client.Send] is given.
type Item struct {
	Request providers.Request
	Options []Option
}

// Result is what became of an Item: what [Client.Send] returns.
type Result struct {
	Receipt Receipt
	Err     error
}

// ErrUntried is the error of an Item that was not queued because its batch ended
// before.
var ErrUntried = errors.New("not queued: the batch ended before")

// BatchError means that a batch was not finished. Send the items whose results
// have errors again, with the same idempotency keys.
type BatchError struct {
	// Unknown is how many results are an [UnavailableError], and Untried how many
	// an [ErrUntried], Of how many.
	Unknown, Untried, Of int
	// Err is why: that of ctx, or the first that Redis gave.
	Err error
}

// Error implements error.
func (e *BatchError) Error() string {
	return fmt.Sprintf("of %d messages, it is not known of %d whether they are queued, and %d were not tried: %v", e.Of, e.Unknown, e.Untried, e.Err)
}

// Unwrap returns the cause.
func (e *BatchError) Unwrap() error { return e.Err }

// SendBatch is [Client.Send] for many messages, in few round trips. Result i is
// that of item i: what is wrong with one stops no other. Of items with the same
// provider and idempotency key the first is queued, and the others' receipts are
// its own, Repeated. They are queued roughly in their order.
//
// It fails with a [BatchError] when ctx ended, or Redis did not answer, before all
// was done; there are results all the same. It gives up once Redis has taken
// nothing of hundreds of items. Items must not change before it returns.
func (c *Client) SendBatch(ctx context.Context, items []Item) ([]Result, error) {
	b := &batch{c: c, ctx: ctx, items: items, results: make([]Result, len(items)), seen: map[[2]string]bool{}}
	var workers sync.WaitGroup
	for range min(batchWorkers, (len(items)+mostTogether-1)/mostTogether) {
		workers.Go(func() {
			for {
				chunk := b.next()
				if chunk == nil {
					return
				}
				b.run(chunk)
			}
		})
	}
	workers.Wait()
	// By now the first ones with their keys have been seen to.
	for left := b.later; len(left) > 0; {
		n := min(len(left), mostTogether)
		b.run(left[:n])
		left = left[n:]
	}
	return b.results, b.err()
}

// batch is a SendBatch under way.
type batch struct {
	c       *Client
	ctx     context.Context //nolint:containedctx // of the one call
	items   []Item
	results []Result

	mu     sync.Mutex
	begun  int                // how many items were handed out
	seen   map[[2]string]bool // the providers and idempotency keys of those
	later  []part             // those whose key was seen before
	failed error              // why no more is tried
}

// part is an item that is to be queued.
type part struct {
	place   int
	options options
	now     time.Time
}

// next returns the next items, or nil when there are none, or no more are to be
// tried.
func (b *batch) next() []part {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.c.now()
	for b.failed == nil && b.begun < len(b.items) {
		end := min(b.begun+mostTogether, len(b.items))
		chunk := make([]part, 0, end-b.begun)
		for ; b.begun < end; b.begun++ {
			item := b.items[b.begun]
			o, err := newOptions(item.Options, now)
			if err == nil && item.Request == nil {
				err = &OptionError{"request", "is missing"}
			}
			if err != nil {
				b.results[b.begun].Err = err
				continue
			}
			p := part{b.begun, o, now}
			if o.key != "" {
				key := [2]string{item.Request.ProviderName(), o.key}
				if b.seen[key] {
					b.later = append(b.later, p)
					continue
				}
				b.seen[key] = true
			}
			chunk = append(chunk, p)
		}
		if len(chunk) > 0 {
			return chunk
		}
	}
	return nil
}

// run queues items, and writes their results. No other goroutine has their places.
func (b *batch) run(chunk []part) {
	var list []*item
	var places []int
	var ids []string
	for _, p := range chunk {
		if b.over() != nil {
			b.results[p.place].Err = ErrUntried
			continue
		}
		it, err := b.c.newItem(b.items[p.place].Request, p.options, p.now)
		if err != nil {
			b.results[p.place].Err = err
			continue
		}
		list, places, ids = append(list, it), append(places, p.place), append(ids, it.m.ID)
	}
	if len(list) == 0 {
		return
	}
	err := await(b.ctx, func() {
		b.c.submit(b.ctx, list)
		b.c.resolve(b.ctx, list)
	})
	unknown := 0
	for i, it := range list {
		r := &b.results[places[i]]
		if err != nil { // the call may still be using the item
			r.Err = &UnavailableError{ID: ids[i], Err: err}
		} else {
			r.Receipt, r.Err = it.receipt, it.err
		}
		var unavailable *UnavailableError
		if errors.As(r.Err, &unavailable) {
			unknown++
			if len(it.keys) == 0 && !it.kept {
				b.c.withdrawals.add(ids[i])
			}
		}
	}
	if unknown == len(list) {
		b.fail(b.results[places[0]].Err)
	}
}

// over is why no more is to be tried, or nil.
func (b *batch) over() error {
	if err := b.ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.failed
}

func (b *batch) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failed == nil {
		b.failed = err
	}
}

// err sums up the results.
func (b *batch) err() error {
	for i := b.begun; i < len(b.items); i++ {
		b.results[i].Err = ErrUntried
	}
	e := &BatchError{Of: len(b.items), Err: b.ctx.Err()}
	var first error
	for _, r := range b.results {
		var unavailable *UnavailableError
		switch {
		case r.Err == nil:
		case errors.Is(r.Err, ErrUntried):
			e.Untried++
		case errors.As(r.Err, &unavailable):
			e.Unknown++
			if first == nil {
				first = unavailable.Err
			}
		}
	}
	if e.Unknown+e.Untried == 0 {
		return nil
	}
	if e.Err == nil {
		e.Err = first
	}
	return e
}
