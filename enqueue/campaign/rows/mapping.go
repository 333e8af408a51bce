package rows

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Mapping says which column a field of the request is taken from.
type Mapping []Pair

// Pair is one field of a Mapping.
type Pair struct {
	// Field is the provider's, as its page spells it, dotted when nested.
	Field string
	// Column is the name of a column, or its number, the first being 1.
	Column string
	// Constant says that the field is Value in all rows, and has no column.
	Constant bool
	Value    string
}

// String is the pair as [ParseMapping] reads it.
func (p Pair) String() string {
	if p.Constant {
		return p.Field + "==" + p.Value
	}
	return p.Field + "=" + p.Column
}

// number is the column's number, or 0 when it has a name.
func (p Pair) number() int {
	n, err := strconv.Atoi(p.Column)
	if err != nil || p.Constant {
		return 0
	}
	return n
}

// numbered reports whether a column is meant by its number, which needs no header.
func (m Mapping) numbered() bool {
	return slices.ContainsFunc(m, func(p Pair) bool { return p.number() > 0 })
}

// PairError says what is wrong with a pair of a mapping.
type PairError struct{ Pair, Problem string }

// Error implements error.
func (e *PairError) Error() string { return fmt.Sprintf("mapping %q %s", e.Pair, e.Problem) }

// ParseMapping reads pairs such as cpf=document or cpf=3, of a field and a column, and
// type==EMAIL, of a field and its value in all rows. What is behind the equals signs
// may hold others. It fails with a [PairError].
func ParseMapping(pairs []string) (Mapping, error) {
	var m Mapping
	seen := map[string]bool{}
	for _, text := range pairs {
		field, rest, found := strings.Cut(text, "=")
		p := Pair{Field: strings.TrimSpace(field), Column: strings.TrimSpace(rest)}
		if value, constant := strings.CutPrefix(rest, "="); constant {
			p = Pair{Field: p.Field, Constant: true, Value: value}
		}
		problem := ""
		switch {
		case !found || p.Field == "":
			problem = "is neither FIELD=COLUMN nor FIELD==VALUE"
		case !p.Constant && p.Column == "":
			problem = "names no column"
		case p.Constant && p.Value == "":
			problem = "has no value: leave the field out instead"
		case seen[p.Field]:
			problem = "is for a field that another pair is for"
		case isNumber(p.Column) && p.number() < 1:
			problem = "has a number that no column has: the first is 1"
		}
		if problem != "" {
			return nil, &PairError{text, problem}
		}
		seen[p.Field] = true
		m = append(m, p)
	}
	return m, nil
}

// isNumber reports whether a column is meant by number.
func isNumber(column string) bool {
	return column != "" && strings.Trim(strings.TrimPrefix(column, "-"), "0123456789") == ""
}
