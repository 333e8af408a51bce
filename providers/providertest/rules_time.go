package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/otpq/otpq/providers"
)

// silence has vendors that stop at some point and keep the connection open.
func silence(k *kit) error {
	_, body := parts(k.accepted)
	for name, said := range map[string]string{
		"before the reply":  "",
		"within the head":   "HTTP/1.1 200 OK\r\nContent-Ty",
		"before the body":   "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
		"within the body":   fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body)+1, body),
		"before a chunk":    fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(body), body),
		"after a 100":       "HTTP/1.1 100 Continue\r\n\r\n",
		"with no end given": "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + string(body),
	} {
		out, err := k.outlast(func(c net.Conn, giveUp func()) {
			_, _ = c.Write([]byte(said))
			giveUp()
			_, _ = c.Read(make([]byte, 1)) // until the other side leaves
		})
		if err := errors.Join(err, expect(out, providers.Ambiguous, providers.ReasonTimeout)); err != nil {
			return fmt.Errorf("%s: %w", name, err) // the others would take as long
		}
	}
	return nil
}

// drips has vendors that go on and on: a byte now and then keeps any limit between
// two reads from ending them.
func drips(k *kit) error {
	const json = "Content-Type: application/json\r\n"
	for name, c := range map[string]struct{ start, drop string }{
		"a success":         {"HTTP/1.1 200 OK\r\n" + json + "Content-Length: 50000\r\n\r\n", " "},
		"chunks":            {"HTTP/1.1 200 OK\r\n" + json + "Transfer-Encoding: chunked\r\n\r\n", "1\r\n \r\n"},
		"a head":            {"HTTP/1.1 200 OK\r\nX: ", "x"},
		"interim replies":   {"", "HTTP/1.1 103 Early Hints\r\n\r\n"},
		"a gateway's words": {"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 50000\r\n\r\n", " "},
	} {
		out, err := k.outlast(func(conn net.Conn, giveUp func()) {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			_, err := conn.Write([]byte(c.start))
			for n := 0; err == nil; n++ {
				if n == 10 {
					giveUp()
				}
				<-tick.C
				_, err = conn.Write([]byte(c.drop))
			}
		})
		want := providers.ReasonTimeout
		if out.Reason == providers.ReasonUnexpectedStatus {
			want = out.Reason // a status that arrived in time speaks for itself
		}
		if err := errors.Join(err, expect(out, providers.Ambiguous, want)); err != nil {
			return fmt.Errorf("%s: %w", name, err) // the others would take as long
		}
	}
	return nil
}

// outlast sends to a vendor that has the client give up while it still works on the
// reply.
func (k *kit) outlast(reply func(c net.Conn, giveUp func())) (providers.Outcome, error) {
	ctx, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	v, err := startVendor(func(c net.Conn, _ recorded) bool {
		reply(c, giveUp)
		return false
	})
	if err != nil {
		return providers.Outcome{}, err
	}
	defer v.close()
	out, err := k.yield(ctx, k.sendTo(v.url))
	return out, errors.Join(err, v.expectRequests(1), v.expectConnections(1))
}

func (k *kit) sendTo(url string) func(context.Context) (providers.Outcome, error) {
	return func(ctx context.Context) (providers.Outcome, error) { return k.send(ctx, url) }
}

// yield sends until ctx ends, and fails when that does not end the Send.
func (k *kit) yield(ctx context.Context, send func(context.Context) (providers.Outcome, error)) (providers.Outcome, error) {
	type result struct {
		out providers.Outcome
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := send(ctx)
		done <- result{out, err}
	}()
	select {
	case r := <-done:
		if ctx.Err() == nil {
			return r.out, errors.Join(r.err, fmt.Errorf("Send() = %v %q before its context ended", r.out.Kind, r.out.Reason))
		}
		return r.out, r.err
	case <-ctx.Done():
	}
	select {
	case r := <-done:
		return r.out, r.err
	case <-time.After(k.soon / 2):
		return providers.Outcome{}, errors.New("Send() has not returned long after its context ended")
	}
}

// lateReply lets the vendor answer when nobody waits any more, and then has others
// ask. Nothing of the late success may reach them.
func lateReply(k *kit) error {
	for _, early := range []string{"", string(k.accepted[:len(k.accepted)/2])} {
		if err := k.answerLate(early); err != nil {
			return fmt.Errorf("after %d bytes in time: %w", len(early), err)
		}
	}
	return nil
}

