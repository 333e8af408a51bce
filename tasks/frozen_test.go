package tasks_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/tasks"
)

// The files in testdata/v1 were written by the first release and are never to
// be regenerated or edited: each stands for messages that may be queued, or
// kept as dead letters, when a new otpq starts. When one of these tests fails,
// the code is wrong. A new version of the wire gets a folder of its own.

// frozenKey is a key made for these files and used nowhere else.
type frozenKey struct{ ID, Secret string }

func frozenRing(t testing.TB, keys []frozenKey) *tasks.Keyring {
	t.Helper()
	ring := make([]tasks.Key, len(keys))
	for i, k := range keys {
		ring[i] = tasks.Key{ID: k.ID, Secret: tasks.Secret(k.Secret)}
	}
	return newRing(t, ring...)
}

func readFrozen(t testing.TB, file string, into any) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

type frozenMessage struct {
	Keys    []frozenKey
	KeyID   string `json:"key_id"`
	Payload string
	Message struct {
		ID             string
		Provider       string
		Lane           tasks.Lane
		Request        json.RawMessage
		IdempotencyKey string    `json:"idempotency_key"`
		CreatedAt      time.Time `json:"created_at"`
		NotAfter       time.Time `json:"not_after"`
		MaxAttempts    int       `json:"max_attempts"`
		Campaign       string
		ReplayOf       string `json:"replay_of"`
	}
}

func frozenMessages(t testing.TB) map[string]frozenMessage {
	t.Helper()
	files, err := filepath.Glob("testdata/v1/message_*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d frozen messages, %v; want at least 3", len(files), err)
	}
	out := map[string]frozenMessage{}
	for _, file := range files {
		var f frozenMessage
		readFrozen(t, file, &f)
		out[filepath.Base(file)] = f
	}
	return out
}

func TestMessagesOfVersion1DecodeForEver(t *testing.T) {
	for name, f := range frozenMessages(t) {
		t.Run(name, func(t *testing.T) {
			got, err := tasks.Decode(frozenRing(t, f.Keys), []byte(f.Payload))
			if err != nil {
				t.Fatalf("Decode() = %v", err)
			}
			if !jsonEqual(t, f.Message.Request, got.Request) {
				t.Errorf("request %s, want %s", got.Request, f.Message.Request)
			}
			got.Request = nil
			w := f.Message
			want := tasks.Message{
				ID: w.ID, Provider: w.Provider, Lane: w.Lane, IdempotencyKey: w.IdempotencyKey, CreatedAt: w.CreatedAt,
				NotAfter: w.NotAfter, MaxAttempts: w.MaxAttempts, Campaign: w.Campaign, ReplayOf: w.ReplayOf,
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Decode() (-want +got):\n%s", diff)
			}
			if _, keyID, err := tasks.Peek([]byte(f.Payload)); err != nil || keyID != f.KeyID {
				t.Errorf("Peek() = key %q, %v, want key %q", keyID, err, f.KeyID)
			}
		})
	}
}

func TestQuarantinesOfVersion1AreReleasedForEver(t *testing.T) {
	var f struct {
		Keys              []frozenKey
		Payload, Released string
	}
	readFrozen(t, "testdata/v1/quarantine.json", &f)
	got, err := tasks.Release(frozenRing(t, f.Keys), []byte(f.Payload))
	if err != nil || string(got) != f.Released {
		t.Errorf("Release() = %q, %v, want %q", got, err, f.Released)
	}
}

// TestFingerprintsStayTheSame: an upgrade that changed them would forget every
// idempotency key, and send twice what apps ask for again.
func TestFingerprintsStayTheSame(t *testing.T) {
	var f struct {
		Keys           []frozenKey
		Purpose, Value string
		Fingerprints   []string
	}
	readFrozen(t, "testdata/v1/fingerprints.json", &f)
	if diff := cmp.Diff(f.Fingerprints, frozenRing(t, f.Keys).Fingerprints(f.Purpose, f.Value)); diff != "" {
		t.Errorf("Fingerprints() (-want +got):\n%s", diff)
	}
}
