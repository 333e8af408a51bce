package config

import (
	"reflect"
	"strings"
	"time"

	"github.com/otpq/otpq/internal/secret"
)

// Field describes one setting for the documentation.
type Field struct {
	Path    string // in the YAML file; NAME stands for a provider, N for a position
	Env     string // the variable
	Type    string // text, list, secret, duration, whole number or number
	Default string // "" when there is none
	Valid   string // what is allowed, where the type does not say it all
	Doc     string
}

// Reference lists every setting in the order of the structs.
func Reference() []Field {
	var fields []Field
	add := func(s *setting) {
		f := Field{Path: s.path, Env: s.env, Default: s.tag.Get("default"), Doc: s.tag.Get("doc")}
		switch s.value.Interface().(type) {
		case time.Duration:
			f.Type = "duration"
		case int:
			f.Type = "whole number"
		case float64:
			f.Type = "number"
		case secret.Text:
			f.Type = "secret"
		default:
			f.Type = "text"
			if s.tag.Get("list") != "" {
				f.Type = "list"
			}
		}
		f.Valid = s.inRange("")
		if oneOf := s.tag.Get("oneof"); oneOf != "" {
			f.Valid = strings.ReplaceAll(oneOf, "|", ", ")
		}
		fields = append(fields, f)
	}
	root := newSection(reflect.ValueOf(&Config{}).Elem(), "", []string{"NAME"}, map[string]*Provider{})
	for _, name := range root.names {
		switch {
		case name == keysName:
			newSection(reflect.ValueOf(&Key{}).Elem(), keysName+"[N]", nil, nil).each(add)
		default:
			root.sections[name].each(add)
		}
	}
	return fields
}
