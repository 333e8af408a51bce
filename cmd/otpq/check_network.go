package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strings"

	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/redisconn"
)

// redisEncryption warns of a Redis on another machine that is spoken to in the clear.
func (r *report) redisEncryption(cfg config.Config) {
	where := redisconn.Describe(cfg.Redis.URL.Reveal())
	scheme, rest, _ := strings.Cut(where, "://")
	kind, ours := strings.CutPrefix(scheme, "redis") // "", "-sentinel" or "-cluster"; with TLS an s before it
	hosts, _, _ := strings.Cut(rest, "/")
	if !ours || strings.HasPrefix(kind, "s") || !elsewhere(strings.Split(hosts, ",")...) {
		return
	}
	r.warn("redis encryption", where+" is not encrypted: its password, and who gets how many codes when, can be read on the way",
		"use rediss"+kind+"://, or a network that nobody else is on")
}

// providerEncryption warns of a provider on another machine that is spoken to in the
// clear.
func (r *report) providerEncryption(provider, base string) {
	if u, err := url.Parse(base); err != nil || u.Scheme != "http" || !elsewhere(u.Host) {
		return
	}
	r.warn(provider+" encryption", base+" is not encrypted: whom it is asked to write to can be read on the way, and the token if it has one",
		"use https:// in providers."+provider+".base_url")
}

// traces connects to the collector, if there is one. Without it messages are sent as
// ever, so it is no failure.
func (r *report) traces(ctx context.Context, cfg config.Config) {
	if cfg.Tracing.Endpoint == "" {
		return
	}
	if _, err := reach(ctx, cfg.Tracing.Endpoint); err != nil {
		r.warn("traces", fmt.Sprintf("%s cannot be reached: %v; spans are lost, and messages are not affected", cfg.Tracing.Endpoint, err),
			"start the collector, or correct tracing.endpoint")
		return
	}
	r.ok("traces", "%s can be reached", cfg.Tracing.Endpoint)
}

// elsewhere reports whether any of the hosts, with or without ports, is not this
// machine.
func elsewhere(hosts ...string) bool {
	for _, host := range hosts {
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		host = strings.Trim(host, "[]")
		addr, err := netip.ParseAddr(host)
		if !strings.EqualFold(host, "localhost") && (err != nil || !addr.IsLoopback()) {
			return true
		}
	}
	return false
}
