package enqueue

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// crash is a hook that kills a server at a script's run: before Redis is asked, beside
// it, or after it has answered.
type crash struct {
	server *redistest.Server
	left   atomic.Int64 // until then
	when   int          // 0 before, 1 beside, 2 after
}

func (c *crash) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (c *crash) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		return c.run(cmd, func() error { return next(ctx, cmd) })
	}
}

func (c *crash) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		return c.run(cmds[0], func() error { return next(ctx, cmds) })
	}
}

func (c *crash) run(first redis.Cmder, next func() error) error {
	if name := first.Name(); name != "evalsha" && name != "eval" && name != "set" || c.left.Add(-1) != 0 {
		return next()
	}
	switch c.when {
	case 0:
		c.server.Stop()
		return next()
	case 1:
		done := make(chan error, 1)
		go func() { done <- next() }()
		c.server.Stop()
		return <-done
	}
	err := next()
	c.server.Stop()
	return err
}

// Redis dies under a batch, again and again. What was said to be queued is, and the rest
// can be sent again: in the end each row is there once.
func TestABatchTellsTheTruthThoughRedisIsKilled(t *testing.T) {
	t.Parallel()
	for name, apart := range map[string]bool{"in one step": false, "step by step": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, redistest.AOF())
			key := newKey("k")
			const n = 12 * mostTogether
			items := rows(n, byRow)
			first := map[int]string{} // the ids that rows were said to have
			todo := make([]int, n)
			for i := range todo {
				todo[i] = i
			}
			for round := 0; len(todo) > 0; round++ {
				if round > 20 {
					t.Fatalf("%d rows are left after %d rounds", len(todo), round)
				}
				c, err := Open(Config{RedisURL: server.URL(), Keys: []tasks.Key{key}})
				if err != nil {
					t.Fatal(err)
				}
				c.apart.Store(apart)
				killer := &crash{server: server, when: round % 3}
				killer.left.Store(int64(3 + 7*round))
				if len(todo) > mostTogether {
					c.rdb.AddHook(killer)
				}
				part := make([]Item, len(todo))
				for i, row := range todo {
					part[i] = items[row]
				}
				results, err := c.SendBatch(t.Context(), part)
				if killer.left.Load() <= 0 {
					server.Restart()
				}
				var failed *BatchError
				if err != nil && !errors.As(err, &failed) {
					t.Fatalf("SendBatch = %v", err)
				}
				var left []int
				for i, row := range todo {
					got := results[i]
					var unavailable *UnavailableError
					switch {
					case got.Err == nil:
						first[row] = got.Receipt.ID
					case errors.As(got.Err, &unavailable), errors.Is(got.Err, ErrUntried):
						left = append(left, row)
					default:
						t.Errorf("row %d = %+v", row, got)
					}
				}
				if err == nil && len(left) > 0 || err != nil && len(left) != failed.Unknown+failed.Untried {
					t.Errorf("SendBatch = %v with %d rows left", err, len(left))
				}
				todo = left
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			}
			look := server.Client()
			waitFor(t, "Redis to have read its log", func() bool { return look.Ping(t.Context()).Err() == nil })
			r := &rig{t: t, server: server, look: look, store: status.NewRedis(look, status.Retention{})}
			r.Client = r.producer(Config{Keys: []tasks.Key{key}})
			r.tasks = asynq.NewInspectorFromRedisClient(look)
			for row, id := range first {
				r.wantRow(id, row)
			}
			r.wantEachOnce(n)
		})
	}
}
