// Package strictjson reads JSON by its exact letter: names match case and all,
// no name comes twice, nothing follows the value, and everything wrong is
// reported at once by field. It is not a general decoder: it knows the few types
// that the vendors' requests are made of.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/otpq/otpq/providers"
)

// body is the field that problems of the document as a whole are filed under.
const body = "body"

var (
	errNotObject = errors.New("must be a JSON object")
	errRepeated  = errors.New("has a field more than once")
)

// Object splits one JSON object into its members. It fails on anything else, on
// a repeated name and on trailing data. Its errors hold nothing of the document.
func Object(data []byte) (map[string]json.RawMessage, error) {
	ms, err := split(data)
	if err != nil {
		return nil, err
	}
	object := make(map[string]json.RawMessage, len(ms))
	for _, m := range ms {
		if _, twice := object[m.name]; twice {
			return nil, errRepeated
		}
		object[m.name] = m.value
	}
	return object, nil
}

// Request reads the documented JSON of R and validates it. What the document
// gets wrong and what R's Validate finds are reported together, as
// [providers.FieldErrors]; a field that could not be read is not reported again
// as missing.
func Request[R providers.Request](data []byte) (providers.Request, error) {
	var r R
	var d decoder
	d.provider = r.ProviderName()
	if !utf8.Valid(data) {
		d.errs.Add(body, "is not valid UTF-8")
		return nil, d.errs
	}
	ms, err := split(data)
	if err != nil {
		d.errs.Add(body, "%v", err)
		return nil, d.errs
	}
	d.object("", ms, reflect.ValueOf(&r).Elem())

	unread := map[string]bool{}
	for _, e := range d.errs {
		unread[e.Field] = true
	}
	var invalid providers.FieldErrors
	if errors.As(r.Validate(), &invalid) {
		for _, e := range invalid {
			if !unread[e.Field] {
				d.errs = append(d.errs, e)
			}
		}
	}
	if err := d.errs.OrNil(); err != nil {
		return nil, err
	}
	return r, nil
}

type member struct {
	name  string
	value json.RawMessage
}

// split returns the members of one JSON object in their order, repeats included.
func split(data []byte) ([]member, error) {
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // Windows tools put a byte order mark there
	if !json.Valid(data) {
		var whole json.RawMessage
		err := json.Unmarshal(data, &whole)
		// encoding/json quotes the character it stumbled on: the place will do.
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && len(data) > 0 {
			return nil, fmt.Errorf("is not valid JSON (byte %d)", syntax.Offset)
		}
		return nil, errors.New("is not valid JSON")
	}
	return members(bytes.Trim(data, space))
}

// space is what JSON takes for white space.
const space = " \t\r\n"

// members takes a valid JSON object apart.
func members(data []byte) ([]member, error) {
	if data[0] != '{' {
		return nil, errNotObject
	}
	var ms []member
	for rest := bytes.TrimLeft(data[1:], space); rest[0] != '}'; {
		end := valueEnd(rest)
		m := member{name: unquote(rest[:end])}
		rest = bytes.TrimLeft(rest[end:], space+":") // a valid document has one colon there
		end = valueEnd(rest)
		m.value = json.RawMessage(rest[:end])
		ms = append(ms, m)
		rest = bytes.TrimLeft(rest[end:], space+",")
	}
	return ms, nil
}

