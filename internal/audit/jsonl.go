package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine bounds one line; a tag is the only part of it that can be long.
const maxLine = 64 << 10

// ReadTold reads what apps were told, a JSON object a line. Its error names the
// line and not what stands there, which may name a person.
func ReadTold(from io.Reader) ([]Told, error) {
	return readLines(from, "id, tag, not_after, failed and canceled_at", func(t Told) []string {
		return missing("id", t.ID == "", "tag", t.Tag == "", "not_after", t.NotAfter.IsZero())
	})
}

// ReadSeen reads what a provider saw, as [ReadTold] does.
func ReadSeen(from io.Reader) ([]Seen, error) {
	return readLines(from, "tag, at, acted, refused and status", func(s Seen) []string {
		return missing("tag", s.Tag == "", "at", s.At.IsZero())
	})
}

// missing returns the names that are followed by true.
func missing(pairs ...any) []string {
	var out []string
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1].(bool) {
			out = append(out, pairs[i].(string))
		}
	}
	return out
}

func readLines[V any](from io.Reader, fields string, lacks func(V) []string) ([]V, error) {
	var out []V
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, maxLine)
	n := 0
	for lines.Scan() {
		n++
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var v V
		d := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		d.DisallowUnknownFields()
		if err := d.Decode(&v); err != nil || d.More() {
			return nil, fmt.Errorf("line %d is not one JSON object with the fields %s", n, fields)
		}
		if names := lacks(v); names != nil {
			return nil, fmt.Errorf("line %d lacks %s", n, strings.Join(names, " and "))
		}
		out = append(out, v)
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("line %d is longer than %d bytes", n+1, maxLine)
	}
	return out, lines.Err()
}
