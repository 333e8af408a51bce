package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/tasks"
)

// readQueues notes which queues of otpq's there are. A producer may begin with a new
// one at any time.
func (l *live) readQueues(ctx context.Context) error {
	names, err := l.rdb.SMembers(ctx, "asynq:queues").Result()
	if err != nil {
		return fmt.Errorf("list queues: %w", err)
	}
	names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasPrefix(name, "otpq:") })
	names = slices.Concat(names, l.Queues)
	slices.Sort(names)
	l.queues = slices.Compact(names)
	return nil
}

// queuesOf are the queues that the message's task may be in: which of them depends on
// how many its producer, and whoever replayed it, spread the lane over.
func (l *live) queuesOf(r record) []string {
	out := tasks.Queues(r.Provider, r.Lane, 1)
	for _, name := range l.queues {
		provider, lane, number, ok := tasks.ParseQueue(name)
		if ok && provider == r.Provider && lane == r.Lane && number > 1 {
			out = append(out, name)
		}
	}
	return out
}

// likely is the queue that the task is in when all producers spread alike.
func (l *live) likely(r record) string {
	return tasks.QueueOf(r.Provider, r.Lane, r.ID, len(l.queuesOf(r)))
}

func (l *live) noTask(r record) string {
	all := l.queuesOf(r)
	if len(all) > 1 {
		return fmt.Sprintf("none of the %d queues of %s has a task for it", len(all), all[0])
	}
	return fmt.Sprintf("queue %s has no task for it", all[0])
}

// askForTask asks for the state of a message's task, by each id that it may have.
func askForTask(ctx context.Context, p redis.Pipeliner, id, queue string) []*redis.StringCmd {
	var out []*redis.StringCmd
	for _, taskID := range taskIDs(id) {
		out = append(out, p.HGet(ctx, taskKey(queue, taskID), "state"))
	}
	return out
}

// without lists the messages none of whose tasks lives.
func without(states map[string][]*redis.StringCmd) ([]string, error) {
	var ids []string
	for id, found := range states {
		for _, state := range found {
			if err := state.Err(); err != nil && !errors.Is(err, redis.Nil) {
				return nil, fmt.Errorf("look for the task of %s: %w", id, err)
			}
		}
		if !slices.ContainsFunc(found, lives) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// elsewhere looks in the other queues of their lanes for the tasks of messages that
// were not in the likely one, and returns those of which there is none.
func (l *live) elsewhere(ctx context.Context, records map[string]record, ids []string) ([]string, error) {
	states := map[string][]*redis.StringCmd{}
	asked := 0
	_, err := l.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, id := range ids {
			states[id] = nil
			likely := l.likely(records[id])
			for _, queue := range l.queuesOf(records[id]) {
				if queue != likely {
					states[id] = append(states[id], askForTask(ctx, p, id, queue)...)
					asked++
				}
			}
		}
		return nil
	})
	if asked > 0 && err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("look for tasks: %w", err)
	}
	return without(states)
}
