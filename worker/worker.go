// Package worker drains the queues: it takes each message through the pipeline
// to its provider and writes down what became of it. It does not queue messages
// (package enqueue does) and knows no provider by name.
package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/internal/tracing"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// ProviderConfig is what a worker needs to know of one provider.
type ProviderConfig struct {
	Name     string
	Provider providers.Provider
	// Decode reads the provider's request; see [providers.Definition].
	Decode  func([]byte) (providers.Request, error)
	Timeout time.Duration
	// Concurrency is for each lane, whatever number of queues it has.
	Concurrency map[tasks.Lane]int
	// Queues is how many queues each lane has; zero means one. Other queues of the
	// provider are drained as well, a few seconds after they come up.
	Queues    int
	RateLimit RateLimit
	Breaker   BreakerConfig
	Retry     Retry
}

// Config is what a Worker is made from.
type Config struct {
	// Redis is shared by all lanes and must outlive the Worker: close it after
	// Shutdown has returned, because asynq panics otherwise. New puts a hook on
	// it, so give each Worker a client of its own.
	Redis redis.UniversalClient
	Keys  *tasks.Keyring
	// Store keeps the status records.
	Store     status.Store
	Providers []ProviderConfig
	// ShutdownTimeout bounds how long Shutdown waits for what is in flight.
	ShutdownTimeout time.Duration
	// Metrics may be nil.
	Metrics *metrics.Worker
	// Tracer is nil when there is none. It outlives the Worker.
	Tracer *tracing.Tracer
	Log    zerolog.Logger
}

// DefaultShutdownTimeout is enough for the longest provider timeout that fits.
const DefaultShutdownTimeout = 30 * time.Second

// Worker drains the queues of its providers. Each provider's lane has its own
// slots, so that one that hangs takes none of another's.
type Worker struct {
	cfg      Config
	handlers []*pipeline // one for each lane
	served   *served
	hook     *asynqredis.Hook
	presence *presence
	recovery *recovery
	results  *results
	memory   *memory
	suspects *suspects
	// laneStill is [laneStill], but in tests.
	laneStill time.Duration
	stop      context.CancelFunc
	running   sync.WaitGroup
}

// pollInterval is how long asynq sleeps, more or less, when there was no message: it
// is [asynqredis.Hook] that waits for one.
const pollInterval = time.Millisecond

