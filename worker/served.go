package worker

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/tasks"
)

const (
	// lookInterval is how often a worker looks for queues of its providers that it
	// does not drain yet: how long the first message in such a queue may wait.
	lookInterval = 2 * time.Second
	// lookTimeout bounds one look.
	lookTimeout = 5 * time.Second
)

// served are the queues that a worker drains: those of its configuration, and
// whatever others of its providers there are. A producer that spreads a provider
// over more queues than the worker knows of, or did so once, leaves nothing behind.
type served struct {
	hook *asynqredis.Hook
	// newServer makes the asynq server of a queue, which has so many slots.
	newServer func(queue string, slots int) *asynq.Server

	mu     sync.RWMutex
	slots  map[*pipeline]*asynqredis.Slots
	list   []*queue // in the order in which they came
	byName map[string]*queue
	begun  bool // the servers run, and one that is added is started
	closed bool // nothing is added any more
}

// queue is one queue of a lane. Each has an asynq server of its own, so that they are
// asked beside each other; the lane's slots they share.
type queue struct {
	*pipeline
	name   string
	hook   *asynqredis.Hook
	server *asynq.Server
	// startedAt is zero before the server runs.
	startedAt time.Time
}

// ProcessTask implements [asynq.Handler].
func (q *queue) ProcessTask(ctx context.Context, t *asynq.Task) error {
	id, _ := asynq.GetTaskID(ctx)
	if id == "" {
		// Bytes that are no task: asynq cannot name what it was given, so that it stays
		// held, and recovery, which can, makes a dead letter of it.
		return nil
	}
	err := q.process(ctx, t, func() *asynqredis.Ride { return q.hook.TakeRide(q.name, id) })
	if ctx.Err() != nil { // asynq may say nothing of the end of such a task
		q.hook.Forget(q.name, id)
	}
	return err
}

// add serves a queue of a lane. It does nothing when the queue is served already.
func (s *served) add(p *pipeline, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.byName[name] != nil {
		return nil
	}
	size := p.cfg.Concurrency[p.lane]
	if s.slots[p] == nil {
		s.slots[p] = asynqredis.NewSlots(size)
	}
	s.hook.ServeWith(name, s.slots[p], p.rider())
	q := &queue{pipeline: p, name: name, hook: s.hook, server: s.newServer(name, size)}
	if s.begun {
		if err := q.start(); err != nil {
			return err
		}
	}
	s.list, s.byName[name] = append(s.list, q), q
	return nil
}

func (q *queue) start() error {
	q.startedAt = time.Now()
	if err := q.server.Start(q); err != nil {
		return fmt.Errorf("start queue %s: %w", q.name, err)
	}
	return nil
}

// start starts the servers. After an error none of them runs.
func (s *served) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, q := range s.list {
		if err := q.start(); err != nil {
			for _, started := range s.list[:i] {
				started.server.Shutdown()
			}
			return err
		}
	}
	s.begun = true
	return nil
}

// close has nothing be added any more.
func (s *served) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
}

// shutdown ends the servers. Call close before.
func (s *served) shutdown() {
	var wg sync.WaitGroup
	for _, q := range s.all() {
		wg.Go(q.server.Shutdown)
	}
	wg.Wait()
}

func (s *served) all() []*queue {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.list)
}

func (s *served) names() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	names := make([]string, 0, len(s.list))
	for _, q := range s.list {
		names = append(names, q.name)
	}
	return names
}

// turned returns what is wrong with each queue's loop.
func (s *served) turned(longest time.Duration) []error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var errs []error
	for _, q := range s.list {
		last := q.startedAt
		if at := s.hook.LastTurn(q.name); !at.IsZero() {
			last = at
		}
		nanos := int64(0)
		if !last.IsZero() {
			nanos = last.UnixNano()
		}
		errs = append(errs, turned("lane "+q.name, nanos, longest))
	}
	return errs
}

// lane is the pipeline of a queue that is served.
func (s *served) lane(name string) *pipeline {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.byName[name].pipeline
}

// unserved lists the queues in Redis that are of one of the lanes and not served,
// by name.
func (s *served) unserved(ctx context.Context, rdb redis.UniversalClient, lanes []*pipeline) (map[string]*pipeline, error) {
	names, err := rdb.SMembers(ctx, asynqredis.QueuesKey).Result()
	if err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := map[string]*pipeline{}
	for _, name := range names {
		provider, lane, _, ok := tasks.ParseQueue(name)
		i := slices.IndexFunc(lanes, func(p *pipeline) bool { return p.cfg.Name == provider && p.lane == lane })
		if ok && i >= 0 && s.byName[name] == nil {
			out[name] = lanes[i]
		}
	}
	return out, nil
}

// serveAll adds whatever queues of its providers the worker does not serve yet.
func (w *Worker) serveAll(ctx context.Context) error {
	found, err := w.served.unserved(ctx, w.cfg.Redis, w.handlers)
	if err != nil {
		return err
	}
	for name, lane := range found {
		if err := w.served.add(lane, name); err != nil {
			return err
		}
		w.cfg.Log.Info().Str("queue", name).Str("provider", lane.cfg.Name).Str("lane", string(lane.lane)).
			Int("configured", max(lane.cfg.Queues, 1)).
			Msg("draining a queue that this worker's configuration does not name")
	}
	return nil
}

// keepServingAll looks for queues until ctx ends.
func (w *Worker) keepServingAll(ctx context.Context) {
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		look, cancel := context.WithTimeout(ctx, lookTimeout)
		if err := w.serveAll(look); err != nil && ctx.Err() == nil {
			w.cfg.Log.Warn().Err(err).Msg("cannot look for queues that nobody drains")
		}
		cancel()
	}
}

// checkQueues reports every number of queues that there cannot be.
func checkQueues(providers []ProviderConfig) error {
	for _, p := range providers {
		if p.Queues < 0 || p.Queues > tasks.MaxQueues {
			return fmt.Errorf("providers.%s.queues: must be at least 1 and at most %d, not %d", p.Name, tasks.MaxQueues, p.Queues)
		}
	}
	return nil
}
