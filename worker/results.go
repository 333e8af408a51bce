package worker

import (
	"context"
	"sync"
	"time"
)

// resultsTime bounds how long the result of a request is tried to be written:
// the next execution of the task decides without it, and asynq brings that one
// within two minutes.
const resultsTime = 2 * time.Minute

// results are the outcomes that could not be written while their task ran,
// because Redis was away for longer than a task may take. What the provider did
// is known only here, so they are tried on beside the lanes; without them a
// short outage would have every message in flight sent twice.
//
// There are never more than the lanes had slots: without Redis no further task
// is begun.
type results struct {
	mu      sync.Mutex
	closed  bool
	running sync.WaitGroup
	ctx     context.Context
	cancel  context.CancelFunc
}

func newResults() *results {
	ctx, cancel := context.WithCancel(context.Background())
	return &results{ctx: ctx, cancel: cancel}
}

// Go runs write, which ends soon after its ctx.
func (r *results) Go(write func(context.Context)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.running.Go(func() {
		ctx, cancel := context.WithTimeout(r.ctx, resultsTime)
		defer cancel()
		write(ctx)
	})
}

// close waits up to grace for what is still to be written.
func (r *results) close(grace time.Duration) {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	timer := time.AfterFunc(grace, r.cancel)
	defer timer.Stop()
	r.running.Wait()
	r.cancel()
}
