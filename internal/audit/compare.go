package audit

import (
	"cmp"
	"slices"
	"time"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// Told is what an app got from one Send.
type Told struct {
	// ID is the message's id, from the receipt or from the error.
	ID string `json:"id"`
	// Tag names the message on both sides: a hash of its recipient, when each
	// got one message. All Sends with one idempotency key have one tag.
	Tag      string    `json:"tag"`
	NotAfter time.Time `json:"not_after"`
	// Failed is true when Send returned an error: the app was promised nothing.
	Failed bool `json:"failed,omitempty"`
	// CanceledAt is when a Cancel of it returned without error.
	CanceledAt time.Time `json:"canceled_at,omitzero"`
}

// Seen is one request as the provider saw it.
type Seen struct {
	Tag string    `json:"tag"`
	At  time.Time `json:"at"`
	// Acted is true when a code was sent, whatever was answered.
	Acted bool `json:"acted"`
	// Refused is true when the answer, which was sent whole, says that no code
	// was: another request for the message is then no double.
	Refused bool `json:"refused"`
	// Status is what was answered; zero when nothing was.
	Status int `json:"status,omitempty"`
}

// CompareOptions says what to allow for. Zero fields mean the defaults.
type CompareOptions struct {
	// Now is when the records were read. Zero means the present.
	Now time.Time
	// Grace is as in [Options]. Zero means [DefaultGrace].
	Grace time.Duration
	// Slack is how much later a request may arrive than it left, and how far the
	// clocks may be apart. Zero means [DefaultSlack].
	Slack time.Duration
}

// DefaultSlack is for a provider whose clock is kept right.
const DefaultSlack = 2 * time.Second

// Compare holds what apps were told against what the provider saw and what the
// records say, which record returns by id. Its memory grows with told and seen. A
// request whose tag no app was told of is not looked at.
func Compare(told []Told, seen []Seen, record func(id string) (status.Record, bool), o CompareOptions) []Finding {
	o.Now = cmp.Or(o.Now, time.Now())
	o.Grace = cmp.Or(o.Grace, DefaultGrace)
	o.Slack = cmp.Or(o.Slack, DefaultSlack)
	cases := map[string]*messageCase{}
	var order []string
	for _, t := range told {
		c := cases[t.Tag]
		if c == nil {
			c = &messageCase{CompareOptions: o, tag: t.Tag, records: map[string]status.Record{}}
			cases[t.Tag], order = c, append(order, t.Tag)
		}
		c.told = append(c.told, t)
		if r, ok := record(t.ID); ok {
			c.records[t.ID] = r
		}
	}
	for _, s := range seen {
		if c := cases[s.Tag]; c != nil {
			c.seen = append(c.seen, s)
		}
	}
	var out []Finding
	for _, tag := range order {
		c := cases[tag]
		slices.SortStableFunc(c.seen, func(a, b Seen) int { return a.At.Compare(b.At) })
		out = append(out, c.check()...)
	}
	return out
}

// messageCase is all that is known of one message.
type messageCase struct {
	CompareOptions
	tag     string
	told    []Told
	seen    []Seen
	records map[string]status.Record
}

func (c *messageCase) check() []Finding {
	var out []Finding
	kept := map[string]bool{}
	for _, t := range c.told {
		if !t.Failed && !kept[t.ID] { // a repeated Send is told the same
			kept[t.ID] = true
			out = append(out, c.kept(t)...)
		}
		if !t.CanceledAt.IsZero() {
			out = append(out, c.canceled(t)...)
		}
	}
	if f, ok := c.doubled(); ok {
		out = append(out, f)
	}
	return append(out, c.requests()...)
}

// kept looks at what came of a message that its app was told is queued.
func (c *messageCase) kept(t Told) []Finding {
	r, ok := c.records[t.ID]
	switch {
	case !ok:
		return []Finding{{ID: t.ID, Kind: Lost, What: "Send said that it is queued, and it has no record", Do: advice[Lost]}}
	case !r.State.Terminal() && c.Now.Sub(t.NotAfter) > c.Grace:
		return []Finding{found(Lost, r, "Send said that it is queued, and it is still %s, %s after its deadline", r.State, span(c.Now.Sub(t.NotAfter)))}
	case r.State.Terminal() && r.State != status.Accepted && r.UpdatedAt.Sub(t.NotAfter) > c.Grace:
		return []Finding{found(Overdue, r, "it became %s only %s after its deadline", r.State, span(r.UpdatedAt.Sub(t.NotAfter)))}
	case r.State == status.Accepted && !slices.ContainsFunc(c.seen, func(s Seen) bool { return s.Acted }):
		return []Finding{found(Untrue, r, "the record says accepted, and the provider sent no code")}
	}
	return nil
}

// canceled looks at a message that its app was told is taken back.
func (c *messageCase) canceled(t Told) []Finding {
	r, ok := c.records[t.ID]
	if !ok {
		return []Finding{{ID: t.ID, Kind: Lost, What: "Cancel said that it is canceled, and it has no record", Do: advice[Lost]}}
	}
	if r.State != status.Canceled {
		return []Finding{found(Untrue, r, "Cancel said that it is canceled, and the record says %s", r.State)}
	}
	for _, s := range c.seen {
		if s.At.Sub(t.CanceledAt) > c.Slack && !c.underWay(s, t.CanceledAt) {
			return []Finding{found(Untrue, r, "the provider was asked %s after the message was canceled", span(s.At.Sub(t.CanceledAt)))}
		}
	}
	return nil
}

// doubled looks for requests that came after one which may have been acted on,
// with no record that says so.
func (c *messageCase) doubled() (Finding, bool) {
	first := slices.IndexFunc(c.seen, func(s Seen) bool { return !s.Refused })
	if first < 0 || first == len(c.seen)-1 {
		return Finding{}, false
	}
	for _, r := range c.records {
		if r.PossibleDuplicate {
			return Finding{}, false
		}
	}
	r := c.record()
	return found(SilentDouble, r, "the provider was asked again %s after a request that it may have acted on, and possible_duplicate is false",
		span(c.seen[first+1].At.Sub(c.seen[first].At))), true
}

// record is a record of the message, or what is known without one. A tag may have
// several: of Sends that failed and were made again under another id.
func (c *messageCase) record() status.Record {
	best := status.Record{ID: c.told[0].ID}
	for _, t := range c.told {
		if r, ok := c.records[t.ID]; ok && len(r.Attempts) >= len(best.Attempts) {
			best = r
		}
	}
	return best
}

// requests looks at each request: whether it was in time, and whether a record
// tells of it.
func (c *messageCase) requests() []Finding {
	var out []Finding
	r := c.record()
	notAfter := r.NotAfter
	for _, t := range c.told {
		if t.NotAfter.After(notAfter) {
			notAfter = t.NotAfter
		}
	}
	said := map[Kind]bool{} // one of a kind is enough
	for _, s := range c.seen {
		f, ok := c.request(s, r, notAfter)
		if ok && !said[f.Kind] {
			said[f.Kind] = true
			out = append(out, f)
		}
	}
	return out
}

func (c *messageCase) request(s Seen, r status.Record, notAfter time.Time) (Finding, bool) {
	switch {
	case s.At.Sub(notAfter) > c.Slack && !c.underWay(s, notAfter):
		return found(Late, r, "the provider was asked %s after the deadline", span(s.At.Sub(notAfter))), true
	case !c.underWay(s, time.Time{}):
		return found(Unrecorded, r, "the provider was asked at %s, and no attempt in the record was under way then",
			s.At.UTC().Format(time.RFC3339Nano)), true
	case s.Acted && !c.admitsSent():
		return found(Untrue, r, "the provider sent a code, and the record says %s, with no attempt that may have been acted on", r.State), true
	}
	return Finding{}, false
}

// underWay reports whether an attempt that began before limit, when there is one,
// may have made the request: it was under way when the request came. Of one whose
// worker died nobody knows the end; it had no more than a task's time.
func (c *messageCase) underWay(s Seen, limit time.Time) bool {
	for _, r := range c.records {
		for _, a := range r.Attempts {
			end := a.StartedAt.Add(time.Duration(a.DurationMS * float64(time.Millisecond)))
			if a.Outcome == "" || a.Reason == reasonWorkerLost {
				end = a.StartedAt.Add(tasks.TaskTimeout)
			}
			began := limit.IsZero() || a.StartedAt.Before(limit)
			if began && !s.At.Before(a.StartedAt.Add(-c.Slack)) && !s.At.After(end.Add(c.Slack)) {
				return true
			}
		}
	}
	return false
}

// admitsSent reports whether a record tells that a code may have been sent.
func (c *messageCase) admitsSent() bool {
	for _, r := range c.records {
		if r.State == status.Accepted || r.State == status.Unknown || r.Reason == status.ReasonMaybeSent {
			return true
		}
		if slices.ContainsFunc(r.Attempts, mayHaveActed) {
			return true
		}
	}
	return false
}
