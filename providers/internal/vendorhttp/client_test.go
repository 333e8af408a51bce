package vendorhttp

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/otpq/otpq/providers"
)

func accept(r Reply) providers.Outcome {
	if r.Status == http.StatusOK && string(r.Body) == "done" {
		return providers.AcceptedFor(0)
	}
	return r.Undocumented()
}

func newClient(t *testing.T, s providers.Settings) *Client {
	t.Helper()
	c, err := New(providers.Definition{Name: "toy", NeedsToken: !s.Token.IsZero() || s.TokenFile != ""}, s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.via.CloseIdleConnections)
	return c
}

func TestPostSendsExactlyWhatIsAsked(t *testing.T) {
	var got *http.Request
	var body []byte
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		fmt.Fprint(w, "done")
	}))
	defer srv.Close()
	c := newClient(t, providers.Settings{BaseURL: srv.URL + "/gateway/", Token: "t0ken"})
	out := c.Post(t.Context(), Call{
		Path: "/a%2Fb/c", Header: map[string]string{"Content-Type": "text/plain"}, Body: []byte("hello"), Classify: accept,
	})
	if out.Kind != providers.Accepted || out.HTTPStatus != 200 {
		t.Fatalf("Post() = %+v, want accepted with status 200", out)
	}
	if got.Method != http.MethodPost || got.RequestURI != "/gateway/a%2Fb/c" || got.Proto != "HTTP/1.1" || string(body) != "hello" {
		t.Errorf("the vendor got %s %s %s %q", got.Method, got.RequestURI, got.Proto, body)
	}
	want := map[string]string{
		"Content-Type": "text/plain", "Content-Length": "5", "User-Agent": "otpq", "Authorization": "Bearer t0ken",
	}
	for name := range got.Header {
		if got.Header.Get(name) != want[name] {
			t.Errorf("header %s = %q, want %q", name, got.Header.Get(name), want[name])
		}
	}
}

// dropConn is a connection that, once dead, fails to write anything, as an idle
// one does that the vendor has closed.
type dropConn struct {
	net.Conn
	dead *atomic.Bool
}

func (c dropConn) Write(p []byte) (int, error) {
	if c.dead.Load() {
		return 0, syscall.EPIPE
	}
	return c.Conn.Write(p)
}

// An idle connection that died before anything was written is the one case in
// which the transport may try again by itself.
func TestADeadIdleConnectionIsReplaced(t *testing.T) {
	var requests atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		fmt.Fprint(w, "done")
	}))
	defer srv.Close()
	c := newClient(t, providers.Settings{BaseURL: srv.URL})
	var dialed []*atomic.Bool
	var refuse atomic.Bool
	c.via.(*direct).dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
		if refuse.Load() {
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}
		conn, err := new(net.Dialer).DialContext(ctx, network, addr)
		dead := new(atomic.Bool)
		dialed = append(dialed, dead)
		return dropConn{conn, dead}, err
	}
	post := func() providers.Outcome {
		return c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept})
	}
	if out := post(); out.Kind != providers.Accepted {
		t.Fatalf("first Post() = %+v", out)
	}
	dialed[0].Store(true)
	if out := post(); out.Kind != providers.Accepted || requests.Load() != 2 {
		t.Errorf("Post() on a dead connection = %+v after %d requests, want accepted after 2", out, requests.Load())
	}
	// Now the vendor is gone too: nothing leaves, neither here nor there.
	dialed[1].Store(true)
	refuse.Store(true)
	if out := post(); out.Kind != providers.RetryLater || out.Reason != providers.ReasonConnection || requests.Load() != 2 {
		t.Errorf("Post() with no connection to be had = %+v after %d requests, want retry_later connection after 2", out, requests.Load())
	}
}

func TestAFreshConnectionThatTakesNothingIsAmbiguous(t *testing.T) {
	c := newClient(t, providers.Settings{BaseURL: "http://127.0.0.1:1"})
	c.via.(*direct).dial = func(context.Context, string, string) (net.Conn, error) {
		ours, theirs := net.Pipe()
		theirs.Close()
		return ours, nil
	}
	out := c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept})
	if out.Kind != providers.Ambiguous || out.Reason != providers.ReasonConnectionLost {
		t.Errorf("Post() = %+v, want ambiguous connection_lost: a writer failed, who knows after what", out)
	}
}

func TestAContextThatEndsWhileConnectingIsARetry(t *testing.T) {
	c := newClient(t, providers.Settings{BaseURL: "http://127.0.0.1:1"})
	ctx, cancel := context.WithCancel(t.Context())
	c.via.(*direct).dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	out := c.Post(ctx, Call{Path: "/", Classify: accept})
	if out.Kind != providers.RetryLater || out.Reason != providers.ReasonConnection || !errors.Is(out.Err, context.Canceled) {
		t.Errorf("Post() = %+v, want retry_later connection and context.Canceled", out)
	}
}

