package redisconn

import (
	"context"
	"fmt"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// LogTo sends what go-redis itself logs (failed dials, failovers, lost
// subscriptions) to log, as warnings. go-redis has one logger for the whole
// process, so the last call wins.
func LogTo(log zerolog.Logger) { redis.SetLogger(adapter{log}) }

// adapter is the logger that go-redis wants.
type adapter struct{ log zerolog.Logger }

// Printf logs one line of go-redis's.
func (a adapter) Printf(_ context.Context, format string, v ...any) {
	text := strings.TrimSpace(fmt.Sprintf(format, v...))
	a.log.Warn().Str("component", "redis").Msg(strings.TrimPrefix(text, "redis: "))
}
