package strictjson

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// decoderMembers takes an object apart with encoding/json's Decoder, which members
// must agree with: it is many times slower.
func decoderMembers(t *testing.T, data []byte) ([]member, bool) {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(data))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, false
	}
	var ms []member
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			t.Fatal(err)
		}
		m := member{name: name.(string)}
		if err := dec.Decode(&m.value); err != nil {
			t.Fatal(err)
		}
		ms = append(ms, m)
	}
	return ms, true
}

func FuzzMembers(f *testing.F) {
	for _, s := range []string{
		`{}`, ` { } `, `{"a":1}`, `{"a" : -1.5e+3 , "b":true,"c" :null}`, `[1]`, `"x"`, `7`,
		`{"a":"}\"{","b":{"c":["]",{}]},"d":[[],[1,2]]}`, `{"\u0061\\":"\\\"","é":"\\"}`, "{\"\xff\":1}", "{\n\t\"a\"\r:\n[ ]\t}",
		`{"a":1,"a":2}`, `{"":""}`, `{"a":"\\\\\\\""}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if !json.Valid(data) {
			return
		}
		want, isObject := decoderMembers(t, data)
		got, err := members(bytes.Trim(data, space))
		if (err == nil) != isObject {
			t.Fatalf("members() fails with %v, is an object: %v", err, isObject)
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(member{})); diff != "" {
			t.Error("-decoder +members:", diff)
		}
	})
}
