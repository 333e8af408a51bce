package strictjson

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/providers"
)

// sample has a field of every type that requests are made of.
type sample struct {
	Name  string            `json:"name"`
	Flag  *bool             `json:"flag"`
	Count *int64            `json:"count,omitempty"`
	Place *place            `json:"place,omitempty"`
	Extra map[string]string `json:"extra,omitempty"`
}

type place struct {
	City string `json:"city,omitempty"`
}

func (sample) ProviderName() string    { return "toy" }
func (sample) MaskedRecipient() string { return "" }
func (sample) Recipient() string       { return "" }
func (sample) Personal() []string      { return nil }
func (s sample) Validate() error {
	var errs providers.FieldErrors
	if s.Name == "" {
		errs.Add("name", "is required")
	}
	if s.Flag == nil {
		errs.Add("flag", "is required")
	}
	return errs.OrNil()
}

func TestRequestTakesTheDocumentedJSON(t *testing.T) {
	got, err := Request[sample]([]byte("\ufeff" + ` {"name":"a\u00e9\ud83d\ude00\\ud800","flag":false,"count":-9223372036854775808,
		"place":{"city":"Montevidéu"},"extra":{"k":"v","":""}} `))
	if err != nil {
		t.Fatal(err)
	}
	want := sample{
		Name: `aé😀\ud800`, Flag: new(false), Count: new(int64(-9223372036854775808)),
		Place: &place{City: "Montevidéu"}, Extra: map[string]string{"k": "v", "": ""},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Request() (-want +got):\n%s", diff)
	}
}

