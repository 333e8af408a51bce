package status

import (
	"context"
	_ "embed"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/replayed.lua
var replayedLua string

//go:embed lua/drop.lua
var dropLua string

var (
	replayedScript = redis.NewScript(replayedLua)
	dropScript     = redis.NewScript(transitionsLua() + sharedLua + dropLua)
)

// deadPage is how many dead letters are read at a time; what a listing holds in
// memory does not grow with how many there are.
const deadPage = 256

// DeadLetter is a message that ended without being accepted and is kept, with
// its sealed payload, until its retention ends.
type DeadLetter struct {
	Record
	Payload []byte `json:"-"`
}

// DeadFilter chooses dead letters. Zero fields choose all.
type DeadFilter struct {
	State        State
	Reason       string
	Since, Until time.Time // by the time of death, both included
}

func (f DeadFilter) matches(r Record) bool {
	return (f.State == "" || f.State == r.State) && (f.Reason == "" || f.Reason == r.Reason)
}

// deadKey is the index of a provider's dead letters: id by time of death. It
// may name messages that are no dead letters (it is written first, and records
// end on their own), so readers look at the record.
func deadKey(provider string) string { return "otpq:dead:" + provider }

// indexDead notes that a message is about to become a dead letter. It comes
// before the record says so: a crash in between leaves an entry too many, which
// readers pass over, instead of a dead letter nobody can find.
func (s *Redis) indexDead(ctx context.Context, to State, provider, id string, now time.Time) error {
	if !to.Dead() {
		return nil
	}
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.ZAdd(ctx, deadKey(provider), redis.Z{Score: float64(now.UnixMilli()), Member: id})
		p.ZRemRangeByScore(ctx, deadKey(provider), "-inf", strconv.FormatInt(now.Add(-s.retention.DeadLetters).UnixMilli(), 10))
		p.PExpire(ctx, deadKey(provider), s.retention.DeadLetters+time.Hour) // a little longer than its last letter
		return nil
	})
	if err != nil {
		return fmt.Errorf("index dead letter: %w", err)
	}
	return nil
}

// Dead yields the dead letters of a provider that match f, oldest first. They
// are read page by page; one that dies while Dead runs may or may not be seen.
// An error is yielded once and ends the sequence.
func (s *Redis) Dead(ctx context.Context, provider string, f DeadFilter) iter.Seq2[DeadLetter, error] {
	return func(yield func(DeadLetter, error) bool) {
		from, until := "-inf", "+inf"
		if !f.Since.IsZero() {
			from = formatMS(f.Since)
		}
		if !f.Until.IsZero() {
			until = formatMS(f.Until)
		}
		seen := map[string]bool{} // ids with the score that the next page starts at
		for {
			page, err := s.rdb.ZRangeByScoreWithScores(ctx, deadKey(provider), &redis.ZRangeBy{
				Min: from, Max: until, Count: deadPage + int64(len(seen)),
			}).Result()
			if err != nil {
				yield(DeadLetter{}, fmt.Errorf("read dead letters: %w", err))
				return
			}
			last := len(page) < deadPage+len(seen)
			page = slices.DeleteFunc(page, func(z redis.Z) bool { return seen[z.Member.(string)] })
			if !s.yieldDead(ctx, page, f, yield) || last || len(page) == 0 {
				return
			}
			end := page[len(page)-1].Score
			if next := strconv.FormatInt(int64(end), 10); next != from {
				from = next
				clear(seen)
			}
			for _, z := range page {
				if z.Score == end {
					seen[z.Member.(string)] = true
				}
			}
		}
	}
}

// yieldDead reads one page of records and yields those that match. It reports
// whether the reader wants more.
func (s *Redis) yieldDead(ctx context.Context, page []redis.Z, f DeadFilter, yield func(DeadLetter, error) bool) bool {
	reads := make([]*redis.MapStringStringCmd, len(page))
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, z := range page {
			reads[i] = p.HGetAll(ctx, recordKey(z.Member.(string)))
		}
		return nil
	})
	if err != nil {
		yield(DeadLetter{}, fmt.Errorf("read dead letters: %w", err))
		return false
	}
	for i, z := range page {
		fields := reads[i].Val()
		r := DecodeRecord(z.Member.(string), fields)
		// A letter whose replay was begun stays listed until DropDead: when the
		// replay died in the middle, this is how it is found and repeated.
		if _, kept := fields["payload"]; !kept || !r.State.Dead() || !f.matches(r) {
			continue
		}
		if !yield(DeadLetter{Record: r, Payload: []byte(fields["payload"])}, nil) {
			return false
		}
	}
	return true
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
	r := DecodeRecord(id, fields)
	if _, kept := fields["payload"]; !kept || !r.State.Dead() {
		return DeadLetter{}, &RefusedError{ID: id, From: r.State, To: Queued}
	}
	return DeadLetter{Record: r, Payload: []byte(fields["payload"])}, nil
}

// MarkReplayed notes that a dead letter lives on as the message newID and
// returns the id it lives on as: an earlier replay's, when there was one that
// may not have come to its end and is not the one to replace. It fails like
// [Redis.DeadLetter].
func (s *Redis) MarkReplayed(ctx context.Context, id, newID, replace string) (string, error) {
	const dead = "|" + string(Rejected) + "|" + string(Exhausted) + "|" + string(Unknown) + "|"
	reply, err := replayedScript.Run(ctx, s.rdb, []string{recordKey(id)}, newID, dead, replace).StringSlice()
	if err != nil {
		return "", fmt.Errorf("mark dead letter as replayed: %w", err)
	}
	switch reply[0] {
	case "ok":
		return reply[1], nil
	case "gone":
		return "", ErrNotFound
	}
	return "", &RefusedError{ID: id, From: State(reply[1]), To: Queued}
}

// DropDead takes a message off the list of dead letters, deletes its payload
// and keeps its record as long as that of any other finished message. It is for
// letters that were replayed or discarded, and may be repeated.
func (s *Redis) DropDead(ctx context.Context, provider, id string) error {
	keep := s.retention.Records.Milliseconds()
	if err := dropScript.Run(ctx, s.rdb, []string{recordKey(id)}, time.Now().UnixMilli(), keep).Err(); err != nil {
		return fmt.Errorf("drop dead letter: %w", err)
	}
	if err := s.rdb.ZRem(ctx, deadKey(provider), id).Err(); err != nil {
		return fmt.Errorf("drop dead letter: %w", err)
	}
	return nil
}
