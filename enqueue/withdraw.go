package enqueue

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/otpq/otpq/status"
)

const (
	// withdrawTry bounds one try to take a message back, and how long Close waits
	// for those that are left.
	withdrawTry = time.Second
	// withdrawPause is the wait before a message is tried again.
	withdrawPause = time.Second
	// maxMissing is how often a message that has no record is looked for.
	maxMissing = 3
	// maxWithdrawals bounds what an outage leaves in memory: half a megabyte.
	maxWithdrawals = 10_000
)

// withdrawals takes back the messages that Redis did not confirm, behind their
// callers' backs. Some of them have a record and no task: nobody would ever come
// to them, and their status would be "queued" for good. An outage may outlast the
// Send that it broke by far, so they are tried until Redis answers, one at a time.
type withdrawals struct {
	cancel func(ctx context.Context, id string) error

	mu      sync.Mutex
	line    []withdrawal // the next one first
	running bool

	worker    sync.WaitGroup
	closing   chan struct{}
	closeOnce sync.Once
	ctx       context.Context // ends what Close no longer waits for
	stop      context.CancelFunc
}

// withdrawal is one message to be taken back.
type withdrawal struct {
	id string
	// missing is how often there was no record. What Redis was asked before may
	// be done later: a record may still come.
	missing int
	after   time.Time // not to be tried before
}

func newWithdrawals(cancel func(ctx context.Context, id string) error) *withdrawals {
	w := &withdrawals{cancel: cancel, closing: make(chan struct{})}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// add takes the message back soon. When there are too many, the one that was to
// be next is forgotten.
func (w *withdrawals) add(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line = append(w.line, withdrawal{id: id})
	if len(w.line) > maxWithdrawals {
		w.line = w.line[1:]
	}
	if !w.running {
		w.running = true
		w.worker.Go(w.run)
	}
}

// run works until nothing is left. What cannot be taken back yet goes to the end
// of the line: in a cluster the others may be on another node.
func (w *withdrawals) run() {
	for {
		next, ok := w.next()
		if !ok {
			return
		}
		if !w.wait(time.Until(next.after)) {
			return
		}
		ctx, cancel := context.WithTimeout(w.ctx, withdrawTry)
		err := w.cancel(ctx, next.id)
		cancel()
		unreachable := status.IsUnreachable(err)
		if errors.Is(err, status.ErrNotFound) {
			next.missing++
		}
		if unreachable || errors.Is(err, status.ErrNotFound) && next.missing < maxMissing {
			next.after = time.Now().Add(withdrawPause)
			w.again(next)
		}
		if unreachable && !w.wait(withdrawPause/10) { // all may fail
			return
		}
	}
}

// wait reports false when the client closes meanwhile.
func (w *withdrawals) wait(d time.Duration) bool {
	if d <= 0 {
		return true
	}
	select {
	case <-time.After(d):
		return true
	case <-w.closing:
		return false
	}
}

// next takes the next message out of the line. Without one the work is over.
func (w *withdrawals) next() (withdrawal, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.line) == 0 {
		w.running = false
		return withdrawal{}, false
	}
	next := w.line[0]
	w.line = w.line[1:]
	return next, true
}

func (w *withdrawals) again(next withdrawal) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.line = append(w.line, next)
}

// close waits a moment for what is left to take back, and gives it up.
func (w *withdrawals) close() {
	timer := time.AfterFunc(withdrawTry, w.stop)
	defer timer.Stop()
	w.closeOnce.Do(func() { close(w.closing) })
	w.worker.Wait()
	w.stop()
}
