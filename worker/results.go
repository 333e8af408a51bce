package worker

import (
	"context"
	"sync"
	"time"
)

// resultsTime bounds how long the result of a request is tried to be written:
// the next execution of the task decides without it, and comes by then at the
// latest, also where only asynq itself brings it back.
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

	settling  bool
	unsettled []func(context.Context) error // the oldest first
}

const (
	// maxUnsettled bounds what is to be settled, at about a kilobyte each.
	maxUnsettled = 10_000
	// settleTry bounds one try.
	settleTry = time.Second
	// settlePause is shorter than the second after which a task comes back.
	settlePause = 250 * time.Millisecond
)

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

// Settle runs settle until it does not fail, one after the other of all that are
// to be settled. The oldest gives way when there are too many.
func (r *results) Settle(settle func(context.Context) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.unsettled = append(r.unsettled, settle)
	if len(r.unsettled) > maxUnsettled {
		r.unsettled = r.unsettled[1:]
	}
	if !r.settling {
		r.settling = true
		r.running.Go(r.settle)
	}
}

// settle works until nothing is left. What fails goes to the end of the line: in a
// cluster the others may be on another node.
func (r *results) settle() {
	for {
		r.mu.Lock()
		if len(r.unsettled) == 0 || r.ctx.Err() != nil {
			r.settling = false
			r.mu.Unlock()
			return
		}
		settle := r.unsettled[0]
		r.unsettled = r.unsettled[1:]
		r.mu.Unlock()

		ctx, cancel := context.WithTimeout(r.ctx, settleTry)
		err := settle(ctx)
		cancel()
		if err == nil {
			continue
		}
		r.mu.Lock()
		r.unsettled = append(r.unsettled, settle)
		r.mu.Unlock()
		select {
		case <-time.After(settlePause):
		case <-r.ctx.Done():
		}
	}
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
