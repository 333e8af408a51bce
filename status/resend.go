package status

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

//go:embed lua/replayed.lua
var replayedLua string

//go:embed lua/drop.lua
var dropLua string

var (
	replayedScript = redisscript.New(replayedLua)
	dropScript     = redisscript.New(headLua() + dropLua)
)

// Resend says that the message NewID takes the place of the message ID.
type Resend struct {
	ID, NewID string
	// Replace is an earlier message that took its place, and gives way to NewID; empty
	// when none does.
	Replace string
}

// MarkResent notes of messages in one of the [EndedStates] which new ones take their
// place, in one round trip. It returns, at its place, the id that each lives on as:
// the first new id wins, for whoever asks at the same time and later, and stays so
// when the mark is repeated. Each has an error of its own: [ErrNotFound] when there is
// no record, and a [RefusedError] when the message did not end in one of the states, or
// was given up. A few hundred at a time are best: others wait for Redis meanwhile.
func (s *Redis) MarkResent(ctx context.Context, resends []Resend) ([]string, []error) {
	return s.markResent(ctx, resends, EndedStates())
}

func (s *Redis) markResent(ctx context.Context, resends []Resend, states []State) ([]string, []error) {
	from := "|"
	for _, state := range states {
		from += string(state) + "|"
	}
	cmds := s.evalEach(ctx, replayedScript, len(resends), func(i int) (string, []any) {
		r := resends[i]
		return recordKey(r.ID), []any{r.NewID, from, r.Replace}
	})
	as, errs := make([]string, len(cmds)), make([]error, len(cmds))
	for i, cmd := range cmds {
		reply, err := cmd.StringSlice()
		switch {
		case err != nil:
			errs[i] = fmt.Errorf("mark message as replayed: %w", err)
		case len(reply) != 2:
			errs[i] = fmt.Errorf("mark message as replayed: the script answered %d values, want 2", len(reply))
		case reply[0] == "ok":
			as[i] = reply[1]
		case reply[0] == "gone":
			errs[i] = ErrNotFound
		default:
			errs[i] = &RefusedError{ID: resends[i].ID, From: State(reply[1]), To: Queued}
		}
	}
	return as, errs
}

// DropEnded takes messages of a provider off the lists of those that ended, deletes
// their payloads, and keeps their records as long as those of any other finished
// message. It is for those that were sent again, once the new message is queued, and
// may be repeated. Each has an error of its own, at its place.
func (s *Redis) DropEnded(ctx context.Context, provider string, ids []string) []error {
	return s.drop(ctx, EndedFilter{}.indexes(provider), ids)
}

func (s *Redis) drop(ctx context.Context, indexes, ids []string) []error {
	now, keep := time.Now().UnixMilli(), s.retention.Records.Milliseconds()
	cmds := s.evalEach(ctx, dropScript, len(ids), func(i int) (string, []any) {
		return recordKey(ids[i]), []any{now, keep}
	})
	errs := make([]error, len(ids))
	var dropped []any // the list last: who is off it and has a payload is found by nobody
	for i, cmd := range cmds {
		if err := cmd.Err(); err != nil {
			errs[i] = fmt.Errorf("drop ended message: %w", err)
			continue
		}
		dropped = append(dropped, ids[i])
	}
	if len(dropped) == 0 {
		return errs
	}
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, key := range indexes {
			p.ZRem(ctx, key, dropped...)
		}
		return nil
	})
	for i := range errs {
		if err != nil && errs[i] == nil {
			errs[i] = fmt.Errorf("drop ended message: %w", err)
		}
	}
	return errs
}
