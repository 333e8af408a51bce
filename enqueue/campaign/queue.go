package campaign

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// Why a row was passed over when its turn came.
const (
	reasonReplayed  = "already_replayed" // the message that it replays lives on as another
	reasonAccepted  = "already_accepted" // a late reply said so
	reasonDiscarded = "discarded"        // somebody gave that message up
	reasonRefused   = "refused"          // it was valid when the campaign was created, by other rules
)

// queue puts rows into the bulk lane, and returns when all are there. It may be
// repeated.
func (f *feeder) queue(ctx context.Context, list []row, at time.Time, to int64) error {
	taken, links := apart(list)
	send, passed, err := f.markOld(ctx, taken)
	if err != nil {
		return err
	}
	items := make([]enqueue.Item, len(send))
	for i, r := range send {
		items[i] = enqueue.Item{Request: r.request, Options: []enqueue.Option{
			enqueue.InLane(tasks.Bulk), enqueue.ValidFor(time.Duration(f.m.ValidFor)), enqueue.Campaign(f.id),
			enqueue.As(enqueue.Identity{
				ID: r.id, CreatedAt: at, ReplayOf: r.replayOf, PossibleDuplicate: r.kind == kindMaybeSent,
			}),
		}}
	}
	results, err := f.c.client.SendBatch(ctx, items)
	if err != nil {
		return err // they are queued again, from begin
	}
	for i, r := range results {
		if r.Err != nil {
			passed = append(passed, result{id: send[i].id, state: RowInvalid, reason: reasonRefused, final: "yes"})
		}
	}
	if passed != nil {
		if _, err := f.c.tally(ctx, f.id, passed); err != nil {
			return err
		}
	}
	if err := f.dropOld(ctx, send); err != nil {
		return err
	}
	if err := f.link(ctx, links); err != nil {
		return err
	}
	f.queuedTo = to
	return nil
}

// apart parts rows that are to be sent from links.
func apart(list []row) (send, links []row) {
	if !slices.ContainsFunc(list, func(r row) bool { return r.isLink() }) {
		return list, nil
	}
	for _, r := range list {
		if r.isLink() {
			links = append(links, r)
		} else {
			send = append(send, r)
		}
	}
	return send, links
}

// link notes of the old messages of duplicates that they live on as the message of
// their recipient's first row, which is in the queue by now: else another campaign would
// be made from them, and send to the same person again. Where the first row was passed
// over there is no message, and they stay as they are.
func (f *feeder) link(ctx context.Context, links []row) error {
	if len(links) == 0 {
		return nil
	}
	ids := make([]string, len(links))
	for i, r := range links {
		ids[i] = r.id
	}
	looks, errs := f.c.store.Looks(ctx, ids)
	if err := errors.Join(errs...); err != nil {
		return err
	}
	var resends []status.Resend
	for i, r := range links {
		if looks[i].State != "" {
			resends = append(resends, status.Resend{ID: r.replayOf, NewID: r.id})
		}
	}
	as, errs := f.c.store.MarkResent(ctx, resends)
	var old []row
	for i, resend := range resends {
		switch {
		case errs[i] == nil && as[i] == resend.NewID:
			old = append(old, row{entry: entry{replayOf: resend.ID}})
		case status.IsUnreachable(errs[i]):
			return errs[i]
		}
	}
	return f.dropOld(ctx, old)
}

// markOld notes of the messages that rows replay that they live on as the rows' own. It
// returns the rows that are to be sent: an old message may have been replayed, accepted
// or given up since the campaign was created.
func (f *feeder) markOld(ctx context.Context, list []row) (send []row, passed []result, err error) {
	var resends []status.Resend
	for _, r := range list {
		if r.replayOf != "" {
			resends = append(resends, status.Resend{ID: r.replayOf, NewID: r.id})
		}
	}
	if resends == nil {
		return list, nil, nil
	}
	as, errs := f.c.store.MarkResent(ctx, resends)
	n := -1
	for _, r := range list {
		if r.replayOf == "" {
			send = append(send, r)
			continue
		}
		n++
		var refused *status.RefusedError
		reason := ""
		switch err := errs[n]; {
		case err == nil && as[n] != r.id:
			reason = reasonReplayed
		case errors.As(err, &refused) && refused.From == status.Accepted:
			reason = reasonAccepted
		case errors.As(err, &refused) && refused.From != status.Canceled:
			reason = reasonDiscarded
		case status.IsUnreachable(err):
			return nil, nil, err
		}
		if reason == "" {
			send = append(send, r)
			continue
		}
		passed = append(passed, result{id: r.id, state: RowDuplicate, reason: reason, final: "yes"})
	}
	return send, passed, nil
}

// dropOld takes the messages that were replayed off the lists of what can be.
func (f *feeder) dropOld(ctx context.Context, list []row) error {
	var ids []string
	for _, r := range list {
		if r.replayOf != "" {
			ids = append(ids, r.replayOf)
		}
	}
	if ids == nil {
		return nil
	}
	return errors.Join(f.c.store.DropEnded(ctx, f.m.Provider, ids)...)
}
