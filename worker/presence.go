package worker

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/internal/metrics"
)

const (
	beatInterval = time.Second
	// presenceTTL is how long a worker is shown after its last beat.
	presenceTTL = 10 * beatInterval
	workersKey  = "otpq:workers" // worker ids by the time of their last beat
)

//go:embed lua/beat.lua
var beatLua string

var beatScript = redis.NewScript(beatLua)

// livingWorkers lists the workers whose last beat is no older than fresh. A
// beating worker notes its own beat with it; any other caller gives no id.
func livingWorkers(ctx context.Context, rdb redis.UniversalClient, fresh time.Duration, beating string) ([]string, error) {
	ids, err := beatScript.Run(ctx, rdb, []string{workersKey},
		fresh.Milliseconds(), presenceTTL.Milliseconds(), beating).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("read workers: %w", err)
	}
	return ids, nil
}

func workerKey(id string) string { return "otpq:worker:" + id }

// Presence is what a living worker tells of itself.
type Presence struct {
	ID        string                     `json:"id"`
	Host      string                     `json:"host"`
	PID       int                        `json:"pid"`
	StartedAt time.Time                  `json:"started_at"`
	SeenAt    time.Time                  `json:"seen_at"`
	Breakers  map[string]BreakerPresence `json:"breakers"`
}

// BreakerPresence is a breaker in one worker.
type BreakerPresence struct {
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// OpenUntil is when an open breaker lets a probe through.
	OpenUntil time.Time `json:"open_until,omitzero"`
}

// presence tells Redis, every second and when a breaker changes, that this
// worker lives and how its breakers are.
type presence struct {
	rdb      redis.UniversalClient
	log      zerolog.Logger
	self     Presence
	breakers map[string]*breaker
	changes  chan breakerChange
	lastTurn atomic.Int64 // of run's loop, in Unix nanoseconds; zero before the first
}

func newPresence(rdb redis.UniversalClient, id string, log zerolog.Logger) *presence {
	host, _ := os.Hostname()
	return &presence{
		rdb: rdb, log: log, changes: make(chan breakerChange, 256),
		self: Presence{
			ID: id, Host: host, PID: os.Getpid(), StartedAt: time.Now().UTC(), Breakers: map[string]BreakerPresence{},
		},
		breakers: map[string]*breaker{},
	}
}

// watch adds a provider's breaker. Call it before run.
func (p *presence) watch(provider string, b *breaker) {
	p.breakers[provider] = b
	p.self.Breakers[provider] = BreakerPresence{State: BreakerClosed, Since: p.self.StartedAt}
}

// run beats until ctx ends, and then says goodbye.
func (p *presence) run(ctx context.Context, queues func() []string, m *metrics.Worker) {
	tick := time.NewTicker(beatInterval)
	defer tick.Stop()
	for {
		p.lastTurn.Store(time.Now().UnixNano())
		p.readBreakers(m)
		beat, cancel := context.WithTimeout(ctx, 2*beatInterval)
		if err := p.beat(beat, queues()); err != nil && ctx.Err() == nil {
			p.log.Warn().Err(err).Msg("worker heartbeat failed")
		}
		cancel()
		select {
		case <-ctx.Done():
			p.leave(context.WithoutCancel(ctx))
			return
		case <-tick.C:
		case c := <-p.changes:
			p.noteChange(c)
		}
	}
}

// noteChange logs a breaker's change and notes since when it is so.
func (p *presence) noteChange(c breakerChange) {
	e := p.log.Info()
	if c.to == BreakerOpen {
		e = p.log.Warn().Dur("open_for_ms", p.breakers[c.provider].openFor)
	}
	e.Str("provider", c.provider).Str("from", c.from).Str("to", c.to).Msg("breaker")
	now := p.self.Breakers[c.provider]
	now.Since = c.at.UTC()
	p.self.Breakers[c.provider] = now
}

// readBreakers notes how the breakers are. It asks them, because an open breaker
// becomes half-open only when it is asked.
func (p *presence) readBreakers(m *metrics.Worker) {
	for name, b := range p.breakers {
		now := p.self.Breakers[name]
		now.State, now.OpenUntil = b.state(), time.Time{}
		if now.State == BreakerOpen {
			now.OpenUntil = time.Unix(0, b.openUntil.Load()).UTC()
		}
		p.self.Breakers[name] = now
		m.Breaker(name, now.State, BreakerStates())
	}
}

func (p *presence) beat(ctx context.Context, queues []string) error {
	p.self.SeenAt = time.Now().UTC()
	value, err := json.Marshal(p.self)
	if err != nil {
		return err
	}
	// By itself and first: others take over what a worker holds that is silent.
	if _, err := livingWorkers(ctx, p.rdb, presenceTTL, p.self.ID); err != nil {
		return fmt.Errorf("tell redis that this worker lives: %w", err)
	}
	_, err = p.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Set(ctx, workerKey(p.self.ID), value, presenceTTL)
		// asynq adds a queue to its list once per producer; after a flush or a
		// failover it would be missing from dashboards for good.
		names := make([]any, len(queues))
		for i, q := range queues {
			names[i] = q
		}
		pipe.SAdd(ctx, asynqredis.QueuesKey, names...)
		return nil
	})
	if err != nil {
		return fmt.Errorf("tell redis that this worker lives: %w", err)
	}
	return nil
}

// leave removes this worker at once, so that nobody waits for its entry to end.
func (p *presence) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	_, err := p.rdb.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Del(ctx, workerKey(p.self.ID))
		pipe.ZRem(ctx, workersKey, p.self.ID)
		return nil
	})
	if err != nil {
		p.log.Warn().Err(err).Msg("worker could not say goodbye to redis; its entry ends by itself")
	}
}

// Workers returns the workers that live, as they last told Redis.
func Workers(ctx context.Context, rdb redis.UniversalClient) ([]Presence, error) {
	ids, err := livingWorkers(ctx, rdb, presenceTTL, "")
	if err != nil {
		return nil, err
	}
	var out []Presence
	for _, id := range ids {
		value, err := rdb.Get(ctx, workerKey(id)).Bytes()
		if errors.Is(err, redis.Nil) {
			continue // it left in between
		}
		if err != nil {
			return nil, fmt.Errorf("read workers: %w", err)
		}
		var p Presence
		if err := json.Unmarshal(value, &p); err != nil {
			return nil, fmt.Errorf("read workers: entry of %s is malformed", id)
		}
		out = append(out, p)
	}
	return out, nil
}
