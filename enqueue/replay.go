package enqueue

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// Replay queues a dead letter again as a new message, with a new deadline and
// a new attempt budget, linked to the old one. Repeating it, after a crash in
// the middle too, returns the same new message with its state now, Repeated.
//
// It takes the options of Send but [IdempotencyKey]. Without [InLane] the
// message goes where the old one went. It fails with a [status.RefusedError]
// when id is no dead letter, with [status.ErrNotFound], and with the errors of
// [tasks.Decode] when the letter cannot be read.
func (c *Client) Replay(ctx context.Context, id string, opts ...Option) (Receipt, error) {
	dead, err := c.store.DeadLetter(ctx, id)
	var refused *status.RefusedError
	if errors.As(err, &refused) {
		return c.replayedBefore(ctx, id, err)
	}
	if err != nil {
		return Receipt{}, err
	}
	m, err := dead.Open(c.keys)
	if err != nil {
		return Receipt{}, fmt.Errorf("dead letter %s cannot be replayed: %w", id, err)
	}
	o, err := newOptions(append([]Option{InLane(m.Lane), Campaign(m.Campaign)}, opts...), c.now())
	if err != nil {
		return Receipt{}, err
	}
	own := tasks.NewID()
	now := c.now().UTC().Truncate(time.Millisecond)
	m.ReplayOf, m.CreatedAt, m.NotAfter = id, now, o.notAfter(now)
	m.Lane, m.MaxAttempts, m.Campaign, m.Trace = o.lane, o.maxAttempts, o.campaign, o.trace

	// The new id is settled in Redis first: whoever replays this letter, now
	// or after a crash, queues the same message.
	if m.ID, err = c.store.MarkReplayed(ctx, id, own, ""); err != nil {
		return Receipt{}, err
	}
	if m.ID != own {
		if err := c.resume(ctx, &m, own); err != nil {
			return Receipt{}, err
		}
	}
	it := &item{m: m, recipient: dead.Recipient, who: dead.Who, at: o.at, duplicate: dead.MaybeSent()}
	if err := c.encode(it); err != nil {
		return Receipt{}, err
	}
	// Not together with others: two replays of one letter are the same message.
	if err := await(ctx, func() { c.submit(ctx, []*item{it}) }); err != nil {
		return Receipt{}, &UnavailableError{ID: m.ID, Err: err}
	}
	if it.err != nil {
		return Receipt{}, it.err
	}
	if err := c.store.DropDead(ctx, m.Provider, id); err != nil {
		return Receipt{}, &UnavailableError{ID: m.ID, Err: err}
	}
	if m.ID != own {
		c.repeat(ctx, []*item{it})
		return it.receipt, it.err
	}
	return it.fresh(), nil
}

// resume makes m agree with the record that an earlier replay wrote before it
// died, so that record and task tell the same deadline. When that one has passed
// and nothing was sent, the letter is replayed as own instead.
func (c *Client) resume(ctx context.Context, m *tasks.Message, own string) error {
	r, err := c.store.Get(ctx, m.ID)
	switch {
	case errors.Is(err, status.ErrNotFound):
		return nil
	case err != nil:
		return &UnavailableError{ID: m.ID, Err: err}
	case !r.NotAfter.After(m.CreatedAt) && neverSent(r):
		m.ID, err = c.store.MarkReplayed(ctx, m.ReplayOf, own, m.ID)
		return err
	}
	m.Lane, m.Campaign, m.CreatedAt, m.NotAfter = r.Lane, r.Campaign, r.CreatedAt, r.NotAfter
	return nil
}

// replayedBefore is the receipt of a letter that was replayed to the end before;
// refusal is the error for any other message.
func (c *Client) replayedBefore(ctx context.Context, id string, refusal error) (Receipt, error) {
	old, err := c.store.Get(ctx, id)
	if err != nil {
		return Receipt{}, err
	}
	if old.ReplayedAs == "" {
		return Receipt{}, refusal
	}
	next, err := c.store.Get(ctx, old.ReplayedAs)
	if err != nil {
		return Receipt{}, err
	}
	return Receipt{ID: next.ID, State: next.State, NotAfter: next.NotAfter, Repeated: true}, nil
}
