package vendorhttp

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"
)

const (
	// maxIdle lets every slot of a large worker keep its connection.
	maxIdle = 4096
	// idleTime is shorter than any usual keep-alive timeout (Node.js: 5 s). A vendor
	// that closes a connection while a request is on its way makes that request
	// ambiguous; a TLS handshake too many makes it 100 ms late.
	idleTime = 4 * time.Second
	// maxKeptBuffer bounds the buffers that are used again.
	maxKeptBuffer = 64 << 10
)

// buffers are for requests on their way out.
var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

var (
	// errOutOfTurn is what becomes of a connection on which the vendor speaks unasked.
	errOutOfTurn = errors.New("the host answered before it was asked; check base_url")
	errTooLong   = errors.New("the head of the reply is too large")
)

// unsentError means that no byte of a request has left.
type unsentError struct{ error }

func (e unsentError) Unwrap() error { return e.error }

// direct is an [http.RoundTripper] for requests to one host without a proxy. What
// is said over HTTP is written and read by net/http; what is ours is who uses a
// connection when. net/http's own transport has two goroutines for each, and a
// request is in both of them and in its own: whether it has begun to leave when it
// is given up nobody knows, and neither whether the bytes that come belong to it or
// were left behind the reply before. Here the one goroutine that asks also writes
// and reads. It costs less CPU, too.
//
// It is safe for concurrent use.
type direct struct {
	dial func(ctx context.Context, network, addr string) (net.Conn, error)
	addr string
	tls  *tls.Config // nil for http

	mu   sync.Mutex
	idle []*line // the one that was used last comes last
	tidy *time.Timer
}

// RoundTrip implements [http.RoundTripper]. Its error is an [unsentError] when it is
// known that nothing has left.
func (d *direct) RoundTrip(req *http.Request) (*http.Response, error) {
	out := buffers.Get().(*bytes.Buffer)
	defer func() {
		if out.Cap() <= maxKeptBuffer {
			out.Reset()
			buffers.Put(out)
		}
	}()
	if err := req.Write(out); err != nil {
		return nil, unsentError{err}
	}
	for {
		l, err := d.line(req.Context())
		if err != nil {
			return nil, unsentError{err}
		}
		resp, err := l.exchange(req, out.Bytes())
		if err == nil {
			return resp, nil
		}
		l.close()
		if unsent := (unsentError{}); !errors.As(err, &unsent) || !l.used || req.Context().Err() != nil {
			return nil, err
		}
		// An idle connection that turned out dead. There are only so many of them.
	}
}

// line returns a connection that nobody uses, a new one if there is no idle one.
func (d *direct) line(ctx context.Context) (*line, error) {
	for l := d.takeIdle(); l != nil; l = d.takeIdle() {
		if l.quiet() {
			return l, nil
		}
		l.close()
	}
	c, err := d.dial(ctx, "tcp", d.addr)
	if err != nil {
		return nil, err
	}
	l := &line{home: d, below: &counted{Conn: c}}
	l.conn = l.below
	switch {
	case d.tls != nil:
		l.records = newRecords(l.below)
		if l.conn, err = handshake(ctx, l.records, d.addr, d.tls); err != nil {
			c.Close()
			return nil, err
		}
	case l.below.talks():
		c.Close()
		return nil, errOutOfTurn
	}
	l.in.limit.R = l.conn
	l.in.Reader = bufio.NewReader(&l.in.limit)
	return l, nil
}

func (d *direct) takeIdle() *line {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.idle) == 0 {
		return nil
	}
	l := d.idle[len(d.idle)-1]
	d.idle = d.idle[:len(d.idle)-1]
	return l
}

// keep makes a connection idle, where it can be told later what was left on it.
func (d *direct) keep(l *line) {
	l.used, l.since = true, time.Now()
	if !canTell || !d.addIdle(l) {
		l.close()
	}
}

func (d *direct) addIdle(l *line) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.idle) == maxIdle {
		return false
	}
	d.idle = append(d.idle, l)
	if d.tidy == nil {
		d.tidy = time.AfterFunc(idleTime, d.closeOld)
	}
	return true
}

