package asynqredis

import (
	"context"
	_ "embed"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/done.lua
var doneLua string

var doneScript = redis.NewScript(doneLua)

const (
	// doneCalls is how many calls a lane may have under way at once, and mostDones
	// how many tasks each takes. With one, whatever ends meanwhile goes together;
	// a second would halve what a call takes along, and end nothing sooner.
	doneCalls = 1
	mostDones = 128
)

// doneTask is a task that has come to its end.
type doneTask struct {
	id           string
	today, total string // the counts' keys
	expire, most any    // what asynq's script is told of the counts
	err          error
}

// notFound is what asynq's scripts answer of a task that is not active.
type notFound struct{}

func (notFound) Error() string { return "NOT FOUND" }
func (notFound) RedisError()   {}

// asDone reads asynq's done, or returns nil for any other command.
func asDone(cmd redis.Cmder) *doneTask {
	// name, script, 5, active, lease, task, today, total, id, expire, most
	args := cmd.Args()
	if n, _ := args[2].(int); n != 5 || len(args) != 11 {
		return nil
	}
	d := &doneTask{expire: args[9], most: args[10]}
	d.today, _ = args[6].(string)
	d.total, _ = args[7].(string)
	d.id, _ = args[8].(string)
	if d.id == "" || !strings.HasSuffix(d.total, "}:processed") || !strings.HasPrefix(d.today, d.total+":") {
		return nil
	}
	return d
}

// done ends a task together with others that end at the same time. It returns within
// two calls of [Hook.runDones], which are bounded.
func (h *Hook) done(l *lane, d doneTask, cmd redis.Cmder) error {
	err := l.dones.Do(context.Background(), &d)
	if err == nil {
		err = d.err
	}
	cmd.SetErr(err)
	if theirs, ok := cmd.(*redis.Cmd); ok && err == nil {
		theirs.SetVal("OK")
	}
	return err
}

// runDones tells Redis of a batch.
func (h *Hook) runDones(l *lane, batch []*doneTask) {
	ctx, cancel := context.WithTimeout(context.Background(), tryTime)
	defer cancel()
	first := batch[0] // at midnight, the others may count for the day before
	keys := []string{first.today, first.total, key(l.queue, "active"), key(l.queue, "lease")}
	args := make([]any, 0, 3+len(batch))
	args = append(args, key(l.queue, "t:"), first.expire, first.most)
	for _, d := range batch {
		args = append(args, d.id)
	}
	found, err := doneScript.Run(ctx, h.Client, keys, args...).Int64Slice()
	for i, d := range batch {
		switch {
		case err != nil:
			d.err = err
		case i >= len(found) || found[i] == 0:
			d.err = notFound{}
		}
	}
}
