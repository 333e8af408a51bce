package rows

import (
	"context"
	"errors"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// FromStatus reads what happened: a row for each message of def's provider that ended
// as the filter says and was not replayed since, the oldest first. A row's line is its
// place among them. What is sealed with a key that keys lacks, say, is a row with a
// problem.
//
// It fails when Redis does: see [status.Redis.Ended].
func FromStatus(ctx context.Context, store *status.Redis, keys *tasks.Keyring, def providers.Definition, filter status.EndedFilter) Source {
	return func(yield func(Row, error) bool) {
		line := 0
		for m, err := range store.Ended(ctx, def.Name, filter) {
			if err != nil {
				yield(Row{}, err)
				return
			}
			if m.ReplayedAs != "" {
				continue
			}
			line++
			row := Row{Line: line, ReplayOf: m.ID, PossibleDuplicate: m.MaybeSent()}
			row.Request, row.Problems = reopen(m, keys, def)
			if !yield(row, nil) {
				return
			}
		}
	}
}

// reopen returns the request of a message, or what is wrong with it.
func reopen(m status.EndedMessage, keys *tasks.Keyring, def providers.Definition) (providers.Request, []providers.FieldError) {
	opened, err := m.Open(keys)
	if err == nil && opened.Provider != def.Name {
		err = tasks.ErrMalformed
	}
	if err != nil {
		return nil, payloadProblem(err)
	}
	r, err := def.Decode(opened.Request)
	if err == nil {
		err = r.Validate()
	}
	var fields providers.FieldErrors
	switch {
	case errors.As(err, &fields) && len(fields) > 0:
		return nil, fields
	case err != nil:
		return nil, payloadProblem(err)
	}
	return r, nil
}

// payloadProblem says why a message cannot be read, in words of its own: an error may
// quote what it could not read.
func payloadProblem(err error) []providers.FieldError {
	problem := "is not a message that can be read"
	switch {
	case errors.Is(err, tasks.ErrKeyUnknown):
		problem = "is sealed with a key that is not configured"
	case errors.Is(err, tasks.ErrVersion):
		problem = "was made by a newer otpq"
	case errors.Is(err, tasks.ErrSealBroken):
		problem = "was changed, or is another message's"
	}
	return []providers.FieldError{{Field: "payload", Problem: problem}}
}