// closeOld closes the connections that have been idle for too long.
func (d *direct) closeOld() {
	for _, l := range d.takeOld(time.Now().Add(-idleTime)) {
		l.close()
	}
}

// takeOld takes the connections that have been idle since oldest or before, and has
// the others looked at in time.
func (d *direct) takeOld(oldest time.Time) []*line {
	d.mu.Lock()
	defer d.mu.Unlock()
	young := slices.IndexFunc(d.idle, func(l *line) bool { return l.since.After(oldest) })
	if young < 0 {
		young = len(d.idle)
	}
	old := slices.Clone(d.idle[:young])
	d.idle = slices.Delete(d.idle, 0, young)
	d.tidy = nil
	if len(d.idle) > 0 {
		d.tidy = time.AfterFunc(time.Until(d.idle[0].since.Add(idleTime)), d.closeOld)
	}
	return old
}

// CloseIdleConnections closes what nobody uses.
func (d *direct) CloseIdleConnections() {
	for l := d.takeIdle(); l != nil; l = d.takeIdle() {
		l.close()
	}
}

// line is a connection, for one request at a time.
type line struct {
	home  *direct
	conn  net.Conn // with TLS, if there is any
	below *counted
	// records is between below and TLS.
	records *records
	in      struct {
		*bufio.Reader
		limit io.LimitedReader
	}
	used  bool // for a request before
	since time.Time
}

func (l *line) close() { _ = l.conn.Close() }

// quiet reports whether an idle connection is young and open, and nothing was left
// on it or said since. What TLS itself says has it given up as well.
func (l *line) quiet() bool { return time.Since(l.since) < idleTime && !l.below.talks() }

// exchange writes out, which is the request, and reads the head of the reply. Reading
// and closing the body is the caller's.
func (l *line) exchange(req *http.Request, out []byte) (*http.Response, error) {
	ctx := req.Context()
	if ctx.Err() != nil {
		return nil, unsentError{ctx.Err()}
	}
	unwatch := context.AfterFunc(ctx, func() { _ = l.conn.SetDeadline(time.Unix(1, 0)) })
	before := l.below.written
	if _, err := l.conn.Write(out); err != nil {
		unwatch()
		if l.used && l.below.written == before {
			return nil, unsentError{err}
		}
		return nil, err
	}
	resp, err := l.readHead(req)
	if err != nil {
		unwatch()
		return nil, err
	}
	resp.Body = &body{ReadCloser: resp.Body, line: l, unwatch: unwatch, keep: !resp.Close && !req.Close}
	return resp, nil
}

// readHead reads up to the body of the reply that counts, past those that only say
// that there will be one.
func (l *line) readHead(req *http.Request) (*http.Response, error) {
	l.in.limit.N = maxReply
	for {
		resp, err := http.ReadResponse(l.in.Reader, req)
		switch {
		case err != nil && l.in.limit.N <= 0:
			return nil, errTooLong
		case err != nil:
			return nil, err
		case resp.StatusCode/100 == 1 && resp.StatusCode != http.StatusSwitchingProtocols:
			continue
		}
		l.in.limit.N = 1 << 62 // the client bounds the body
		return resp, nil
	}
}

// body is a reply's body. Closing it gives the connection back when it was read to
// its end and nothing came behind it.
type body struct {
	io.ReadCloser
	line    *line
	unwatch func() bool
	keep    bool
	ended   bool
}

// Read implements [io.Reader].
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.ended = b.ended || errors.Is(err, io.EOF)
	return n, err
}

// Close implements [io.Closer]. Call it once.
func (b *body) Close() error {
	watched := b.unwatch() // otherwise the connection has been cut short
	if b.keep && b.ended && watched && b.line.drained() {
		b.line.home.keep(b.line)
	} else {
		b.line.close()
	}
	return nil
}

// counted is a connection that counts what has left.
type counted struct {
	net.Conn
	written int64
}

// talks reports whether there is something to read, be it the end.
func (c *counted) talks() bool {
	there, ok := c.Conn.(syscall.Conn)
	return ok && !nothingToRead(there)
}

// Write implements [net.Conn].
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written += int64(n)
	return n, err
}
