package campaign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/otpq/otpq/providers"
)

const (
	// lease is how long a feeder that is not heard of keeps its campaign, and renew
	// how often it is heard of. What somebody asks of the campaign is seen as often as
	// the campaign is looked at.
	lease     = 5 * time.Second
	renew     = time.Second
	lookEvery = 200 * time.Millisecond
	// turn is how long a feeder waits when there was nothing to do.
	turn = 25 * time.Millisecond
)

// feeder feeds one campaign.
type feeder struct {
	c       *Campaigns
	id, who string
	token   string
	def     providers.Definition
	m       *meta
	chunks  reader
	flight  flight
	gentle  gentle
	// next is the place of the first row that is not taken yet; those before queuedTo
	// are in the queue, which the campaign may not say yet.
	next, queuedTo int64
	// ahead are rows that were read already, from next on up to aheadTo.
	ahead   []row
	aheadTo int64
	// looks is how many messages are looked at in a turn.
	looks int

	renewedAt, lookedAt, doubtsAt, wellAt time.Time
}

// row is one that is to be sent.
type row struct {
	entry
	place   int64
	id      string
	request providers.Request
}

func newFeeder(c *Campaigns, id, who string) *feeder {
	return &feeder{c: c, id: id, who: who, token: uuid.NewString(), gentle: gentle{tempo: c.tempo}}
}

// run feeds until the campaign is over. After an error it may be called again.
func (f *feeder) run(ctx context.Context) error {
	if err := f.keepLease(ctx); err != nil {
		return err
	}
	if err := f.begin(ctx); err != nil {
		return err
	}
	for {
		busy, err := f.turn(ctx)
		if err != nil {
			return err
		}
		f.wellAt = time.Now()
		if f.m.State.Over() && f.flight.len() == 0 {
			state, err := f.c.recount(ctx, f.m)
			if err != nil {
				return err
			}
			return f.c.last(ctx, f.m, state)
		}
		if !busy {
			if err := sleep(ctx, turn); err != nil {
				return err
			}
		}
	}
}

// begin reads where the campaign is. What another feeder had taken and may not have
// queued is queued: of what had been, nothing comes of it.
func (f *feeder) begin(ctx context.Context) error {
	if err := f.lookAtCampaign(ctx); err != nil {
		return err
	}
	var err error
	if f.def, err = f.c.definition(f.m.Provider); err != nil {
		return err
	}
	f.chunks = reader{c: f.c, id: f.id, kept: f.m.kept}
	f.flight.reset()
	waiting := map[string]bool{}
	err = f.c.scan(ctx, f.m, liveKey(f.id), func(messages []seenMessage) error {
		for _, s := range messages {
			f.flight.add(s)
			waiting[s.id] = s.state == RowWaiting
		}
		return nil
	})
	if err != nil {
		return err
	}
	f.next, f.queuedTo = f.m.reserved, f.m.fed
	f.ahead, f.aheadTo = nil, f.next
	if f.m.fed == f.m.reserved || f.m.State == Canceled {
		return nil
	}
	if f.c.now().Sub(f.m.reservedAt) >= f.c.records {
		// Their records may have ended since, so that nobody knows whether they were
		// queued: what is left of them is counted as unknown.
		f.queuedTo = f.m.reserved
		return nil
	}
	var left []row
	for place := f.m.fed; place < f.m.reserved; {
		var list []row
		if list, place, err = f.take(ctx, place, f.m.reserved, batchRows); err != nil {
			return err
		}
		for _, r := range list {
			if waiting[r.id] || r.isLink() {
				left = append(left, r)
			}
		}
	}
	begun, fresh, err := f.partBegun(ctx, left)
	if err != nil {
		return err
	}
	if err := f.queue(ctx, begun, f.m.reservedAt, f.m.fed); err != nil {
		return err
	}
	return f.queue(ctx, fresh, f.c.now().UTC().Truncate(time.Millisecond), f.m.reserved)
}

