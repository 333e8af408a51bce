package vendorhttp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/otpq/otpq/providers"
)

// TestMain silences net/http, which logs what a vendor says unasked.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// leftover refuses every request and leaves a success behind each refusal.
func leftover(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	for {
		fmt.Fprint(rw, "HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\nnoHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
		if rw.Flush() != nil {
			return
		}
		next, err := http.ReadRequest(rw.Reader)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, next.Body)
	}
}

// Of net/http alone, three in a hundred of these take another's leftover for their
// own reply.
func TestWhatAReplyLeavesBehindAnswersNobodyElse(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(leftover))
	defer srv.Close()
	c := newClient(t, providers.Settings{BaseURL: srv.URL})
	var wait sync.WaitGroup
	for range 64 {
		wait.Go(func() {
			for range 15 {
				out := c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept})
				if out.Kind != providers.RetryLater || out.HTTPStatus != 500 {
					t.Errorf("Post() = %+v, want the refusal that is its own", out)
				}
			}
		})
	}
	wait.Wait()
}

// trust lets a client believe in a server's certificate.
func trust(c *Client, srv *httptest.Server) {
	if srv.TLS != nil {
		c.via.(*direct).tls.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	}
}

// A host that greets is no HTTP server: it is told from one before anything is asked.
func TestAHostThatSpeaksFirstIsNotAsked(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := newClient(t, providers.Settings{BaseURL: "http://" + l.Addr().String()})
	d := c.via.(*direct)
	dial := d.dial
	got := make(chan []byte, 1)
	d.dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		ours, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		theirs, err := l.Accept()
		if err != nil {
			return nil, err
		}
		fmt.Fprint(theirs, "220 hello\r\n")
		go func() {
			heard, _ := io.ReadAll(theirs)
			got <- heard
		}()
		for !(&counted{Conn: ours}).talks() { // until the greeting is there
			runtime.Gosched()
		}
		return ours, nil
	}
	out := c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept})
	if out.Kind != providers.RetryLater || out.Reason != providers.ReasonConnection || !strings.Contains(fmt.Sprint(out.Err), "check base_url") {
		t.Errorf("Post() = %+v, want retry_later connection with a hint", out)
	}
	if heard := <-got; len(heard) > 0 {
		t.Errorf("the host that spoke first was told %q", heard)
	}
}

// A context that ends when there is a connection, and nothing was written to it yet.
func TestARequestThatWasHeldBackIsARetry(t *testing.T) {
	var got atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer srv.Close()
	c := newClient(t, providers.Settings{BaseURL: srv.URL})
	d := c.via.(*direct)
	dial := d.dial
	ctx, cancel := context.WithCancel(t.Context())
	d.dial = func(_ context.Context, network, addr string) (net.Conn, error) {
		defer cancel()
		return dial(context.WithoutCancel(ctx), network, addr)
	}
	out := c.Post(ctx, Call{Path: "/", Body: []byte("x"), Classify: accept})
	if out.Kind != providers.RetryLater || out.Reason != providers.ReasonConnection || got.Load() != 0 {
		t.Errorf("Post() = %+v after %d requests, want retry_later connection after none", out, got.Load())
	}
}

// A vendor that hangs must not hold a slot for longer than the request may take,
// wherever it stops.
func TestAHangIsLeftWhenTheContextEnds(t *testing.T) {
	for name, say := range map[string]string{
		"before the reply":  "",
		"in the head":       "HTTP/1.1 200 OK\r\nContent-Le",
		"after a hint":      "HTTP/1.1 103 Early Hints\r\n\r\n",
		"in the body":       "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndo",
		"in a chunked body": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ndone\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				fmt.Fprint(c, say)
				_, _ = io.Copy(io.Discard, c)
			}))
			defer srv.Close()
			c := newClient(t, providers.Settings{BaseURL: srv.URL})
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			defer cancel()
			out := c.Post(ctx, Call{Path: "/", Body: []byte("x"), Classify: accept})
			if out.Kind != providers.Ambiguous || out.Reason != providers.ReasonTimeout {
				t.Errorf("Post() = %+v, want ambiguous timeout", out)
			}
			if n := len(c.via.(*direct).idle); n != 0 {
				t.Errorf("%d connections are kept, want none: the rest of a reply is still to come", n)
			}
		})
	}
}

func TestHintsBeforeTheReplyArePassedOver(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			w.WriteHeader(http.StatusEarlyHints)
		}
		fmt.Fprint(w, "done")
	}))
	defer srv.Close()
	c := newClient(t, providers.Settings{BaseURL: srv.URL})
	for range 2 {
		if out := c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept}); out.Kind != providers.Accepted {
			t.Errorf("Post() = %+v, want accepted", out)
		}
	}
}

