package peers

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/bench/load"
	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// KeyID names the sealing key of all runs.
const KeyID = "bench"

// validity is longer than any run takes.
const validity = 24 * time.Hour

// Otpq is the product's own producer.
type Otpq struct {
	Client *enqueue.Client
	lane   tasks.Lane
}

// OpenOtpq makes the product's client as an app would.
func OpenOtpq(cfg Config) (*Otpq, error) {
	lane := tasks.Interactive
	if cfg.Lane != "" {
		lane = tasks.Lane(cfg.Lane)
	}
	c, err := enqueue.Open(enqueue.Config{
		RedisURL: cfg.Redis, Keys: []tasks.Key{{ID: KeyID, Secret: tasks.Secret(cfg.Key)}},
		Queues: map[string]int{unimedbh.Name: max(cfg.Queues, 1)},
	})
	if err != nil {
		return nil, err
	}
	return &Otpq{Client: c, lane: lane}, nil
}

func openOtpq(_ context.Context, cfg Config) (Producer, error) { return OpenOtpq(cfg) }

// Request is the product's request with a number; it is posted as [load.Body].
func Request(number int) unimedbh.Request {
	r := load.NewRequest(number)
	return unimedbh.Request{Username: r.Username, Type: r.Type}
}

// Send implements [Producer].
func (o *Otpq) Send(ctx context.Context, number int) (string, error) {
	receipt, err := o.Client.Send(ctx, Request(number), enqueue.ValidFor(validity), enqueue.InLane(o.lane))
	return receipt.ID, err
}

// Task is the task of a message as Send would queue it, for a producer that has
// only asynq.
func (o *Otpq) Task(cfg Config, number int) (*asynq.Task, error) {
	ring, err := tasks.NewKeyring(tasks.Key{ID: KeyID, Secret: tasks.Secret(cfg.Key)})
	if err != nil {
		return nil, err
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	return tasks.NewTask(ring, tasks.Message{
		ID: tasks.NewID(), Provider: unimedbh.Name, Lane: o.lane, Request: load.Body(number),
		CreatedAt: now, NotAfter: now.Add(validity),
	})
}

// BatchReady says that the product has a call for many messages.
const BatchReady = true

// SendBatch implements [Batcher].
func (o *Otpq) SendBatch(ctx context.Context, first int, ids []string) error {
	items := make([]enqueue.Item, len(ids))
	options := []enqueue.Option{enqueue.ValidFor(validity), enqueue.InLane(o.lane)}
	for i := range items {
		items[i] = enqueue.Item{Request: Request(first + i), Options: options}
	}
	results, err := o.Client.SendBatch(ctx, items)
	if err != nil {
		return err
	}
	for i, r := range results {
		if r.Err != nil {
			return r.Err
		}
		ids[i] = r.Receipt.ID
	}
	return nil
}

// Close implements [Producer].
func (o *Otpq) Close() error { return o.Client.Close() }

// Queue is the first asynq queue that cfg's messages travel in, and the only one
// unless they are spread.
func (cfg Config) Queue() string { return cfg.queues()[0] }

func (cfg Config) queues() []string {
	lane := tasks.Interactive
	if cfg.Lane != "" {
		lane = tasks.Lane(cfg.Lane)
	}
	return tasks.Queues(unimedbh.Name, lane, cfg.Queues)
}

// checkOtpq asks the product itself for each record.
func checkOtpq(ctx context.Context, cfg Config, ids []string) (State, error) {
	const readers = 32
	rdb, err := redisconn.Open(cfg.Redis, redisconn.Options{PoolSize: readers})
	if err != nil {
		return State{}, err
	}
	defer rdb.Close()
	var s State
	for _, queue := range cfg.queues() {
		n, err := left(rdb, queue)
		if err != nil {
			return s, err
		}
		s.Left += n
	}
	store := status.NewRedis(rdb, status.Retention{})
	var next, known, accepted atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range readers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(ids) || failed.Load() != nil {
					return
				}
				r, err := store.Get(ctx, ids[i])
				if errors.Is(err, status.ErrNotFound) {
					continue
				}
				known.Add(1)
				switch {
				case err != nil:
					failed.Store(&err)
				case r.State == status.Accepted && len(r.Attempts) == 1 && !r.PossibleDuplicate:
					accepted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	s.Accepted, s.Known = int(accepted.Load()), int(known.Load())
	if err := failed.Load(); err != nil {
		return s, *err
	}
	return s, nil
}

// left counts what is in an asynq queue.
func left(rdb redis.UniversalClient, queue string) (int, error) {
	inspector := asynq.NewInspectorFromRedisClient(rdb)
	queues, err := inspector.Queues()
	if err != nil || !slices.Contains(queues, queue) { // nothing was ever in it
		return 0, err
	}
	info, err := inspector.GetQueueInfo(queue)
	if err != nil {
		return 0, err
	}
	return info.Size, nil
}
