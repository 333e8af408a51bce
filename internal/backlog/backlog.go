// Package backlog reads how much is waiting in the queues. It looks at asynq's
// keys with constant-time commands only, because asynq's own inspector samples
// memory and fails as a whole when one task's hash is missing.
package backlog

import "github.com/otpq/otpq/tasks"

// Lane is what is waiting in one lane of a provider, in all its queues.
type Lane struct {
	Queues    int   `json:"queues"`    // how many it has
	Pending   int64 `json:"pending"`   // ready for a worker
	Active    int64 `json:"active"`    // in a worker's hands
	Deferred  int64 `json:"deferred"`  // waiting for a breaker, a limit or a retry
	Scheduled int64 `json:"scheduled"` // asked for later
	Paused    bool  `json:"paused"`    // one of the queues at least
	// OldestSeconds is how long the oldest pending message has been ready.
	OldestSeconds float64 `json:"oldest_seconds"`
}

// LaneOf sums up those of the queues that are a provider's lane.
func LaneOf(queues []Queue, provider string, lane tasks.Lane) Lane {
	var out Lane
	for _, q := range queues {
		if q.Provider != provider || q.Lane != lane {
			continue
		}
		out.Queues++
		out.Pending += q.Pending
		out.Active += q.Active
		out.Deferred += q.Retry
		out.Scheduled += q.Scheduled
		out.Paused = out.Paused || q.Paused
		out.OldestSeconds = max(out.OldestSeconds, q.OldestSeconds)
	}
	return out
}
