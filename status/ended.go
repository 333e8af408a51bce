package status

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/tasks"
)

// endedPage is how many messages are read at a time; what a listing holds in
// memory does not grow with how many there are.
const endedPage = 256

// EndedMessage is a message that came to one of the [EndedStates], with its sealed
// payload.
type EndedMessage struct {
	Record
	Payload []byte `json:"-"`
	// Listed is its place in the order of a listing, and zero outside of one: when it
	// ended, or when a result came that was too late and changed nothing.
	Listed time.Time `json:"-"`
}

// Open unseals the message. It fails as [tasks.Decode] does.
func (m EndedMessage) Open(keys *tasks.Keyring) (tasks.Message, error) {
	payload := m.Payload
	switch inner, err := tasks.Release(keys, payload); {
	case err == nil:
		payload = inner // it could not be read when it ended, and may be now
	case !errors.Is(err, tasks.ErrMalformed):
		return tasks.Message{}, err
	}
	opened, err := tasks.Decode(keys, payload)
	if err == nil && opened.ID != m.ID {
		err = tasks.ErrMalformed // another message's payload, put under this one's name
	}
	return opened, err
}

// EndedFilter chooses messages that ended. Zero fields choose all.
type EndedFilter struct {
	States       []State // of [EndedStates]; there is nothing in others
	Reason       string
	Since, Until time.Time // by the time of their end, both included
}

func (f EndedFilter) matches(r Record) bool {
	return (len(f.States) == 0 || slices.Contains(f.States, r.State)) && (f.Reason == "" || f.Reason == r.Reason)
}

// indexes are those that list what f chooses.
func (f EndedFilter) indexes(provider string) (keys []string) {
	for _, state := range EndedStates() {
		key := indexOf(state) + provider
		if (len(f.States) == 0 || slices.Contains(f.States, state)) && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return keys
}

// Ended yields the messages of a provider that ended in one of the states and match
// f, in the order of Listed. They are read page by page; one that ends while Ended
// runs may or may not be seen. An error is yielded once and ends the sequence.
//
// One that was begun to be sent again stays listed until [Redis.DropEnded]: when that
// died in the middle, this is how it is found and repeated. ReplayedAs is set then.
func (s *Redis) Ended(ctx context.Context, provider string, f EndedFilter) iter.Seq2[EndedMessage, error] {
	return func(yield func(EndedMessage, error) bool) {
		var cursors []*cursor
		for _, key := range f.indexes(provider) {
			cursors = append(cursors, newCursor(s.rdb, key, f.Since, f.Until))
		}
		for {
			page, err := nextPage(ctx, cursors)
			if err != nil {
				yield(EndedMessage{}, fmt.Errorf("read ended messages: %w", err))
				return
			}
			if len(page) == 0 || !s.yieldEnded(ctx, provider, page, f, yield) {
				return
			}
		}
	}
}

// yieldEnded reads one page of records and yields those that match. It reports
// whether the reader wants more.
func (s *Redis) yieldEnded(ctx context.Context, provider string, page []place, f EndedFilter, yield func(EndedMessage, error) bool) bool {
	reads := make([]*redis.MapStringStringCmd, len(page))
	_, err := s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, at := range page {
			reads[i] = p.HGetAll(ctx, recordKey(at.id))
		}
		return nil
	})
	if err != nil {
		yield(EndedMessage{}, fmt.Errorf("read ended messages: %w", err))
		return false
	}
	for i, at := range page {
		m, kept := decodeEnded(at.id, reads[i].Val())
		// What was about to end in one way and ended in another is in two indexes.
		if !kept || indexOf(m.State)+provider != at.index || !f.matches(m.Record) {
			continue
		}
		m.Listed = at.listed
		if !yield(m, nil) {
			return false
		}
	}
	return true
}

// decodeEnded reads a message from its hash's fields. It reports false when the
// message is in none of the [EndedStates], or its payload is gone.
func decodeEnded(id string, fields map[string]string) (EndedMessage, bool) {
	payload, kept := fields["payload"]
	m := EndedMessage{Record: DecodeRecord(id, fields), Payload: []byte(payload)}
	return m, kept && indexOf(m.State) != ""
}