// valueEnd is where the value ends that valid JSON begins with.
func valueEnd(data []byte) int {
	depth, inString := 0, false
	for i, c := range data {
		switch {
		case inString && c == '"' && !escaped(data[:i]):
			inString = false
			if depth == 0 {
				return i + 1
			}
		case inString:
		case c == '"':
			inString = true
		case c == '{' || c == '[':
			depth++
		case depth == 0 && (c == '}' || c == ']' || c == ',' || c == ':' || strings.IndexByte(space, c) >= 0):
			return i // of a number or a word, and what follows it
		case c == '}' || c == ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
	return len(data)
}

// escaped reports whether an odd number of backslashes comes last.
func escaped(data []byte) bool {
	return (len(data)-len(bytes.TrimRight(data, `\`)))%2 == 1
}

func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 && utf8.Valid(quoted) {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // the document is valid, so this is a string
	return s
}

type decoder struct {
	provider string
	errs     providers.FieldErrors
}

// object reads members into the struct v, whose fields are named by their tags.
func (d *decoder) object(prefix string, ms []member, v reflect.Value) {
	fields := fieldsOf(v.Type())
	seen := make([]bool, len(fields))
	for _, m := range ms {
		field := slices.Index(fields, m.name)
		switch {
		case field < 0:
			d.unknown(prefix, m.name, fields)
		case seen[field]:
			d.errs.Add(prefix+m.name, "appears more than once")
		default:
			d.value(prefix+m.name, m.value, v.Field(field))
			seen[field] = true
		}
	}
}

// names has the fields' names by struct type.
var names sync.Map

func fieldsOf(t reflect.Type) []string {
	if known, ok := names.Load(t); ok {
		return known.([]string)
	}
	fields := make([]string, t.NumField())
	for i := range fields {
		fields[i], _, _ = strings.Cut(t.Field(i).Tag.Get("json"), ",")
	}
	names.Store(t, fields)
	return fields
}

func (d *decoder) unknown(prefix, name string, fields []string) {
	where := prefix + shown(name)
	for _, known := range fields {
		if alike(known) == alike(name) {
			d.errs.Add(where, "is not a field of %s; did you mean %s?", d.provider, prefix+known)
			return
		}
	}
	d.errs.Add(where, "is not a field of %s", d.provider)
}

// value reads raw into v. null is no value, whatever the type: the zero value
// stays, and Validate says whether something is missing.
func (d *decoder) value(field string, raw json.RawMessage, v reflect.Value) {
	if string(raw) == "null" {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		target := reflect.New(v.Type().Elem())
		before := len(d.errs)
		d.value(field, raw, target.Elem())
		if len(d.errs) == before {
			v.Set(target)
		}
	case reflect.String:
		s, problem := text(raw)
		if problem != "" {
			d.errs.Add(field, "%s", problem)
			return
		}
		v.SetString(s)
	case reflect.Bool:
		if s := string(raw); s != "true" && s != "false" {
			d.errs.Add(field, "must be true or false")
			return
		}
		v.SetBool(raw[0] == 't')
	case reflect.Int64:
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			d.errs.Add(field, "must be a whole number of at most 64 bits")
			return
		}
		v.SetInt(n)
	case reflect.Struct:
		ms, err := split(raw)
		if err != nil {
			d.errs.Add(field, "%v", err)
			return
		}
		d.object(field+".", ms, v)
	case reflect.Map:
		d.texts(field, raw, v)
	default:
		panic("strictjson: no rule for " + v.Type().String() + ", the type of " + field)
	}
}

// texts reads an object of strings into v, a map[string]string.
func (d *decoder) texts(field string, raw json.RawMessage, v reflect.Value) {
	ms, err := split(raw)
	if err != nil {
		d.errs.Add(field, "%v", err)
		return
	}
	if broken(raw) {
		d.errs.Add(field, "has half a surrogate pair, which is no character")
		return
	}
	texts := make(map[string]string, len(ms))
	for _, m := range ms {
		where := field + "." + shown(m.name)
		if _, twice := texts[m.name]; twice {
			d.errs.Add(where, "appears more than once")
		}
		s, problem := text(m.value)
		if problem != "" {
			d.errs.Add(where, "%s", problem)
		}
		texts[m.name] = s
	}
	v.Set(reflect.ValueOf(texts))
}

func text(raw json.RawMessage) (s, problem string) {
	if raw[0] != '"' {
		return "", "must be a string"
	}
	if broken(raw) {
		return "", "has half a surrogate pair, which is no character"
	}
	return unquote(raw), ""
}

// broken reports whether valid JSON escapes half a surrogate pair, which
// encoding/json would quietly turn into U+FFFD.
func broken(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		unit, ok := escapedUnit(raw[i:])
		switch {
		case !ok:
			i++ // another escape: skip what it escapes
		case unit >= 0xD800 && unit < 0xDC00:
			low, ok := escapedUnit(raw[i+6:])
			if !ok || low < 0xDC00 || low > 0xDFFF {
				return true
			}
			i += 11
		case unit >= 0xDC00 && unit <= 0xDFFF:
			return true
		default:
			i += 5
		}
	}
	return false
}

// escapedUnit reads a leading \uXXXX.
func escapedUnit(raw []byte) (uint64, bool) {
	if len(raw) < 6 || raw[0] != '\\' || raw[1] != 'u' {
		return 0, false
	}
	unit, err := strconv.ParseUint(string(raw[2:6]), 16, 16)
	return unit, err == nil
}

// shown is a name as an error may print it. Names come from outside: one that
// may itself name a person, or floods the error, is left out.
func shown(name string) string {
	digits := 0
	for _, c := range name {
		if unicode.IsDigit(c) {
			digits++
		}
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) && c != '_' && c != '-' || digits > 3 {
			return "(a name not shown)"
		}
	}
	if name == "" || len(name) > 40 {
		return "(a name not shown)"
	}
	return name
}

// alike maps the usual misspellings of a name to one form: celularID and
// celular_id are celularId.
func alike(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "").Replace(name))
}
