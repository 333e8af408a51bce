package tasks_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/tasks"
)

// The targets only read: what seals is random, and the fuzzer would take that
// for something new each time and get nowhere.

// fuzzRing is the ring of the frozen files, so that the fuzzer starts from
// payloads that open.
func fuzzRing(f *testing.F) *tasks.Keyring {
	f.Helper()
	var ring *tasks.Keyring
	for _, m := range frozenMessages(f) {
		ring = frozenRing(f, m.Keys)
		f.Add([]byte(m.Payload))
	}
	var q struct{ Payload string }
	readFrozen(f, "testdata/v1/quarantine.json", &q)
	for _, seed := range []string{
		q.Payload, "", "{}", "null", `{"v":0}`, `{"v":1}`, `{"v":2,"id":"a"}`, `{"v":1e3}`, `{"quarantined":"a","sealed":"AAAA"}`,
		`{"v":1,"id":"a","provider":"b","lane":"bulk","created_ms":1,"not_after_ms":1,"key":"2026-11","sealed":""}`,
	} {
		f.Add([]byte(seed))
	}
	return ring
}

// isAny reports whether err is one of the errors that a reader may meet.
func isAny(err error, allowed ...error) bool {
	for _, a := range allowed {
		if errors.Is(err, a) {
			return true
		}
	}
	return false
}

func FuzzDecode(f *testing.F) {
	ring := fuzzRing(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		m, err := tasks.Decode(ring, payload)
		if err != nil {
			if !isAny(err, tasks.ErrMalformed, tasks.ErrVersion, tasks.ErrKeyUnknown, tasks.ErrSealBroken) {
				t.Errorf("Decode() = %v, want one of the documented errors", err)
			}
			if m.Request != nil || m.IdempotencyKey != "" {
				t.Error("Decode() failed and gave the request away all the same")
			}
			return
		}
		if !m.Lane.Valid() || m.ID == "" || m.Provider == "" || m.CreatedAt.IsZero() || m.NotAfter.IsZero() {
			t.Errorf("Decode() = %+v, want all that a worker needs", m)
		}
	})
}

func FuzzPeek(f *testing.F) {
	ring := fuzzRing(f)
	f.Fuzz(func(t *testing.T, payload []byte) {
		peeked, _, err := tasks.Peek(payload)
		if err != nil && !isAny(err, tasks.ErrMalformed, tasks.ErrVersion) {
			t.Errorf("Peek() = %v, want one of the documented errors", err)
		}
		decoded, decodeErr := tasks.Decode(ring, payload)
		if err != nil && decodeErr == nil {
			t.Errorf("Peek() = %v for a payload that decodes", err)
		}
		decoded.Request, decoded.IdempotencyKey = nil, ""
		if diff := cmp.Diff(decoded, peeked); diff != "" {
			t.Errorf("Decode and Peek differ in what is not sealed (-decode +peek):\n%s", diff)
		}
	})
}

func FuzzRelease(f *testing.F) {
	ring := fuzzRing(f)
	f.Fuzz(func(t *testing.T, quarantine []byte) {
		_, err := tasks.Release(ring, quarantine)
		if err != nil && !isAny(err, tasks.ErrMalformed, tasks.ErrKeyUnknown, tasks.ErrSealBroken) {
			t.Errorf("Release() = %v, want one of the documented errors", err)
		}
	})
}
