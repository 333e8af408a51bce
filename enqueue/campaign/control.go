package campaign

import (
	"context"
	"fmt"
)

// Start has a campaign fed, from where it was: by any worker when detached, and else
// by whoever calls [Campaigns.Feed]; the workers take over when nobody does for a
// while. A paused one is resumed, and a detached one stays detached. It fails with
// [ErrNotFound] or a [StateError].
func (c *Control) Start(ctx context.Context, id string, detached bool) error {
	mark := ""
	if detached {
		mark = "1"
	}
	return c.control(ctx, id, "start", mark)
}

// Pause stops feeding; what is in the queue is still sent. It fails with
// [ErrNotFound] or a [StateError].
func (c *Control) Pause(ctx context.Context, id string) error {
	return c.control(ctx, id, "pause", "")
}

// Resume has a campaign that was paused, by somebody or by itself, fed again as
// before. It fails with [ErrNotFound] or a [StateError].
func (c *Control) Resume(ctx context.Context, id string) error {
	return c.control(ctx, id, "resume", "")
}

// Cancel stops feeding for good, and takes back what is in the queue. What a worker
// has in its hands comes to its end. It fails with [ErrNotFound] or a [StateError].
func (c *Control) Cancel(ctx context.Context, id string) error {
	if err := c.control(ctx, id, "cancel", ""); err != nil {
		return err
	}
	m, err := c.read(ctx, id)
	if err != nil {
		return err
	}
	state, err := c.recount(ctx, m)
	if err == nil {
		_ = c.last(ctx, m, state) // else the next look does it: it is canceled
	}
	return err
}

func (c *Control) control(ctx context.Context, id, do, detached string) error {
	keys := []string{campaignKey(id), countsKey(id), liveKey(id)}
	reply, err := controlScript.Run(ctx, c.rdb, keys, do, c.now().UnixMilli(), detached).StringSlice()
	if err != nil {
		return fmt.Errorf("%s campaign: %w", do, err)
	}
	switch reply[0] {
	case "ok":
		return nil
	case "gone":
		return ErrNotFound
	}
	return &StateError{ID: id, Do: do, From: State(reply[1])}
}
