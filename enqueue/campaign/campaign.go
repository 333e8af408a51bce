// Package campaign sends codes to many people again, without hurting those who log in
// right now: it keeps a file's rows, feeds them into the bulk lane just in time, and
// counts what became of each. It calls no provider; the workers do.
package campaign

import (
	"errors"
	"fmt"
	"time"
)

// State is where a campaign is on its way.
type State string

const (
	// Creating: its rows are still being read. Nothing is sent.
	Creating State = "creating"
	// Created: all rows are kept. Nothing is sent before it is started.
	Created State = "created"
	// Running: a feeder feeds it, or will as soon as there is one.
	Running State = "running"
	// Paused: nothing more is fed; what is in the queue still ends.
	Paused State = "paused"
	// Canceled: nothing more is fed, and what was waiting was taken back.
	Canceled State = "canceled"
	// Completed: every row came to its end, and none of them failed.
	Completed State = "completed"
	// CompletedWithFailures: every row came to its end, and some were not accepted.
	CompletedWithFailures State = "completed_with_failures"
)

// Over reports whether a campaign in s has come to its end.
func (s State) Over() bool { return s == Canceled || s == Completed || s == CompletedWithFailures }

// Counts are how many rows there are of each kind. They add up to Rows at every
// moment: each row is counted in one of the others.
type Counts struct {
	Rows      int64 `json:"rows"`
	Invalid   int64 `json:"invalid"`   // wrong, and skipped
	Duplicate int64 `json:"duplicate"` // another row has their recipient
	Waiting   int64 `json:"waiting"`   // not in the queue yet
	Queued    int64 `json:"queued"`
	Sending   int64 `json:"sending"`
	Deferred  int64 `json:"deferred"`
	Accepted  int64 `json:"accepted"`
	Rejected  int64 `json:"rejected"`
	Exhausted int64 `json:"exhausted"`
	Unknown   int64 `json:"unknown"`
	Expired   int64 `json:"expired"`
	Canceled  int64 `json:"canceled"` // those that were never in the queue among them
}

// Campaign is what is known of a campaign. Its JSON form is what the command prints.
type Campaign struct {
	Settings
	State State `json:"state"`
	// Reason says why it is paused, or waits though it is running: one of the
	// Reason constants, or empty. Until is when it goes on by itself.
	Reason string    `json:"reason,omitempty"`
	Until  time.Time `json:"until,omitzero"`
	Counts Counts    `json:"counts"`
	// Source tells where the rows came from, without naming anybody.
	Source string `json:"source,omitempty"`
	// RetryOf and RetriedAs link a campaign with the one that retries its failures.
	RetryOf     string    `json:"retry_of,omitempty"`
	RetriedAs   string    `json:"retried_as,omitempty"`
	CreatedAt   time.Time `json:"created_at"`
	StartedAt   time.Time `json:"started_at,omitzero"`
	CompletedAt time.Time `json:"completed_at,omitzero"`
	// Feeder is the process that feeds it now; Detached says that any worker may.
	Feeder   string `json:"feeder,omitempty"`
	Detached bool   `json:"detached"`
	// RatePerSecond is how many rows came to their end in each of the last seconds.
	RatePerSecond float64 `json:"rate_per_second"`

	// askedAt is when somebody last said that it is to run.
	askedAt time.Time
}

// Why a campaign does not feed.
const (
	ReasonOperator    = "operator"      // somebody paused it
	ReasonQuietHours  = "quiet_hours"   // until they are over
	ReasonBreakerOpen = "breaker_open"  // the provider is down: goes on by itself
	ReasonFailures    = "failure_ratio" // too many fail: goes on by itself, later each time
)

var (
	// ErrNotFound means there is no such campaign.
	ErrNotFound = errors.New("no such campaign: the id is wrong, or its retention has ended")
	// ErrExists means that a campaign of this name has other rows or another provider.
	ErrExists = errors.New("there is another campaign of this name: choose another name")
	// ErrFed means that another process feeds the campaign.
	ErrFed = errors.New("another process feeds the campaign")
	// ErrCreating means that another process creates the campaign.
	ErrCreating = errors.New("another process reads the campaign's rows right now, or died less than ten seconds ago: wait for it")
)

// StateError reports what cannot be done to a campaign in its state.
type StateError struct {
	ID   string
	Do   string // such as pause
	From State
}

// Error implements error.
func (e *StateError) Error() string {
	return fmt.Sprintf("campaign %s is %s: it cannot %s", e.ID, e.From, e.Do)
}
