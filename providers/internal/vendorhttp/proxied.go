package vendorhttp

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
)

// proxied makes requests through a proxy with net/http's own transport. Nobody can
// see there what a vendor leaves behind a reply, so each request has a connection of
// its own.
type proxied struct{ http *http.Transport }

func newProxied(dialer *net.Dialer, secure *tls.Config, proxy func(*http.Request) (*url.URL, error)) *proxied {
	t := &http.Transport{
		Proxy:               proxy,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: handshakeTimeout,
		TLSClientConfig:     secure,
		DisableKeepAlives:   true,
		// Header and length are bounded like the body; no documented reply needs more.
		MaxResponseHeaderBytes: maxReply,
		// No Accept-Encoding that the vendor's page does not list.
		DisableCompression: true,
		Protocols:          new(http.Protocols),
	}
	t.Protocols.SetHTTP1(true)
	return &proxied{t}
}

// CloseIdleConnections implements transport.
func (p *proxied) CloseIdleConnections() { p.http.CloseIdleConnections() }

// RoundTrip implements [http.RoundTripper].
//
// From the moment net/http has a connection its writer runs on its own: that nothing
// left is known only of a request without one.
func (p *proxied) RoundTrip(req *http.Request) (*http.Response, error) {
	var connected atomic.Bool
	ctx := httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
		GetConn: func(string) { connected.Store(false) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	resp, err := p.http.RoundTrip(req.WithContext(ctx))
	if err != nil && !connected.Load() {
		err = unsentError{err}
	}
	return resp, err
}
