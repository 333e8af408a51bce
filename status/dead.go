package status

import (
	"context"
	"fmt"
	"iter"
	"time"
)

// DeadLetter is an [EndedMessage] that is [State.Dead]: it ended without being
// accepted and is kept, with its sealed payload, until its retention ends.
type DeadLetter = EndedMessage

// DeadFilter chooses dead letters. Zero fields choose all.
type DeadFilter struct {
	State        State
	Reason       string
	Since, Until time.Time // by the time of death, both included
}

// deadStates are the dead letters' states.
func deadStates() []State { return []State{Rejected, Exhausted, Unknown} }

// Dead yields the dead letters of a provider that match f, as [Redis.Ended] does.
func (s *Redis) Dead(ctx context.Context, provider string, f DeadFilter) iter.Seq2[DeadLetter, error] {
	states := deadStates()
	if f.State != "" && !f.State.Dead() {
		return func(func(DeadLetter, error) bool) {} // there is none
	}
	if f.State != "" {
		states = []State{f.State}
	}
	return s.Ended(ctx, provider, EndedFilter{States: states, Reason: f.Reason, Since: f.Since, Until: f.Until})
}

// CountDead is how many dead letters of a provider the index names, in constant time.
// It counts those that have ended since as well: see [deadKey].
func (s *Redis) CountDead(ctx context.Context, provider string) (int64, error) {
	n, err := s.rdb.ZCard(ctx, deadKey(provider)).Result()
	if err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	return n, nil
}

// DeadLetter returns one dead letter. It fails with [ErrNotFound], or with a
// [RefusedError] when the message is no dead letter.
func (s *Redis) DeadLetter(ctx context.Context, id string) (DeadLetter, error) {
	fields, err := s.rdb.HGetAll(ctx, recordKey(id)).Result()
	if err != nil {
		return DeadLetter{}, fmt.Errorf("read dead letter: %w", err)
	}
	if len(fields) == 0 {
		return DeadLetter{}, ErrNotFound
	}
	letter, kept := decodeEnded(id, fields)
	if !kept || !letter.State.Dead() {
		return DeadLetter{}, &RefusedError{ID: id, From: letter.State, To: Queued}
	}
	return letter, nil
}

// MarkReplayed notes that a dead letter lives on as the message newID and
// returns the id it lives on as: an earlier replay's, when there was one that
// may not have come to its end and is not the one to replace. It fails like
// [Redis.DeadLetter].
func (s *Redis) MarkReplayed(ctx context.Context, id, newID, replace string) (string, error) {
	one := []Resend{{ID: id, NewID: newID, Replace: replace}}
	as, errs := s.markResent(ctx, one, deadStates())
	return as[0], errs[0]
}

// DropDead takes a message off the list of dead letters, deletes its payload
// and keeps its record as long as that of any other finished message. It is for
// letters that were replayed or discarded, and may be repeated.
func (s *Redis) DropDead(ctx context.Context, provider, id string) error {
	return s.drop(ctx, []string{deadKey(provider)}, []string{id})[0]
}
