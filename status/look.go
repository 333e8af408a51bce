package status

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

// Look is as much of a record as those need who watch many messages at once.
type Look struct {
	State  State // empty when there is no record
	Reason string
	// UpdatedAt is when the message came to its State, and NextAttemptAt, of one that
	// is deferred, until when it waits.
	UpdatedAt     time.Time
	NextAttemptAt time.Time
	NotAfter      time.Time
}

// Looks reads a few fields of many records in one round trip. Each has an error of
// its own, at its place, and a zero Look where there is no record. A few hundred
// ids at a time are best: others wait for Redis meanwhile.
func (s *Redis) Looks(ctx context.Context, ids []string) ([]Look, []error) {
	cmds := make([]*redis.SliceCmd, len(ids))
	redisscript.Pipelined(ctx, s.rdb, func(p redis.Pipeliner) {
		for i, id := range ids {
			cmds[i] = p.HMGet(ctx, recordKey(id), "state", "reason", "updated", "next", madeField)
		}
	})
	looks, errs := make([]Look, len(ids)), make([]error, len(ids))
	for i, cmd := range cmds {
		values, err := cmd.Result()
		if err != nil {
			errs[i] = fmt.Errorf("read status record: %w", err)
			continue
		}
		looks[i] = look(values)
	}
	return looks, errs
}

// look reads the fields that Looks asked for, in their order.
func look(values []any) Look {
	f := make([]string, len(values))
	for i, v := range values {
		f[i] = asString(v)
	}
	if f[0] == "" {
		return Look{}
	}
	made := decodeMade(f[4])
	l := Look{State: State(f[0]), Reason: f[1], UpdatedAt: parseMS(f[2]), NextAttemptAt: parseMS(f[3]), NotAfter: made.notAfter}
	if f[2] == "" { // nothing has happened to it yet
		l.UpdatedAt = made.created
	}
	return l
}