func TestRequestNamesWhatIsWrong(t *testing.T) {
	const rest = `,"flag":true}`
	hidden := "(a name not shown)"
	for name, c := range map[string]struct {
		in   string
		want providers.FieldErrors
	}{
		"everything at once": {
			`{"flag":1,"count":"x","nome":2}`,
			providers.FieldErrors{
				{Field: "flag", Problem: "must be true or false"},
				{Field: "count", Problem: "must be a whole number of at most 64 bits"},
				{Field: "nome", Problem: "is not a field of toy"},
				{Field: "name", Problem: "is required"},
			},
		},
		"a name in another case":    {`{"name":"a","Name":"b"` + rest, providers.FieldErrors{{Field: "Name", Problem: "is not a field of toy; did you mean name?"}}},
		"a nested misspelling":      {`{"name":"a","place":{"CI_TY":"b"}` + rest, providers.FieldErrors{{Field: "place.CI_TY", Problem: "is not a field of toy; did you mean place.city?"}}},
		"a repeated name":           {`{"name":"a","name":"a"` + rest, providers.FieldErrors{{Field: "name", Problem: "appears more than once"}}},
		"a repeated escaped name":   {`{"name":"a","n\u0061me":"a"` + rest, providers.FieldErrors{{Field: "name", Problem: "appears more than once"}}},
		"a number for text":         {`{"name":12` + rest, providers.FieldErrors{{Field: "name", Problem: "must be a string"}}},
		"null for text":             {`{"name":null` + rest, providers.FieldErrors{{Field: "name", Problem: "is required"}}},
		"null for a flag":           {`{"name":"a","flag":null}`, providers.FieldErrors{{Field: "flag", Problem: "is required"}}},
		"text for a flag":           {`{"name":"a","flag":"true"}`, providers.FieldErrors{{Field: "flag", Problem: "must be true or false"}}},
		"a fraction":                {`{"name":"a","count":5.0` + rest, providers.FieldErrors{{Field: "count", Problem: "must be a whole number of at most 64 bits"}}},
		"too large a number":        {`{"name":"a","count":9223372036854775808` + rest, providers.FieldErrors{{Field: "count", Problem: "must be a whole number of at most 64 bits"}}},
		"a list for an object":      {`{"name":"a","place":[]` + rest, providers.FieldErrors{{Field: "place", Problem: "must be a JSON object"}}},
		"a string for a dictionary": {`{"name":"a","extra":"x"` + rest, providers.FieldErrors{{Field: "extra", Problem: "must be a JSON object"}}},
		"a number in a dictionary":  {`{"name":"a","extra":{"k":1}` + rest, providers.FieldErrors{{Field: "extra.k", Problem: "must be a string"}}},
		"null in a dictionary":      {`{"name":"a","extra":{"k":null}` + rest, providers.FieldErrors{{Field: "extra.k", Problem: "must be a string"}}},
		"a repeated key":            {`{"name":"a","extra":{"k":"1","k":"1"}` + rest, providers.FieldErrors{{Field: "extra.k", Problem: "appears more than once"}}},
		"half a surrogate pair":     {`{"name":"\ud83d"` + rest, providers.FieldErrors{{Field: "name", Problem: "has half a surrogate pair, which is no character"}}},
		"the other half":            {`{"name":"\ude00"` + rest, providers.FieldErrors{{Field: "name", Problem: "has half a surrogate pair, which is no character"}}},
		"half a pair in a key":      {`{"name":"a","extra":{"\ud83dx":"1"}` + rest, providers.FieldErrors{{Field: "extra", Problem: "has half a surrogate pair, which is no character"}}},
		"a name that is a number":   {`{"name":"a","12345678901":1` + rest, providers.FieldErrors{{Field: hidden, Problem: "is not a field of toy"}}},
		"a name that is an address": {`{"name":"a","x@example.com":1` + rest, providers.FieldErrors{{Field: hidden, Problem: "is not a field of toy"}}},
		"no name":                   {`{"name":"a","":1` + rest, providers.FieldErrors{{Field: hidden, Problem: "is not a field of toy"}}},
		"trailing data":             {`{"name":"a","flag":true} {}`, providers.FieldErrors{{Field: "body", Problem: "is not valid JSON (byte 26)"}}},
		"a comment":                 {`{"name":"a", // b`, providers.FieldErrors{{Field: "body", Problem: "is not valid JSON (byte 14)"}}},
		"nothing":                   {``, providers.FieldErrors{{Field: "body", Problem: "is not valid JSON"}}},
		"half of it":                {`{"name"`, providers.FieldErrors{{Field: "body", Problem: "is not valid JSON (byte 7)"}}},
		"null":                      {`null`, providers.FieldErrors{{Field: "body", Problem: "must be a JSON object"}}},
		"a list":                    {`[{}]`, providers.FieldErrors{{Field: "body", Problem: "must be a JSON object"}}},
		"a number":                  {`1`, providers.FieldErrors{{Field: "body", Problem: "must be a JSON object"}}},
		"another encoding":          {"{\"name\":\"caf\xe9\"" + rest, providers.FieldErrors{{Field: "body", Problem: "is not valid UTF-8"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Request[sample]([]byte(c.in))
			var errs providers.FieldErrors
			if got != nil || !errors.As(err, &errs) {
				t.Fatalf("Request(%s) = %v, %v, want an error by field", c.in, got, err)
			}
			if diff := cmp.Diff(c.want, errs); diff != "" {
				t.Errorf("Request(%s) (-want +got):\n%s", c.in, diff)
			}
		})
	}
}

func TestObject(t *testing.T) {
	got, err := Object([]byte("\ufeff{\"a\":{\"x\":[1]},\"A\":null}\r\n"))
	want := map[string]json.RawMessage{"a": json.RawMessage(`{"x":[1]}`), "A": json.RawMessage("null")}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Object() = %v (-want +got):\n%s", err, diff)
	}
	for _, in := range []string{``, `null`, `[]`, `"a"`, `{} {}`, `{"a":1,"a":1}`, `{"a":1`, `{a:1}`, "\xff", strings.Repeat("[", 1e5)} {
		if got, err := Object([]byte(in)); err == nil {
			t.Errorf("Object(%.20q) = %v, want an error", in, got)
		}
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"name":"a","flag":true,"count":1,"place":{"city":"b"},"extra":{"k":"v"}}`))
	f.Add([]byte(`{"name":"\ud83d\ude00","flag":null,"flag":1}`))
	f.Add([]byte(`{"extra":{"\udc00":"v"}} x`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Request[sample](data)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatalf("%#v: %v", r, err)
		}
		back, err := Request[sample](again)
		if err != nil {
			t.Fatalf("Request(%s) = %v, which it had taken as %s", again, err, data)
		}
		// An empty dictionary is not sent.
		a, b := r.(sample), back.(sample)
		if len(a.Extra) == 0 {
			a.Extra, b.Extra = nil, nil
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("%s comes back as another (-first +second):\n%s", data, diff)
		}
	})
}
