package enqueue

import (
	"context"
	"sync"
	"time"

	"github.com/otpq/otpq/status"
)

const (
	// withdrawTry bounds one try to take a message back, and how long Close waits
	// for those that are left.
	withdrawTry = time.Second
	// withdrawPause is the wait after a try that Redis did not answer.
	withdrawPause = time.Second
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
	ids     []string // the oldest first
	running bool

	worker    sync.WaitGroup
	closing   chan struct{}
	closeOnce sync.Once
	ctx       context.Context // ends what Close no longer waits for
	stop      context.CancelFunc
}

func newWithdrawals(cancel func(ctx context.Context, id string) error) *withdrawals {
	w := &withdrawals{cancel: cancel, closing: make(chan struct{})}
	w.ctx, w.stop = context.WithCancel(context.Background())
	return w
}

// add takes the message back soon. When there are too many, the oldest is
// forgotten.
func (w *withdrawals) add(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ids = append(w.ids, id)
	if len(w.ids) > maxWithdrawals {
		w.ids = w.ids[1:]
	}
	if !w.running {
		w.running = true
		w.worker.Go(w.run)
	}
}

// run works until nothing is left.
func (w *withdrawals) run() {
	for {
		id, ok := w.first()
		if !ok {
			return
		}
		ctx, cancel := context.WithTimeout(w.ctx, withdrawTry)
		// A worker that has the message, or a record that never was, is an answer too.
		err := w.cancel(ctx, id)
		cancel()
		if !status.IsUnreachable(err) {
			w.drop(id)
			continue
		}
		select {
		case <-time.After(withdrawPause):
		case <-w.closing:
			return
		}
	}
}

// first is the message to take back next. Without one the work is over.
func (w *withdrawals) first() (id string, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ids) == 0 {
		w.running = false
		return "", false
	}
	return w.ids[0], true
}

// drop removes a message, unless it was forgotten meanwhile.
func (w *withdrawals) drop(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.ids) > 0 && w.ids[0] == id {
		w.ids = w.ids[1:]
	}
}

// close waits a moment for what is left to take back, and gives it up.
func (w *withdrawals) close() {
	timer := time.AfterFunc(withdrawTry, w.stop)
	defer timer.Stop()
	w.closeOnce.Do(func() { close(w.closing) })
	w.worker.Wait()
	w.stop()
}
