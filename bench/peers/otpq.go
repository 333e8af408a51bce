package peers

import (
	"context"
	"errors"
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
	c, err := enqueue.Open(enqueue.Config{RedisURL: cfg.Redis, Keys: []tasks.Key{{ID: KeyID, Secret: tasks.Secret(cfg.Key)}}})
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

// ErrNoBatch means that the product has no call for many messages.
var ErrNoBatch = errors.New("the product has no SendBatch yet")

// BatchReady says whether [Otpq.SendBatch] works: the suite leaves it out until
// then.
const BatchReady = false

// SendBatch implements [Batcher]. With `client.SendBatch(ctx, []enqueue.Item{…})`
// in the product it is to make an Item of each Request, call that once, and fail
// with the first result that is an error.
func (o *Otpq) SendBatch(context.Context, int, int) error { return ErrNoBatch }

// Close implements [Producer].
func (o *Otpq) Close() error { return o.Client.Close() }

// Queue is the asynq queue that cfg's messages travel in.
func (cfg Config) Queue() string {
	if cfg.Lane != "" {
		return tasks.QueueName(unimedbh.Name, tasks.Lane(cfg.Lane))
	}
	return tasks.QueueName(unimedbh.Name, tasks.Interactive)
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
	if s.Left, err = left(rdb, cfg.Queue()); err != nil {
		return s, err
	}
	store := status.NewRedis(rdb, status.Retention{})
	var next, accepted atomic.Int64
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
				switch {
				case errors.Is(err, status.ErrNotFound):
				case err != nil:
					failed.Store(&err)
				case r.State == status.Accepted && len(r.Attempts) == 1 && !r.PossibleDuplicate:
					accepted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	s.Accepted = int(accepted.Load())
	if err := failed.Load(); err != nil {
		return s, *err
	}
	return s, nil
}

// left counts what is in an asynq queue.
func left(rdb redis.UniversalClient, queue string) (int, error) {
	info, err := asynq.NewInspectorFromRedisClient(rdb).GetQueueInfo(queue)
	if errors.Is(err, asynq.ErrQueueNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return info.Size, nil
}
