// Package secret holds values that must never be printed. It is not a vault:
// it keeps a secret out of logs, errors and JSON, not out of memory.
package secret

import "encoding/json"

// Redacted is what every printer shows instead of a secret.
const Redacted = "[redacted]"

// Text is a secret string. The zero value is "no secret". It prints as
// [Redacted] through fmt, encoding/json, encoding and zerolog; only [Text.Reveal]
// gives the value, so that every use of it can be found by searching for it.
type Text string

// Reveal returns the secret itself.
func (t Text) Reveal() string { return string(t) }

// IsZero reports whether there is no secret.
func (t Text) IsZero() bool { return t == "" }

// String implements [fmt.Stringer].
func (t Text) String() string {
	if t == "" {
		return ""
	}
	return Redacted
}

// GoString implements [fmt.GoStringer], which %#v uses.
func (t Text) GoString() string { return t.String() }

// MarshalText implements [encoding.TextMarshaler], which YAML and zerolog use.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// MarshalJSON implements [json.Marshaler].
func (t Text) MarshalJSON() ([]byte, error) { return json.Marshal(t.String()) }
