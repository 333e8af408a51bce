package status

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

// An index is a sorted set of a provider's messages: id by the time of their end. It
// may name messages that did not come to that end (it is written first, and records
// end on their own), so readers look at the record.
const (
	deadIndex    = "otpq:dead:"
	expiredIndex = "otpq:expired:"
)

func deadKey(provider string) string { return deadIndex + provider }

// indexOf is what the key of the index that lists a state begins with; empty when a
// message in that state keeps no payload.
func indexOf(state State) string {
	switch state {
	case Rejected, Exhausted, Unknown:
		return deadIndex
	case Expired:
		return expiredIndex
	case Queued, Sending, Deferred, Accepted, Canceled:
	}
	return ""
}

// entry is a message that is about to be listed.
type entry struct {
	state State
	key   string
	id    string
	now   time.Time
	err   error
}

// index notes that a message is about to come to its end. It comes before the
// record says so: a crash in between leaves an entry too many, which readers pass
// over, instead of a message nobody can find. Those that come at the same time go
// together: after an outage thousands expire at once.
func (s *Redis) index(ctx context.Context, to State, provider, id string, now time.Time) error {
	if indexOf(to) == "" {
		return nil
	}
	one := &entry{state: to, key: indexOf(to) + provider, id: id, now: now}
	if err := s.indexing.Do(ctx, one); err != nil {
		return fmt.Errorf("index ended message: %w", err)
	}
	return one.err
}

// indexAll writes entries in one round trip.
func (s *Redis) indexAll(batch []*entry) {
	ctx, cancel := context.WithTimeout(context.Background(), runTime)
	defer cancel()
	byKey := map[string][]*entry{}
	for _, e := range batch {
		byKey[e.key] = append(byKey[e.key], e)
	}
	cmds := map[string][]redis.Cmder{}
	redisscript.Pipelined(ctx, s.rdb, func(p redis.Pipeliner) {
		for key, entries := range byKey {
			members, last := make([]redis.Z, len(entries)), time.Time{}
			for i, e := range entries {
				members[i] = redis.Z{Score: float64(e.now.UnixMilli()), Member: e.id}
				if e.now.After(last) {
					last = e.now
				}
			}
			keep := time.Duration(s.keep(entries[0].state)) * time.Millisecond
			cmds[key] = []redis.Cmder{
				p.ZAdd(ctx, key, members...),
				p.ZRemRangeByScore(ctx, key, "-inf", strconv.FormatInt(last.Add(-keep).UnixMilli(), 10)),
				p.PExpire(ctx, key, keep+time.Hour), // a little longer than its last message
			}
		}
	})
	for _, e := range batch {
		for _, cmd := range cmds[e.key] {
			if err := cmd.Err(); err != nil && e.err == nil {
				e.err = fmt.Errorf("index ended message: %w", err)
			}
		}
	}
}

// place is an entry of an index.
type place struct {
	id     string
	index  string
	listed time.Time
}

// nextPage takes the next places of all cursors together, in the order of time.
func nextPage(ctx context.Context, cursors []*cursor) ([]place, error) {
	page := make([]place, 0, endedPage)
	for len(page) < endedPage {
		var first *cursor
		for _, c := range cursors {
			if err := c.fill(ctx); err != nil {
				return nil, err
			}
			if len(c.page) > 0 && (first == nil || c.page[0].Score < first.page[0].Score) {
				first = c
			}
		}
		if first == nil {
			break
		}
		z := first.page[0]
		first.page = first.page[1:]
		page = append(page, place{id: z.Member.(string), index: first.key, listed: time.UnixMilli(int64(z.Score)).UTC()})
	}
	return page, nil
}

// cursor goes through an index, oldest first, while others write to it.
type cursor struct {
	rdb         redis.UniversalClient
	key         string
	from, until string
	page        []redis.Z // what is left of it
	over        bool      // there is none after it
	// seen are the ids that were read already and have the score that the next page
	// starts at.
	seen map[string]bool
}

func newCursor(rdb redis.UniversalClient, key string, since, until time.Time) *cursor {
	c := &cursor{rdb: rdb, key: key, from: "-inf", until: "+inf", seen: map[string]bool{}}
	if !since.IsZero() {
		c.from = formatMS(since)
	}
	if !until.IsZero() {
		c.until = formatMS(until)
	}
	return c
}

// fill reads the next page when nothing is left of the last.
func (c *cursor) fill(ctx context.Context) error {
	if len(c.page) > 0 || c.over {
		return nil
	}
	page, err := c.rdb.ZRangeByScoreWithScores(ctx, c.key, &redis.ZRangeBy{
		Min: c.from, Max: c.until, Count: endedPage + int64(len(c.seen)),
	}).Result()
	if err != nil {
		return err
	}
	c.over = len(page) < endedPage+len(c.seen)
	c.page = slices.DeleteFunc(page, func(z redis.Z) bool { return c.seen[z.Member.(string)] })
	if len(c.page) == 0 {
		c.over = true
		return nil
	}
	end := c.page[len(c.page)-1].Score
	if next := strconv.FormatInt(int64(end), 10); next != c.from {
		c.from = next
		clear(c.seen)
	}
	for _, z := range c.page {
		if z.Score == end {
			c.seen[z.Member.(string)] = true
		}
	}
	return nil
}
