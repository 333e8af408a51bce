package tasks_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/tasks"
)

// newKey returns a key with a new secret.
func newKey(id string) tasks.Key { return tasks.Key{ID: id, Secret: tasks.GenerateSecret()} }

// newRing makes a keyring or ends the test.
func newRing(t testing.TB, keys ...tasks.Key) *tasks.Keyring {
	t.Helper()
	ring, err := tasks.NewKeyring(keys...)
	if err != nil {
		t.Fatalf("NewKeyring() = %v, want a keyring", err)
	}
	return ring
}

func TestGeneratedSecretsAreKeysAndDiffer(t *testing.T) {
	a, b := tasks.GenerateSecret(), tasks.GenerateSecret()
	if a == b {
		t.Error("two generated secrets are the same")
	}
	raw, err := base64.StdEncoding.DecodeString(a.Reveal())
	if err != nil || len(raw) != 32 {
		t.Errorf("a generated secret is %d bytes, %v; want 32", len(raw), err)
	}
	newRing(t, tasks.Key{ID: "a", Secret: a}, tasks.Key{ID: "b", Secret: b})
}

func TestWithoutKeysTheErrorTellsHowToMakeOne(t *testing.T) {
	ring, err := tasks.NewKeyring()
	if ring != nil || !errors.Is(err, tasks.ErrNoKeys) {
		t.Errorf("NewKeyring() = %v, %v, want ErrNoKeys", ring, err)
	}
	if !strings.Contains(err.Error(), "`otpq keygen`") {
		t.Errorf("NewKeyring() = %q, want `otpq keygen` in it", err)
	}
	for name, ring := range map[string]*tasks.Keyring{"a nil keyring": nil, "an empty keyring": {}} {
		if _, _, err := ring.Seal([]byte("x"), nil); !errors.Is(err, tasks.ErrNoKeys) {
			t.Errorf("%s: Seal() = %v, want ErrNoKeys", name, err)
		}
		if _, err := ring.Open("k", []byte("x"), nil); !errors.Is(err, tasks.ErrKeyUnknown) {
			t.Errorf("%s: Open() = %v, want ErrKeyUnknown", name, err)
		}
		if got := ring.Fingerprints("p", "v"); len(got) != 0 {
			t.Errorf("%s: Fingerprints() = %v, want none", name, got)
		}
	}
}

func TestNewKeyring(t *testing.T) {
	good := tasks.GenerateSecret()
	raw, _ := base64.StdEncoding.DecodeString(good.Reveal())
	ofSize := func(n int) tasks.Secret {
		return tasks.Secret(base64.StdEncoding.EncodeToString(make([]byte, n)))
	}
	for name, tt := range map[string]struct {
		keys []tasks.Key
		want string // in the error; empty when there is none
	}{
		"one key":                            {keys: []tasks.Key{{ID: "k", Secret: good}}},
		"a secret without its padding":       {keys: []tasks.Key{{ID: "k", Secret: tasks.Secret(base64.RawStdEncoding.EncodeToString(raw))}}},
		"an id with every kind of character": {keys: []tasks.Key{{ID: "aZ0._-", Secret: good}}},
		"an id of 64 characters":             {keys: []tasks.Key{{ID: strings.Repeat("k", 64), Secret: good}}},
		"no id":                              {[]tasks.Key{{Secret: good}}, "id of key 1 must be"},
		"an id of 65 characters":             {[]tasks.Key{{ID: strings.Repeat("k", 65), Secret: good}}, "id of key 1 must be"},
		"an id with a space":                 {[]tasks.Key{newKey("a"), {ID: "a b", Secret: good}}, "id of key 2 must be"},
		"an id with a line break at its end": {[]tasks.Key{{ID: "a\n", Secret: good}}, "id of key 1 must be"},
		"an id with a quote":                 {[]tasks.Key{{ID: `a"`, Secret: good}}, "id of key 1 must be"},
		"an id that is not ASCII":            {[]tasks.Key{{ID: "chave-à", Secret: good}}, "id of key 1 must be"},
		"a secret in the place of the id":    {[]tasks.Key{{ID: good.Reveal(), Secret: good}}, "id of key 1 must be"},
		"an id used twice":                   {[]tasks.Key{newKey("a"), newKey("b"), newKey("a")}, `"a" is used twice`},
		"no secret":                          {[]tasks.Key{{ID: "k"}}, `key "k": the secret must be the base64 of 32 bytes`},
		"a secret of 31 bytes":               {[]tasks.Key{{ID: "k", Secret: ofSize(31)}}, `key "k": the secret`},
		"a secret of 33 bytes":               {[]tasks.Key{{ID: "k", Secret: ofSize(33)}}, `key "k": the secret`},
		"a secret of 16 bytes (AES-128)":     {[]tasks.Key{{ID: "k", Secret: ofSize(16)}}, `key "k": the secret`},
		"a secret that is no base64":         {[]tasks.Key{newKey("a"), {ID: "k", Secret: "?" + good[1:]}}, `key "k": the secret`},
		"a secret in hexadecimal":            {[]tasks.Key{{ID: "k", Secret: tasks.Secret(fmt.Sprintf("%x", raw))}}, `key "k": the secret`},
	} {
		t.Run(name, func(t *testing.T) {
			ring, err := tasks.NewKeyring(tt.keys...)
			if tt.want == "" {
				if err != nil {
					t.Errorf("NewKeyring() = %v, want a keyring", err)
				}
				return
			}
			if ring != nil || err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("NewKeyring() = %v, %v, want an error with %q", ring, err, tt.want)
			}
			for _, k := range tt.keys {
				if s := k.Secret.Reveal(); s != "" && strings.Contains(err.Error(), s) {
					t.Errorf("NewKeyring() = %q, which shows a secret", err)
				}
			}
		})
	}
}

