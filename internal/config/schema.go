package config

import (
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/otpq/otpq/internal/secret"
)

// section is a mapping of the YAML file: the settings and sections under it.
type section struct {
	names    []string // in the order of the struct
	settings map[string]*setting
	sections map[string]*section
}

// setting is one value that can be configured.
type setting struct {
	path   string
	env    string
	tag    reflect.StructTag
	value  reflect.Value // what it sets
	source string        // who set it last; empty while it is the default
}

// keysName is the one list in the configuration.
const keysName = "keys"

// newSection describes the struct that v is, and sets its defaults. The names
// are the providers'; target receives each provider's struct.
func newSection(v reflect.Value, path string, names []string, target map[string]*Provider) *section {
	s := &section{settings: map[string]*setting{}, sections: map[string]*section{}}
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name := field.Tag.Get("key")
		s.names = append(s.names, name)
		at := strings.TrimPrefix(path+"."+name, ".")
		switch field.Type.Kind() {
		case reflect.Struct:
			s.sections[name] = newSection(v.Field(i), at, nil, nil)
		case reflect.Map:
			all := &section{names: names, sections: map[string]*section{}}
			for _, provider := range names {
				target[provider] = &Provider{}
				all.sections[provider] = newSection(reflect.ValueOf(target[provider]).Elem(), at+"."+provider, nil, nil)
			}
			s.sections[name] = all
		case reflect.Slice: // the sealing keys, which the loader holds
		default:
			leaf := &setting{path: at, env: envName(at), tag: field.Tag, value: v.Field(i)}
			if text := field.Tag.Get("default"); text != "" {
				if message := leaf.set(text, "default"); message != "" {
					panic("config: default of " + at + " " + message)
				}
				leaf.source = ""
			}
			s.settings[name] = leaf
		}
	}
	return s
}

// each calls f with every setting in the order of the structs.
func (s *section) each(f func(*setting)) {
	for _, name := range s.names {
		if leaf := s.settings[name]; leaf != nil {
			f(leaf)
		}
		if sub := s.sections[name]; sub != nil {
			sub.each(f)
		}
	}
}

// envName returns the variable of a path: upper case, and an underscore for
// everything that a shell does not take in a name.
func envName(path string) string {
	return "OTPQ_" + strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - 'a' + 'A'
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		case r == ']':
			return -1
		}
		return '_'
	}, path)
}

// set reads the text into the setting. It returns what is wrong with it, in
// words that complete a sentence about the key, or "".
func (s *setting) set(text, source string) (message string) {
	s.source = source // of a wrong value too, for the problems that follow from it
	switch s.value.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			if _, err := strconv.ParseFloat(text, 64); err == nil {
				return `has no unit: write a duration such as "10s", "500ms" or "24h"`
			}
			return `is not a duration: write one such as "10s", "500ms" or "24h"`
		}
		if least, ok := s.tag.Lookup("min"); ok {
			if low, _ := time.ParseDuration(least); d < low {
				return "must be at least " + least
			}
		}
		s.value.SetInt(int64(d))
	case int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return "is not a whole number" + s.inRange(": write one of ")
		}
		if !s.within(float64(n)) {
			return s.inRange("must be ") + ", not " + strconv.Itoa(n)
		}
		s.value.SetInt(int64(n))
	case float64:
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return "is not a number" + s.inRange(": write one of ")
		}
		if !s.within(f) {
			return s.inRange("must be ")
		}
		s.value.SetFloat(f)
	case string, secret.Text:
		if oneOf := s.tag.Get("oneof"); oneOf != "" {
			if message := choice(text, strings.Split(oneOf, "|")); message != "" {
				return message
			}
		}
		s.value.SetString(text)
	default:
		panic("config: no reader for the type of " + s.path)
	}
	return ""
}

// choice says what is wrong with a text that must be one of a few; "" if it is.
func choice(text string, valid []string) string {
	for _, v := range valid {
		if text == v {
			return ""
		}
	}
	message := "must be one of " + strings.Join(valid, ", ")
	if near := nearest(text, valid); near != "" {
		message += "; did you mean " + near + "?"
	}
	return message
}

// within reports whether a number keeps to the tag's bounds. NaN does not.
func (s *setting) within(f float64) bool {
	bound := func(name string, holds func(limit float64) bool) bool {
		limit, err := strconv.ParseFloat(s.tag.Get(name), 64)
		return err != nil || holds(limit)
	}
	return bound("min", func(l float64) bool { return f >= l }) &&
		bound("above", func(l float64) bool { return f > l }) &&
		bound("max", func(l float64) bool { return f <= l })
}

// inRange describes the tag's bounds, after the prefix; "" without bounds.
func (s *setting) inRange(prefix string) string {
	var parts []string
	for _, bound := range []struct{ tag, words string }{{"min", "at least "}, {"above", "more than "}, {"max", "at most "}} {
		if limit, ok := s.tag.Lookup(bound.tag); ok {
			parts = append(parts, bound.words+limit)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return prefix + strings.Join(parts, " and ")
}
