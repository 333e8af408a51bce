package metrics

import (
	"context"
	"errors"
	"net"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
)

// What is wrong with a command to Redis, by which its errors are counted.
const (
	redisTimeout = "timeout" // no answer in time
	redisNetwork = "network" // no connection, or one that broke
	redisMemory  = "memory"  // maxmemory is reached
	redisDenied  = "denied"  // wrong password, or the ACL forbids the command
	redisBusy    = "busy"    // loads its data, fails over, or a script hogs it
	redisOther   = "other"
)

func redisKinds() []string {
	return []string{redisTimeout, redisNetwork, redisMemory, redisDenied, redisBusy, redisOther}
}

// errorCounter counts a client's errors.
type errorCounter struct{ errors *prometheus.CounterVec }

var _ redis.Hook = errorCounter{}

// RedisErrors returns a hook that counts the errors of the clients it is put on,
// and registers its metric with r. Put it below hooks that try again.
func RedisErrors(r prometheus.Registerer) redis.Hook {
	c := errorCounter{redisErrorsSpec.counter()}
	for _, k := range redisKinds() {
		c.errors.WithLabelValues(k)
	}
	r.MustRegister(c.errors)
	return c
}

// DialHook implements [redis.Hook]. A failed dial fails the command it was for.
func (c errorCounter) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (c errorCounter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if !opening(cmd) {
			c.count(err)
		}
		return err
	}
}

// ProcessPipelineHook implements [redis.Hook]. A broken connection gives each
// command of a pipeline the same error, so the first one stands for all.
func (c errorCounter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		for _, cmd := range cmds {
			if !opening(cmd) && c.count(cmd.Err()) {
				break
			}
		}
		return err
	}
}

// opening reports whether a command is one of those with which go-redis opens a
// connection. Older servers refuse some, which harms nobody; where it does, the
// command fails that the connection was for.
func opening(cmd redis.Cmder) bool {
	switch cmd.Name() {
	case "hello", "auth", "client", "select", "readonly":
		return true
	}
	return false
}

// count reports whether err is one.
func (c errorCounter) count(err error) bool {
	k := kindOf(err)
	if k != "" {
		c.errors.WithLabelValues(k).Inc()
	}
	return k != ""
}

// kindOf is empty for what is no failure: nothing there, a script that Redis does
// not know yet, and a caller that left.
func kindOf(err error) string {
	var timeout net.Error
	var reply redis.Error
	switch {
	case err == nil, errors.Is(err, redis.Nil), errors.Is(err, context.Canceled), redis.HasErrorPrefix(err, "NOSCRIPT"):
		return ""
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return redisTimeout
	case hasPrefix(err, "OOM"):
		return redisMemory
	case hasPrefix(err, "NOAUTH", "NOPERM", "WRONGPASS"):
		return redisDenied
	case hasPrefix(err, "LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF"):
		return redisBusy
	case errors.As(err, &reply):
		return redisOther
	}
	return redisNetwork
}

func hasPrefix(err error, prefixes ...string) bool {
	for _, p := range prefixes {
		if redis.HasErrorPrefix(err, p) {
			return true
		}
	}
	return false
}
