package rows

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/otpq/otpq/providers"
)

// ColumnError says which column of a file cannot be taken, and why.
type ColumnError struct{ Column, Problem string }

// Error implements error.
func (e *ColumnError) Error() string { return "column " + e.Column + " " + e.Problem }

// HeaderError means that the first row says nothing of what its columns are.
type HeaderError struct {
	Provider string
	Fields   []string
}

// Error implements error.
func (e *HeaderError) Error() string {
	return fmt.Sprintf("no column of the first row is called as a field of %s (%s): map its columns, by name or by number", e.Provider, strings.Join(e.Fields, ", "))
}

// target is a field and where its text comes from.
type target struct {
	field
	column int // counted from 0, or -1: all rows have the text
	text   string
}

// newTargets finds out where each field comes from. first is the first row; header
// says that it has the columns' names.
func newTargets(f fields, first []string, header bool, m Mapping) ([]target, error) {
	if !header && !m.numbered() {
		return nil, &HeaderError{f.provider, f.names()}
	}
	var targets []target
	mapped, used := map[string]bool{}, map[int]bool{-1: true}
	for _, p := range m {
		t, err := pairTarget(f, p, first, header)
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
		mapped[p.Field], used[t.column] = true, true
	}
	if !header {
		return targets, nil
	}
	for i, name := range first {
		one, ok := f.find(name)
		meant := f.similar(name)
		switch {
		case used[i] || mapped[name]:
		case ok && slices.Index(first, name) < i:
			return nil, &ColumnError{shown(name, i), "is there more than once"}
		case ok:
			targets = append(targets, target{field: one, column: i})
		case len(m) > 0 && (meant == "" || mapped[meant] || slices.Contains(first, meant)):
			// Whoever maps columns knows of the others.
		default:
			return nil, &ColumnError{shown(name, i), sentence(f.unknown(name)) + " Columns without a use are ignored where a mapping is given"}
		}
	}
	return targets, nil
}

// sentence ends a sentence, unless it is a question.
func sentence(s string) string {
	if strings.HasSuffix(s, "?") {
		return s
	}
	return s + "."
}

// pairTarget is where a pair's field comes from.
func pairTarget(f fields, p Pair, first []string, header bool) (target, error) {
	one, ok := f.find(p.Field)
	if !ok {
		return target{}, &PairError{p.String(), f.unknown(p.Field)}
	}
	t := target{field: one, column: -1, text: p.Value}
	if p.Constant {
		if problem := one.set(reflect.New(f.request).Elem(), p.Value); problem != "" {
			return t, &PairError{p.String(), "cannot be: " + p.Field + " " + problem}
		}
		return t, nil
	}
	if isNumber(p.Column) {
		t.column = p.number() - 1
		if t.column < 0 || first != nil && t.column >= len(first) {
			return t, &PairError{p.String(), "names a column that is not there: the first row has " + columns(len(first))}
		}
		return t, nil
	}
	t.column = slices.Index(first, p.Column)
	switch {
	case !header:
		return t, &PairError{p.String(), "names a column, and there is no header"}
	case t.column < 0:
		return t, &PairError{p.String(), "names a column that the header does not have"}
	case slices.Contains(first[t.column+1:], p.Column):
		return t, &PairError{p.String(), "names a column that the header has more than once"}
	}
	return t, nil
}

// isHeader reports whether the first row has the columns' names.
func isHeader(f fields, first []string, o FileOptions) bool {
	if o.Header != HeaderDetected {
		return o.Header == HeaderPresent
	}
	if slices.ContainsFunc(o.Map, func(p Pair) bool { return !p.Constant && !isNumber(p.Column) }) {
		return true
	}
	return slices.ContainsFunc(first, func(cell string) bool { return isNamed(f, cell) })
}

func isNamed(f fields, cell string) bool {
	_, ok := f.find(cell)
	return ok || f.similar(cell) != ""
}

// shown is a column as an error may call it. What is no name may be a person's data,
// where there is no header: then its number will do.
func shown(name string, i int) string {
	digits := 0
	for _, r := range name {
		if unicode.IsDigit(r) {
			digits++
		}
		if !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_-. ", r) || digits > 3 {
			return strconv.Itoa(i + 1)
		}
	}
	if name == "" || len(name) > 40 {
		return strconv.Itoa(i + 1)
	}
	return strconv.Quote(name)
}

// maker makes requests from cells.
type maker struct {
	targets []target
	scratch reflect.Value // of the request's type; copied for each row
}

// row makes a row of a record.
func (m *maker) row(rec record) Row {
	row := Row{Line: rec.line}
	if rec.problem != "" {
		row.Problems = wrong("row", rec.problem)
		return row
	}
	m.scratch.SetZero()
	for i := range m.targets {
		t := &m.targets[i]
		text := t.text
		if t.column >= len(rec.cells) { // of a mapping by number, where the first row was wrong
			row.Problems = append(row.Problems, providers.FieldError{Field: t.name, Problem: "has no column in this row"})
			continue
		}
		if t.column >= 0 {
			text = rec.cells[t.column]
		}
		if text == "" {
			continue // not given
		}
		if problem := t.set(m.scratch, text); problem != "" {
			row.Problems = append(row.Problems, providers.FieldError{Field: t.name, Problem: problem})
		}
	}
	request, _ := m.scratch.Interface().(providers.Request) // it has the example's type
	row.Problems = withInvalid(row.Problems, request.Validate())
	if row.Problems == nil {
		row.Request = request
	}
	return row
}

func wrong(field, problem string) []providers.FieldError {
	return []providers.FieldError{{Field: field, Problem: problem}}
}

// withInvalid adds what Validate or Decode found to what was wrong before: of a field
// that could not be read nothing more is said.
func withInvalid(problems []providers.FieldError, err error) []providers.FieldError {
	if err == nil {
		return problems
	}
	var invalid providers.FieldErrors
	if !errors.As(err, &invalid) || len(invalid) == 0 {
		return append(problems, wrong("row", "is not what the provider takes")...)
	}
	unread := problems
	for _, e := range invalid {
		if !slices.ContainsFunc(unread, func(u providers.FieldError) bool { return u.Field == e.Field }) {
			problems = append(problems, e)
		}
	}
	return problems
}
