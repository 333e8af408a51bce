package rows

import (
	"encoding/csv"
	"io"
	"strconv"

	"github.com/otpq/otpq/providers"
)

// BadRows writes what is wrong with rows as CSV: line, field, problem; a line for each
// problem. It keeps none of them. It is not safe for concurrent use.
type BadRows struct {
	w    *csv.Writer
	rows int
}

// NewBadRows begins with the header. Errors are [BadRows.Flush]'s to tell.
func NewBadRows(w io.Writer) *BadRows {
	b := &BadRows{w: csv.NewWriter(w)}
	_ = b.w.Write([]string{"line", "field", "problem"})
	return b
}

// Add writes a row's problems. A row without any is none.
func (b *BadRows) Add(line int, problems []providers.FieldError) {
	if len(problems) == 0 {
		return
	}
	b.rows++
	for _, p := range problems {
		_ = b.w.Write([]string{strconv.Itoa(line), p.Field, p.Problem})
	}
}

// Rows is how many rows were added.
func (b *BadRows) Rows() int { return b.rows }

// Flush writes what is left, and returns the first error that writing met.
func (b *BadRows) Flush() error {
	b.w.Flush()
	return b.w.Error()
}
