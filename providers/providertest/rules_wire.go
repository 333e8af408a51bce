package providertest

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
	"strings"
	"sync/atomic"

	"github.com/otpq/otpq/providers"
)

// brokenTLS meets hosts with which no handshake comes to its end.
func brokenTLS(k *kit) error {
	var errs []error
	for name, handle := range map[string]func(net.Conn){
		"that hangs up": func(net.Conn) {},
		"that hangs up on a greeting": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			_ = c.(*net.TCPConn).SetLinger(0)
		},
		"that speaks HTTP": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			_, _ = c.Write(k.accepted)
		},
		"that sends an alert": func(c net.Conn) {
			_, _ = c.Read(make([]byte, 1))
			_, _ = c.Write([]byte{21, 3, 3, 0, 2, 2, 40}) // handshake_failure
		},
	} {
		v, err := startPeer(handle)
		if err != nil {
			return err
		}
		out, err := k.send(context.Background(), secure(v.url))
		if err := errors.Join(err, expect(out, providers.RetryLater, providers.ReasonConnection), v.expectConnections(1)); err != nil {
			errs = append(errs, fmt.Errorf("a host %s: %w", name, err))
		}
		v.close()
	}

	for name, config := range map[string]*tls.Config{
		"that nobody vouches for": nil,
		"of the last century":     {MaxVersion: tls.VersionTLS11}, //nolint:gosec // to be refused
	} {
		var requests atomic.Int32
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			requests.Add(1)
			_, body := parts(k.accepted)
			_, _ = w.Write(body)
		}))
		srv.TLS, srv.Config.ErrorLog = config, log.New(io.Discard, "", 0)
		srv.StartTLS()
		out, err := k.send(context.Background(), srv.URL)
		srv.Close()
		if err := errors.Join(err, expect(out, providers.RetryLater, providers.ReasonConnection)); err != nil || requests.Load() > 0 {
			errs = append(errs, fmt.Errorf("a host %s, after %d requests: %w", name, requests.Load(), err))
		}
	}

	// One that says nothing: the context ends it, and still nothing left.
	ctx, giveUp := context.WithCancel(context.Background())
	defer giveUp()
	v, err := startPeer(func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1))
		giveUp()
		_, _ = io.Copy(io.Discard, c)
	})
	if err != nil {
		return err
	}
	defer v.close()
	out, err := k.yield(ctx, k.sendTo(secure(v.url)))
	return errors.Join(append(errs, err, expect(out, providers.RetryLater, providers.ReasonConnection), v.expectConnections(1))...)
}

func secure(url string) string { return strings.Replace(url, "http:", "https:", 1) }

// cutRequest breaks the connection off before the vendor has read the request
// whole. What it did with the part it has nobody knows.
func cutRequest(k *kit) error {
	var errs []error
	for name, read := range map[string]func(*bufio.Reader) error{
		"after the first byte": func(b *bufio.Reader) error { _, err := b.ReadByte(); return err },
		"within the head":      func(b *bufio.Reader) error { _, err := b.ReadString('\n'); return err },
		"within the body": func(b *bufio.Reader) error {
			req, err := http.ReadRequest(b)
			if err == nil && req.ContentLength != 0 {
				_, err = io.ReadFull(req.Body, make([]byte, 1))
			}
			return err
		},
	} {
		for _, reset := range []bool{false, true} {
			var failed atomic.Value
			v, err := startPeer(func(c net.Conn) {
				// Small reads, as from a vendor that has taken no more than this.
				if err := read(bufio.NewReaderSize(c, 16)); err != nil {
					failed.Store(err)
				}
				if reset {
					_ = c.(*net.TCPConn).SetLinger(0)
				}
			})
			if err != nil {
				return err
			}
			out, err := k.send(context.Background(), v.url)
			err = errors.Join(err, expect(out, providers.Ambiguous, providers.ReasonConnectionLost), v.expectConnections(1))
			v.close()
			if readErr, ok := failed.Load().(error); ok {
				err = errors.Join(err, readErr)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s, with a reset %v: %w", name, reset, err))
			}
		}
	}

	// Before the first byte: it may have left or not, and the outcome may say so.
	v, err := startPeer(func(net.Conn) {})
	if err != nil {
		return err
	}
	defer v.close()
	out, err := k.send(context.Background(), v.url)
	if out.Kind != providers.RetryLater || out.Reason != providers.ReasonConnection {
		err = errors.Join(err, expect(out, providers.Ambiguous, providers.ReasonConnectionLost))
	}
	return errors.Join(append(errs, err, v.expectConnections(1))...)
}

func wrongLength(k *kit) error {
	head, body := parts(k.accepted)
	sized := func(length string) string {
		return "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: " + length + "\r\n\r\n"
	}
	var errs []error
	for name, c := range map[string]struct {
		reply  string
		kind   providers.Kind
		reason providers.Reason
	}{
		// Too long: the rest never comes.
		"a byte short":       {string(head) + string(body[:len(body)-1]), providers.Ambiguous, providers.ReasonConnectionLost},
		"an exabyte":         {sized("1152921504606846976") + string(body), providers.Ambiguous, providers.ReasonConnectionLost},
		"a chunk short":      {fmt.Sprintf("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n", len(body), body), providers.Ambiguous, providers.ReasonConnectionLost},
		"a chunk of no size": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + string(body) + "\r\n0\r\n\r\n", providers.Ambiguous, providers.ReasonConnectionLost},
		// Too short: what was announced is no success.
		"a byte":  {sized(fmt.Sprint(len(body)-1)) + string(body), providers.Ambiguous, providers.ReasonUnclassified},
		"nothing": {sized("0") + string(body), providers.Ambiguous, providers.ReasonUnclassified},
		// No length at all.
		"two lengths":       {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + string(body), providers.Ambiguous, providers.ReasonConnectionLost},
		"a negative length": {sized("-1") + string(body), providers.Ambiguous, providers.ReasonConnectionLost},
		"words":             {sized("many") + string(body), providers.Ambiguous, providers.ReasonConnectionLost},
		// Whole, and then more: what was announced is the success.
		"more than all": {string(k.accepted) + string(k.accepted), providers.Accepted, providers.ReasonNone},
	} {
		out, err := k.reply([]byte(c.reply))
		if err := errors.Join(err, expect(out, c.kind, c.reason)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
