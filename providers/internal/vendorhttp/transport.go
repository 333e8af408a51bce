package vendorhttp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"
)

const (
	// Both together lie within the default timeout of 10 s.
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 5 * time.Second
)

// newTransport makes a connection pool for the vendor at base. proxy is
// [http.ProxyFromEnvironment] but in tests.
func newTransport(base *url.URL, proxy func(*http.Request) (*url.URL, error)) *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		Proxy: proxy,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return newConn(c), nil
		},
		// For what is behind a proxy; see DialTLSContext.
		TLSHandshakeTimeout: handshakeTimeout,
		TLSClientConfig:     &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		// Every slot of the default concurrency can keep its connection.
		MaxIdleConns:        512,
		MaxIdleConnsPerHost: 512,
		// Shorter than any usual keep-alive timeout (Node.js: 5 s). A vendor that
		// closes a connection while a request is on its way makes that request
		// ambiguous; a TLS handshake too many makes it 100 ms late.
		IdleConnTimeout: 4 * time.Second,
		// Header and length are bounded like the body; no documented reply needs more.
		MaxResponseHeaderBytes: maxReply,
		// No Accept-Encoding that the vendor's page does not list.
		DisableCompression: true,
		Protocols:          new(http.Protocols),
	}
	// Only HTTP/1.1: Go's HTTP/2 client repeats a POST by itself after some stream errors.
	t.Protocols.SetHTTP1(true)
	// TLS is made here and not by net/http, so that a conn is what is read from.
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		secure, err := handshake(ctx, c, addr, t.TLSClientConfig)
		if err != nil {
			c.Close()
			return nil, err
		}
		return newConn(secure), nil
	}
	// Behind a proxy net/http makes TLS itself, and what lies over a conn then hides
	// what a vendor says out of turn. There each request has a connection of its own.
	if p, err := proxy(&http.Request{URL: base}); base.Scheme == "https" && (p != nil || err != nil) {
		t.DisableKeepAlives = true
	}
	return t
}

func handshake(ctx context.Context, c net.Conn, addr string, config *tls.Config) (*tls.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	config = config.Clone()
	config.ServerName = host
	secure := tls.Client(c, config)
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	err = secure.HandshakeContext(ctx)
	return secure, err
}

// describe turns a failure of the network into an error for the log. What
// net/http says of it is not repeated: a *url.Error holds the URL, which may hold
// a CPF, and a protocol error quotes the vendor's bytes.
func describe(what string, err error) error {
	var (
		dns     *net.DNSError
		errno   syscall.Errno
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
		name    x509.HostnameError
		record  tls.RecordHeaderError
		alert   tls.AlertError
		timeout net.Error
	)
	switch {
	case errors.Is(err, errOutOfTurn):
		return fmt.Errorf("%s: %w", what, errOutOfTurn)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", what, context.DeadlineExceeded)
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("%s: %w", what, context.Canceled)
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("%s: the host name does not resolve; check base_url", what)
	case errors.As(err, &dns):
		return fmt.Errorf("%s: the host name cannot be looked up now", what)
	case errors.As(err, &errno):
		return fmt.Errorf("%s: %w", what, errno)
	case errors.As(err, &unknown):
		return fmt.Errorf("%s: the certificate is signed by an unknown authority", what)
	case errors.As(err, &invalid):
		return fmt.Errorf("%s: the certificate is invalid or expired", what)
	case errors.As(err, &name):
		return fmt.Errorf("%s: the certificate is for another host", what)
	case errors.As(err, &record):
		return fmt.Errorf("%s: the host does not speak TLS there; check base_url", what)
	case errors.As(err, &alert):
		return fmt.Errorf("%s: the host broke off the TLS handshake", what)
	case errors.As(err, &timeout) && timeout.Timeout():
		return fmt.Errorf("%s: timed out", what)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%s: the connection was closed", what)
	}
	return fmt.Errorf("%s: the connection failed (%T)", what, innermost(err))
}

// innermost is the end of err's chain; its type tells what its text must not.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
