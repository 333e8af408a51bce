package audit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// TaskTotals counts asynq's tasks in otpq's queues.
type TaskTotals struct {
	Pending   int `json:"pending"`
	Active    int `json:"active"`
	Scheduled int `json:"scheduled"`
	Retry     int `json:"retry"`
	Archived  int `json:"archived"`
}

func (t *TaskTotals) of(list string) *int {
	return map[string]*int{
		"pending": &t.Pending, "active": &t.Active, "scheduled": &t.Scheduled, "retry": &t.Retry, "archived": &t.Archived,
	}[list]
}

// taskLists are where asynq keeps ids: lists, and the others sorted sets.
var taskLists = []string{"pending", "active", "scheduled", "retry", "archived"}

func listKey(queue, list string) string   { return "asynq:{" + queue + "}:" + list }
func taskKey(queue, taskID string) string { return "asynq:{" + queue + "}:t:" + taskID }

// takeovers is how many of the tasks that may have taken the place of a message's
// first one are asked for by name. When there are more, the queue is searched.
const takeovers = 3

func taskIDs(message string) []string {
	ids := []string{message}
	for range takeovers {
		ids = append(ids, tasks.TakeoverID(ids[len(ids)-1]))
	}
	return ids
}

// lacking returns, by id, which messages seem to lack something that another key
// holds: a task, or their place among the dead letters.
func (l *live) lacking(ctx context.Context, records map[string]record, now time.Time) (map[string]Finding, error) {
	states := map[string][]*redis.StringCmd{}
	scores := map[string]*redis.FloatCmd{}
	_, err := l.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for id, r := range records {
			switch {
			case !r.readable():
			case !r.State.Terminal():
				states[id] = askForTask(ctx, p, id, l.likely(r))
			case r.State.Dead() && now.Sub(r.UpdatedAt) < l.DeadRetention:
				scores[id] = p.ZScore(ctx, "otpq:dead:"+r.Provider, id)
			}
		}
		return nil
	})
	// Each reply is looked at below: what is not there is redis.Nil, which may be
	// the first of the errors and hide another.
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("look for tasks and dead letters: %w", err)
	}
	out := map[string]Finding{}
	missing, err := without(states)
	if err != nil {
		return nil, err
	}
	if missing, err = l.elsewhere(ctx, records, missing); err != nil {
		return nil, err
	}
	for _, id := range missing {
		out[id] = l.stranded(records[id], now)
	}
	for id, score := range scores {
		if err := score.Err(); err != nil && !errors.Is(err, redis.Nil) {
			return nil, fmt.Errorf("look for the dead letter %s: %w", id, err)
		}
		if f, ok := badLetter(records[id], score.Err() == nil); ok {
			out[id] = f
		}
	}
	return out, nil
}

// lives reports whether a worker deals with a task in this state one day. Of what
// somebody archived it makes a dead letter.
func lives(state *redis.StringCmd) bool { return state.Val() != "" && state.Val() != "completed" }

func (l *live) stranded(r record, now time.Time) Finding {
	f := found(Stranded, r.Record, "%s since %s, and %s: no worker will take it up",
		r.State, span(now.Sub(r.UpdatedAt)), l.noTask(r))
	f.Do = "`otpq cancel ID` ends it; when its Send succeeded, Redis has lost the task: have the app send again and look at persistence"
	if r.State == status.Sending {
		f.Do = "Redis has lost the task: have the app send again, knowing that a code may be on its way, and look at persistence"
	}
	if l.Refused != nil && l.Refused(r.ID) {
		f.Note = true
		f.Do = "nothing: its Send failed, and the app knows"
	}
	return f
}

// badLetter looks at a dead letter. One that has neither a payload nor a place
// in the index was replayed or discarded.
func badLetter(r record, listed bool) (Finding, bool) {
	switch {
	case listed && !r.hasPayload:
		f := found(DeadLetter, r.Record, "it is listed as a dead letter and its payload is gone: it cannot be replayed")
		f.Do = "nothing when it was being discarded or replayed; otherwise have the app send again"
		return f, true
	case !listed && r.hasPayload:
		f := found(DeadLetter, r.Record, "it is a dead letter and not in the index otpq:dead:%s: `otpq dead list` does not show it", r.Provider)
		f.Do = "`otpq dead show`, `replay` and `discard` work with its id"
		return f, true
	}
	return Finding{}, false
}

