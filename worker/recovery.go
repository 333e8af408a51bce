package worker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// What a dead worker held goes on within ten seconds: its last beat is stale after
// silentAfter, its tasks are then seen orphaned in as many rounds as sightings, a
// roundInterval apart, and are taken over in the last of them: seven seconds.
const (
	// silentAfter is how old a worker's last beat is when it may be dead.
	silentAfter = 4 * time.Second
	// roundInterval is how often each worker looks for orphaned tasks.
	roundInterval = time.Second
	// sightings is how often in a row a task must be seen orphaned.
	sightings = 3
	// calmFor is how long this worker must have been heard of without a break
	// before it takes anything over. An outage that all have shared makes every beat
	// stale, and the others may come back later than this one does.
	calmFor = silentAfter + 2*beatInterval
	// roundTimeout bounds one round.
	roundTimeout = 5 * time.Second
	// takers is how many tasks are taken over at once.
	takers = 16
	// strangerGrace is how long after the end of its lease a task is left to
	// asynq's own recovery when nobody's name is on it.
	strangerGrace = 2 * time.Minute
)

// recovery brings back what dead workers held, and what this one was given by
// Redis and never heard of. All workers do it, and each task is taken over once,
// under a new id. A worker that only stood still is taken for dead too: when it
// wakes, the claims in the status store keep it from doing harm.
type recovery struct {
	rdb     redis.UniversalClient
	hook    *asynqredis.Hook
	store   status.Store
	memory  *memory
	unheard *unheard
	served  *served
	metrics *metrics.Worker
	log     zerolog.Logger
	self    string
	now     func() time.Time

	seen     map[orphan]int
	calm     time.Time    // since when every round has found this worker beating
	lastTurn atomic.Int64 // of run's loop, in Unix nanoseconds; zero before the first
}

// orphan is a task that nobody works on.
type orphan struct{ queue, task, holder string }

