package campaign

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
)

// ReportRow is what became of a row.
type ReportRow struct {
	Line      int    `json:"line"`
	Recipient string `json:"recipient,omitempty"` // masked
	// Request is the row's request, in the clear; only when it was asked for.
	Request   json.RawMessage `json:"request,omitempty"`
	MessageID string          `json:"message_id,omitempty"`
	// State is a message's [status.State], or waiting, invalid or duplicate.
	State string `json:"state"`
	// Reason is the message's, or what is wrong with a row that is invalid.
	Reason   string `json:"reason,omitempty"`
	ReplayOf string `json:"replay_of,omitempty"`
}

// The states of rows that have no message.
const (
	RowWaiting   = "waiting"
	RowInvalid   = "invalid"
	RowDuplicate = "duplicate"
)

// Report yields what became of each row, in the file's order, in constant memory.
// With reveal it has the requests in the clear. An error is yielded once and ends it:
// [ErrNotFound] among others.
func (c *Campaigns) Report(ctx context.Context, id string, reveal bool) iter.Seq2[ReportRow, error] {
	return func(yield func(ReportRow, error) bool) {
		for known, err := range c.rows(ctx, id) {
			if err != nil {
				yield(ReportRow{}, err)
				return
			}
			row := known.ReportRow
			if reveal && known.request != nil {
				row.Request = json.RawMessage(known.text)
			}
			if !yield(row, nil) {
				return
			}
		}
	}
}

// knownRow is a row with what became of it.
type knownRow struct {
	ReportRow
	entry
	request providers.Request // nil of one that is invalid
}

// end takes in how the row ended, as Redis holds it: its state, and a reason if any.
func (r *knownRow) end(text string) {
	r.State, r.Reason, _ = strings.Cut(text, " ")
	if r.State == RowDuplicate || r.State == RowInvalid {
		r.MessageID = "" // it was passed over when its turn came
	}
}

// rows yields all rows of a campaign that can be started.
func (c *Campaigns) rows(ctx context.Context, id string) iter.Seq2[knownRow, error] {
	return func(yield func(knownRow, error) bool) {
		m, err := c.read(ctx, id)
		if err == nil && m.State == Creating {
			err = &StateError{ID: id, Do: "be reported", From: m.State}
		}
		if err != nil {
			yield(knownRow{}, err)
			return
		}
		def, err := c.definition(m.Provider)
		if err != nil {
			yield(knownRow{}, err)
			return
		}
		source := reader{c: c, id: id, kept: m.kept}
		for place := int64(0); place < m.kept; place += chunkRows {
			list, err := c.chunkRows(ctx, m, def, &source, place)
			if err != nil {
				yield(knownRow{}, err)
				return
			}
			for _, row := range list {
				if !yield(row, nil) {
					return
				}
			}
		}
	}
}

// chunkRows are the rows of one chunk, from its first place on.
func (c *Campaigns) chunkRows(ctx context.Context, m *meta, def providers.Definition, source *reader, first int64) ([]knownRow, error) {
	endsKey := endsPrefix(m.ID) + strconv.FormatInt(first/chunkRows, 10)
	ends, err := c.rdb.HGetAll(ctx, endsKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read campaign: %w", err)
	}
	var list []knownRow
	var flying, inChunk []string
	var places []int
	for place := first; place < min(first+chunkRows, m.kept); place++ {
		e, err := source.at(ctx, place)
		if err != nil {
			return nil, err
		}
		row, err := c.known(m, def, e)
		if err != nil {
			return nil, err
		}
		if end, ok := ends[strconv.FormatInt(place-first, 10)]; ok {
			row.end(end)
		} else if row.State == RowWaiting {
			flying, places = append(flying, row.MessageID), append(places, len(list))
			inChunk = append(inChunk, strconv.FormatInt(place-first, 10))
		}
		list = append(list, row)
	}
	if flying == nil {
		return list, nil
	}
	// What is not in flight any more has come to its end since that was looked for.
	var states, late *redis.SliceCmd
	var fed *redis.StringCmd
	_, err = c.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		states, late = p.HMGet(ctx, liveKey(m.ID), flying...), p.HMGet(ctx, endsKey, inChunk...)
		fed = p.HGet(ctx, campaignKey(m.ID), "fed")
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read campaign: %w", err)
	}
	m.fed = number(fed.Val())
	for i, v := range states.Val() {
		text, inFlight := v.(string)
		end, ended := late.Val()[i].(string)
		row := &list[places[i]]
		switch {
		case ended:
			row.end(end)
		case inFlight:
			row.State = m.seen(row.MessageID, text).state
		case m.State == Canceled:
			row.State, row.MessageID = string(status.Canceled), ""
		default:
			row.MessageID = "" // it has none yet
		}
	}
	return list, nil
}

// known is a row of which it is not known yet what became of its message.
func (c *Campaigns) known(m *meta, def providers.Definition, e entry) (knownRow, error) {
	row := knownRow{entry: e, ReportRow: ReportRow{Line: e.line, ReplayOf: e.replayOf}}
	if e.kind == kindInvalid {
		var problems providers.FieldErrors
		if err := json.Unmarshal(e.text, &problems); err != nil {
			return row, errChunk
		}
		row.State = RowInvalid
		var words []string
		for _, p := range problems {
			words = append(words, p.Field+" "+p.Problem)
		}
		row.Reason = strings.Join(words, "; ")
		return row, nil
	}
	var err error
	if row.request, err = e.request(def); err != nil {
		return row, err
	}
	row.Recipient = row.request.MaskedRecipient()
	row.State = RowDuplicate
	if e.isRow() {
		id, err := c.messageID(m, row.request.Recipient())
		if err != nil {
			return row, err
		}
		row.State, row.MessageID = RowWaiting, id.String()
	}
	return row, nil
}

// failedRows yields the rows of a campaign whose messages ended in one of the states,
// linked to these.
func (c *Campaigns) failedRows(ctx context.Context, id string, states []status.State) rows.Source {
	return func(yield func(rows.Row, error) bool) {
		for known, err := range c.rows(ctx, id) {
			if err != nil {
				yield(rows.Row{}, err)
				return
			}
			if !contains(states, known.State) || !known.isRow() {
				continue
			}
			row := rows.Row{
				Line: known.Line, Request: known.request, ReplayOf: known.MessageID,
				PossibleDuplicate: known.kind == kindMaybeSent,
			}
			if row.ReplayOf != "" && !row.PossibleDuplicate {
				if row.PossibleDuplicate, err = c.maybeSent(ctx, known); err != nil {
					yield(rows.Row{}, err)
					return
				}
			}
			if !yield(row, nil) {
				return
			}
		}
	}
}
