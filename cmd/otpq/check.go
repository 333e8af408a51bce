package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

// finding is one line of `otpq check`.
type finding struct {
	Name    string `json:"name"`
	Status  string `json:"status"` // ok, warning or failure
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

const (
	checkOK      = "ok"
	checkWarning = "warning"
	checkFailure = "failure"
)

// report collects findings.
type report struct{ Findings []finding }

func (r *report) ok(name, format string, args ...any) {
	r.Findings = append(r.Findings, finding{name, checkOK, fmt.Sprintf(format, args...), ""})
}

func (r *report) warn(name, message, fix string) {
	r.Findings = append(r.Findings, finding{name, checkWarning, message, fix})
}

func (r *report) fail(name, message, fix string) {
	r.Findings = append(r.Findings, finding{name, checkFailure, message, fix})
}

func (r *report) failed() bool {
	for _, f := range r.Findings {
		if f.Status == checkFailure {
			return true
		}
	}
	return false
}

func (a *app) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Check configuration, Redis, clock, providers and collector, and say what to do",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var r report
			cfg, err := a.loadConfig()
			if err != nil {
				r.configuration(err)
			} else {
				r.ok("configuration", "read without errors")
				ctx, cancel := context.WithTimeout(cmd.Context(), 30*time.Second)
				defer cancel()
				r.keys(cfg)
				r.redis(ctx, cfg)
				r.providers(ctx, cfg)
				r.traces(ctx, cfg)
			}
			if err := a.printReport(r); err != nil {
				return err
			}
			if r.failed() {
				return errSilent
			}
			return nil
		},
	}
}

func (a *app) printReport(r report) error {
	if a.json {
		return a.printJSON(map[string]any{"ok": !r.failed(), "checks": r.Findings})
	}
	t := a.table("check", "", "finding")
	colour := map[string]text.Colors{checkOK: {text.FgGreen}, checkWarning: {text.FgYellow}, checkFailure: {text.FgRed}}
	for _, f := range r.Findings {
		message := f.Message
		if f.Fix != "" {
			message += "\n→ " + f.Fix
		}
		t.AppendRow(table.Row{f.Name, a.paint(colour[f.Status], f.Status), message})
	}
	a.printTable(t)
	return nil
}

func (r *report) configuration(err error) {
	var e *config.Error
	if !errors.As(err, &e) {
		r.fail("configuration", err.Error(), "")
		return
	}
	for _, p := range e.Problems {
		r.fail("configuration", p.String(), "")
	}
}

func (r *report) keys(cfg config.Config) {
	const fix = "run `otpq keygen` and put what it prints under keys in the configuration"
	switch _, err := tasks.NewKeyring(keys(cfg)...); {
	case errors.Is(err, tasks.ErrNoKeys):
		r.fail("keys", "no sealing key is configured", fix)
		return
	case err != nil:
		r.fail("keys", err.Error(), fix)
		return
	}
	r.ok("keys", "%d; %q seals", len(cfg.Keys), cfg.Keys[0].ID)
}

// redis looks at the server through INFO and TIME, which managed ones allow
// when they forbid CONFIG.
func (r *report) redis(ctx context.Context, cfg config.Config) {
	where := redisconn.Describe(cfg.Redis.URL.Reveal())
	rdb, err := openRedis(cfg, "otpq-check", 0)
	if err != nil {
		r.fail("redis", err.Error(), "correct redis.url")
		return
	}
	defer rdb.Close()
	r.redisEncryption(cfg)
	before := time.Now()
	server, err := rdb.Time(ctx).Result()
	if err != nil {
		r.fail("redis", fmt.Sprintf("%s does not answer: %v", where, err), "start it, or correct redis.url")
		return
	}
	// The server read its clock somewhere in between.
	took := time.Since(before)
	r.clock(before.Add(took/2).Sub(server), took)
	info, err := rdb.Info(ctx).Result()
	if err != nil {
		r.fail("redis", fmt.Sprintf("%s refuses INFO: %v", where, err), "allow INFO to this user")
		return
	}
	r.ok("redis", "%s answers", where)
	facts := parseInfo(info)
	r.redisInfo(facts)
	if facts["aof_enabled"] == "1" { // without it the setting means nothing
		r.fsync(ctx, rdb)
	}
}

func (r *report) clock(skew, took time.Duration) {
	message := fmt.Sprintf("this machine and Redis differ by %s (± %s)", skew.Round(time.Millisecond), (took / 2).Round(time.Millisecond))
	const fix = "run NTP or chrony on both: deadlines are compared by these clocks"
	switch {
	case skew.Abs() > 5*time.Second:
		r.fail("clock", message, fix)
	case skew.Abs() > time.Second:
		r.warn("clock", message, fix)
	default:
		r.ok("clock", "%s", message)
	}
}