func (k *kit) answerLate(early string) error {
	ctx, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	gaveUp, answered := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	v, err := startVendor(func(c net.Conn, _ recorded) bool {
		if first.CompareAndSwap(false, true) {
			_, _ = c.Write([]byte(early))
			giveUp()
			<-gaveUp
			_, _ = c.Write(k.accepted[len(early):])
			_, _ = c.Write(k.accepted)
			close(answered)
			return true
		}
		_, err := c.Write(answer("503 Service Unavailable", "application/json", "{}"))
		return err == nil
	})
	if err != nil {
		return err
	}
	defer v.close()
	p, err := k.provider(v.url, new(logs), nil)
	if err != nil {
		return err
	}
	out, err := k.yield(ctx, func(ctx context.Context) (providers.Outcome, error) {
		return p.Send(ctx, k.Definition.Example), nil
	})
	close(gaveUp)
	if err := errors.Join(err, expect(out, providers.Ambiguous, providers.ReasonTimeout)); err != nil {
		return err
	}
	<-answered
	const others = 5
	for range others {
		out := p.Send(context.Background(), k.Definition.Example)
		err = errors.Join(err, expect(out, providers.RetryLater, providers.ReasonUnavailable))
	}
	return errors.Join(err, v.expectRequests(1+others))
}

// leftover has a vendor that refuses each request and leaves a success behind the
// refusal, where the connection's next request looks for its reply.
func leftover(k *kit) error {
	refusal := answer("503 Service Unavailable", "application/json", "{}")
	v, err := startVendor(func(c net.Conn, _ recorded) bool {
		_, err := c.Write(append(bytes.Clone(refusal), k.accepted...))
		return err == nil
	})
	if err != nil {
		return err
	}
	defer v.close()
	p, err := k.provider(v.url, new(logs), nil)
	if err != nil {
		return err
	}
	// Of so many, net/http alone gives dozens the wrong reply.
	const at, each = 64, 15
	errs := make([]error, at)
	var wait sync.WaitGroup
	for i := range at {
		wait.Go(func() {
			for range each {
				errs[i] = errors.Join(errs[i], expect(p.Send(context.Background(), k.Definition.Example), providers.RetryLater, providers.ReasonUnavailable))
			}
		})
	}
	wait.Wait()
	return errors.Join(errors.Join(errs...), v.expectRequests(at*each))
}

// endless has vendors that never stop.
func endless(k *kit) error {
	const json = "Content-Type: application/json\r\n"
	var errs []error
	for name, c := range map[string]struct {
		start, more string
		kind        providers.Kind
		reason      providers.Reason
	}{
		"100 MiB":         {"HTTP/1.1 200 OK\r\n" + json + "Content-Length: 104857600\r\n\r\n", " ", providers.Ambiguous, providers.ReasonUnclassified},
		"chunks":          {"HTTP/1.1 200 OK\r\n" + json + "Transfer-Encoding: chunked\r\n\r\n", "10\r\n                \r\n", providers.Ambiguous, providers.ReasonUnclassified},
		"an error":        {"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 104857600\r\n\r\n", " ", providers.RetryLater, providers.ReasonUnavailable},
		"a head":          {"HTTP/1.1 200 OK\r\n", "X-More: more\r\n", providers.Ambiguous, providers.ReasonConnectionLost},
		"a header":        {"HTTP/1.1 200 OK\r\nX-More: ", "more", providers.Ambiguous, providers.ReasonConnectionLost},
		"a first line":    {"HTTP/1.1 200 ", "O", providers.Ambiguous, providers.ReasonConnectionLost},
		"interim replies": {"", "HTTP/1.1 103 Early Hints\r\n\r\n", providers.Ambiguous, providers.ReasonConnectionLost},
	} {
		if err := k.bounded(c.start, c.more, c.kind, c.reason); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// bounded sends to a vendor whose reply goes on for 100 MiB, several times at once,
// and looks at how much of it was taken, and at what that cost.
func (k *kit) bounded(start, more string, kind providers.Kind, reason providers.Reason) error {
	const (
		size = 100 << 20
		at   = 4
		cost = 2 << 20 // for each: a reply may have 64 KiB, and is copied as it grows
	)
	lot := bytes.Repeat([]byte(more), 64<<10/len(more))
	var most atomic.Int64
	v, err := startVendor(func(c net.Conn, _ recorded) bool {
		taken, err := c.Write([]byte(start))
		for err == nil && taken < size {
			var n int
			n, err = c.Write(lot)
			taken += n
		}
		for old := most.Load(); int64(taken) > old && !most.CompareAndSwap(old, int64(taken)); old = most.Load() {
		}
		return false
	})
	if err != nil {
		return err
	}
	defer v.close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	errs := make([]error, at)
	var wait sync.WaitGroup
	for i := range at {
		wait.Go(func() {
			out, err := k.send(context.Background(), v.url)
			errs[i] = errors.Join(err, expect(out, kind, reason))
		})
	}
	wait.Wait()
	runtime.ReadMemStats(&after)
	requests := v.expectRequests(at)
	v.close() // and whoever still writes
	// What the vendor got rid of lies mostly in the sockets' buffers.
	if n := most.Load(); n > size/2 {
		errs = append(errs, fmt.Errorf("%d MiB of a reply were taken", n>>20))
	}
	if n := (after.TotalAlloc - before.TotalAlloc) / at; n > cost {
		errs = append(errs, fmt.Errorf("%d KiB were allocated for each reply, want at most %d", n>>10, cost>>10))
	}
	return errors.Join(append(errs, requests)...)
}
