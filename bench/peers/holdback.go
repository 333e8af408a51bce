package peers

import (
	"context"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisconn"
)

// Holder keeps a fill from having more than some messages queued at once.
type Holder struct {
	rdb   redis.UniversalClient
	queue string
	most  int

	mu   sync.Mutex
	room int
}

// HoldBack makes a Holder of the product's queue.
func HoldBack(cfg Config, most int) (*Holder, error) {
	rdb, err := redisconn.Open(cfg.Redis, redisconn.Options{})
	if err != nil {
		return nil, err
	}
	return &Holder{rdb: rdb, queue: "asynq:{" + cfg.Queue() + "}:pending", most: most}, nil
}

// Wait returns once there is room for one message more.
func (h *Holder) Wait(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.room <= 0 {
		waiting, err := h.rdb.LLen(ctx, h.queue).Result()
		if err != nil {
			return err
		}
		if h.room = h.most - int(waiting); h.room > 0 {
			break
		}
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	h.room--
	return nil
}

// Close ends the connection.
func (h *Holder) Close() error { return h.rdb.Close() }