func TestSealAndOpen(t *testing.T) {
	oldKey, key := newKey("old"), newKey("new")
	sealedByOld := func(t *testing.T) []byte {
		t.Helper()
		id, sealed, err := newRing(t, oldKey).Seal([]byte("plain"), []byte("beside"))
		if err != nil || id != "old" {
			t.Fatalf("Seal() = key %q, %v, want key old", id, err)
		}
		return sealed
	}
	impostor := tasks.Key{ID: "old", Secret: tasks.GenerateSecret()}
	for name, tt := range map[string]struct {
		ring       *tasks.Keyring
		associated string
		change     func([]byte) []byte
		want       error
	}{
		"the key that sealed opens":                 {ring: newRing(t, oldKey), associated: "beside"},
		"after a rotation the old key still opens":  {ring: newRing(t, key, oldKey), associated: "beside"},
		"a key that was removed is named":           {ring: newRing(t, key), associated: "beside", want: tasks.ErrKeyUnknown},
		"another secret under the id does not open": {ring: newRing(t, impostor), associated: "beside", want: tasks.ErrSealBroken},
		"other associated data does not open":       {ring: newRing(t, oldKey), associated: "besides", want: tasks.ErrSealBroken},
		"no associated data does not open":          {ring: newRing(t, oldKey), want: tasks.ErrSealBroken},
		"a changed first byte does not open": {ring: newRing(t, oldKey), associated: "beside", want: tasks.ErrSealBroken,
			change: func(b []byte) []byte { b[0] ^= 1; return b }},
		"a changed last byte does not open": {ring: newRing(t, oldKey), associated: "beside", want: tasks.ErrSealBroken,
			change: func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		"a cut seal does not open": {ring: newRing(t, oldKey), associated: "beside", want: tasks.ErrSealBroken,
			change: func(b []byte) []byte { return b[:5] }},
		"nothing does not open": {ring: newRing(t, oldKey), associated: "beside", want: tasks.ErrSealBroken,
			change: func([]byte) []byte { return nil }},
	} {
		t.Run(name, func(t *testing.T) {
			sealed := sealedByOld(t)
			if tt.change != nil {
				sealed = tt.change(sealed)
			}
			plain, err := tt.ring.Open("old", sealed, []byte(tt.associated))
			if !errors.Is(err, tt.want) {
				t.Fatalf("Open() = %v, want %v", err, tt.want)
			}
			if tt.want == nil && string(plain) != "plain" {
				t.Errorf("Open() = %q, want plain", plain)
			}
			if errors.Is(err, tasks.ErrKeyUnknown) && !strings.Contains(err.Error(), `"old"`) {
				t.Errorf("Open() = %q, want the key's id in it", err)
			}
		})
	}
}

func TestTheFirstKeySealsAndNoSealRepeats(t *testing.T) {
	ring := newRing(t, newKey("new"), newKey("old"))
	seen := map[string]bool{}
	for range 100 {
		id, sealed, err := ring.Seal([]byte("the same"), nil)
		if err != nil || id != "new" {
			t.Fatalf("Seal() = key %q, %v, want key new", id, err)
		}
		seen[string(sealed)] = true
	}
	if len(seen) != 100 {
		t.Errorf("100 seals of one text are only %d different ones: a reader could tell equal requests", len(seen))
	}
}

func TestAKeyringIsSafeForConcurrentUse(t *testing.T) {
	ring := newRing(t, newKey("k"))
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			want := fmt.Sprint("text ", i)
			id, sealed, _ := ring.Seal([]byte(want), nil)
			if got, err := ring.Open(id, sealed, nil); err != nil || string(got) != want {
				t.Errorf("Open() = %q, %v, want %q", got, err, want)
			}
			ring.Fingerprints("p", want)
		})
	}
	wg.Wait()
}

