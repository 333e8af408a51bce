package metrics

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
)

func TestRedisErrorsAreCountedByKind(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do   func(ctx context.Context, s *redistest.Server, rdb *redis.Client)
		kind string // "" for no error
	}{
		"nothing there is no error": {func(ctx context.Context, _ *redistest.Server, rdb *redis.Client) {
			rdb.Get(ctx, "nothing")
			_, _ = rdb.Pipelined(ctx, func(p redis.Pipeliner) error { p.Get(ctx, "nothing"); return nil })
		}, ""},
		"a script that is not loaded yet is no error": {func(ctx context.Context, _ *redistest.Server, rdb *redis.Client) {
			redis.NewScript("return 1").Run(ctx, rdb, nil)
		}, ""},
		"a caller that leaves is no error": {func(ctx context.Context, _ *redistest.Server, rdb *redis.Client) {
			ctx, cancel := context.WithCancel(ctx)
			cancel()
			rdb.Get(ctx, "x")
		}, ""},
		"full memory": {func(ctx context.Context, _ *redistest.Server, rdb *redis.Client) {
			rdb.ConfigSet(ctx, "maxmemory", "1")
			rdb.Set(ctx, "x", "y", 0)
		}, redisMemory},
		"a command that the user may not use": {func(ctx context.Context, _ *redistest.Server, rdb *redis.Client) {
			rdb.Do(ctx, "acl", "setuser", "default", "-set")
			rdb.Set(ctx, "x", "y", 0)
		}, redisDenied},
		"a server that is gone": {func(ctx context.Context, s *redistest.Server, rdb *redis.Client) {
			s.Stop()
			rdb.Get(ctx, "x")
		}, redisNetwork},
		"a server that hangs": {func(ctx context.Context, s *redistest.Server, rdb *redis.Client) {
			rdb.Ping(ctx)
			s.Pause()
			ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
			rdb.Get(ctx, "x")
			s.Resume()
		}, redisTimeout},
		"a wrong command": {func(ctx context.Context, _ *redistest.Server, rdb *redis.Client) {
			rdb.Do(ctx, "nosuchcommand")
		}, redisOther},
		"a pipeline counts once": {func(ctx context.Context, _ *redistest.Server, rdb *redis.Client) {
			_, _ = rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
				p.Get(ctx, "nothing")
				p.Do(ctx, "nosuchcommand")
				p.Do(ctx, "nosuchcommand")
				return nil
			})
		}, redisOther},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := redistest.Start(t)
			rdb := s.Client()
			hook := RedisErrors(prometheus.NewRegistry()).(errorCounter)
			rdb.AddHook(hook)
			c.do(t.Context(), s, rdb)
			for _, k := range redisKinds() {
				want := 0.0
				if k == c.kind {
					want = 1
				}
				if got := testutil.ToFloat64(hook.errors.WithLabelValues(k)); got != want {
					t.Errorf("%s = %v, want %v", k, got, want)
				}
			}
		})
	}
}
