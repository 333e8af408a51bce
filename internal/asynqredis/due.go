package asynqredis

import (
	"context"
	_ "embed"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

//go:embed lua/due.lua
var dueLua string

var dueScript = redis.NewScript(dueLua)

const (
	// dueGrace is how long after each whole second the look for what fell due comes,
	// so that it does not come before it.
	dueGrace = 5 * time.Millisecond
	// mostDue is how many tasks are queued at a time, so that nobody waits long.
	mostDue = 100
)

// dueSet is a set of a lane's tasks that wait for their time.
type dueSet struct {
	key string
	// moving is whether what fell due is being queued.
	moving atomic.Bool

	mu  sync.Mutex
	err error // of the last look
}

func (s *dueSet) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *dueSet) failure() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// forward answers asynq, which asks for what fell due to be queued, that there is
// nothing: [Hook.watchDue] sees to it. Only of its failures asynq is told, and logs
// them.
func (h *Hook) forward(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	set, _ := cmd.Args()[3].(string) // name, script, 2, set, …
	theirs, ok := cmd.(*redis.Cmd)
	l := h.lanes.get(queueOf(set))
	if l == nil || !ok {
		return next(ctx, cmd)
	}
	var err error
	for _, s := range l.due {
		if s.key == set {
			err = s.failure()
		}
	}
	theirs.SetVal(int64(0))
	theirs.SetErr(err)
	return err
}

// watchDue queues what falls due in all lanes, until the hook stops. Due times are
// whole seconds, so one look just after each of them finds all; asynq looks at fixed
// intervals, for each queue by itself, and would have to do so many times a second to
// be as quick.
func (h *Hook) watchDue() {
	var looks sync.WaitGroup
	defer looks.Wait()
	for !h.stopped() {
		now := time.Now()
		for _, lanes := range h.lookedAtTogether() {
			looks.Go(func() { h.lookForDue(lanes, now) })
		}
		h.sleep(now.Truncate(time.Second).Add(time.Second + dueGrace).Sub(now))
	}
}

// lookedAtTogether is all lanes in one, but on a cluster: there a node that hangs
// would hold up the other nodes' lanes.
func (h *Hook) lookedAtTogether() [][]*lane {
	all := h.lanes.all()
	if _, cluster := h.Client.(*redis.ClusterClient); !cluster {
		return [][]*lane{all}
	}
	each := make([][]*lane, len(all))
	for i, l := range all {
		each[i] = []*lane{l}
	}
	return each
}

// lookForDue queues what is due in the lanes by now, after one round trip to see where
// there is any. What is still being queued since an earlier look is left alone.
func (h *Hook) lookForDue(lanes []*lane, now time.Time) {
	ctx, cancel := context.WithTimeout(context.Background(), tryTime)
	defer cancel()
	var counts []*redis.IntCmd
	redisscript.Pipelined(ctx, h.Client, func(p redis.Pipeliner) {
		for _, l := range lanes {
			for _, s := range l.due {
				counts = append(counts, p.ZCount(ctx, s.key, "-inf", strconv.FormatInt(now.Unix(), 10)))
			}
		}
	})
	var moves sync.WaitGroup
	defer moves.Wait()
	for _, l := range lanes {
		for _, s := range l.due {
			count := counts[0]
			counts = counts[1:]
			if s.note(count.Err()); count.Val() == 0 || !s.moving.CompareAndSwap(false, true) {
				continue
			}
			moves.Go(func() {
				defer s.moving.Store(false)
				s.note(h.moveDue(l, s, now))
			})
		}
	}
}

// moveDue queues all that is due in a set by now.
func (h *Hook) moveDue(l *lane, s *dueSet, now time.Time) error {
	move := func() (int, error) {
		ctx, cancel := context.WithTimeout(context.Background(), tryTime)
		defer cancel()
		return dueScript.Run(ctx, h.Client, []string{key(l.queue, "pending"), s.key},
			now.Unix(), key(l.queue, "t:"), time.Now().UnixNano(), key(l.queue, "g:"), mostDue).Int()
	}
	for !h.stopped() {
		if moved, err := move(); err != nil || moved < mostDue {
			return err
		}
	}
	return nil
}

// isForward recognises asynq's forward script by its two keys, and by the time that
// follows them: the script by which an Inspector runs all of a set has the same keys.
func isForward(args []any, first, second string) bool {
	if len(args) < 6 { // name, script, 2, first, second, the second until which
		return false
	}
	_, until := args[5].(int64)
	return until && (strings.HasSuffix(first, "}:scheduled") || strings.HasSuffix(first, "}:retry")) && strings.HasSuffix(second, "}:pending")
}
