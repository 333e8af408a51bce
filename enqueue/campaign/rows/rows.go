// Package rows reads what a campaign sends: one request for a code a row, from a
// file or from what happened to earlier messages. It neither keeps rows nor sends
// them.
package rows

import (
	"iter"

	"github.com/otpq/otpq/providers"
)

// Row is one person's row.
type Row struct {
	// Line is where the row begins in the file, the first line being 1; of a query it
	// is the row's place.
	Line int
	// Request is valid. It is nil when there are Problems.
	Request providers.Request
	// Problems are what is wrong with the row. They repeat no value of it.
	Problems []providers.FieldError
	// ReplayOf is the message that the row's takes the place of, and
	// PossibleDuplicate says that the provider may have acted on that one.
	ReplayOf          string
	PossibleDuplicate bool
}

// Source yields rows one by one, in constant memory. An error is yielded once and
// ends it: what cannot be read at all, as opposed to a row that is wrong.
type Source = iter.Seq2[Row, error]
