package status

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Store keeps records. Every method is atomic, safe for concurrent use by many
// processes, and returns soon after ctx ends. Repeating a call whose reply was
// lost does no harm. An error that is none of this package's own means the
// store could not be reached or did not answer: what was asked may or may not
// have happened.
type Store interface {
	// Create writes the record of a message that is about to be queued. It
	// fails with [ErrExists] when there is one already.
	Create(ctx context.Context, r Record) error
	// Get returns a message's record. It fails with [ErrNotFound].
	Get(ctx context.Context, id string) (Record, error)
	// Claim takes the right to make the next attempt. Anything but
	// [ClaimedNow] means that no request may be made now.
	Claim(ctx context.Context, c Claim) (Claimed, error)
	// Finish writes what became of a claimed attempt. It fails with a
	// [RefusedError] when the claim is no longer the caller's; a late result
	// is taken all the same when it says accepted.
	Finish(ctx context.Context, f Finish) error
	// Move writes a change that no attempt led to. It fails with a
	// [RefusedError] when the message is not in a state that allows it, and
	// with [ErrNotFound] when there is neither a record nor a Seed.
	Move(ctx context.Context, m Move) error
	// Release lets the next Claim take over a claim whose token begins with
	// owner and a slash, however young it is: owner is dead. To what nobody of
	// that name has claimed it does nothing.
	Release(ctx context.Context, id, owner string) error
	// Unclaim takes back the claim of a message's first attempt that has one of the
	// tokens: no request was made under it, and none will be. The message is deferred
	// then, with no attempt and nothing to wait for. To any other it does nothing.
	Unclaim(ctx context.Context, id string, now time.Time, tokens ...string) error
}

var (
	// ErrNotFound means there is no record: the id is wrong or its retention ended.
	ErrNotFound = errors.New("no such message: the id is wrong, or its record's retention has ended")
	// ErrExists means the message has a record already.
	ErrExists = errors.New("the message has a record already")
)

// RefusedError reports a move that the state machine does not have.
type RefusedError struct {
	ID   string
	From State // what the record says
	To   State // what was asked for
}

// Error implements error.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("message %s is %s and cannot become %s", e.ID, e.From, e.To)
}

// Claim asks for the next attempt at a message.
type Claim struct {
	// Seed is written first when the message has no record: the app's write
	// was lost, or its retention ended.
	Seed Record
	// Token names this execution of the task; no other execution has it. It
	// begins with the worker's id and a slash, for [Store] Release.
	Token string
	Now   time.Time
	// AbandonedAfter is how old another execution's claim must be before it is
	// taken for dead. It is longer than any execution can last.
	AbandonedAfter time.Duration
}

// ClaimResult says what a [Claim] led to.
type ClaimResult string

const (
	// ClaimedNow: the attempt is the caller's to make.
	ClaimedNow ClaimResult = "claimed"
	// ClaimAbandoned: an execution that died held the attempt. The caller
	// owns it now and has to finish it as ambiguous: a request may have left.
	ClaimAbandoned ClaimResult = "abandoned"
	// ClaimBusy: another execution holds the attempt and may be alive.
	ClaimBusy ClaimResult = "busy"
	// ClaimOver: the message is in a terminal state; nothing is left to do.
	ClaimOver ClaimResult = "over"
)

// Claimed is the answer to a [Claim].
type Claimed struct {
	Result ClaimResult
	// Attempt is the number of the attempt: the new one, or the abandoned one.
	Attempt int
	// StartedAt is when the abandoned attempt began.
	StartedAt time.Time
	// Spent is how much of the attempt budget was used before this attempt.
	Spent int
	// Ambiguous is how many earlier attempts may have been acted on.
	Ambiguous int
	// DueAt is when a message that had to wait fell due; zero when it had not, and
	// when the claim is asked for again.
	DueAt time.Time
	// BusyUntil is when a busy claim will count as abandoned.
	BusyUntil time.Time
	// State is the terminal state of a message that is over.
	State State
}

// Finish is the end of an attempt.
type Finish struct {
	ID       string
	Provider string
	Token    string
	Attempt  Attempt
	// Spent is true when the attempt counts against the budget; Ambiguous when
	// the provider may have acted on it.
	Spent     bool
	Ambiguous bool
	// State is where the message goes, with its Reason and, when it waits, the
	// time of the Next attempt.
	State  State
	Reason string
	Next   time.Time
	// Reference and CodeValid are what the provider told.
	Reference string
	CodeValid time.Duration
	// Payload is the sealed message; kept only in one of the [EndedStates].
	Payload []byte
	Now     time.Time
}

// Cancel takes a message back. It fails with a [RefusedError] when a worker has
// it already or it has come to its end, and with [ErrNotFound].
func Cancel(ctx context.Context, s Store, id string, now time.Time) error {
	return s.Move(ctx, Move{ID: id, To: Canceled, Now: now})
}

// Move is a change without an attempt: a wait, an end, a cancellation.
type Move struct {
	ID string
	// Seed, when not nil, is written first if the message has no record.
	Seed     *Record
	Provider string
	To       State
	Reason   string
	Next     time.Time
	Payload  []byte // as in Finish
	Now      time.Time
}