func TestFingerprints(t *testing.T) {
	oldKey, key := newKey("old"), newKey("new")
	before := newRing(t, oldKey).Fingerprints("idempotency", "ana@example.com")
	after := newRing(t, key, oldKey).Fingerprints("idempotency", "ana@example.com")
	if len(before) != 1 || len(after) != 2 {
		t.Fatalf("%d and %d fingerprints, want one a key: 1 and 2", len(before), len(after))
	}
	if after[1] != before[0] {
		t.Error("after a rotation the old key's fingerprint is not found under the old key's place")
	}
	if after[0] == before[0] {
		t.Error("two keys make the same fingerprint: it is not keyed")
	}
	if again := newRing(t, key, oldKey).Fingerprints("idempotency", "ana@example.com"); !slices.Equal(again, after) {
		t.Errorf("the same value has the fingerprints %v and then %v", after, again)
	}
	other := newRing(t, tasks.Key{ID: "old", Secret: tasks.GenerateSecret()}).Fingerprints("idempotency", "ana@example.com")
	if other[0] == before[0] {
		t.Error("the fingerprint does not depend on the secret")
	}
	renamed := newRing(t, tasks.Key{ID: "renamed", Secret: oldKey.Secret}).Fingerprints("idempotency", "ana@example.com")
	if diff := cmp.Diff(before, renamed); diff != "" {
		t.Errorf("the fingerprint depends on the key's id (-want +got):\n%s", diff)
	}
	for _, p := range after {
		if len(p) != 40 || strings.Trim(p, "0123456789abcdef") != "" {
			t.Errorf("fingerprint %q, want 40 hexadecimal digits: it becomes part of a Redis key", p)
		}
	}
}

func TestARecipientsPrintsAreFingerprints(t *testing.T) {
	oldKey, key := newKey("old"), newKey("new")
	ring := newRing(t, key, oldKey)
	var want []string
	for _, id := range []string{"new", "old"} {
		f, err := ring.Fingerprint(id, "recipient kinpos", "00598 99000042")
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, string(f[:10]))
	}
	if diff := cmp.Diff(want, ring.RecipientPrints("kinpos", "00598 99000042")); diff != "" {
		t.Errorf("RecipientPrints() (-want +got):\n%s", diff)
	}
	if got := ring.RecipientPrint("kinpos", "00598 99000042"); got != want[0] {
		t.Errorf("RecipientPrint() = %x, want the sealing key's: %x", got, want[0])
	}
	if ring.RecipientPrint("medsenior", "00598 99000042") == want[0] {
		t.Error("a recipient has the same print with another provider")
	}
	if got := ring.RecipientPrint("kinpos", ""); got != "" {
		t.Errorf("nobody has the print %x", got)
	}
	var none *tasks.Keyring
	if got := none.RecipientPrint("kinpos", "x") + strings.Join(none.RecipientPrints("kinpos", "x"), ""); got != "" {
		t.Errorf("without keys there are the prints %x", got)
	}
}

// TestFingerprintsMadeAtOnceAreRight: what makes them is used again, by others.
func TestFingerprintsMadeAtOnceAreRight(t *testing.T) {
	ring := newRing(t, newKey("k"))
	want := map[string]string{}
	for i := range 50 {
		// Some are long, and what is left of one must not get into the next.
		value := strings.Repeat("v", i*i) + strconv.Itoa(i)
		want[value] = ring.Fingerprints("p", value)[0]
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for value, first := range want {
				if got := ring.Fingerprints("p", value)[0]; got != first {
					t.Errorf("the fingerprint of %d bytes is %s, and was %s", len(value), got, first)
				}
			}
		})
	}
	wg.Wait()
}

func TestFingerprintsOfDifferentUsesDiffer(t *testing.T) {
	ring := newRing(t, newKey("k"))
	seen := map[string][2]string{}
	for _, in := range [][2]string{
		{"a", "bc"}, {"ab", "c"}, {"abc", ""}, {"", "abc"}, {"1:a", "bc"}, {"", "1:abc"}, {"a", "bd"}, {"b", "bc"},
	} {
		p := ring.Fingerprints(in[0], in[1])[0]
		if first, twice := seen[p]; twice {
			t.Errorf("purpose and value %q have the fingerprint of %q", in, first)
		}
		seen[p] = in
	}
}
