// Package coalesce merges what many goroutines want at the same moment into few
// calls: the first is made at once, and what comes in while it is under way goes
// together into the next. It is no timer: nobody waits for company.
package coalesce

import (
	"context"
	"sync"
)

// Group collects items and hands them on in batches. It is safe for concurrent
// use and needs no closing: it runs only while something waits.
type Group[T any] struct {
	run      func([]T)
	calls    int
	largest  int
	mu       sync.Mutex
	waiting  []entry[T]
	underWay int
	words    sync.Pool // of channels that nobody uses now
}

type entry[T any] struct {
	item T
	done chan struct{} // has room for the one word that is said
}

// New returns a Group that calls run with up to largest items at a time, and up
// to calls times at once. run reports through the items.
func New[T any](calls, largest int, run func([]T)) *Group[T] {
	return &Group[T]{run: run, calls: calls, largest: largest, words: sync.Pool{New: func() any { return make(chan struct{}, 1) }}}
}

// Do returns when run has returned for a batch with the item, or with ctx's error
// when that ends first. Then run may still be using the item, or meet it later.
func (g *Group[T]) Do(ctx context.Context, item T) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	e := entry[T]{item, g.words.Get().(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, e)
	if g.underWay < g.calls {
		g.underWay++
		go g.work()
	}
	g.mu.Unlock()
	if end := ctx.Done(); end != nil {
		select {
		case <-e.done:
		case <-end:
			return ctx.Err() // the word is still to be said
		}
	} else {
		<-e.done
	}
	g.words.Put(e.done)
	return nil
}

// work makes calls for as long as something waits.
func (g *Group[T]) work() {
	var items []T
	for {
		batch := g.next()
		if batch == nil {
			return
		}
		items = items[:0]
		for _, e := range batch {
			items = append(items, e.item)
		}
		g.run(items)
		for _, e := range batch {
			e.done <- struct{}{}
		}
	}
}

// next takes the next batch, or ends the worker that asks.
func (g *Group[T]) next() []entry[T] {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := min(len(g.waiting), g.largest)
	if n == 0 {
		g.underWay--
		return nil
	}
	batch := append([]entry[T](nil), g.waiting[:n]...)
	rest := copy(g.waiting, g.waiting[n:])
	clear(g.waiting[rest:])
	g.waiting = g.waiting[:rest]
	return batch
}
