package campaign

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

const (
	// tallyMost is how many messages are looked at together.
	tallyMost = 1000
	// looksFew is how many where little changes.
	looksFew = 100
	// cancelCalls is how many messages are taken back at once.
	cancelCalls = 32
	// doubtFor is how long a message that ended unknown is looked at again: a late
	// reply may still say that it was accepted.
	doubtFor = 5 * time.Minute
)

// reasonRecordGone is the reason of a message whose record ended before anybody looked:
// nobody knows whether it was sent.
const reasonRecordGone = "record_gone"

// seenMessage is a message in flight, and what the counts say of it.
type seenMessage struct {
	id    string
	place int64 // its row's
	state string
}

// result is what a look at a message shows.
type result struct {
	id     string
	state  string
	reason string
	// final is as tally.lua has it.
	final string
}

func (r result) ended() bool { return r.final != "no" }

// look returns what has become of messages, each at its place. The state of one that
// has not been queued yet is as it was.
func (c *Control) look(ctx context.Context, m *meta, messages []seenMessage) ([]result, error) {
	ids := make([]string, len(messages))
	for i, s := range messages {
		ids[i] = s.id
	}
	looks, errs := c.store.Looks(ctx, ids)
	results := make([]result, len(messages))
	for i, l := range looks {
		if errs[i] != nil {
			return nil, errs[i]
		}
		r := result{id: ids[i], state: string(l.State), reason: l.Reason, final: "no"}
		switch {
		case l.State == "" && messages[i].place >= m.fed && c.now().Sub(m.reservedAt) < c.records:
			r.state = RowWaiting
		case l.State == "":
			r.state, r.final = messages[i].state, "gone"
		case l.State == status.Unknown && c.now().Sub(l.UpdatedAt) < doubtFor:
			r.final = "doubt"
		case l.State.Terminal():
			r.final = "yes"
		}
		results[i] = r
	}
	return results, nil
}

// tally counts what was found, and returns the campaign's state then.
func (c *Control) tally(ctx context.Context, id string, results []result) (State, error) {
	args := make([]any, 5, 5+4*len(results))
	copy(args, []any{c.now().UnixMilli(), endsPrefix(id), chunkRows, c.records.Milliseconds(), reasonRecordGone})
	for _, r := range results {
		args = append(args, r.id, r.state, r.reason, r.final)
	}
	keys := []string{campaignKey(id), countsKey(id), liveKey(id), doubtKey(id)}
	reply, err := tallyScript.Run(ctx, c.rdb, keys, args...).Slice()
	if err != nil {
		return "", fmt.Errorf("count campaign: %w", err)
	}
	state, _ := reply[0].(string) // nil when there is no campaign
	return State(state), nil
}

// recount looks at all messages in flight, and those in doubt. Of a canceled campaign
// it takes them back first.
func (c *Control) recount(ctx context.Context, m *meta) (State, error) {
	state := m.State
	for _, key := range []string{liveKey(m.ID), doubtKey(m.ID)} {
		err := c.scan(ctx, m, key, func(messages []seenMessage) error {
			if m.State == Canceled && key == liveKey(m.ID) {
				if err := c.takeBack(ctx, m, messages); err != nil {
					return err
				}
			}
			results, err := c.look(ctx, m, messages)
			if err == nil {
				state, err = c.tally(ctx, m.ID, results)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	if !state.Over() { // it may have had nothing in flight
		return c.tally(ctx, m.ID, nil)
	}
	return state, nil
}

// scan calls do with the messages that a hash names, some at a time.
func (c *Control) scan(ctx context.Context, m *meta, key string, do func([]seenMessage) error) error {
	for cursor := uint64(0); ; {
		page, next, err := c.rdb.HScan(ctx, key, cursor, "", tallyMost).Result()
		if err != nil {
			return fmt.Errorf("read campaign: %w", err)
		}
		var messages []seenMessage
		for i := 0; i+1 < len(page); i += 2 {
			messages = append(messages, m.seen(page[i], page[i+1]))
		}
		for len(messages) > 0 {
			n := min(len(messages), tallyMost)
			if err := do(messages[:n]); err != nil {
				return err
			}
			messages = messages[n:]
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// seen is a message in flight as Redis holds it: its row's place, and its state. One that
// was only taken yet has none: it waits until the campaign says that it is in the queue.
func (m *meta) seen(id, value string) seenMessage {
	at, state, _ := strings.Cut(value, " ")
	place := number(at)
	switch {
	case state != "":
	case place < m.fed:
		state = string(status.Queued)
	default:
		state = RowWaiting
	}
	return seenMessage{id, place, state}
}

// takeBack cancels messages. Those that a worker has are left to it; of those that are
// not in the queue yet a record says that they are canceled, and what queues them
// later queues what is over.
func (c *Control) takeBack(ctx context.Context, m *meta, messages []seenMessage) error {
	var calls sync.WaitGroup
	var mu sync.Mutex
	var failed error
	free := make(chan struct{}, cancelCalls)
	for _, s := range messages {
		free <- struct{}{}
		calls.Go(func() {
			defer func() { <-free }()
			seed := m.seed(s.id)
			err := c.store.Move(ctx, status.Move{
				ID: s.id, Seed: &seed, Provider: m.Provider, To: status.Canceled, Now: c.now(),
			})
			if status.IsUnreachable(err) {
				mu.Lock()
				defer mu.Unlock()
				failed = err
			}
		})
	}
	calls.Wait()
	return failed
}

// seed is the record of a message that has none yet.
func (m *meta) seed(id string) status.Record {
	return status.NewRecord(tasks.Message{
		ID: id, Provider: m.Provider, Lane: tasks.Bulk, Campaign: m.ID,
		CreatedAt: m.reservedAt, NotAfter: m.reservedAt.Add(time.Duration(m.ValidFor)),
	}, "")
}

// last gives all that is kept of a campaign its time to live, once it is over.
func (c *Control) last(ctx context.Context, m *meta, state State) error {
	if !state.Over() || m.lasts {
		return nil
	}
	err := c.eachChunk(ctx, 0, m.chunks, func(p redis.Pipeliner, n string) {
		p.PExpire(ctx, chunkPrefix(m.ID)+n, c.retention)
		p.PExpire(ctx, endsPrefix(m.ID)+n, c.retention)
	})
	if err != nil {
		return fmt.Errorf("keep campaign: %w", err)
	}
	_, err = c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.HSet(ctx, campaignKey(m.ID), "lasts", 1)
		for _, key := range []string{campaignKey(m.ID), countsKey(m.ID), doubtKey(m.ID), liveKey(m.ID)} {
			p.PExpire(ctx, key, c.retention)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep campaign: %w", err)
	}
	return nil
}
