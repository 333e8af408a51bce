package enqueue

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/internal/redisscript"
	"github.com/otpq/otpq/status"
)

// submitApart is submit on a cluster, where what belongs to a message is on several
// nodes: its key is reserved, its record written, its task queued, its reservation
// marked; each step for all messages before the next. A message whose call dies in
// between is gone on with by the next call that has its idempotency key.
func (c *Client) submitApart(ctx context.Context, items []*item) {
	c.reserve(ctx, items)
	items = going(items)
	c.finishApart(ctx, items)
}

// finishApart is submitApart of what has no idempotency key, or holds it: then
// heldKey is where the reservation stands.
func (c *Client) finishApart(ctx context.Context, items []*item) {
	c.writeRecords(ctx, items)
	items = going(items)
	c.queueTasks(ctx, items)
	c.mark(ctx, going(items))
}

// going are those that nothing has stopped.
func going(items []*item) []*item {
	var out []*item
	for _, it := range items {
		if it.err == nil && !it.isHeld {
			out = append(out, it)
		}
	}
	return out
}

// reserve takes the items' idempotency keys, and holds those that are another's.
func (c *Client) reserve(ctx context.Context, items []*item) {
	var keyed []*item
	for _, it := range items {
		if len(it.keys) > 0 {
			keyed = append(keyed, it)
		}
	}
	if keyed == nil {
		return
	}
	calls := make([]*redisscript.Call, len(keyed))
	for i, it := range keyed {
		args := append(reserveScript.Begin(5+len(it.keys)), len(it.keys))
		for _, k := range it.keys {
			args = append(args, k)
		}
		args = append(args, it.reservation(false).String(), c.window.Milliseconds())
		calls[i] = &redisscript.Call{Script: reserveScript, Args: args}
	}
	redisscript.Run(ctx, c.rdb, calls...)
	for i, it := range keyed {
		reply, err := calls[i].Cmd.StringSlice()
		switch {
		case err == nil && len(reply) != 2:
			it.unavailable(errAnswer)
		case err != nil:
			it.unavailable(fmt.Errorf("reserve the idempotency key: %w", err))
		case reply[1] == it.reservation(false).String():
			it.heldKey = reply[0]
		default:
			it.heldKey, it.held, it.isHeld = reply[0], reply[1], true
		}
	}
}

func (c *Client) writeRecords(ctx context.Context, items []*item) {
	records := make([]status.Record, len(items))
	for i, it := range items {
		records[i] = it.record()
	}
	for i, err := range c.store.CreateAll(ctx, records) {
		if status.IsUnreachable(err) {
			items[i].unavailable(err)
		}
	}
}

// queueTasks queues the tasks, a queue at a time: all of a queue is on one node.
func (c *Client) queueTasks(ctx context.Context, items []*item) {
	byQueue := map[string]*call{}
	for _, it := range items {
		l := byQueue[it.queue]
		if l == nil {
			l = &call{shape: shape{queue: it.queue}}
			byQueue[it.queue] = l
		}
		l.items = append(l.items, it)
	}
	for queue, l := range byQueue {
		err := c.publish(ctx, queue)
		if err == nil {
			l.buildTasks()
			redisscript.Run(ctx, c.rdb, &l.script)
			err = l.script.Cmd.Err()
		}
		if err == nil {
			continue
		}
		c.published.Delete(queue)
		for _, it := range l.items {
			it.unavailable(fmt.Errorf("queue the task: %w", err))
		}
	}
}

// publish adds a queue to the set of all queues, once while all goes well.
func (c *Client) publish(ctx context.Context, queue string) error {
	if _, done := c.published.Load(queue); done {
		return nil
	}
	if err := c.rdb.SAdd(ctx, asynqredis.QueuesKey, queue).Err(); err != nil {
		return err
	}
	c.published.Store(queue, true)
	return nil
}

// mark notes in the reservations that the messages are queued. A failure costs the
// next Send two round trips, nothing else.
func (c *Client) mark(ctx context.Context, items []*item) {
	redisscript.Pipelined(ctx, c.rdb, func(p redis.Pipeliner) {
		for _, it := range items {
			if it.heldKey != "" {
				p.SetArgs(ctx, it.heldKey, it.reservation(true).String(), redis.SetArgs{Mode: "XX", KeepTTL: true})
			}
		}
	})
}