// New makes a Worker. It fails when there is no key, when no provider is on, and
// when the timeouts do not fit into each other.
func New(cfg Config) (*Worker, error) {
	if cfg.Keys == nil {
		return nil, tasks.ErrNoKeys
	}
	if len(cfg.Providers) == 0 {
		return nil, errors.New("no provider is on: nothing to do")
	}
	if cfg.ShutdownTimeout <= 0 {
		cfg.ShutdownTimeout = DefaultShutdownTimeout
	}
	if err := CheckLadder(cfg.ShutdownTimeout, cfg.Providers); err != nil {
		return nil, err
	}
	if err := checkQueues(cfg.Providers); err != nil {
		return nil, err
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewWorker(nil)
	}
	id := uuid.NewString()
	w := &Worker{
		cfg: cfg, hook: &asynqredis.Hook{Holder: id, Client: cfg.Redis}, presence: newPresence(cfg.Redis, id, cfg.Log),
		results: newResults(), memory: newMemory(), suspects: newSuspects(cfg.Redis, cfg.Log), laneStill: laneStill,
	}
	cfg.Redis.AddHook(w.hook)
	w.served = &served{
		hook: w.hook, newServer: w.newServer,
		slots: map[*pipeline]*asynqredis.Slots{}, byName: map[string]*queue{},
	}
	w.recovery = &recovery{
		rdb: cfg.Redis, hook: w.hook, store: cfg.Store, memory: w.memory, served: w.served,
		unheard: &unheard{}, metrics: cfg.Metrics, log: cfg.Log, self: id, now: time.Now,
	}
	for _, p := range cfg.Providers {
		if err := w.addProvider(p); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *Worker) addProvider(cfg ProviderConfig) error {
	limiter := newLimiter(w.cfg.Redis, cfg.Name, cfg.RateLimit)
	breaker := newBreaker(cfg.Name, cfg.Breaker, cfg.Timeout, w.presence.changes)
	w.presence.watch(cfg.Name, breaker)
	for _, lane := range tasks.Lanes() {
		w.cfg.Metrics.Prepare(cfg.Name, string(lane), cfg.Concurrency[lane], vocabulary())
		p := &pipeline{
			cfg: cfg, lane: lane, keys: w.cfg.Keys, store: w.cfg.Store,
			limiter: limiter, breaker: breaker, results: w.results, memory: w.memory, suspects: w.suspects,
			unheard: w.recovery.unheard, worker: w.recovery.self, metrics: w.cfg.Metrics, tracer: w.cfg.Tracer, log: w.cfg.Log, now: time.Now,
		}
		p.line = p.steps()
		w.handlers = append(w.handlers, p)
		for _, queue := range tasks.Queues(cfg.Name, lane, cfg.Queues) {
			if err := w.served.add(p, queue); err != nil {
				return err
			}
		}
	}
	return nil
}

// newServer makes the asynq server of one queue.
func (w *Worker) newServer(queue string, slots int) *asynq.Server {
	return asynq.NewServerFromRedisClient(w.cfg.Redis, asynq.Config{
		Concurrency:       slots,
		Queues:            map[string]int{queue: 1},
		TaskCheckInterval: pollInterval,
		RetryDelayFunc:    retryDelay,
		IsFailure:         isFailure,
		ShutdownTimeout:   w.cfg.ShutdownTimeout,
		Logger:            asynqLog{w.cfg.Log.With().Str("component", "asynq").Logger()},
	})
}

// ErrNoRedis means that Redis does not answer. Start may be called again.
var ErrNoRedis = errors.New("redis does not answer")

// Start begins to drain the queues and returns. It fails with [ErrNoRedis] when
// Redis does not answer before ctx ends: asynq itself would not notice. After any
// other error the Worker is of no further use.
func (w *Worker) Start(ctx context.Context) error {
	if err := w.cfg.Redis.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrNoRedis, err)
	}
	if err := w.serveAll(ctx); err != nil {
		return fmt.Errorf("%w: %w", ErrNoRedis, err)
	}
	// Before the first task: what a worker holds that nobody has heard of is
	// taken for orphaned.
	if err := w.presence.beat(ctx, w.queues()); err != nil {
		return fmt.Errorf("%w: %w", ErrNoRedis, err)
	}
	if err := w.served.start(); err != nil {
		return err
	}
	roles, stop := context.WithCancel(context.WithoutCancel(ctx))
	w.stop = stop
	w.running.Go(func() { w.presence.run(roles, w.queues, w.cfg.Metrics) })
	w.running.Go(func() { w.keepServingAll(roles) })
	w.running.Go(func() { w.recovery.run(roles) })
	w.running.Go(func() { (&archive{rdb: w.cfg.Redis, served: w.served, log: w.cfg.Log}).run(roles) })
	return nil
}

func (w *Worker) queues() []string { return w.served.names() }

// Shutdown stops taking messages, finishes what is in flight and leaves the
// rest queued. It returns when all lanes are down.
func (w *Worker) Shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), recordBudget)
	defer cancel()
	w.served.close()
	if err := w.hook.Stop(ctx); err != nil {
		w.cfg.Log.Warn().Err(err).Msg("others take over what this worker had taken ahead")
	}
	w.served.shutdown()
	w.results.close(recordBudget)
	if w.stop != nil {
		w.stop()
	}
	w.running.Wait()
	w.hook.Wait()
	w.leave()
}

// leave hands back what this worker was given and never heard of.
func (w *Worker) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTime)
	defer cancel()
	if err := w.recovery.leave(ctx); err != nil {
		w.cfg.Log.Warn().Err(err).Msg("others take over what this worker was given and never heard of; it may count as maybe sent")
	}
}

// leaveTime bounds how long Shutdown tries to hand back what was never heard of.
const leaveTime = 2 * time.Second

// laneStill is how long a lane's loop may not ask for a task. Without one it asks
// many times a second; with all slots taken it waits until one is free, which takes
// a task's time and that of its acknowledgement.
const laneStill = tasks.TaskTimeout + lease + 5*time.Second

// Healthy fails when a loop of the worker has stood still for a while: its
// heartbeat, its recovery, or a lane's. It does not fail for want of Redis: to
// restart a worker does not bring Redis back, and loses what is in flight.
func (w *Worker) Healthy() error {
	errs := []error{
		turned("heartbeat", w.presence.lastTurn.Load(), presenceTTL),
		turned("recovery", w.recovery.lastTurn.Load(), presenceTTL+roundTimeout),
	}
	errs = append(errs, w.served.turned(w.laneStill)...)
	return errors.Join(errs...)
}

// turned fails when a loop has not turned for longer than it may.
func turned(loop string, last int64, longest time.Duration) error {
	if last == 0 {
		return fmt.Errorf("the worker's %s has not started yet", loop)
	}
	if age := time.Since(time.Unix(0, last)); age > longest {
		return fmt.Errorf("the worker's %s last turned %s ago", loop, age.Round(time.Second))
	}
	return nil
}
