package rows

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"

	"github.com/otpq/otpq/providers"
)

// jsonlReader reads a request a line, in the provider's documented JSON.
type jsonlReader struct {
	*lines
	def   providers.Definition
	moves []move
	// own are the fields that are taken by their own names, and what is much like
	// those, which Decode names; moved are the members that are taken as another.
	own, moved map[string]bool
}

// move is a pair of a mapping: a field, and the member it is, or its value.
type move struct {
	path   []string
	member string
	value  json.RawMessage
}

func newJSONLReader(l *lines, def providers.Definition, m Mapping) (*jsonlReader, error) {
	j := &jsonlReader{lines: l, def: def, own: map[string]bool{}, moved: map[string]bool{}}
	if m == nil {
		return j, nil
	}
	f := fieldsOf(def)
	for _, name := range f.names() {
		top, _, _ := strings.Cut(name, ".")
		j.own[alike(top)] = true
	}
	for _, p := range m {
		if isNumber(p.Column) {
			return nil, &PairError{p.String(), "has a number: members of JSON have names"}
		}
		t, err := pairTarget(f, p, []string{p.Column}, true)
		if err != nil {
			return nil, err
		}
		to := move{path: strings.Split(p.Field, "."), member: p.Column}
		if t.key != "" {
			to.path = append(strings.Split(strings.TrimSuffix(p.Field, "."+t.key), "."), t.key)
		}
		if p.Constant {
			to.value = constant(t)
		}
		j.moves = append(j.moves, to)
		j.moved[p.Column] = true
		delete(j.own, alike(p.Field))
	}
	return j, nil
}

// constant is a constant's JSON.
func constant(t target) json.RawMessage {
	switch t.kind.Kind() {
	case reflect.Bool:
		if value, _ := truth(t.text); value {
			return json.RawMessage("true")
		}
		return json.RawMessage("false")
	case reflect.Int64:
		v := reflect.New(t.kind).Elem()
		setText(v, t.text)
		return mustJSON(v.Int())
	default:
		return mustJSON(t.text)
	}
}

// mustJSON encodes what has an encoding.
func mustJSON(v any) json.RawMessage {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return data
}

// next reads a row. It fails with [io.EOF] at the end, and with a [ReadError].
func (j *jsonlReader) next() (Row, error) {
	for {
		to, how := j.lineAt(0)
		row := Row{Line: j.line}
		switch how {
		case broken:
			return row, j.failure()
		case tooLong:
			row.Problems = wrong("row", rowTooLong)
			j.skip()
			return row, nil
		case whole:
		}
		if to == 0 {
			return row, io.EOF
		}
		// A copy: what is read next takes its place, and a request may keep parts.
		line := bytes.Clone(bytes.TrimSpace(j.text(to)))
		j.advance(to)
		if len(line) == 0 {
			continue
		}
		if j.moves != nil {
			line = j.rearrange(line)
		}
		request, err := j.def.Decode(line)
		if row.Problems = withInvalid(nil, err); err == nil {
			row.Request = request
		}
		return row, nil
	}
}

// rearrange moves the members of an object to where the mapping has them. What is no
// object it leaves for Decode to name.
func (j *jsonlReader) rearrange(line []byte) []byte {
	in, err := members(line)
	if err != nil {
		return line
	}
	out := map[string]any{}
	for name, value := range in {
		if j.own[alike(name)] && !j.moved[name] {
			out[name] = value
		}
	}
	for _, to := range j.moves {
		value := to.value
		if value == nil {
			value = in[to.member]
		}
		if value != nil {
			put(out, to.path, value)
		}
	}
	return mustJSON(out)
}

// put puts a value into objects in objects.
func put(object map[string]any, path []string, value json.RawMessage) {
	name := path[0]
	if len(path) == 1 {
		object[name] = value
		return
	}
	inner, ok := object[name].(map[string]any)
	if !ok {
		inner = map[string]any{}
		if raw, ok := object[name].(json.RawMessage); ok && string(raw) != "null" {
			old, err := members(raw)
			if err != nil {
				return // Decode says what is wrong with it
			}
			for k, v := range old {
				inner[k] = v
			}
		}
		object[name] = inner
	}
	put(inner, path[1:], value)
}

var errMembers = errors.New("no object of members that are there once")

// members takes an object apart. It fails where a name is there twice.
func members(data []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errMembers
	}
	out := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return nil, errMembers
		}
		var value json.RawMessage
		if _, twice := out[name]; twice || d.Decode(&value) != nil {
			return nil, errMembers
		}
		out[name] = value
	}
	if _, err := d.Token(); err != nil || d.InputOffset() != int64(len(data)) {
		return nil, errMembers
	}
	return out, nil
}