// partBegun parts rows whose messages there are from those that nobody has begun to
// queue: their validity has not begun either. Links are among the latter.
func (f *feeder) partBegun(ctx context.Context, list []row) (begun, fresh []row, err error) {
	for some := range slices.Chunk(list, tallyMost) {
		ids := make([]string, len(some))
		for i, r := range some {
			ids[i] = r.id
		}
		looks, errs := f.c.store.Looks(ctx, ids)
		if err := errors.Join(errs...); err != nil {
			return nil, nil, err
		}
		for i, r := range some {
			if looks[i].State != "" && !r.isLink() {
				begun = append(begun, r)
			} else {
				fresh = append(fresh, r)
			}
		}
	}
	return begun, fresh, nil
}

// turn does what there is to do, and reports whether there may be more.
func (f *feeder) turn(ctx context.Context) (busy bool, err error) {
	if now := time.Now(); now.Sub(f.renewedAt) > renew {
		if err := f.keepLease(ctx); err != nil {
			return false, err
		}
	}
	if time.Since(f.lookedAt) > lookEvery {
		if err := f.lookAtCampaign(ctx); err != nil {
			return false, err
		}
		// Rows were taken and the reply to that was lost, and what the client asked again
		// met a campaign that is paused by now.
		if f.next != f.m.reserved {
			if err := f.begin(ctx); err != nil {
				return false, err
			}
		}
	}
	if busy, err = f.count(ctx); err != nil || f.m.State.Over() {
		return busy, err
	}
	decided := f.m
	if err := f.decide(ctx); err != nil {
		return false, err
	}
	n := 0
	// What has just gone on by itself may have to hold back for another reason: that is
	// for the next turn to say, before anything is fed.
	if f.m == decided && f.m.State == Running && f.m.Reason == "" {
		n = f.gentle.room(time.Now(), f.m, f.flight.len(), f.flight.sending(), int(min(f.m.kept-f.next, batchRows)))
	}
	fed, err := f.feed(ctx, n)
	return busy || fed, err
}

// feed notes what was queued last, and queues up to n rows more.
func (f *feeder) feed(ctx context.Context, n int) (bool, error) {
	list, to, err := f.cut(ctx, n)
	if err != nil {
		return false, err
	}
	if to == f.next && f.queuedTo <= f.m.fed {
		return false, nil
	}
	now := f.c.now().UTC().Truncate(time.Millisecond)
	state, err := f.advance(ctx, list, to, now)
	if err != nil {
		return false, err
	}
	if state != Running {
		f.m.State, f.lookedAt = state, time.Time{} // and why is to be learnt
		return false, nil
	}
	send, _ := apart(list)
	for _, r := range send {
		f.flight.add(seenMessage{r.id, r.place, RowWaiting})
	}
	f.gentle.spend(len(send))
	f.ahead = f.ahead[len(list):]
	if len(f.ahead) > 0 {
		return true, f.queue(ctx, list, now, to)
	}
	// While Redis is busy with these, the next are read.
	read := make(chan error, 1)
	go func() { read <- f.readAhead(ctx) }()
	err = f.queue(ctx, list, now, to)
	return true, errors.Join(err, <-read)
}

// cut returns up to n of the rows that are next, and the place after them.
func (f *feeder) cut(ctx context.Context, n int) (list []row, to int64, err error) {
	if n == 0 || f.next >= f.m.kept {
		return nil, f.next, nil
	}
	if len(f.ahead) == 0 && f.aheadTo <= f.next {
		f.aheadTo = f.next
		if err := f.readAhead(ctx); err != nil {
			return nil, f.next, err
		}
	}
	if n >= len(f.ahead) {
		return f.ahead, f.aheadTo, nil
	}
	return f.ahead[:n], f.ahead[n].place, nil
}

// readAhead reads the rows that come after those that were read.
func (f *feeder) readAhead(ctx context.Context) error {
	list, to, err := f.take(ctx, f.aheadTo, f.m.kept, batchRows)
	if err == nil {
		f.ahead, f.aheadTo = list, to
	}
	return err
}

