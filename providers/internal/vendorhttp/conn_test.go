package vendorhttp

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

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

// Over TLS a handshake for each makes the race rare, so its connection is looked at.
func TestTLSLiesBelowWhatIsLookedAt(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	c := newClient(t, providers.Settings{BaseURL: srv.URL})
	trust(c, srv)
	var got net.Conn
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) { got = info.Conn }})
	c.Post(ctx, Call{Path: "/", Classify: accept})
	guarded, ok := got.(*conn)
	if !ok {
		t.Fatalf("requests go over a %T, want a *conn", got)
	}
	if _, ok := guarded.Conn.(*tls.Conn); !ok {
		t.Errorf("the conn lies on a %T, want TLS below it: what TLS itself says is no reply", guarded.Conn)
	}
}

// trust lets a client believe in a server's certificate.
func trust(c *Client, srv *httptest.Server) {
	if srv.TLS != nil {
		c.http.Transport.(*http.Transport).TLSClientConfig.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	}
}

func TestAConnectionHearsNothingBeforeItAsks(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := newConn(ours)
	defer c.Close()
	go func() { _, _ = theirs.Write([]byte("220 hello")) }()
	if n, err := c.Read(make([]byte, 9)); n != 0 || !errors.Is(err, errOutOfTurn) {
		t.Errorf("Read() of a greeting = %d, %v, want errOutOfTurn", n, err)
	}
	if n, err := c.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("Write() after a greeting = %d, %v, want an error: who speaks first may answer another", n, err)
	}
}

func TestAWithheldRequestNeverLeaves(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	c := newConn(ours)
	defer c.Close()
	if !c.withhold() {
		t.Error("withhold() = false before anything was written")
	}
	if n, err := c.Write([]byte("x")); n != 0 || err == nil {
		t.Errorf("Write() after withhold() = %d, %v, want an error", n, err)
	}

	ours, theirs = net.Pipe()
	defer theirs.Close()
	c = newConn(ours)
	defer c.Close()
	go func() { _, _ = theirs.Read(make([]byte, 1)) }()
	if n, err := c.Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("Write() = %d, %v", n, err)
	}
	if c.withhold() {
		t.Error("withhold() = true of what has left")
	}
	if (*conn)(nil).withhold() {
		t.Error("withhold() = true of a connection that nothing is known of")
	}
}

// A context that ends when there is a connection, and nothing was written to it yet.
func TestARequestThatWasHeldBackIsARetry(t *testing.T) {
	var got atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	defer srv.Close()
	c := newClient(t, providers.Settings{BaseURL: srv.URL})
	transport := c.http.Transport.(*http.Transport)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		inner, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		inner.(*conn).withhold() // as if the writer came too late
		return inner, nil
	}
	out := c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept})
	if out.Kind != providers.RetryLater || out.Reason != providers.ReasonConnection || got.Load() != 0 {
		t.Errorf("Post() = %+v after %d requests, want retry_later connection after none", out, got.Load())
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
	c.http.Transport = newTransport(base, http.ProxyURL(tunnel(t, &opened)))
	trust(c, srv)
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
