package asynqredis

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"
)

// dueLooks keeps asynq from looking for tasks of a lane that fell due where there
// can be none. Due times are whole seconds, so one look just after each of them
// finds all; asynq looks at fixed intervals, and would have to do so many times a
// second to be as quick.
type dueLooks struct {
	mu     sync.Mutex
	second int64           // that was looked for last
	due    map[string]bool // the keys of the sets where something fell due by then
}

// forward has asynq move what fell due, once a look has found that there is such.
// asynq is told of a look that failed, and looks again in the second after.
func (h *Hook) forward(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	// name, script, 2, set, pending, now in Unix seconds, …
	args := cmd.Args()
	theirs, ok := cmd.(*redis.Cmd)
	if !ok || len(args) < 6 {
		return next(ctx, cmd)
	}
	set, _ := args[3].(string)
	second, known := args[5].(int64) // asynq's, which is what it looks for
	l := h.lanes.get(queueOf(set))
	if l == nil || !known {
		return next(ctx, cmd)
	}
	if l.due.begin(second) {
		due, err := h.lookForDue(ctx, l, second)
		l.due.end(second, due)
		if err != nil {
			cmd.SetErr(err)
			return err
		}
	}
	if !l.due.in(set) {
		theirs.SetVal(int64(0))
		return nil
	}
	err := next(ctx, cmd)
	if moved, _ := theirs.Int(); err == nil && moved == 0 {
		l.due.none(set) // asynq moves a hundred at a time
	}
	return err
}

// lookForDue returns the keys of the lane's sets in which something is due, after
// one round trip.
func (h *Hook) lookForDue(ctx context.Context, l *lane, second int64) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	counts := map[string]*redis.IntCmd{}
	_, err := h.Client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, set := range []string{key(l.queue, "scheduled"), key(l.queue, "retry")} {
			counts[set] = p.ZCount(ctx, set, "-inf", strconv.FormatInt(second, 10))
		}
		return nil
	})
	due := map[string]bool{}
	for set, count := range counts {
		if count.Val() > 0 {
			due[set] = true
		}
	}
	return due, err
}

// begin reports whether the caller is to look for this second.
func (d *dueLooks) begin(second int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.second == second {
		return false
	}
	d.second, d.due = second, nil // until it is known, there is nothing
	return true
}

// end keeps what a look has found, unless it took so long that there is a later one.
func (d *dueLooks) end(second int64, due map[string]bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.second == second {
		d.due = due
	}
}

func (d *dueLooks) in(set string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.due[set]
}

func (d *dueLooks) none(set string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.due, set)
}

// isForward recognises asynq's forward script by its two keys.
func isForward(first, second string) bool {
	return (strings.HasSuffix(first, "}:scheduled") || strings.HasSuffix(first, "}:retry")) && strings.HasSuffix(second, "}:pending")
}