// advance notes that the rows taken last are in the queue, and takes others, up to a
// place, unless the campaign is not running. It returns the campaign's state.
func (f *feeder) advance(ctx context.Context, list []row, to int64, now time.Time) (State, error) {
	list, _ = apart(list)
	args := make([]any, 6, 6+2*len(list))
	copy(args, []any{f.token, lease.Milliseconds(), now.UnixMilli(), f.queuedTo, f.next, to})
	for _, r := range list {
		args = append(args, r.id, r.place)
	}
	keys := []string{campaignKey(f.id), countsKey(f.id), leaseKey(f.id), liveKey(f.id)}
	text, err := feedScript.Run(ctx, f.c.rdb, keys, args...).Text()
	if err != nil {
		return "", f.leaseError("feed campaign", err)
	}
	state := State(text)
	f.m.fed = max(f.m.fed, f.queuedTo)
	if state == Running {
		f.next, f.m.reserved, f.m.reservedAt = to, to, now
	}
	return state, nil
}

// count looks at some messages in flight, and counts what became of them. It reports
// whether many had changed.
func (f *feeder) count(ctx context.Context) (busy bool, err error) {
	now := time.Now()
	due := f.flight.due(now, max(f.looks, looksFew))
	if f.m.State == Canceled && len(due) > 0 {
		if err := f.c.takeBack(ctx, f.m, due); err != nil {
			return false, err
		}
	}
	if len(due) > 0 {
		results, err := f.c.look(ctx, f.m, due)
		if err != nil {
			return false, err
		}
		for i := range results {
			if results[i].final == "gone" {
				results[i].state = "" // nobody counts beside the feeder
			}
		}
		changed := f.flight.settle(now, results)
		f.gentle.note(now, results)
		// Where nothing moves, nothing is gained by looking.
		if f.looks = looksFew; len(changed) >= len(due)/4 {
			f.looks = tallyMost
		}
		if len(changed) > 0 {
			state, err := f.c.tally(ctx, f.id, changed)
			if err != nil {
				return false, err
			}
			busy = len(changed) >= tallyMost/4
			f.m.State = state
		}
	}
	if f.flight.len() == 0 && f.m.fed == f.m.kept && !f.m.State.Over() {
		if f.m.State, err = f.c.tally(ctx, f.id, nil); err != nil {
			return false, err
		}
	}
	if f.m.Counts.Unknown > 0 && now.Sub(f.doubtsAt) > lease {
		f.doubtsAt = now
		err = f.c.scan(ctx, f.m, doubtKey(f.id), func(messages []seenMessage) error {
			results, err := f.c.look(ctx, f.m, messages)
			if err == nil {
				_, err = f.c.tally(ctx, f.id, results)
			}
			return err
		})
	}
	return busy, err
}

func (f *feeder) lookAtCampaign(ctx context.Context) error {
	m, err := f.c.read(ctx, f.id)
	if err != nil {
		return err
	}
	f.m, f.lookedAt = m, time.Now()
	return nil
}

// keepLease takes or keeps the campaign.
func (f *feeder) keepLease(ctx context.Context) error {
	got, err := leaseScript.Run(ctx, f.c.rdb, []string{campaignKey(f.id), leaseKey(f.id)},
		f.token, f.who, lease.Milliseconds(), f.gentle.pace()).Int()
	switch {
	case err != nil:
		return fmt.Errorf("feed campaign: %w", err)
	case got == 0:
		return ErrFed
	case got < 0:
		return ErrNotFound
	}
	f.renewedAt = time.Now()
	return nil
}

// release lets others feed the campaign.
func (f *feeder) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if f.m != nil && f.queuedTo > f.m.fed {
		_, _ = f.feed(ctx, 0) // else it is queued a second time, in vain
	}
	_ = leaseScript.Run(ctx, f.c.rdb, []string{campaignKey(f.id), leaseKey(f.id)}, f.token, f.who, 0, "").Err()
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
