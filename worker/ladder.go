package worker

import (
	"errors"
	"fmt"
	"time"

	"github.com/otpq/otpq/tasks"
)

// The timeout ladder. Everything done with a message fits under the rung above
// it, because asynq gives a task to someone else when a rung is passed, whether
// or not its handler still runs:
//
//	hold + provider timeout + record  <  task timeout  <  lease
//	hold + provider timeout + record  <  shutdown timeout
const (
	// lease is how long asynq lets a dequeued task be: not configurable there.
	lease = 30 * time.Second
	// holdBudget is how long a message may wait for a rate limit with a
	// worker's slot in hand, instead of going back to the queue.
	holdBudget = 2 * time.Second
	// recordBudget is how long a result is tried to be written.
	recordBudget = 5 * time.Second
	// slack is for what is not timed: scheduling, encryption, asynq itself.
	slack = time.Second

	// MaxTimeout is the longest provider timeout that fits.
	MaxTimeout = tasks.TaskTimeout - holdBudget - recordBudget - slack

	// abandonedAfter is when a claim counts as dead: nobody who is alive can
	// still be at work on it then. Claims of workers that are known to be dead are
	// released before; see [recovery].
	abandonedAfter = lease
)

// CheckLadder reports every provider timeout that does not fit, with what to do.
func CheckLadder(shutdown time.Duration, providers []ProviderConfig) error {
	var errs []error
	for _, p := range providers {
		if p.Timeout > MaxTimeout {
			errs = append(errs, fmt.Errorf(
				"providers.%s.timeout: %s is too long: at most %s, so that an attempt and its record fit into a task's %s and asynq's lease of %s",
				p.Name, p.Timeout, MaxTimeout, tasks.TaskTimeout, lease))
			continue
		}
		if need := holdBudget + p.Timeout + recordBudget + slack; shutdown < need {
			errs = append(errs, fmt.Errorf(
				"worker.shutdown_timeout: %s is too short for providers.%s.timeout %s: at least %s, or a request in flight is given to another worker while it runs",
				shutdown, p.Name, p.Timeout, need))
		}
	}
	return errors.Join(errs...)
}
