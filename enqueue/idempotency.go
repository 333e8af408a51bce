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

	"github.com/otpq/otpq/internal/redisscript"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// reserveScript takes an idempotency key for a message, or returns what holds
// it. It looks under every sealing key, so that a key rotation forgets nothing.
// KEYS: one per sealing key. ARGV: reservation, window in ms.
var reserveScript = redisscript.New(`
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
	b := append(make([]byte, 0, len("reserved")+len(r.id)+len(r.lane)+2*20), state...)
	b = append(append(b, '|'), r.id...)
	b = append(append(b, '|'), r.lane...)
	b = strconv.AppendInt(append(b, '|'), r.created.UnixMilli(), 10)
	return string(strconv.AppendInt(append(b, '|'), r.notAfter.UnixMilli(), 10))
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

// resolve sees to the items that are held because their idempotency key is
// another's, and gives a receipt to each that has no error.
func (c *Client) resolve(ctx context.Context, items []*item) {
	var begun, behind, repeated []*item
	resumed := map[string]*item{}
	for _, it := range items {
		switch {
		case it.err != nil:
			continue
		case !it.isHeld:
			it.receipt = it.fresh()
			continue
		}
		first, err := parseReservation(it.held)
		switch {
		case err != nil:
			it.err = err
		case first.queued:
			it.adopt(first)
			repeated = append(repeated, it)
		case !first.notAfter.After(it.m.CreatedAt):
			c.replaceExpired(ctx, it, first)
		default:
			// The Send that made it died: this one finishes it, under its id.
			it.adopt(first)
			if resumed[first.id] != nil { // by another item of these
				behind = append(behind, it)
				continue
			}
			resumed[first.id] = it
			if it.err = c.encode(it); it.err == nil {
				begun = append(begun, it)
			}
		}
	}
	if begun != nil {
		c.finishApart(ctx, begun) // an error leaves the reservation: the next Send goes on from here
		repeated = append(repeated, going(begun)...)
	}
	for _, it := range behind { // of what failed they know no more than the one that tried
		it.err = resumed[it.m.ID].err
	}
	repeated = append(repeated, going(behind)...)
	c.repeat(ctx, repeated)
}

// adopt makes the item stand for the message that has its idempotency key.
func (it *item) adopt(first reservation) {
	it.isHeld = false
	it.m.ID, it.m.Lane, it.m.CreatedAt, it.m.NotAfter = first.id, first.lane, first.created, first.notAfter
}

// repeat gives the items the first Sends' receipts with the messages' states now.
func (c *Client) repeat(ctx context.Context, items []*item) {
	if len(items) == 0 {
		return
	}
	ids := make([]string, len(items))
	for i, it := range items {
		ids[i] = it.m.ID
	}
	states, errs := c.store.States(ctx, ids)
	for i, it := range items {
		if errs[i] != nil {
			it.unavailable(errs[i])
			continue
		}
		it.receipt = Receipt{ID: it.m.ID, State: states[i], NotAfter: it.m.NotAfter, Repeated: true}
	}
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
func (c *Client) replaceExpired(ctx context.Context, it *item, first reservation) {
	r, err := c.store.Get(ctx, first.id)
	switch {
	case errors.Is(err, status.ErrNotFound):
	case err != nil:
		it.err = &UnavailableError{ID: first.id, Err: err}
		return
	case !neverSent(r):
		it.adopt(first)
		c.repeat(ctx, []*item{it})
		return
	}
	own := it.reservation(false).String()
	replaced, err := replaceScript.Run(ctx, c.rdb, []string{it.heldKey}, it.held, own, c.window.Milliseconds()).Int()
	it.isHeld = false
	switch {
	case err != nil:
		it.unavailable(fmt.Errorf("reserve the idempotency key: %w", err))
	case replaced == 0: // another Send was quicker: its reservation is fresh
		c.submit(ctx, []*item{it})
		c.resolve(ctx, []*item{it})
	default:
		if c.finishApart(ctx, []*item{it}); it.err == nil {
			it.receipt = it.fresh()
		}
	}
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
