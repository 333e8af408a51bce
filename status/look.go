package status

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
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
	looks := make([]Look, len(ids))
	rows, errs := s.fields(ctx, ids, "state", "reason", "updated", "next", "not_after", "made")
	for i, f := range rows {
		if f[0] == "" {
			continue
		}
		looks[i] = Look{State: State(f[0]), Reason: f[1], UpdatedAt: parseMS(f[2]), NextAttemptAt: parseMS(f[3]), NotAfter: parseMS(f[4])}
		if f[2] == "" { // nothing has happened to it yet
			looks[i].UpdatedAt = parseMS(f[5][strings.LastIndexByte(f[5], '|')+1:])
		}
	}
	return looks, errs
}

// States returns the states of messages, each at its place: an empty one where
// there is no record.
func (s *Redis) States(ctx context.Context, ids []string) ([]State, []error) {
	states := make([]State, len(ids))
	rows, errs := s.fields(ctx, ids, "state")
	for i, f := range rows {
		states[i] = State(f[0])
	}
	return states, errs
}

// fields reads the same fields of many records. What is not there is empty.
func (s *Redis) fields(ctx context.Context, ids []string, names ...string) ([][]string, []error) {
	cmds := make([]*redis.SliceCmd, len(ids))
	_, _ = s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error { // each command has its own error
		for i, id := range ids {
			cmds[i] = p.HMGet(ctx, recordKey(id), names...)
		}
		return nil
	})
	rows, errs := make([][]string, len(ids)), make([]error, len(ids))
	for i, cmd := range cmds {
		rows[i] = make([]string, len(names))
		values, err := cmd.Result()
		if err != nil {
			errs[i] = fmt.Errorf("read status record: %w", err)
			continue
		}
		for j, v := range values {
			rows[i][j] = asString(v)
		}
	}
	return rows, errs
}