func TestErrorsHoldNoURL(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	secure := httptest.NewTLSServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer secure.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	silent.Close()
	for name, c := range map[string]struct{ base, want string }{
		"refused":           {"http://" + silent.Addr().String(), "no connection: connection refused"},
		"unknown authority": {secure.URL, "no connection: the certificate is signed by an unknown authority"},
		"no TLS there":      {strings.Replace(plain.URL, "http:", "https:", 1), "no connection: the host does not speak TLS there; check base_url"},
		"TLS there":         {strings.Replace(secure.URL, "https:", "http:", 1), ""},
	} {
		t.Run(name, func(t *testing.T) {
			out := newClient(t, providers.Settings{BaseURL: c.base}).Post(t.Context(), Call{Path: "/12345678901", Classify: accept})
			if out.Err == nil || strings.Contains(out.Err.Error(), "1234567") {
				t.Fatalf("Post() = %v, want an error without the path", out.Err)
			}
			if out.Kind == providers.Accepted || !strings.HasPrefix(out.Err.Error(), c.want) {
				t.Errorf("Post() = %v %q, want %q", out.Kind, out.Err, c.want)
			}
		})
	}
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "secret" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func TestDescribeRepeatsNothing(t *testing.T) {
	for want, err := range map[string]error{
		"x: context deadline exceeded":                         fmt.Errorf("secret: %w", context.DeadlineExceeded),
		"x: context canceled":                                  fmt.Errorf("secret: %w", context.Canceled),
		"x: the host name does not resolve; check base_url":    &net.DNSError{Name: "secret", IsNotFound: true},
		"x: the host name cannot be looked up now":             &net.DNSError{Name: "secret", IsTemporary: true},
		"x: connection reset by peer":                          &net.OpError{Op: "secret", Err: syscall.ECONNRESET},
		"x: the host broke off the TLS handshake":              fmt.Errorf("secret: %w", tls.AlertError(40)),
		"x: the host does not speak TLS there; check base_url": fmt.Errorf("secret: %w", tls.RecordHeaderError{Msg: "secret"}),
		"x: timed out":                                   timeoutError{},
		"x: the connection was closed":                   fmt.Errorf("secret: %w", io.ErrUnexpectedEOF),
		"x: the connection failed (*errors.errorString)": fmt.Errorf("outer: %w", errors.New("secret")),
	} {
		if got := describe("x", err).Error(); got != want {
			t.Errorf("describe(%v) = %q, want %q", err, got, want)
		}
	}
}

func TestTheLogHasOneRedactedLineAtDebug(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "no tea for Maria at %s with %s", r.URL, r.Header.Get("Authorization"))
	}))
	defer srv.Close()
	for level, want := range map[zerolog.Level]string{
		zerolog.DebugLevel: `{"level":"debug","provider":"toy","http_status":418,"reply":"no tea for [redacted] at /[redacted] with Bearer [redacted]","message":"vendor replied"}` + "\n",
		zerolog.InfoLevel:  "",
	} {
		var log bytes.Buffer
		c := newClient(t, providers.Settings{BaseURL: srv.URL, Token: "tk", Log: zerolog.New(&log).Level(level)})
		out := c.Post(t.Context(), Call{Path: "/12345678901", Personal: []string{"maria"}, Classify: accept})
		if got := log.String(); got != want {
			t.Errorf("at %v the log is %q, want %q", level, got, want)
		}
		if out.Kind != providers.RetryLater || out.Reason != providers.ReasonUnexpectedStatus {
			t.Errorf("Post() = %+v", out)
		}
	}
}

func TestTheTokenFileIsReadWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write := func(content string, at time.Time) {
		t.Helper()
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	source, err := newTokenSource(true, providers.Settings{TokenFile: path})
	if err != nil {
		t.Fatal(err)
	}
	want := func(want string) {
		t.Helper()
		if got, err := source.current(); err != nil || got != want {
			t.Errorf("current() = %q, %v, want %q", got, err, want)
		}
	}
	monday := time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC)
	write("one", monday)
	want("one")
	write("two", monday) // as if within the clock's grain: nothing to be seen
	want("one")
	if !source.renewed("one") {
		t.Error("renewed(one) = false after the file changed unseen")
	}
	want("two")
	if source.renewed("two") {
		t.Error("renewed(two) = true with the same token on disk")
	}
	write("six", monday.Add(time.Second)) // another time
	want("six")
	write("three", monday.Add(time.Second)) // another size
	want("three")
	next := path + ".next" // another file, as Kubernetes swaps them
	if err := os.WriteFile(next, []byte("seven"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(next, monday.Add(time.Second), monday.Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, path); err != nil {
		t.Fatal(err)
	}
	want("seven")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, err := source.current(); !errors.Is(err, os.ErrNotExist) || got != "" {
		t.Errorf("current() without a file = %q, %v", got, err)
	}
	if source.renewed("seven") {
		t.Error("renewed() = true without a file")
	}
}

func TestTokensAreSharedSafely(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	source, err := newTokenSource(true, providers.Settings{TokenFile: path})
	if err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for range 20 {
		wait.Go(func() {
			if got, err := source.current(); err != nil || got != "a" {
				t.Errorf("current() = %q, %v", got, err)
			}
			source.renewed("a")
		})
	}
	wait.Wait()
}

func TestNewNamesTheSettingThatCannotWork(t *testing.T) {
	for _, c := range []struct {
		needsToken bool
		s          providers.Settings
		want       string
	}{
		{false, providers.Settings{}, "toy: base_url is missing: set it, or an environment that has one"},
		{false, providers.Settings{BaseURL: "http://a b"}, "toy: base_url is not a URL"},
		{false, providers.Settings{BaseURL: "a.example.com"}, "toy: base_url must start with https:// or http://"},
		{false, providers.Settings{BaseURL: "https://:80"}, "toy: base_url has no host"},
		{false, providers.Settings{BaseURL: "https://u:p@a"}, "toy: base_url must not hold a user or password"},
		{false, providers.Settings{BaseURL: "https://a/?"}, "toy: base_url must end with the host or a path, without ? or #"},
		{false, providers.Settings{BaseURL: "https://a/#"}, "toy: base_url must end with the host or a path, without ? or #"},
		{true, providers.Settings{BaseURL: "https://a"}, "toy: needs a token: set token or token_file"},
		{true, providers.Settings{BaseURL: "https://a", Token: "x", TokenFile: "y"}, "toy: token and token_file are both set: keep one"},
		{true, providers.Settings{BaseURL: "https://a", Token: " "}, "toy: token is empty"},
		{true, providers.Settings{BaseURL: "https://a", Token: "é"}, `toy: token must be the token alone, without "Bearer", spaces, line breaks or control characters`},
		{false, providers.Settings{BaseURL: "https://a", Token: "x"}, "toy: takes no token: remove token and token_file"},
	} {
		_, err := New(providers.Definition{Name: "toy", NeedsToken: c.needsToken}, c.s)
		if err == nil || err.Error() != c.want {
			t.Errorf("New(%+v) = %v, want %s", c.s, err, c.want)
		}
	}
}

func TestASuccessMustArriveWhole(t *testing.T) {
	for name, c := range map[string]struct {
		reply func(http.ResponseWriter)
		want  providers.Reason
	}{
		"cut off": {func(w http.ResponseWriter) {
			w.Header().Set("Content-Length", "9")
			fmt.Fprint(w, "done")
		}, providers.ReasonConnectionLost},
		"too large": {func(w http.ResponseWriter) {
			fmt.Fprint(w, strings.Repeat(" ", maxReply), "done")
		}, providers.ReasonUnclassified},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { c.reply(w) }))
			defer srv.Close()
			out := newClient(t, providers.Settings{BaseURL: srv.URL}).Post(t.Context(), Call{Path: "/", Classify: accept})
			if out.Kind != providers.Ambiguous || out.Reason != c.want || out.HTTPStatus != 200 {
				t.Errorf("Post() = %+v, want ambiguous %s with status 200", out, c.want)
			}
		})
	}
}

func TestATokenFileThatCannotBeATokenIsNamed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	for content, want := range map[string]string{
		"":                              "its content is empty",
		"two words":                     "its content must be the token alone",
		strings.Repeat("x", maxToken+1): "is larger than",
	} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		c := newClient(t, providers.Settings{BaseURL: "http://127.0.0.1:1", TokenFile: path})
		out := c.Post(t.Context(), Call{Path: "/", Classify: accept})
		if out.Reason != providers.ReasonCredentials || !strings.Contains(fmt.Sprint(out.Err), want) || !strings.Contains(fmt.Sprint(out.Err), path) {
			t.Errorf("Post() with a token file of %.20q = %+v, want credentials: %s", content, out, want)
		}
	}
	c := newClient(t, providers.Settings{BaseURL: "http://127.0.0.1:1", TokenFile: dir})
	if out := c.Post(t.Context(), Call{Path: "/", Classify: accept}); out.Reason != providers.ReasonCredentials {
		t.Errorf("Post() with a folder for a token file = %+v, want credentials", out)
	}
}

func TestAnUpgradeIsNotWaitedFor(t *testing.T) {
	left := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
		<-left
	}))
	defer srv.Close()
	defer close(left)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out := newClient(t, providers.Settings{BaseURL: srv.URL}).Post(ctx, Call{Path: "/", Classify: accept})
	if out.Kind != providers.Ambiguous || out.HTTPStatus != 101 || ctx.Err() != nil {
		t.Errorf("Post() = %+v with context %v, want ambiguous 101 before the context ends", out, ctx.Err())
	}
}

// Go's HTTP/2 client repeats a POST on its own after some errors.
func TestOnlyHTTP1IsSpoken(t *testing.T) {
	protos := make(chan string, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protos <- r.Proto
		fmt.Fprint(w, "done")
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	defer srv.Close()
	c := newClient(t, providers.Settings{BaseURL: srv.URL})
	c.via.(*direct).tls.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if out := c.Post(t.Context(), Call{Path: "/", Classify: accept}); out.Kind != providers.Accepted {
		t.Fatalf("Post() = %+v", out)
	}
	if got := <-protos; got != "HTTP/1.1" {
		t.Errorf("the vendor was spoken to in %s, want HTTP/1.1", got)
	}
}
