package tasks

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// names are what ids, providers and key ids are made of.
const names = `[A-Za-z0-9][A-Za-z0-9_-]{0,63}`

// TestAPayloadIsWrittenAsEverBefore compares with how the first release wrote it:
// workers of that release have to read it, and the seal covers its every field.
func TestAPayloadIsWrittenAsEverBefore(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		w := wireV1{
			Version: version, ID: rapid.StringMatching(names).Draw(t, "id"), Provider: rapid.StringMatching(names).Draw(t, "provider"),
			Lane: rapid.SampledFrom(Lanes()).Draw(t, "lane"), CreatedMS: rapid.Int64().Draw(t, "created"),
			NotAfterMS: rapid.Int64().Draw(t, "not after"), MaxAttempts: rapid.Int().Draw(t, "budget"),
			Campaign: rapid.String().Draw(t, "campaign"), ReplayOf: rapid.String().Draw(t, "replay of"),
			KeyID: rapid.StringMatching(names).Draw(t, "key"), Sealed: rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "sealed"),
		}
		want, err := json.Marshal(w)
		if err != nil {
			t.Fatal(err)
		}
		if got := w.appendJSON(nil); string(got) != string(want) {
			t.Errorf("appendJSON() (-as before +got):\n%s", cmp.Diff(string(want), string(got)))
		}
		beside := fmt.Sprintf("otpq/1|%q|%q|%q|%d|%d|%d|%q|%q",
			w.ID, w.Provider, w.Lane, w.CreatedMS, w.NotAfterMS, w.MaxAttempts, w.Campaign, w.ReplayOf)
		if got := string(w.associated()); got != beside {
			t.Errorf("associated() (-as before +got):\n%s", cmp.Diff(beside, got))
		}
	})
}

func TestWhatIsSealedIsWrittenAsEverBefore(t *testing.T) {
	t.Parallel()
	ring, err := NewKeyring(Key{ID: "k", Secret: GenerateSecret()})
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(t *rapid.T) {
		request, err := json.Marshal(rapid.MapOf(rapid.String(), rapid.String()).Draw(t, "request"))
		if err != nil {
			t.Fatal(err)
		}
		m := Message{
			ID: "m", Provider: "p", Lane: Bulk, CreatedAt: timeOf(1), NotAfter: timeOf(2),
			Request: request, IdempotencyKey: rapid.String().Draw(t, "key"),
		}
		for name, encode := range map[string]func(*Keyring, Message) ([]byte, error){
			"Encode":      Encode,
			"EncodeValid": func(k *Keyring, m Message) ([]byte, error) { return EncodeValid(nil, k, m) },
		} {
			payload, err := encode(ring, m)
			if err != nil {
				t.Fatal(err)
			}
			w, err := parse(payload)
			if err != nil {
				t.Fatal(err)
			}
			got, err := ring.Open(w.KeyID, w.Sealed, w.associated())
			if err != nil {
				t.Fatal(err)
			}
			want, err := json.Marshal(sealedV1{Request: m.Request, IdempotencyKey: m.IdempotencyKey})
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%s seals (-as before +got):\n%s", name, cmp.Diff(string(want), string(got)))
			}
		}
	})
}
