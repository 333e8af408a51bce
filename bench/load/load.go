// Package load makes the messages of a benchmark and sends them at a pace. It
// knows no peer: who takes the messages is the caller's business.
package load

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/otpq/otpq/bench/clock"
)

const (
	digits = 9
	// usernameSize is the longest that the product takes; with it a body has
	// [BodySize] bytes, about as many as a request for a code with its template
	// and a template's values.
	usernameSize = 254
	kind         = "EMAIL"

	prefix = `{"username":"`
	suffix = `","type":"` + kind + `"}`

	// BodySize is the size of every request in bytes.
	BodySize = len(prefix) + usernameSize + len(suffix)
)

// filler is what follows a message's number in its username.
var filler = "@" + strings.Repeat("x", usernameSize-digits-len("@.example.org")) + ".example.org"

// Request is the body that every peer posts, as Unimed-BH's page has it.
type Request struct {
	Username string `json:"username"`
	Type     string `json:"type"`
}

// NewRequest makes the request with a number.
func NewRequest(number int) Request {
	return Request{Username: fmt.Sprintf("%0*d", digits, number) + filler, Type: kind}
}

// Body is the JSON of a request.
func Body(number int) []byte {
	return fmt.Appendf(make([]byte, 0, BodySize), "%s%0*d%s%s", prefix, digits, number, filler, suffix)
}

// Number reads the number of the request in a body. It looks only where the
// number stands, because it runs in the provider for each request.
func Number(body []byte) (int, bool) {
	if len(body) != BodySize || string(body[:len(prefix)]) != prefix {
		return 0, false
	}
	n, err := strconv.Atoi(string(body[len(prefix) : len(prefix)+digits]))
	return n, err == nil
}

// Pace says when messages are sent: one each Interval, early or late by up to
// Jitter of it.
type Pace struct {
	Interval time.Duration
	Jitter   float64
}

// Run calls send for each number from first on, n times, each in a goroutine of
// its own, so that a slow call delays no other. It returns, by number, when each
// call was begun on [clock.Now]. It fails with the first error of a send.
func (p Pace) Run(ctx context.Context, first, n int, send func(ctx context.Context, number int) error) ([]int64, error) {
	begun := make([]int64, n)
	var failed firstError
	var wg sync.WaitGroup
	next := time.Now()
	for i := range n {
		wait := time.Duration(float64(p.Interval) * (1 + p.Jitter*(2*rand.Float64()-1)))
		next = next.Add(wait)
		select {
		case <-time.After(time.Until(next)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		wg.Go(func() {
			begun[i] = clock.Now()
			failed.note(send(ctx, first+i))
		})
	}
	wg.Wait()
	return begun, failed.err
}

// Fill calls send for n numbers from first on, from as many callers at once, and
// returns how long that took in all.
func Fill(ctx context.Context, first, n, callers int, send func(ctx context.Context, number int) error) (time.Duration, error) {
	var next atomic.Int64
	var failed firstError
	var wg sync.WaitGroup
	start := time.Now()
	for range callers {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= n || ctx.Err() != nil || failed.is() {
					return
				}
				failed.note(send(ctx, first+i))
			}
		})
	}
	wg.Wait()
	if failed.err == nil {
		failed.err = ctx.Err()
	}
	return time.Since(start), failed.err
}

// firstError keeps the first error of many goroutines.
type firstError struct {
	mu  sync.Mutex
	err error
}

func (f *firstError) note(err error) {
	if err == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = err
	}
}

func (f *firstError) is() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err != nil
}

// WriteTimes writes times as a file that [ReadTimes] reads: 64 bits each, the
// lowest byte first, as Node.js on the same machine writes a BigInt64Array.
func WriteTimes(path string, times []int64) error {
	raw := make([]byte, 0, 8*len(times))
	for _, at := range times {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(at))
	}
	return os.WriteFile(path, raw, 0o600)
}

// ReadTimes reads what [WriteTimes] wrote.
func ReadTimes(raw []byte) []int64 {
	times := make([]int64, len(raw)/8)
	for i := range times {
		times[i] = int64(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	return times
}
