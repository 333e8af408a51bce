// Package enqueue is what an app imports to have codes sent: it queues a
// request, cancels it, and tells what became of it. It sends nothing to any
// provider itself and pulls in no worker code.
package enqueue

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/coalesce"
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
	store  *status.Redis
	keys   *tasks.Keyring
	window time.Duration
	queues map[string]int
	now    func() time.Time
	// sends are those of all callers; not on a cluster.
	sends *coalesce.Group[*item]
	// apart is true when Redis is, or hides, a cluster: what belongs to a message is
	// on several nodes.
	apart atomic.Bool
	// published are the queues that were added to the set of all queues, on a
	// cluster.
	published sync.Map
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
	_, single := c.rdb.(*redis.Client)
	c.apart.Store(!single)
	c.sends = coalesce.New(submitCalls, mostTogether, c.submitSends)
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
	now := c.now()
	o, err := newOptions(opts, now)
	if err != nil {
		return Receipt{}, err
	}
	it, err := c.newItem(r, o, now)
	if err != nil {
		return Receipt{}, err
	}
	id := it.m.ID
	if err := c.submitOne(ctx, it); err != nil {
		if o.key == "" && o.identity.ID == "" {
			// The record would say "queued" for good, and the app, which is told
			// that it failed, may send another.
			c.withdrawals.add(id)
		}
		return Receipt{}, err
	}
	if !it.isHeld {
		return it.fresh(), nil
	}
	if first, err := parseReservation(it.held); err == nil {
		id = first.id
	}
	if err := await(ctx, func() { c.resolve(ctx, []*item{it}) }); err != nil {
		return Receipt{}, &UnavailableError{ID: id, Err: err}
	}
	return it.receipt, it.err
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

// submitOne is submit of one item. What comes at the same time goes in one call;
// on a cluster each has its own, because a slow node would hold up the others. When
// it fails with ctx's error, the item may still be in use.
func (c *Client) submitOne(ctx context.Context, it *item) error {
	id := it.m.ID
	it.ctx = ctx
	var err error
	if c.apart.Load() {
		err = await(ctx, func() { c.submit(ctx, []*item{it}) })
	} else {
		err = c.sends.Do(ctx, it)
	}
	if err != nil {
		return &UnavailableError{ID: id, Err: err}
	}
	return it.err
}

// submitSends is submit of many callers' items.
func (c *Client) submitSends(items []*item) {
	wanted := make([]*item, 0, len(items))
	// No message comes twice in a call: of Sends as one identity the first stands for
	// all.
	var first map[string]*item
	var again []*item
	for _, it := range items {
		if err := it.ctx.Err(); err != nil {
			it.unavailable(err) // and its caller has gone
			continue
		}
		if it.kept {
			if first[it.m.ID] != nil {
				again = append(again, it)
				continue
			}
			if first == nil {
				first = map[string]*item{}
			}
			first[it.m.ID] = it
		}
		wanted = append(wanted, it)
	}
	ctx, cancel := context.WithTimeout(context.Background(), submitTime)
	defer cancel()
	c.submit(ctx, wanted)
	for _, it := range again {
		it.err = first[it.m.ID].err
	}
}

// await returns when do has, or with ctx's error when that ends first, which
// go-redis does not look at while it waits for a reply.
func await(ctx context.Context, do func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		do()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
