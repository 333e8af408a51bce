package load

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEveryPeerSaysTheSame(t *testing.T) {
	for _, number := range []int{0, 7, 123_456, 999_999_999} {
		body := Body(number)
		if len(body) != BodySize {
			t.Errorf("Body(%d) has %d bytes, want %d", number, len(body), BodySize)
		}
		if got, ok := Number(body); !ok || got != number {
			t.Errorf("Number(Body(%d)) = %d, %v", number, got, ok)
		}
		encoded, err := json.Marshal(NewRequest(number))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(body), string(encoded)); diff != "" {
			t.Errorf("NewRequest(%d) as JSON is not Body(%d):\n%s", number, number, diff)
		}
	}
	for name, body := range map[string][]byte{
		"nothing": nil, "a byte short": Body(1)[:BodySize-1], "a byte more": append(Body(1), ' '), "no number": []byte(string(make([]byte, BodySize))),
	} {
		if n, ok := Number(body); ok {
			t.Errorf("Number() of %s = %d, want none", name, n)
		}
	}
}

func TestAFillSendsEachNumberOnce(t *testing.T) {
	const first, n = 10, 1000
	var mu sync.Mutex
	sent := map[int]int{}
	_, err := Fill(t.Context(), first, n, 16, func(_ context.Context, number int) error {
		mu.Lock()
		defer mu.Unlock()
		sent[number]++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for number := first; number < first+n; number++ {
		if sent[number] != 1 {
			t.Errorf("number %d was sent %d times", number, sent[number])
		}
	}
	if len(sent) != n {
		t.Errorf("%d numbers were sent, want %d", len(sent), n)
	}
}

func TestAFillEndsWithTheFirstError(t *testing.T) {
	broken := errors.New("broken by the test")
	if _, err := Fill(t.Context(), 0, 1_000_000, 4, func(context.Context, int) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Fill() = %v, want the error of a send", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fill(ctx, 0, 10, 4, func(context.Context, int) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Fill() after its context ended = %v", err)
	}
}

func TestAPaceWaitsForNoCall(t *testing.T) {
	const n = 5
	all := make(chan struct{}) // closed when the last call has begun: none ends before
	var mu sync.Mutex
	calls := 0
	begun, err := Pace{Interval: time.Millisecond, Jitter: 0.5}.Run(t.Context(), 0, n, func(context.Context, int) error {
		mu.Lock()
		if calls++; calls == n {
			close(all)
		}
		mu.Unlock()
		<-all
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// Each message is due half an interval after the one before, or later.
	if spread := time.Duration(begun[n-1] - begun[0]); spread < 0 || len(begun) != n {
		t.Errorf("begun at %v", begun)
	}
	for i, at := range begun {
		if at == 0 {
			t.Errorf("it is not known when call %d was begun", i)
		}
	}
	broken := errors.New("broken by the test")
	if _, err := (Pace{Interval: time.Microsecond}).Run(t.Context(), 0, n, func(context.Context, int) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Run() = %v, want the error of a send", err)
	}
}

func TestTimesSurviveAFile(t *testing.T) {
	want := []int64{0, 1, 1 << 40, -1}
	file := filepath.Join(t.TempDir(), "times")
	if err := WriteTimes(file, want); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, ReadTimes(raw)); diff != "" {
		t.Errorf("ReadTimes() (-want +got):\n%s", diff)
	}
}
