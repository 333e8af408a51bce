// Package audit looks for messages that otpq has not kept its promises to: in a
// live Redis, and by comparing what apps were told with what providers were asked.
// It changes nothing, needs no sealing key, and reads the records by itself: an
// auditor that shared code with what it audits would share its mistakes.
package audit

import (
	"fmt"
	"time"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// Kind says what is wrong with a message.
type Kind string

const (
	// Lost: the app was told that the message is queued, and it came to no end.
	Lost Kind = "lost"
	// SilentDouble: a second request was made though the first may have been
	// acted on, and possible_duplicate is false.
	SilentDouble Kind = "silent_double"
	// Late: a request was made at or after not_after.
	Late Kind = "late"
	// Untrue: the record says other than what the provider did.
	Untrue Kind = "untrue"
	// Unrecorded: the provider was asked, and no attempt in the record says so.
	Unrecorded Kind = "unrecorded"
	// Stranded: the message has not come to its end and no task stands for it.
	Stranded Kind = "stranded"
	// Overdue: the message has not come to its end, long after not_after.
	Overdue Kind = "overdue"
	// StaleClaim: an attempt is under way for longer than one can last.
	StaleClaim Kind = "stale_claim"
	// DeadLetter: a dead letter cannot be found or cannot be replayed.
	DeadLetter Kind = "dead_letter"
	// Malformed: the record cannot be read.
	Malformed Kind = "malformed"
	// NoRecord: a task has no record. Only ever a note.
	NoRecord Kind = "no_record"
)

// Kinds lists every kind, the worst first.
func Kinds() []Kind {
	return []Kind{
		Lost, SilentDouble, Late, Untrue, Unrecorded, Stranded, Overdue, StaleClaim, DeadLetter, Malformed, NoRecord,
	}
}

// Finding is one thing that is wrong with one message. It names no person.
type Finding struct {
	ID   string `json:"id"`
	Kind Kind   `json:"kind"`
	// Note marks what is worth knowing and breaks no promise.
	Note     bool         `json:"note,omitempty"`
	Provider string       `json:"provider,omitempty"`
	Lane     tasks.Lane   `json:"lane,omitempty"`
	State    status.State `json:"state,omitempty"`
	// What says what was found, and Do what to do about it.
	What string `json:"what"`
	Do   string `json:"do"`
}

// advice says what to do about each kind.
var advice = map[Kind]string{
	Lost:         "have the app send it again; look at Redis's log and its persistence (`otpq check`)",
	SilentDouble: "the person may have got two codes; report it with `otpq status ID --json` and the workers' logs",
	Late:         "see that the workers' clocks are right (`otpq check`); report it with `otpq status ID --json`",
	Untrue:       "report it with `otpq status ID --json` and the provider's own account",
	Unrecorded:   "see who else sends to this provider; with appendfsync other than always, a crash of Redis may lose a second of records",
	Overdue:      "see that a worker runs with this provider on and keeps up: `otpq providers`",
	StaleClaim:   "start a worker with this provider on: it takes over what a dead one left",
	Malformed:    "see what else writes to this Redis; the key otpq:msg:ID can be deleted",
	NoRecord:     "nothing: the worker that takes the task up writes a record",
}

// found makes a finding about a record.
func found(kind Kind, r status.Record, format string, args ...any) Finding {
	return Finding{
		ID: r.ID, Kind: kind, Provider: r.Provider, Lane: r.Lane, State: r.State,
		What: fmt.Sprintf(format, args...), Do: advice[kind],
	}
}

// span writes a duration for people.
func span(d time.Duration) string {
	if d < 10*time.Second {
		return d.Round(time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}