func (r *report) redisInfo(info map[string]string) {
	if version := info["redis_version"]; atLeast(version, 6, 2) {
		r.ok("redis version", "%s", version)
	} else {
		r.fail("redis version", version+" is too old", "upgrade to 6.2 or newer: asynq archives with commands that older ones lack")
	}
	if policy := info["maxmemory_policy"]; policy == "noeviction" {
		r.ok("redis eviction", "noeviction")
	} else {
		r.fail("redis eviction", fmt.Sprintf("maxmemory-policy is %q: Redis may delete queued messages when memory runs out", policy),
			"set maxmemory-policy noeviction")
	}
	if info["aof_enabled"] == "1" {
		r.ok("redis persistence", "append-only file is on")
	} else {
		r.warn("redis persistence", "append-only file is off: a restart of Redis loses queued messages", "set appendonly yes")
	}
	if role := info["role"]; role != "" && role != "master" {
		r.fail("redis role", "this is a "+role+": nothing can be written to it", "point redis.url at the master, or use redis-sentinel://")
	}
	used, _ := strconv.ParseFloat(info["used_memory"], 64)
	if most, _ := strconv.ParseFloat(info["maxmemory"], 64); most > 0 && used/most > 0.8 {
		r.warn("redis memory", fmt.Sprintf("%.0f %% of maxmemory is used", 100*used/most),
			"raise maxmemory: when it is full, queues can neither be filled nor drained")
	}
}

// fsync tells how much a crash of Redis may lose. A user of Redis that may do no more
// than it has to may not ask.
func (r *report) fsync(ctx context.Context, rdb redis.UniversalClient) {
	got, err := rdb.ConfigGet(ctx, "appendfsync").Result()
	if redis.HasErrorPrefix(err, "NOPERM") {
		r.ok("redis fsync", "this user may not ask, as it should be; an administrator's CONFIG GET appendfsync should say everysec or always")
		return
	}
	if err != nil || got["appendfsync"] == "" {
		return
	}
	switch got["appendfsync"] {
	case "always":
		r.ok("redis fsync", "always: what was accepted survives a crash of Redis")
	case "everysec":
		r.ok("redis fsync", "everysec: a crash of Redis loses at most the last second, and what was sent in it may be sent again; always loses nothing")
	default:
		r.warn("redis fsync", "appendfsync is "+got["appendfsync"], "set appendfsync everysec or always")
	}
}

func parseInfo(info string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			out[name] = value
		}
	}
	return out
}

func atLeast(version string, major, minor int) bool {
	parts := append(strings.Split(version, "."), "0", "0")
	gotMajor, err1 := strconv.Atoi(parts[0])
	gotMinor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (gotMajor > major || gotMajor == major && gotMinor >= minor)
}

// providers checks the timeouts and connects to each provider. It makes no
// request: a request sends a code.
func (r *report) providers(ctx context.Context, cfg config.Config) {
	on, off := workerProviders(cfg, zerolog.Nop())
	for _, o := range off {
		r.warn(o.name, "is off", o.why)
	}
	if len(on) == 0 {
		r.fail("providers", "no provider is on: a worker has nothing to do", "give at least one what it needs")
	}
	if err := worker.CheckLadder(cfg.Worker.ShutdownTimeout, on); err != nil {
		r.fail("timeout ladder", err.Error(), "change the timeouts that it names")
	} else if len(on) > 0 {
		r.ok("timeout ladder", "every provider's timeout fits under the task timeout, the lease and the shutdown timeout")
	}
	for _, p := range on {
		def, _ := all.ByName(p.Name)
		base := cfg.Providers[p.Name].URL(def)
		r.providerEncryption(p.Name, base)
		via, err := reach(ctx, base)
		if via != "" {
			base += ", through the proxy " + via + ","
		}
		if err != nil {
			r.fail(p.Name, fmt.Sprintf("%s cannot be reached: %v", base, err), "check providers."+p.Name+".base_url, DNS, firewall and proxy")
		} else {
			r.ok(p.Name, "%s can be reached", base)
		}
	}
}

// reach connects to a base URL's host, with TLS where the URL says so, or to the
// proxy that requests to it would take. via names that proxy.
func reach(ctx context.Context, base string) (via string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, base, nil)
	if err != nil {
		return "", err
	}
	u := req.URL
	proxy, err := http.ProxyFromEnvironment(req)
	if err != nil {
		return "", err
	}
	if proxy != nil {
		u, via = proxy, proxy.Host
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080"}[u.Scheme]
	}
	address := net.JoinHostPort(u.Hostname(), port)
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	var conn net.Conn
	if u.Scheme == "https" {
		conn, err = (&tls.Dialer{}).DialContext(ctx, "tcp", address)
	} else {
		conn, err = (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	if err != nil {
		return via, err
	}
	return via, conn.Close()
}
