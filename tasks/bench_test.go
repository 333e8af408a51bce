package tasks_test

import (
	"testing"

	"github.com/otpq/otpq/tasks"
)

func benchRing(b *testing.B) *tasks.Keyring {
	b.Helper()
	ring, err := tasks.NewKeyring(tasks.Key{ID: "bench", Secret: tasks.GenerateSecret()})
	if err != nil {
		b.Fatal(err)
	}
	return ring
}

// BenchmarkSeal is the encryption alone, of a request of the usual size.
func BenchmarkSeal(b *testing.B) {
	ring, plain, beside := benchRing(b), make([]byte, 285), make([]byte, 120)
	b.ReportAllocs()
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if _, _, err := ring.Seal(plain, beside); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFingerprint is what each message pays for being found by its recipient.
func BenchmarkFingerprint(b *testing.B) {
	ring := benchRing(b)
	b.ReportAllocs()
	for b.Loop() {
		ring.RecipientPrint("unimedbh", "maria.souza@example.com")
	}
}

func BenchmarkOpen(b *testing.B) {
	ring, plain, beside := benchRing(b), make([]byte, 285), make([]byte, 120)
	id, sealed, err := ring.Seal(plain, beside)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		if _, err := ring.Open(id, sealed, beside); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkNewTask is all that a producer does to a message before Redis.
func BenchmarkNewTask(b *testing.B) {
	ring, m := benchRing(b), fullMessage()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := tasks.NewTask(ring, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	ring := benchRing(b)
	payload := encode(b, ring, fullMessage())
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if _, err := tasks.Decode(ring, payload); err != nil {
			b.Fatal(err)
		}
	}
}