// A head that never ends must not fill the memory.
func TestAHeadIsBounded(t *testing.T) {
	for name, flood := range map[string]string{
		"of headers": "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Flood: "+strings.Repeat("x", 100)+"\r\n", maxReply/50),
		"of hints":   strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxReply/20),
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
					_, _ = io.WriteString(c, flood+"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
					c.Close()
				}
			}))
			defer srv.Close()
			c := newClient(t, providers.Settings{BaseURL: srv.URL})
			if out := c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept}); out.Kind != providers.Ambiguous {
				t.Errorf("Post() = %+v, want ambiguous", out)
			}
		})
	}
}

// What has been idle for as long as a vendor may close it is not used again.
func TestAnOldConnectionIsNotUsed(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "done") }))
	defer srv.Close()
	c := newClient(t, providers.Settings{BaseURL: srv.URL})
	post := func() {
		t.Helper()
		if out := c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept}); out.Kind != providers.Accepted {
			t.Fatalf("Post() = %+v", out)
		}
	}
	post()
	d := c.via.(*direct)
	first := d.idle[0]
	first.since = first.since.Add(-idleTime)
	post()
	if d.idle[0] == first {
		t.Error("a connection was used that had been idle for 4 s")
	}
	d.idle[0].since = d.idle[0].since.Add(-idleTime)
	d.closeOld()
	if len(d.idle) != 0 {
		t.Error("a connection stays open that had been idle for 4 s")
	}
}

// The body is far larger than what fits on the way, so that the cut meets its writer.
func TestACutWhileTheBodyIsWrittenIsAmbiguous(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var connections atomic.Int32
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			_, _ = bufio.NewReader(c).ReadString('\n')
			_ = c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	}()
	c := newClient(t, providers.Settings{BaseURL: "http://" + l.Addr().String()})
	out := c.Post(t.Context(), Call{Path: "/", Body: make([]byte, 64<<20), Classify: accept})
	if out.Kind != providers.Ambiguous || out.Reason != providers.ReasonConnectionLost || connections.Load() != 1 {
		t.Errorf("Post() = %+v on %d connections, want ambiguous connection_lost on one", out, connections.Load())
	}
}

// tunnel is a proxy that knows CONNECT and counts.
func tunnel(t *testing.T, opened *atomic.Int32) *url.URL {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		opened.Add(1)
		there, err := new(net.Dialer).DialContext(r.Context(), "tcp", r.Host)
		if r.Method != http.MethodConnect || err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		w.WriteHeader(http.StatusOK)
		here, read, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer here.Close()
		go func() { _, _ = io.Copy(there, read) }() // with what has come already
		_, _ = io.Copy(here, there)
	}))
	t.Cleanup(srv.Close)
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestBehindAProxyEachRequestHasItsOwnConnection(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "done") }))
	defer srv.Close()
	base, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	var opened atomic.Int32
	c := newClient(t, providers.Settings{BaseURL: srv.URL})
	c.via = newTransport(base, http.ProxyURL(tunnel(t, &opened)))
	c.via.(*proxied).http.TLSClientConfig.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for range 3 {
		if out := c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept}); out.Kind != providers.Accepted {
			t.Fatalf("Post() = %+v, want accepted", out)
		}
	}
	if n := opened.Load(); n != 3 {
		t.Errorf("3 requests were made on %d connections, want 3: nobody sees there what a reply leaves behind", n)
	}

	// A proxy that does not let us through: nothing left.
	base.Host = "127.0.0.1:1"
	c.base = base.String()
	out := c.Post(t.Context(), Call{Path: "/12345678901", Body: []byte("x"), Classify: accept})
	if out.Kind != providers.RetryLater || out.Reason != providers.ReasonConnection || strings.Contains(out.Err.Error(), "1234567") {
		t.Errorf("Post() past a proxy that refuses = %+v, want retry_later connection", out)
	}
}

func TestAConnectionIsKept(t *testing.T) {
	for name, start := range map[string]func(*httptest.Server){
		"in the clear": (*httptest.Server).Start, "over TLS": (*httptest.Server).StartTLS,
	} {
		t.Run(name, func(t *testing.T) {
			var opened atomic.Int32
			srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "done") }))
			srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateNew {
					opened.Add(1)
				}
			}
			start(srv)
			defer srv.Close()
			c := newClient(t, providers.Settings{BaseURL: srv.URL})
			trust(c, srv)
			for range 50 {
				if out := c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept}); out.Kind != providers.Accepted {
					t.Fatalf("Post() = %+v, want accepted", out)
				}
			}
			if n := opened.Load(); n != 1 {
				t.Errorf("50 requests, one after another, opened %d connections, want 1", n)
			}
		})
	}
}

// The certificate has to be for the host that was asked for.
func TestTLSIsVerified(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "done") }))
	defer srv.Close()
	_, port, err := net.SplitHostPort(srv.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, providers.Settings{BaseURL: "https://localhost:" + port})
	trust(c, srv) // it is for example.com and 127.0.0.1
	out := c.Post(t.Context(), Call{Path: "/", Classify: accept})
	if out.Kind != providers.RetryLater || out.Reason != providers.ReasonConnection || !strings.Contains(fmt.Sprint(out.Err), "for another host") {
		t.Errorf("Post() = %+v, want retry_later connection: the certificate is for another host", out)
	}
}
