// Package enqueue is what an app imports to have codes sent: it queues a
// request, cancels it, and tells what became of it. It sends nothing to any
// provider itself and pulls in no worker code.
package enqueue

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

const (
	// DefaultValidity is how long a message may be sent when the app does not
	// say: MedSênior's codes live 300 s.
	DefaultValidity = 5 * time.Minute
	// MaxValidity bounds how long a message may wait.
	MaxValidity = 7 * 24 * time.Hour

	defaultWindow = 24 * time.Hour
)

// Config is what a Client is made from.
type Config struct {
	// RedisURL says where Redis is: redis://, rediss://, unix://,
	// redis-sentinel:// or redis-cluster://. Redis takes precedence.
	RedisURL string
	// Redis is a client to share instead. Make it with ContextTimeoutEnabled,
	// or a hung Redis makes calls outlast their ctx. Close leaves it open.
	Redis redis.UniversalClient
	// Keys seal the messages: the first seals. At least one is needed; the
	// workers need the same.
	Keys []tasks.Key
	// IdempotencyWindow is how long an idempotency key is remembered. Zero
	// means 24 h.
	IdempotencyWindow time.Duration
	// Retention says how long records are kept; see [status.Retention].
	Retention status.Retention
	// Queues is over how many queues the messages of a provider are spread, by the
	// provider's name: 1 to [tasks.MaxQueues]; one where it does not say. The workers
	// drain them all, but know of them at once when they are configured alike.
	Queues map[string]int
}

// Client queues messages. It is safe for concurrent use; make one and keep it.
type Client struct {
	rdb    redis.UniversalClient
	owned  bool
	queue  *asynq.Client
	store  *status.Redis
	keys   *tasks.Keyring
	window time.Duration
	queues map[string]int
	now    func() time.Time
	// withdrawals are those of failed Sends.
	withdrawals *withdrawals
}

// Receipt tells that a message is durably queued.
type Receipt struct {
	ID       string       `json:"id"`
	State    status.State `json:"state,omitempty"` // empty when its record has ended
	NotAfter time.Time    `json:"not_after"`
	// Repeated is true when the idempotency key was used before: the receipt
	// is the first one's, with its state now, and nothing was queued.
	Repeated bool `json:"repeated,omitempty"`
}

// UnavailableError means that Redis did not confirm the message in time. It
// may be queued all the same: send it again with the same idempotency key, or
// ask for the status of ID.
type UnavailableError struct {
	ID  string
	Err error
}

// Error implements error.
func (e *UnavailableError) Error() string {
	return fmt.Sprintf("it is not known whether message %s is queued: %v", e.ID, e.Err)
}

// Unwrap returns the cause.
func (e *UnavailableError) Unwrap() error { return e.Err }

// Open makes a Client. It does not reach for Redis yet. It fails with
// [tasks.ErrNoKeys] when there is no key, and when a key, the URL or a number of
// queues is malformed.
func Open(cfg Config) (*Client, error) {
	keys, err := tasks.NewKeyring(cfg.Keys...)
	if err != nil {
		return nil, err
	}
	if err := checkQueues(cfg.Queues); err != nil {
		return nil, err
	}
	c := &Client{rdb: cfg.Redis, keys: keys, window: cfg.IdempotencyWindow, queues: maps.Clone(cfg.Queues), now: time.Now}
	if c.rdb == nil {
		if c.rdb, err = redisconn.Open(cfg.RedisURL, redisconn.Options{ClientName: "otpq-enqueue"}); err != nil {
			return nil, err
		}
		c.owned = true
	}
	if c.window <= 0 {
		c.window = defaultWindow
	}
	c.queue = asynq.NewClientFromRedisClient(c.rdb)
	c.store = status.NewRedis(c.rdb, cfg.Retention)
	c.withdrawals = newWithdrawals(c.Cancel)
	return c, nil
}

// Close ends the connection to Redis if the Client opened it. It may wait a
// second for what failed Sends left to do. Call no Send beside it or after it.
func (c *Client) Close() error {
	c.withdrawals.close()
	if !c.owned {
		return nil
	}
	return c.rdb.Close()
}

// Send queues a request and returns once it is durable in Redis and its status
// can be read.
//
// It fails with [providers.FieldErrors] when the provider's page does not allow
// the request, with an [OptionError] when an option is wrong, and with an
// [UnavailableError] when Redis did not confirm it before ctx ended.
func (c *Client) Send(ctx context.Context, r providers.Request, opts ...Option) (Receipt, error) {
	o, err := newOptions(opts, c.now())
	if err != nil {
		return Receipt{}, err
	}
	if err := r.Validate(); err != nil {
		return Receipt{}, err
	}
	m, err := c.newMessage(r, o)
	if err != nil {
		return Receipt{}, err
	}
	if o.key == "" {
		return c.sendOnce(ctx, m, r.MaskedRecipient(), o.at)
	}
	return c.sendKeyed(ctx, m, r.MaskedRecipient(), o.at)
}

// Cancel takes a message back. It fails with a [status.RefusedError] when a
// worker has it already or it has come to its end, and with [status.ErrNotFound].
func (c *Client) Cancel(ctx context.Context, id string) error {
	return status.Cancel(ctx, c.store, id, c.now())
}

// Status returns what is known of a message. It fails with [status.ErrNotFound].
func (c *Client) Status(ctx context.Context, id string) (status.Record, error) {
	return c.store.Get(ctx, id)
}

// sendOnce queues a message that has no idempotency key. When Redis does not
// confirm it, it is taken back: the record would say "queued" for good, and the
// app, which was told that it failed, may send another.
func (c *Client) sendOnce(ctx context.Context, m tasks.Message, recipient string, at time.Time) (Receipt, error) {
	if err := c.submit(ctx, m, status.NewRecord(m, recipient), at); err != nil {
		c.withdrawals.add(m.ID)
		return Receipt{}, err
	}
	return Receipt{ID: m.ID, State: status.Queued, NotAfter: m.NotAfter}, nil
}

// submit writes the record and then queues the task; in this order, so that a
// worker never meets a message whose app cannot read its status. Both steps may
// be repeated: a message is recorded once and queued once however often.
func (c *Client) submit(ctx context.Context, m tasks.Message, r status.Record, at time.Time) error {
	task, err := tasks.NewTask(c.keys, m)
	if err != nil {
		return err
	}
	if err := c.store.Create(ctx, r); err != nil && !errors.Is(err, status.ErrExists) {
		return &UnavailableError{ID: m.ID, Err: err}
	}
	opts := []asynq.Option{asynq.Queue(c.queueOf(m))}
	if !at.IsZero() {
		opts = append(opts, asynq.ProcessAt(at))
	}
	// A conflict means that it is queued: by this call, whose reply was lost,
	// or by another call with the same idempotency key.
	if _, err := c.queue.EnqueueContext(ctx, task, opts...); err != nil && !errors.Is(err, asynq.ErrTaskIDConflict) {
		if ctx.Err() != nil {
			err = ctx.Err() // asynq's error has only the text of its cause
		}
		return &UnavailableError{ID: m.ID, Err: fmt.Errorf("queue the task: %w", err)}
	}
	return nil
}
