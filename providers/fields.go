package providers

import (
	"fmt"
	"strings"
)

// FieldError says what is wrong with one field. It never holds the value.
type FieldError struct {
	Field   string `json:"field"`   // as the vendor's page spells it, dotted when nested
	Problem string `json:"problem"` // completes the sentence "FIELD …"
}

// FieldErrors is everything wrong with one request.
type FieldErrors []FieldError

// Error lists every field with its problem.
func (e FieldErrors) Error() string {
	parts := make([]string, len(e))
	for i, f := range e {
		parts[i] = f.Field + " " + f.Problem
	}
	return "invalid request: " + strings.Join(parts, "; ")
}

// Add appends a problem of a field.
func (e *FieldErrors) Add(field, format string, args ...any) {
	*e = append(*e, FieldError{Field: field, Problem: fmt.Sprintf(format, args...)})
}

// OrNil returns nil when nothing is wrong, so that a caller's err != nil works.
func (e FieldErrors) OrNil() error {
	if len(e) == 0 {
		return nil
	}
	return e
}
