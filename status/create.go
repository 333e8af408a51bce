package status

import (
	"context"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

// redelivery is how long asynq may take to bring a task back, in milliseconds:
// see lua/shared.lua.
const redelivery = 180_000

// Seed is a new record as Redis holds it, for who writes it together with
// something else, in a script of its own. That script leaves alone a Key that
// exists, sets the Fields, and has the Key expire.
type Seed struct {
	Key string
	// Keep is how long the record is kept, in milliseconds.
	Keep int64
	// Fields are the hash's: name, value, ...
	Fields []any
}

// Seed returns what [Redis.Create] would write.
func (s *Redis) Seed(r Record) Seed {
	left := max(r.NotAfter.UnixMilli()-r.CreatedAt.UnixMilli(), 0)
	keep := s.keep(r.State)
	switch r.State {
	case Queued, Sending, Deferred:
		keep += left
	case Accepted, Rejected, Exhausted, Unknown, Expired, Canceled:
	}
	return Seed{Key: recordKey(r.ID), Keep: max(keep, left+redelivery), Fields: seedFields(r)}
}

// CreateAll is [Redis.Create] for many records at once. Each has an error of its
// own, at its place.
func (s *Redis) CreateAll(ctx context.Context, records []Record) []error {
	seeds := make([]Seed, len(records))
	for i, r := range records {
		seeds[i] = s.Seed(r)
	}
	cmds := s.evalEach(ctx, createScript, len(seeds), func(i int) (string, []any) {
		return seeds[i].Key, append([]any{seeds[i].Keep}, seeds[i].Fields...)
	})
	errs := make([]error, len(cmds))
	for i, cmd := range cmds {
		errs[i] = created(cmd)
	}
	return errs
}

// evalEach runs a script for each of n records, in one round trip. of tells a
// record's key and the script's arguments for it. Each command has its own error.
func (s *Redis) evalEach(ctx context.Context, script *redisscript.Script, n int, of func(i int) (key string, args []any)) []*redis.Cmd {
	calls := make([]*redisscript.Call, n)
	for i := range calls {
		key, args := of(i)
		calls[i] = &redisscript.Call{Script: script, Args: append(append(script.Begin(4+len(args)), 1, key), args...)}
	}
	redisscript.Run(ctx, s.rdb, calls...)
	cmds := make([]*redis.Cmd, n)
	for i, c := range calls {
		cmds[i] = c.Cmd
	}
	return cmds
}

// created reads the answer of create.lua.
func created(cmd *redis.Cmd) error {
	n, err := cmd.Int()
	if err != nil {
		return fmt.Errorf("write status record: %w", err)
	}
	if n == 0 {
		return ErrExists
	}
	return nil
}

// States returns the states of messages, each at its place: an empty one where
// there is no record.
func (s *Redis) States(ctx context.Context, ids []string) ([]State, []error) {
	cmds := make([]*redis.StringCmd, len(ids))
	redisscript.Pipelined(ctx, s.rdb, func(p redis.Pipeliner) {
		for i, id := range ids {
			cmds[i] = p.HGet(ctx, recordKey(id), "state")
		}
	})
	states, errs := make([]State, len(ids)), make([]error, len(ids))
	for i, cmd := range cmds {
		state, err := cmd.Result()
		if err != nil && err != redis.Nil { //nolint:errorlint // a command returns it as it is
			errs[i] = fmt.Errorf("read status record: %w", err)
		}
		states[i] = State(state)
	}
	return states, errs
}
