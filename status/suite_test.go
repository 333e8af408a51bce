package status_test

import (
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/status/statustest"
)

// onEachRedis runs the test on a real redis-server and on miniredis, which
// `otpq dev` embeds.
func onEachRedis(t *testing.T, test func(t *testing.T, rdb *redis.Client)) {
	t.Helper()
	t.Run("redis-server", func(t *testing.T) { test(t, redistest.Start(t).Client()) })
	t.Run("miniredis", func(t *testing.T) {
		rdb := redis.NewClient(&redis.Options{
			Addr: miniredis.RunT(t).Addr(), MaxRetries: -1, ContextTimeoutEnabled: true,
		})
		t.Cleanup(func() { _ = rdb.Close() })
		test(t, rdb)
	})
}

func TestRedisKeepsTheRulesOfAStore(t *testing.T) {
	onEachRedis(t, func(t *testing.T, rdb *redis.Client) {
		statustest.Run(t, func(*testing.T) status.Store { return status.NewRedis(rdb, status.Retention{}) })
	})
}
