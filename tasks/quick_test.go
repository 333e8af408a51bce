package tasks

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// slowParse is what quickParse must agree with.
func slowParse(payload []byte) (w wireV1, err error) {
	err = json.Unmarshal(payload, &w)
	return w, err
}

func quickSeeds() []string {
	return []string{
		`{"v":1,"id":"a","provider":"p","lane":"bulk","created_ms":1,"not_after_ms":2,"key":"k","sealed":"QUJD"}`,
		`{"v":1,"id":"a","provider":"p","lane":"bulk","created_ms":1,"not_after_ms":2,"max_attempts":7,"campaign":"c","replay_of":"r","key":"k","sealed":"QUJD"}`,
		`{"v":10,"id":"a","provider":"p","lane":"bulk","created_ms":1,"not_after_ms":2,"key":"k","sealed":"QUJD"}`,
		`{"v":1,"id":"a\u0041","provider":"p","lane":"bulk","created_ms":1,"not_after_ms":2,"key":"k","sealed":"QUJD"}`,
		`{"v":1,"id":"é","provider":"p","lane":"bulk","created_ms":01,"not_after_ms":-2,"key":"k","sealed":"QUJD"}`,
		`{"v":1,"id":"a","provider":"p","lane":"bulk","created_ms":1,"not_after_ms":2,"key":"k","sealed":"QU"}`,
		`{"v":1,"id":"a","provider":"p","lane":"bulk","created_ms":1,"not_after_ms":2,"key":"k","sealed":"QUJD"}}`,
		`{"v":1,"id":"a","provider":"p","lane":"bulk","created_ms":1,"not_after_ms":2,"key":"k","sealed":"QUJD","id":"b"}`,
		`{"v":1,"id":"a","provider":"p","lane":"bulk","created_ms":99999999999999999999,"not_after_ms":2,"key":"k","sealed":"QUJD"}`,
		`{"v":1,"id":"a","provider":"p","lane":"bulk","created_ms":,"not_after_ms":2,"key":"k","sealed":"QUJD"}`,
	}
}

// What is read without encoding/json is what encoding/json reads.
func FuzzQuickParse(f *testing.F) {
	for _, s := range quickSeeds() {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		quick, ok := quickParse(payload)
		if !ok {
			return
		}
		slow, err := slowParse(payload)
		if err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		if diff := cmp.Diff(slow, quick); diff != "" {
			t.Error("-slow +quick:", diff)
		}
	})
}

func FuzzQuickRequest(f *testing.F) {
	for _, s := range []string{
		`{"request":{"a":1}}`, `{"request":1}`, `{"request":{"a":1},"idempotency_key":"k"}`, `{"request":}`, `{"request":1}}`,
		`{"request":1,"request":2}`, `{"request": "}" }`, `{"request":null}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		quick, ok := quickRequest(plain)
		if !ok {
			return
		}
		var slow sealedV1
		if err := json.Unmarshal(plain, &slow); err != nil {
			t.Fatalf("encoding/json: %v", err)
		}
		if slow.IdempotencyKey != "" || !jsonSame(slow.Request, quick) {
			t.Errorf("encoding/json reads %q and key %q, quickly read: %q", slow.Request, slow.IdempotencyKey, quick)
		}
	})
}

// jsonSame compares but for white space around the value.
func jsonSame(a, b json.RawMessage) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && cmp.Equal(x, y)
}

// The short way is of no use when nothing takes it.
func TestWhatEncodeWritesIsReadQuickly(t *testing.T) {
	ring, err := NewKeyring(Key{ID: "k.1", Secret: GenerateSecret()})
	if err != nil {
		t.Fatal(err)
	}
	plain := Message{ID: NewID(), Provider: "kinpos", Lane: Bulk, Request: json.RawMessage(`{"a":"é"}`), CreatedAt: timeOf(1), NotAfter: timeOf(2)}
	full := plain
	full.MaxAttempts, full.Campaign, full.ReplayOf = 3, "autumn 2026", NewID()
	for _, m := range []Message{plain, full} {
		payload, err := Encode(ring, m)
		if err != nil {
			t.Fatal(err)
		}
		w, ok := quickParse(payload)
		if !ok {
			t.Fatalf("not read quickly: %s", payload)
		}
		opened, err := ring.Open(w.KeyID, w.Sealed, w.associated())
		if err != nil {
			t.Fatal(err)
		}
		if request, ok := quickRequest(opened); !ok || string(request) != string(m.Request) {
			t.Errorf("quickRequest(%s) = %s, %v", opened, request, ok)
		}
	}
}
