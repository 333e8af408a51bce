package worker

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// liar is a host that treats each connection as its lie says, until it is mended.
// Then it is the sandbox.
type liar struct {
	listen  net.Listener
	sandbox string // host:port
	lie     func(c net.Conn)
	mended  atomic.Bool
	lies    atomic.Int32
	running sync.WaitGroup
}

func startLiar(t *testing.T, sandbox string, lie func(net.Conn)) *liar {
	t.Helper()
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &liar{listen: listen, sandbox: sandbox, lie: lie}
	l.running.Go(l.serve)
	t.Cleanup(func() { listen.Close(); l.running.Wait() }) // the worker, which is stopped before, holds no connection
	return l
}

func (l *liar) serve() {
	for {
		c, err := l.listen.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() {
			defer c.Close()
			if l.mended.Load() {
				l.forward(c)
				return
			}
			l.lies.Add(1)
			l.lie(c)
		})
	}
}

func (l *liar) forward(c net.Conn) {
	there, err := net.Dial("tcp", l.sandbox)
	if err != nil {
		return
	}
	go func() {
		defer there.Close()
		_, _ = io.Copy(there, c)
	}()
	_, _ = io.Copy(c, there)
}

// asked reads a whole request before it goes on.
func asked(reply func(c net.Conn)) func(net.Conn) {
	return func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		reply(c)
	}
}

// says answers with these bytes and hangs up.
func says(text string) func(net.Conn) {
	return asked(func(c net.Conn) { _, _ = io.WriteString(c, text) })
}

// goesOn answers with start and then with more and more, until the other side leaves.
func goesOn(start, more string, every time.Duration) func(net.Conn) {
	return asked(func(c net.Conn) {
		tick := time.NewTicker(every)
		defer tick.Stop()
		_, err := io.WriteString(c, start)
		for err == nil {
			<-tick.C
			_, err = io.WriteString(c, more)
		}
	})
}

func ok200(body string, length int) string {
	return fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", length, body)
}

// byUser has a provider for each user.
type byUser map[string]providers.Provider

func (b byUser) Send(ctx context.Context, r providers.Request) providers.Outcome {
	return b[r.(unimedbh.Request).Username].Send(ctx, r)
}