// run looks for orphaned tasks until ctx ends.
func (r *recovery) run(ctx context.Context) {
	tick := time.NewTicker(roundInterval)
	defer tick.Stop()
	for {
		r.lastTurn.Store(time.Now().UnixNano())
		round, cancel := context.WithTimeout(ctx, roundTimeout)
		if err := r.round(round); err != nil && ctx.Err() == nil {
			r.log.Warn().Err(err).Msg("cannot look for what dead workers held")
		}
		cancel()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// round takes over what was seen orphaned often enough. A queue that cannot be
// read starts from the beginning.
func (r *recovery) round(ctx context.Context) error {
	last, calm := r.seen, r.calm
	r.seen, r.calm = map[orphan]int{}, time.Time{}
	living, err := livingWorkers(ctx, r.rdb, silentAfter, "")
	if err != nil {
		return err
	}
	var others []string
	beating := false
	for _, id := range living {
		if id == r.self {
			beating = true
			continue
		}
		others = append(others, id)
	}
	if !beating {
		return nil // it is we who are silent, or Redis has only just come back
	}
	if r.calm = calm; calm.IsZero() {
		r.calm = r.now()
	}
	held, err := asynqredis.ListHeld(ctx, r.rdb, r.served.names(), others)
	var ripe []asynqredis.Held
	for _, h := range held {
		if !r.orphaned(h) {
			continue
		}
		o := orphan{h.Queue, h.ID, h.Holder}
		if r.seen[o] = last[o] + 1; r.seen[o] >= sightings {
			ripe = append(ripe, h)
		}
	}
	if r.now().Sub(r.calm) < calmFor {
		return err
	}
	return errors.Join(err, r.takeAll(ctx, ripe))
}

// leave puts back what calls had taken and claimed whose answers never came: others
// would have to take those messages for maybe sent. Call it once nothing is begun any
// more.
func (r *recovery) leave(ctx context.Context) error {
	if len(r.unheard.all()) == 0 {
		return nil
	}
	held, err := asynqredis.ListHeld(ctx, r.rdb, r.served.names(), nil)
	own := slices.DeleteFunc(held, func(h asynqredis.Held) bool { return h.Holder != r.self || !r.orphaned(h) })
	return errors.Join(err, r.takeAll(ctx, own))
}

// orphaned reports whether nobody can be at work on a task that no other living
// worker holds.
func (r *recovery) orphaned(h asynqredis.Held) bool {
	switch h.Holder {
	case r.self:
		return !r.memory.working(tasks.MessageID(h.ID), h.ID) && !r.hook.Holds(h.Queue, h.ID)
	case "":
		return time.Since(h.LeaseEnds) > strangerGrace
	}
	return true
}

func (r *recovery) takeAll(ctx context.Context, ripe []asynqredis.Held) error {
	errs := make([]error, len(ripe))
	slots := make(chan struct{}, takers)
	var wg sync.WaitGroup
	for i, h := range ripe {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			// A panic here would end the process, and every other that tries the same.
			err := guard(func() error { return r.take(ctx, h) })
			if !errors.Is(err, asynqredis.ErrGone) { // another worker was quicker
				errs[i] = err
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// take takes over one task: its message goes on from where its record stands.
func (r *recovery) take(ctx context.Context, h asynqredis.Held) error {
	if h.Holder == r.self { // it may be about to begin after all
		if !r.memory.begin(tasks.MessageID(h.ID), "") {
			return nil
		}
		defer r.memory.end(tasks.MessageID(h.ID))
	}
	raw, err := h.Message(ctx, r.rdb)
	if errors.Is(err, asynqredis.ErrGone) {
		return h.Drop(ctx, r.rdb) // an id without a task: nothing can be done with it
	}
	if err != nil {
		return err
	}
	lane, id := r.served.lane(h.Queue), tasks.MessageID(h.ID)
	task, err := asynqredis.Decode(raw)
	if err != nil {
		if err := r.release(ctx, h); err != nil {
			return err
		}
		if err := lane.bury(ctx, h.ID, raw, err); err != nil {
			return err
		}
		return h.Drop(ctx, r.rdb)
	}
	record, err := r.store.Get(ctx, id)
	if err != nil && !errors.Is(err, status.ErrNotFound) {
		return err
	}
	var due time.Time
	switch {
	case record.State.Terminal(): // only the acknowledgement is missing
		return h.Drop(ctx, r.rdb)
	case record.State == status.Sending && h.Holder != "":
		if err := r.release(ctx, h); err != nil {
			return err
		}
	case record.State == status.Deferred && record.NextAttemptAt.After(time.Now()):
		due = ceilSecond(record.NextAttemptAt)
	}
	if err := h.TakeOver(ctx, r.rdb, task, tasks.TakeoverID(h.ID), due); err != nil {
		return err
	}
	r.metrics.TakenOver(lane.cfg.Name, string(lane.lane))
	r.log.Warn().Str("id", id).Str("provider", lane.cfg.Name).Str("lane", string(lane.lane)).
		Str("state", string(record.State)).Str("worker", h.Holder).Msg("taken over from a worker that is gone")
	return nil
}

// release has the message's next execution find the claim that the holder left
// behind, as one that may have been acted on; or no claim, if it is our own and came
// with a task that we never heard of, or never began.
func (r *recovery) release(ctx context.Context, h asynqredis.Held) error {
	id := tasks.MessageID(h.ID)
	if h.Holder == r.self {
		tokens := r.unheard.all()
		if ride := r.hook.TakeRide(h.Queue, h.ID); ride != nil {
			tokens = append(tokens, tokenOf(ride))
			r.unheard.add(tokenOf(ride)) // should this fail, and be tried again
		}
		if len(tokens) > 0 {
			if err := r.store.Unclaim(ctx, id, r.now(), tokens...); err != nil {
				return err
			}
		}
	}
	return r.store.Release(ctx, id, h.Holder)
}

// bury ends a task that asynq itself cannot read, and which therefore never comes
// to a handler.
func (p *pipeline) bury(ctx context.Context, taskID string, raw []byte, err error) error {
	a := &attempt{taskID: taskID, messageID: tasks.MessageID(taskID), payload: raw, started: p.now()}
	v := p.unreadable(a, ReasonUndecodable, errors.Join(tasks.ErrMalformed, err))
	v.step = "decode"
	v = p.record(ctx, a, v)
	p.observe(a, v)
	if !v.state.Terminal() {
		return errors.New("a task that asynq cannot read could not be recorded as a dead letter yet")
	}
	return nil
}
