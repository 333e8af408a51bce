// Package status keeps what became of each message: its record, the states it
// can be in and the moves between them, stored in Redis. It decides nothing
// about sending; it only refuses moves that would make a record lie.
package status

import (
	"slices"
	"time"

	"github.com/otpq/otpq/tasks"
)

// State is where a message is on its way.
type State string

const (
	// Queued: waiting for a worker.
	Queued State = "queued"
	// Sending: a worker has claimed an attempt; a request may have left.
	Sending State = "sending"
	// Deferred: waiting for a breaker, a rate limit or a retry, or to be taken up again.
	Deferred State = "deferred"
	// Accepted: the provider took it. A phone may not show it yet.
	Accepted State = "accepted"
	// Rejected: refused for good, by the provider or as unreadable.
	Rejected State = "rejected"
	// Exhausted: the attempt budget is used up.
	Exhausted State = "exhausted"
	// Unknown: maybe sent, and the policy says stop.
	Unknown State = "unknown"
	// Expired: not_after passed.
	Expired State = "expired"
	// Canceled: taken back before it was sent.
	Canceled State = "canceled"
)

// transitions is the whole state machine: from each state, where a message may
// go. The store enforces it atomically in Redis. A terminal state leads nowhere,
// with one exception: unknown says "maybe sent", and a late reply that says
// accepted settles that. From queued and deferred, too, only a late reply leads to
// accepted: its claim was taken over, or lost by Redis.
var transitions = map[State][]State{
	Queued:    {Sending, Deferred, Expired, Canceled, Rejected, Accepted},
	Deferred:  {Sending, Deferred, Expired, Canceled, Rejected, Accepted},
	Sending:   {Deferred, Accepted, Rejected, Exhausted, Unknown, Expired},
	Unknown:   {Accepted},
	Accepted:  {},
	Rejected:  {},
	Exhausted: {},
	Expired:   {},
	Canceled:  {},
}

// States lists every state in the order a message meets them.
func States() []State {
	return []State{Queued, Sending, Deferred, Accepted, Rejected, Exhausted, Unknown, Expired, Canceled}
}

// ReasonMaybeSent is the reason of a message that expired, or was canceled, after
// an attempt that the provider may have acted on: a code may be on its way.
const ReasonMaybeSent = "maybe_sent"

// CanBecome reports whether a message may go from s to next.
func (s State) CanBecome(next State) bool { return slices.Contains(transitions[s], next) }

// Terminal reports whether a message in s has come to its end.
func (s State) Terminal() bool {
	return slices.Contains([]State{Accepted, Rejected, Exhausted, Unknown, Expired, Canceled}, s)
}

// Dead reports whether a message in s is kept as a dead letter.
func (s State) Dead() bool {
	return slices.Contains([]State{Rejected, Exhausted, Unknown}, s)
}

// EndedStates are the states whose messages keep their sealed payload, so that they
// can be sent again: the dead letters', and expired.
func EndedStates() []State { return []State{Rejected, Exhausted, Unknown, Expired} }

// Record is what is known of a message. Its JSON form is part of the command
// line's contract: times are RFC 3339, absent when not known.
type Record struct {
	ID                string     `json:"id"`
	Provider          string     `json:"provider"`
	Lane              tasks.Lane `json:"lane"`
	State             State      `json:"state"`
	Reason            string     `json:"reason,omitempty"`
	Recipient         string     `json:"recipient,omitempty"` // masked; not known of what could not be read
	CreatedAt         time.Time  `json:"created_at"`
	UpdatedAt         time.Time  `json:"updated_at"`
	NotAfter          time.Time  `json:"not_after"`
	NextAttemptAt     time.Time  `json:"next_attempt_at,omitzero"`
	Attempts          []Attempt  `json:"attempts"`
	Reference         string     `json:"reference,omitempty"`
	CodeValidSeconds  float64    `json:"code_valid_seconds,omitempty"`
	PossibleDuplicate bool       `json:"possible_duplicate"`
	Campaign          string     `json:"campaign,omitempty"`
	ReplayOf          string     `json:"replay_of,omitempty"`
	ReplayedAs        string     `json:"replayed_as,omitempty"`
	// Who is the recipient's [tasks.Keyring.RecipientPrint], for [Redis.FindRecipient];
	// empty when whoever made the record did not know it.
	Who string `json:"-"`
}

// MaybeSent reports whether the provider may have acted on a message that was not
// accepted: sent again, it may be a second code. A message that ended before the
// provider's late word for it was heard has that word in its attempt alone.
func (r Record) MaybeSent() bool {
	return r.State == Unknown || r.PossibleDuplicate || r.Reason == ReasonMaybeSent ||
		slices.ContainsFunc(r.Attempts, func(a Attempt) bool { return a.Outcome == "ambiguous" || a.Outcome == "accepted" })
}

// Attempt is one request for a message.
type Attempt struct {
	Number    int       `json:"number"`
	StartedAt time.Time `json:"started_at"`
	// DurationMS, Outcome and Reason are absent while the attempt is under way.
	DurationMS float64 `json:"duration_ms,omitempty"`
	Outcome    string  `json:"outcome,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	HTTPStatus int     `json:"http_status,omitempty"`
}

// NewRecord is the record of a message that has just been queued.
func NewRecord(m tasks.Message, maskedRecipient string) Record {
	return Record{
		ID: m.ID, Provider: m.Provider, Lane: m.Lane, State: Queued, Recipient: maskedRecipient,
		CreatedAt: m.CreatedAt, UpdatedAt: m.CreatedAt, NotAfter: m.NotAfter,
		Attempts: []Attempt{}, Campaign: m.Campaign, ReplayOf: m.ReplayOf,
	}
}
