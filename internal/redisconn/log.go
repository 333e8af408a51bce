package redisconn

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// LogTo sends what go-redis itself logs (failed dials, failovers, lost
// subscriptions) to log, as warnings. go-redis has one logger for the whole
// process, so the last call wins. It is safe beside clients at work.
func LogTo(log zerolog.Logger) {
	current.Store(&log)
	// go-redis sets its logger without a lock: once is all it can bear.
	install.Do(func() { redis.SetLogger(adapter{}) })
}

var (
	current atomic.Pointer[zerolog.Logger]
	install sync.Once
)

// adapter is the logger that go-redis wants.
type adapter struct{}

// Printf logs one line of go-redis's.
func (adapter) Printf(_ context.Context, format string, v ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	current.Load().Warn().Str("component", "redis").Msg(strings.TrimPrefix(text, "redis: "))
}
