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

// transport makes single requests. Its errors are an [unsentError] when it is known
// that nothing has left. It is safe for concurrent use.
type transport interface {
	http.RoundTripper
	CloseIdleConnections()
}

// newTransport makes a connection pool for the vendor at base. proxy is
// [http.ProxyFromEnvironment] but in tests.
func newTransport(base *url.URL, proxy func(*http.Request) (*url.URL, error)) transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	// Only HTTP/1.1: Go's HTTP/2 client repeats a POST by itself after some stream errors.
	secure := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if p, err := proxy(&http.Request{URL: base}); p != nil || err != nil {
		return newProxied(dialer, secure, proxy)
	}
	d := &direct{dial: dialer.DialContext, addr: base.Host}
	if base.Scheme == "https" {
		d.tls = secure
	}
	if base.Port() == "" {
		d.addr = net.JoinHostPort(base.Hostname(), base.Scheme) // net knows the port by that name
	}
	return d
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
