package campaign

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/otpq/otpq/status"
)

// RetryStates are the states whose rows are retried unless it is said which: of these
// messages it is known that nothing came of them.
func RetryStates() []status.State { return []status.State{status.Exhausted, status.Expired} }

// RetryFailed makes a campaign of the rows of another that is over and that ended in
// one of the states, [RetryStates] when there are none. Its messages are linked to the
// old ones; its settings are the old ones. It is called ID.2, or ID.3 when that has
// been retried itself, and so on. It is not started. While the last one is not over,
// that one is returned: repeated is true then.
//
// It fails with [ErrNotFound], with a [StateError] when the campaign is not over, and
// with [ErrNoFailures].
func (c *Campaigns) RetryFailed(ctx context.Context, id string, states ...status.State) (made Campaign, repeated bool, err error) {
	if len(states) == 0 {
		states = RetryStates()
	}
	for _, s := range states {
		if !s.Dead() && s != status.Expired && s != status.Canceled {
			return Campaign{}, false, &SettingError{"state", fmt.Sprintf("must be exhausted, expired, unknown, rejected or canceled, not %q", s)}
		}
	}
	last, err := c.Status(ctx, id)
	for err == nil && last.RetriedAs != "" {
		next, nextErr := c.Status(ctx, last.RetriedAs)
		if errors.Is(nextErr, ErrNotFound) || nextErr == nil && next.State == Creating {
			break // a retry that died before it came to be is begun anew
		}
		last, err = next, nextErr
	}
	if err != nil {
		return Campaign{}, false, err
	}
	if !last.State.Over() || last.Counts.inFlight()+last.Counts.Waiting > 0 {
		if last.ID != id {
			return last, true, nil
		}
		return Campaign{}, false, &StateError{ID: id, Do: "be retried before it is over", From: last.State}
	}
	if failures(last.Counts, states) == 0 {
		return Campaign{}, false, fmt.Errorf("%w: none of campaign %s ended %s", ErrNoFailures, last.ID, join(states))
	}
	name, err := retriedScript.Run(ctx, c.rdb, []string{campaignKey(last.ID)}, nextName(last.ID)).Text()
	if err != nil {
		return Campaign{}, false, fmt.Errorf("retry campaign: %w", err)
	}
	s := last.Settings
	s.ID = name
	source := Source{
		Rows: c.failedRows(ctx, last.ID, states), Name: fmt.Sprintf("%s of %s", join(states), last.ID),
		Digest: "retry of " + last.ID + " " + join(states),
	}
	return c.create(ctx, s, source, last.ID, CreateOptions{})
}

// ErrNoFailures means that there is nothing to retry.
var ErrNoFailures = errors.New("nothing to retry")

// nextName is what the retry of a campaign is called.
func nextName(id string) string {
	base, count, _ := strings.Cut(id, ".")
	n, err := strconv.Atoi(count)
	if err != nil {
		n = 1
	}
	return base + "." + strconv.Itoa(n+1)
}

func failures(n Counts, states []status.State) int64 {
	var sum int64
	for s, count := range map[status.State]int64{
		status.Rejected: n.Rejected, status.Exhausted: n.Exhausted, status.Unknown: n.Unknown,
		status.Expired: n.Expired, status.Canceled: n.Canceled,
	} {
		if slices.Contains(states, s) {
			sum += count
		}
	}
	return sum
}

func contains(states []status.State, s string) bool { return slices.Contains(states, status.State(s)) }

func join(states []status.State) string {
	words := make([]string, len(states))
	for i, s := range states {
		words[i] = string(s)
	}
	return strings.Join(words, ",")
}

// maybeSent reports whether the provider may have acted on a row's message.
func (c *Campaigns) maybeSent(ctx context.Context, row knownRow) (bool, error) {
	if row.State == string(status.Unknown) || row.Reason == status.ReasonMaybeSent {
		return true, nil // whether or not there is a record
	}
	r, err := c.store.Get(ctx, row.MessageID)
	if errors.Is(err, status.ErrNotFound) {
		return false, nil
	}
	return err == nil && r.MaybeSent(), err
}
