package asynqredis

import (
	"context"
	"errors"
	"net"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

// Rider does something in Redis for a task in the very step in which it is taken,
// which saves a round trip before it is begun. It does so only for a task that comes
// alone: of many, some begin a little later, and a crash in between would leave them
// half begun. Its methods may be called at the same time.
type Rider interface {
	// Lua defines ride(id, now, told): what is done for the task of the id, at the
	// time now in Unix milliseconds, as a text. Told are the arguments that Board
	// returned. It answers with a text, '' when it did nothing. It may not fail: use
	// redis.pcall where a key may be of another kind, or another node's.
	Lua() string
	// Board returns the arguments for one call, or nil when nothing is to be done.
	Board() []any
	// Unheard is told of a call whose answer did not come. No execution begins with
	// what it did.
	Unheard(r *Ride)
	// Leave undoes what was done for a task that is put back without having been
	// begun.
	Leave(ctx context.Context, id string, r *Ride)
}

// Ride is what was done when a task was taken.
type Ride struct {
	// Args are what Board returned.
	Args []any
	// Asked is when Redis was asked, before it did anything.
	Asked time.Time
}

// dequeueScript is the script for a queue.
func dequeueScript(r Rider) *redisscript.Script {
	if r == nil {
		return redisscript.New(dequeueLua)
	}
	return redisscript.New(r.Lua() + dequeueLua)
}

func (l *lane) board(now time.Time) *Ride {
	if l.rider == nil {
		return nil
	}
	args := l.rider.Board()
	if len(args) == 0 {
		return nil
	}
	return &Ride{Args: args, Asked: now}
}

// unheard tells the rider of a call that failed, unless Redis did not get it, or
// refused it: the rider's part is the last.
func (l *lane) unheard(r *Ride, err error) {
	var refused redis.Error
	var network *net.OpError
	if r == nil || errors.As(err, &refused) || errors.As(err, &network) && network.Op == "dial" {
		return
	}
	l.rider.Unheard(r)
}

// leave tells the rider of tasks that are put back.
func (l *lane) leave(ctx context.Context, tasks []task) {
	for _, t := range tasks {
		if t.ride != nil {
			l.rider.Leave(ctx, t.id, t.ride)
		}
	}
}

// TakeRide returns what was done for a task that asynq has been given, and nil from then
// on, or when nothing was. Whoever has it has to see to it.
func (h *Hook) TakeRide(queue, id string) *Ride {
	l := h.lanes.get(queue)
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	g, ok := l.given[id]
	if !ok || g.ride == nil {
		return nil
	}
	l.given[id] = given{since: g.since}
	return g.ride
}
