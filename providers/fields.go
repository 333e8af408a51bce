package providers

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
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

// CheckText adds what no vendor takes in a text that is given: more than longest
// characters, blanks only, control characters, or what is not UTF-8.
func (e *FieldErrors) CheckText(field, value string, longest int) {
	switch {
	case value == "":
	case !utf8.ValidString(value):
		e.Add(field, "is not valid UTF-8")
	case strings.TrimSpace(value) == "":
		e.Add(field, "must not be blank")
	case utf8.RuneCountInString(value) > longest:
		e.Add(field, "must have at most %d characters", longest)
	case strings.ContainsFunc(value, unicode.IsControl):
		e.Add(field, "must not hold control characters")
	}
}

// OrNil returns nil when nothing is wrong, so that a caller's err != nil works.
func (e FieldErrors) OrNil() error {
	if len(e) == 0 {
		return nil
	}
	return e
}
