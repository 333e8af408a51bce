package enqueue

import (
	"context"
	"fmt"
	"time"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// Replay queues a dead letter again as a new message, with a new deadline and
// a new attempt budget, linked to the old one. Repeating it, after a crash in
// the middle too, returns the same new message.
//
// It takes the options of Send but [IdempotencyKey]. Without [InLane] the
// message goes where the old one went. It fails with a [status.RefusedError]
// when id is no dead letter, with [status.ErrNotFound], and with the errors of
// [tasks.Decode] when the letter cannot be read.
func (c *Client) Replay(ctx context.Context, id string, opts ...Option) (Receipt, error) {
	dead, err := c.store.DeadLetter(ctx, id)
	if err != nil {
		return Receipt{}, err
	}
	m, err := tasks.Decode(c.keys, dead.Payload)
	if err != nil {
		return Receipt{}, fmt.Errorf("dead letter %s cannot be replayed: %w", id, err)
	}
	o, err := newOptions(append([]Option{InLane(m.Lane), Campaign(m.Campaign)}, opts...))
	if err != nil {
		return Receipt{}, err
	}
	now := c.now().Truncate(time.Millisecond)
	m.ReplayOf, m.CreatedAt, m.NotAfter = id, now, o.notAfter(now)
	m.Lane, m.MaxAttempts, m.Campaign, m.Trace = o.lane, o.maxAttempts, o.campaign, o.trace

	// The new id is settled in Redis first: whoever replays this letter, now
	// or after a crash, queues the same message.
	if m.ID, err = c.store.MarkReplayed(ctx, id, tasks.NewID()); err != nil {
		return Receipt{}, err
	}
	if err := c.submit(ctx, m, dead.Recipient, o.at); err != nil {
		return Receipt{}, err
	}
	if err := c.store.DropDead(ctx, m.Provider, id); err != nil {
		return Receipt{}, &UnavailableError{ID: m.ID, Err: err}
	}
	return Receipt{ID: m.ID, State: status.Queued, NotAfter: m.NotAfter}, nil
}