// dropMoved takes out of the stranded those whose task has an id that was not
// asked for, because it was taken over often. That takes a search of their queues.
func (l *live) dropMoved(ctx context.Context, records map[string]record, suspects map[string]Finding) error {
	wanted := map[string]bool{} // queues
	for id, f := range suspects {
		if f.Kind == Stranded {
			for _, queue := range l.queuesOf(records[id]) {
				wanted[queue] = true
			}
		}
	}
	for queue := range wanted {
		for _, list := range taskLists {
			err := l.list(ctx, queue, list, func(ids []string) error {
				for _, id := range ids {
					if message := tasks.MessageID(id); suspects[message].Kind == Stranded && tasks.Takeovers(id) > 0 {
						delete(suspects, message)
					}
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// list calls visit with the ids of a queue's tasks in a list, a page at a time.
func (l *live) list(ctx context.Context, queue, list string, visit func([]string) error) error {
	key := listKey(queue, list)
	if list != "pending" && list != "active" {
		return l.listSet(ctx, key, visit)
	}
	// New tasks are put in front, and taken from the end: those that stay move
	// away from the front, so that none is missed. A taken-over one is put at the
	// end.
	for from := int64(0); ; from += int64(l.Page) {
		ids, err := l.rdb.LRange(ctx, key, from, from+int64(l.Page)-1).Result()
		if err != nil {
			return fmt.Errorf("list tasks: %w", err)
		}
		if len(ids) == 0 {
			return nil
		}
		if err := visit(ids); err != nil {
			return err
		}
	}
}

func (l *live) listSet(ctx context.Context, key string, visit func([]string) error) error {
	var cursor uint64
	for {
		pairs, next, err := l.rdb.ZScan(ctx, key, cursor, "", int64(l.Page)).Result()
		if err != nil {
			return fmt.Errorf("list tasks: %w", err)
		}
		ids := make([]string, 0, len(pairs)/2)
		for i := 0; i < len(pairs); i += 2 {
			ids = append(ids, pairs[i])
		}
		for page := range slices.Chunk(ids, l.Page) {
			if err := visit(page); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// tasks looks at all tasks of otpq's queues.
func (l *live) tasks(ctx context.Context) error {
	if err := l.readQueues(ctx); err != nil {
		return err
	}
	for _, queue := range l.queues {
		for _, list := range taskLists {
			err := l.list(ctx, queue, list, func(ids []string) error {
				*l.totals.Tasks.of(list) += len(ids)
				return l.taskPage(ctx, queue, list, ids)
			})
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// taskPage notes the tasks that have no record.
func (l *live) taskPage(ctx context.Context, queue, list string, ids []string) error {
	if err := l.pace(ctx, len(ids)); err != nil {
		return err
	}
	exist := func(key func(taskID string) string, ids []string) ([]bool, error) {
		reads := make([]*redis.IntCmd, len(ids))
		_, err := l.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i, id := range ids {
				reads[i] = p.Exists(ctx, key(id))
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("look at tasks: %w", err)
		}
		out := make([]bool, len(ids))
		for i, r := range reads {
			out[i] = r.Val() == 1
		}
		return out, nil
	}
	recorded, err := exist(func(id string) string { return recordKey(tasks.MessageID(id)) }, ids)
	if err != nil {
		return err
	}
	var without []string
	for i, id := range ids {
		if !recorded[i] {
			without = append(without, id)
		}
	}
	if len(without) == 0 {
		return nil
	}
	// One that has come to its end since, and whose record's retention has ended,
	// is no longer there.
	there, err := exist(func(id string) string { return taskKey(queue, id) }, without)
	if err != nil {
		return err
	}
	for i, id := range without {
		if !there[i] {
			continue
		}
		err := l.say(Finding{
			ID: tasks.MessageID(id), Kind: NoRecord, Note: true, Do: advice[NoRecord],
			What: fmt.Sprintf("its task is %s in queue %s and it has no record: its retention has ended, or Redis has lost it", list, queue),
		})
		if err != nil {
			return err
		}
	}
	return nil
}
