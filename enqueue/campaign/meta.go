package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

// meta is a campaign with what nobody else needs to know of it.
type meta struct {
	Campaign
	digest string
	keyID  string // of the key whose hashes find recipients again
	chunks int
	// kept is how many rows are in the chunks; those before place fed are in the
	// queue or have ended, and those before reserved may be.
	kept, fed, reserved int64
	reservedAt          time.Time
	// ramp is when it began to run again after a pause of its own, and holds how
	// often in a row it paused because too many failed.
	ramp  time.Time
	holds int
	// lasts is true when all its keys were given their time to live.
	lasts bool
}

// read reads a campaign. It fails with [ErrNotFound].
func (c *Control) read(ctx context.Context, id string) (*meta, error) {
	all, err := c.readMany(ctx, []string{id})
	switch {
	case err != nil:
		return nil, err
	case all[0] == nil:
		return nil, ErrNotFound
	}
	return all[0], nil
}

// readMany reads campaigns, in one round trip. In the place of what there is not is nil.
func (c *Control) readMany(ctx context.Context, ids []string) ([]*meta, error) {
	type reading struct {
		fields, counts *redis.MapStringStringCmd
		lease          *redis.StringCmd
	}
	list := make([]reading, len(ids))
	redisscript.Pipelined(ctx, c.rdb, func(p redis.Pipeliner) {
		for i, id := range ids {
			list[i] = reading{p.HGetAll(ctx, campaignKey(id)), p.HGetAll(ctx, countsKey(id)), p.Get(ctx, leaseKey(id))}
		}
	})
	all := make([]*meta, len(ids))
	for i, r := range list {
		for _, err := range []error{r.fields.Err(), r.counts.Err(), r.lease.Err()} {
			if err != nil && !errors.Is(err, redis.Nil) {
				return nil, fmt.Errorf("read campaign: %w", err)
			}
		}
		if len(r.fields.Val()) == 0 {
			continue
		}
		var err error
		if all[i], err = readMeta(ids[i], r.fields.Val(), r.counts.Val(), r.lease.Val()); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func readMeta(id string, fields, counts map[string]string, lease string) (*meta, error) {
	m, err := decodeMeta(id, fields, counts)
	if err != nil {
		return nil, err
	}
	_, m.Feeder, _ = strings.Cut(lease, "|")
	if m.Feeder == "" {
		m.RatePerSecond = 0
	}
	return m, nil
}

func decodeMeta(id string, f, counts map[string]string) (*meta, error) {
	m := &meta{}
	if err := json.Unmarshal([]byte(f["settings"]), &m.Settings); err != nil {
		return nil, fmt.Errorf("campaign %s cannot be read: it was changed in Redis", id)
	}
	m.ID = id
	m.State, m.Reason, m.Until = State(f["state"]), f["reason"], timeOf(f["until"])
	m.Source, m.RetryOf, m.RetriedAs = f["source"], f["retry_of"], f["retried_as"]
	m.CreatedAt, m.StartedAt, m.CompletedAt = timeOf(f["created"]), timeOf(f["started"]), timeOf(f["completed"])
	m.Detached = f["detached"] == "1"
	m.RatePerSecond, _ = strconv.ParseFloat(f["pace"], 64)
	m.digest, m.keyID, m.chunks = f["digest"], f["key"], int(number(f["chunks"]))
	m.kept, m.fed, m.reserved = number(f["kept"]), number(f["fed"]), number(f["reserved"])
	m.reservedAt, m.askedAt, m.ramp = timeOf(f["reserved_at"]), timeOf(f["asked"]), timeOf(f["ramp"])
	m.holds, m.lasts = int(number(f["holds"])), f["lasts"] == "1"
	m.Counts = Counts{
		Rows: number(counts["rows"]), Invalid: number(counts["invalid"]), Duplicate: number(counts["duplicate"]),
		Waiting: number(counts["waiting"]), Queued: number(counts["queued"]), Sending: number(counts["sending"]),
		Deferred: number(counts["deferred"]), Accepted: number(counts["accepted"]), Rejected: number(counts["rejected"]),
		Exhausted: number(counts["exhausted"]), Unknown: number(counts["unknown"]), Expired: number(counts["expired"]),
		Canceled: number(counts["canceled"]),
	}
	return m, nil
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

// timeOf reads a time as Redis holds it: milliseconds, or nothing.
func timeOf(s string) time.Time {
	ms := number(s)
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// inFlight are those that are in the queue or in a worker's hands.
func (n Counts) inFlight() int64 { return n.Queued + n.Sending + n.Deferred }