func TestAMessageToAProviderThatLies(t *testing.T) {
	const sent = `{"sended":true}` // what the page calls a success
	lot := strings.Repeat(" ", 64<<10)
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	hangsUp := func(net.Conn) {}
	lies := []struct {
		provider string // completes "a provider that …"
		lie      func(net.Conn)
		tls      bool
		state    status.State
		reason   providers.Reason
	}{
		// Nothing left, or nothing was done: each attempt may be made again.
		{"hangs up within the handshake", hangsUp, true, status.Exhausted, providers.ReasonConnection},
		{"speaks no TLS", says("HTTP/1.1 400 Bad Request\r\n\r\n"), true, status.Exhausted, providers.ReasonConnection},
		{"says nothing within the handshake", silent, true, status.Exhausted, providers.ReasonConnection},
		{"sends in circles", says("HTTP/1.1 307 Temporary Redirect\r\nLocation: ?again\r\nContent-Length: 0\r\n\r\n"), false, status.Exhausted, providers.ReasonRedirect},
		{"is down, and says so at length", says("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 104857600\r\n\r\n" + lot + lot), false, status.Exhausted, providers.ReasonUnavailable},
		// Maybe sent: once more, and no more.
		{"hangs up within the request", func(c net.Conn) { _, _ = io.ReadFull(c, make([]byte, 20)) }, false, status.Unknown, providers.ReasonConnectionLost},
		{"hangs up after the request", asked(hangsUp), false, status.Unknown, providers.ReasonConnectionLost},
		{"breaks off its success", asked(func(c net.Conn) {
			_, _ = io.WriteString(c, ok200(sent[:9], len(sent)))
			_ = c.(*net.TCPConn).SetLinger(0)
		}), false, status.Unknown, providers.ReasonConnectionLost},
		{"says less than it announced", says(ok200(sent, 99)), false, status.Unknown, providers.ReasonConnectionLost},
		{"says more than it announced", says(ok200(sent, 9)), false, status.Unknown, providers.ReasonUnclassified},
		{"calls an error a success", says(ok200(`{"error":"internal"}`, 20)), false, status.Unknown, providers.ReasonUnclassified},
		{"says nothing", asked(silent), false, status.Unknown, providers.ReasonTimeout},
		{"answers when nobody waits", asked(func(c net.Conn) {
			silent(c) // until the worker gives up
			_, _ = io.WriteString(c, ok200(sent, len(sent)))
		}), false, status.Unknown, providers.ReasonTimeout},
		{"drips", goesOn(ok200("", 50000), " ", 10*time.Millisecond), false, status.Unknown, providers.ReasonTimeout},
		{"sends 100 MB", goesOn(ok200("", 100<<20), lot, time.Microsecond), false, status.Unknown, providers.ReasonUnclassified},
		{"sends a head without end", goesOn("HTTP/1.1 200 OK\r\nX: ", lot, time.Microsecond), false, status.Unknown, providers.ReasonConnectionLost},
		{"sends elsewhere", says("HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n"), false, status.Unknown, providers.ReasonRedirect},
	}

	r := newRig(t)
	server, list := r.sandboxed(func(pc *ProviderConfig) {
		// Short enough to wait for it twice, long enough for all that need not wait.
		pc.Timeout, pc.Retry.MaxAttempts = 3*time.Second, 2
		pc.Concurrency[tasks.Interactive] = 2 * len(lies)
	})
	sandbox := strings.TrimPrefix(serveSandbox(t, server), "http://")
	route := byUser{}
	liars := make([]*liar, len(lies))
	user := func(i int) unimedbh.Request {
		return unimedbh.Request{Username: fmt.Sprintf("user%d@example.com", i), Type: "EMAIL"}
	}
	for i, c := range lies {
		liars[i] = startLiar(t, sandbox, c.lie)
		url := "http://" + liars[i].listen.Addr().String()
		if c.tls {
			url = strings.Replace(url, "http:", "https:", 1)
		}
		p, err := unimedbh.New(providers.Settings{BaseURL: url, Log: zerolog.New(r.log)})
		if err != nil {
			t.Fatal(err)
		}
		route[user(i).Username] = p
	}
	list[slices.IndexFunc(list, func(pc ProviderConfig) bool { return pc.Name == unimedbh.Name })].Provider = route
	r.start(nil, list...)

	ids := make([]string, len(lies))
	for i := range lies {
		ids[i] = r.sendTo(user(i))
	}
	for i, c := range lies {
		rec := r.await(ids[i], "came to its end", func(rec status.Record) bool { return rec.State.Terminal() })
		maybe := c.state == status.Unknown
		if rec.State != c.state || rec.Reason != string(c.reason) || rec.PossibleDuplicate != maybe {
			t.Errorf("a provider that %s: record = %+v, want %s for %s, and possible_duplicate %v", c.provider, rec, c.state, c.reason, maybe)
		}
		outcome := providers.RetryLater
		if maybe {
			outcome = providers.Ambiguous
		}
		for _, a := range rec.Attempts {
			if a.Outcome != outcome.String() || a.Reason != string(c.reason) {
				t.Errorf("a provider that %s: attempt = %+v, want %s for %s", c.provider, a, outcome, c.reason)
			}
		}
		if n := liars[i].lies.Load(); len(rec.Attempts) != 2 || n != 2 {
			t.Errorf("a provider that %s: %d attempts on %d connections, want 2 on 2", c.provider, len(rec.Attempts), n)
		}
	}

	// The next message is none the worse for it. To speak TLS would take a certificate.
	for i, c := range lies {
		liars[i].mended.Store(true)
		if ids[i] = ""; !c.tls {
			ids[i] = r.sendTo(user(i))
		}
	}
	for i, c := range lies {
		if ids[i] == "" {
			continue
		}
		if rec := r.awaitState(ids[i], status.Accepted); len(rec.Attempts) != 1 || rec.PossibleDuplicate {
			t.Errorf("a provider that %s no longer: record = %+v, want one attempt", c.provider, rec)
		}
	}
}
