package config

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong. It never holds the value at fault, for
// which might be a secret.
type Problem struct {
	// Key is the path of the setting, such as providers.kinpos.timeout; empty
	// when the problem is not about one.
	Key string
	// Source is where it was said: FILE:LINE or a variable's name.
	Source string
	// Message says what is wrong and what to do.
	Message string
}

// String joins the parts that are there.
func (p Problem) String() string {
	parts := make([]string, 0, 3)
	for _, part := range []string{p.Source, p.Key, p.Message} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ": ")
}

// Error is everything that is wrong with a configuration.
type Error struct{ Problems []Problem }

// Error lists the problems, one a line.
func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return "configuration: " + e.Problems[0].String()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "configuration: %d problems", len(e.Problems))
	for _, p := range e.Problems {
		b.WriteString("\n  " + p.String())
	}
	return b.String()
}

// nearest returns the candidate that a person most likely meant, or "".
func nearest(name string, candidates []string) string {
	best, least := "", max(1, len(name)/3)+1
	for _, c := range candidates {
		if len(name) >= 3 && strings.HasPrefix(c, strings.ToLower(name)) {
			return c // prod for producao
		}
		if d := distance(strings.ToLower(name), strings.ToLower(c)); d < least {
			best, least = c, d
		}
	}
	return best
}

// distance counts the single-byte edits (Levenshtein) between two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			substitute := diagonal
			if a[i] != b[j] {
				substitute++
			}
			diagonal = row[j+1]
			row[j+1] = min(substitute, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// printable returns a name from outside fit for one line of a message.
func printable(name string) string {
	const most = 64 // longer than any key or variable there is
	if len(name) > most {
		name = name[:most] + "…"
	}
	clean := func(r rune) bool { return r > ' ' && r < 0x7f && r != '"' }
	if name != "" && strings.IndexFunc(strings.TrimSuffix(name, "…"), func(r rune) bool { return !clean(r) }) < 0 {
		return name
	}
	return fmt.Sprintf("%q", name)
}
