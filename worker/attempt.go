package worker

import (
	"time"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// attempt is one execution of a task on its way through the pipeline. Each step
// fills in what the later ones need.
type attempt struct {
	taskID    string
	messageID string
	payload   []byte
	headers   map[string]string // the task's
	started   time.Time
	suspect   bool // between [suspects] begin and clear

	// first is the token of a claim that came with the task, until the claim step;
	// firstAsked is when Redis was asked for it.
	first      string
	firstAsked time.Time

	message tasks.Message     // after decode
	request providers.Request // after decode
	permit  *permit           // after permit, until the outcome is reported
	claimed status.Claimed    // after claim
	token   string            // after claim
	sentAt  time.Time         // when the request was begun
	took    time.Duration     // after send
	// recalled is true when the attempt was made before and only its result is
	// written now.
	recalled bool
}

// verdict is what becomes of the message now: the end of an execution.
type verdict struct {
	step   string // the step that came to it
	write  write
	state  status.State
	reason providers.Reason
	next   time.Time // when state is deferred, or nothing is written
	// outcome and spent are those of a finished attempt.
	outcome providers.Outcome
	spent   bool
	// err is detail for the log, free of personal data.
	err error
}

// write is how a verdict gets into the status store.
type write int

const (
	// writeNothing leaves the record as it is: it is someone else's, or Redis
	// is out of reach.
	writeNothing write = iota
	// writeMove changes a record that no claim stands on.
	writeMove
	// writeFinish ends the claimed attempt.
	writeFinish
)

// wait puts the message off until next without an attempt.
func (a *attempt) wait(reason providers.Reason, next time.Time) *verdict {
	if !next.Before(a.message.NotAfter) {
		next = a.message.NotAfter // to expire on time
	}
	return &verdict{write: writeMove, state: status.Deferred, reason: reason, next: next}
}

// end brings the message to a terminal state without an attempt.
func end(state status.State, reason providers.Reason, err error) *verdict {
	return &verdict{write: writeMove, state: state, reason: reason, err: err}
}

// again leaves the record alone and has the task run once more at next.
func again(reason providers.Reason, next time.Time, err error) *verdict {
	return &verdict{write: writeNothing, state: status.Deferred, reason: reason, next: next, err: err}
}
