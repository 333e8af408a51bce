package enqueue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// reserveScript takes an idempotency key for a message, or returns what holds
// it. It looks under every sealing key, so that a key rotation forgets nothing.
// KEYS: one per sealing key. ARGV: reservation, window in ms.
var reserveScript = redis.NewScript(`
for i = 1, #KEYS do
  local held = redis.call('GET', KEYS[i])
  if held then return {KEYS[i], held} end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return {KEYS[1], ARGV[1]}
`)

// reservation is what Redis holds for an idempotency key. It has all that is
// needed to finish the Send that made it: when that one died between reserving
// the key and queuing the message, the next one queues it, under the same id.
type reservation struct {
	id       string
	queued   bool
	lane     tasks.Lane
	created  time.Time
	notAfter time.Time
}

func (r reservation) String() string {
	state := "reserved"
	if r.queued {
		state = "queued"
	}
	return fmt.Sprintf("%s|%s|%s|%d|%d", state, r.id, r.lane, r.created.UnixMilli(), r.notAfter.UnixMilli())
}

func parseReservation(s string) (reservation, error) {
	p := strings.Split(s, "|")
	if len(p) != 5 {
		return reservation{}, errors.New("malformed idempotency record in Redis")
	}
	created, err1 := strconv.ParseInt(p[3], 10, 64)
	notAfter, err2 := strconv.ParseInt(p[4], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return reservation{}, errors.New("malformed idempotency record in Redis")
	}
	return reservation{
		id: p[1], queued: p[0] == "queued", lane: tasks.Lane(p[2]),
		created: time.UnixMilli(created).UTC(), notAfter: time.UnixMilli(notAfter).UTC(),
	}, nil
}

// idempotencyKeys are the Redis keys of an idempotency key, one per sealing
// key. They share a cluster slot: eight bits of a plain hash choose it, which
// tell nothing of the key.
func (c *Client) idempotencyKeys(provider, key string) []string {
	sum := sha256.Sum256([]byte(key))
	slot := hex.EncodeToString(sum[:1])
	prints := c.keys.Fingerprints("idempotency "+provider, key)
	for i, p := range prints {
		prints[i] = "otpq:idem:{" + slot + "}:" + p
	}
	return prints
}

// sendKeyed queues a message unless its idempotency key was used before.
func (c *Client) sendKeyed(ctx context.Context, m tasks.Message, recipient string, at time.Time) (Receipt, error) {
	own := reservation{id: m.ID, lane: m.Lane, created: m.CreatedAt, notAfter: m.NotAfter}
	held, err := reserveScript.Run(ctx, c.rdb, c.idempotencyKeys(m.Provider, m.IdempotencyKey),
		own.String(), c.window.Milliseconds()).StringSlice()
	if err != nil {
		return Receipt{}, &UnavailableError{ID: m.ID, Err: fmt.Errorf("reserve the idempotency key: %w", err)}
	}
	first, err := parseReservation(held[1])
	if err != nil {
		return Receipt{}, err
	}
	switch {
	case first.queued:
		return c.repeatedReceipt(ctx, first)
	case !first.notAfter.After(m.CreatedAt):
		return c.replaceExpired(ctx, held[0], first, own, m, recipient, at)
	}
	return c.submitReserved(ctx, held[0], first, m, recipient, at)
}

// submitReserved finishes the Send that made the reservation, which may be this one.
func (c *Client) submitReserved(ctx context.Context, key string, r reservation, m tasks.Message, recipient string, at time.Time) (Receipt, error) {
	own := m.ID
	m.ID, m.Lane, m.CreatedAt, m.NotAfter = r.id, r.lane, r.created, r.notAfter
	if err := c.submit(ctx, m, status.NewRecord(m, recipient), at); err != nil {
		return Receipt{}, err // the reservation stays: the next Send goes on from here
	}
	r.queued = true
	// A failure here costs the next Send two round trips, nothing else.
	_ = c.rdb.SetArgs(ctx, key, r.String(), redis.SetArgs{Mode: "XX", KeepTTL: true}).Err()
	if r.id != own {
		return c.repeatedReceipt(ctx, r)
	}
	return Receipt{ID: m.ID, State: status.Queued, NotAfter: m.NotAfter}, nil
}

// replaceScript puts a reservation in another's place, if that is still there.
// KEYS: idempotency key. ARGV: the old one, the new one, window in ms.
var replaceScript = redis.NewScript(`
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
`)

// replaceExpired deals with a reservation whose Send died and whose deadline has
// passed since. Its app was told that it failed and asks again: for a code, not
// for an expired message. So unless the first one was sent after all, this Send
// takes the key over.
func (c *Client) replaceExpired(ctx context.Context, key string, first, own reservation, m tasks.Message, recipient string, at time.Time) (Receipt, error) {
	r, err := c.store.Get(ctx, first.id)
	switch {
	case errors.Is(err, status.ErrNotFound):
	case err != nil:
		return Receipt{}, &UnavailableError{ID: first.id, Err: err}
	case !neverSent(r):
		return c.repeatedReceipt(ctx, first)
	}
	replaced, err := replaceScript.Run(ctx, c.rdb, []string{key}, first.String(), own.String(), c.window.Milliseconds()).Int()
	if err != nil {
		return Receipt{}, &UnavailableError{ID: m.ID, Err: fmt.Errorf("reserve the idempotency key: %w", err)}
	}
	if replaced == 0 { // another Send was quicker: its reservation is fresh
		return c.sendKeyed(ctx, m, recipient, at)
	}
	return c.submitReserved(ctx, key, own, m, recipient, at)
}

// neverSent reports whether no request was ever made for a message whose deadline
// has passed: none will be.
func neverSent(r status.Record) bool {
	switch r.State {
	case status.Queued, status.Deferred, status.Expired, status.Canceled:
		return len(r.Attempts) == 0
	case status.Sending, status.Accepted, status.Rejected, status.Exhausted, status.Unknown:
	}
	return false
}

// repeatedReceipt is the first Send's receipt with the message's state now.
func (c *Client) repeatedReceipt(ctx context.Context, first reservation) (Receipt, error) {
	out := Receipt{ID: first.id, NotAfter: first.notAfter, Repeated: true}
	r, err := c.store.Get(ctx, first.id)
	switch {
	case err == nil:
		out.State = r.State
	case errors.Is(err, status.ErrNotFound): // its retention ended within the window
	default:
		return Receipt{}, &UnavailableError{ID: first.id, Err: err}
	}
	return out, nil
}
