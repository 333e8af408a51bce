// Package dashboard serves what operators look at in a browser: Asynqmon with
// everything of a person masked, and pages of our own about providers, messages
// and dead letters. It decides nothing about sending; what it may do, replay and
// discard, is given to it.
package dashboard

import (
	"context"
	"embed"
	"errors"
	"io/fs"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/internal/overview"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// assetsRoot is where fonts and style sheets are.
const assetsRoot = "/assets/"

//go:embed assets
var assets embed.FS

// Config is what a [Dashboard] works with. All fields without a comment on their
// zero value are needed.
type Config struct {
	// Redis is what our own pages read from; the caller closes it.
	Redis redis.UniversalClient
	// OpenRedis opens the clients that Asynqmon reads from, which [Dashboard.Close]
	// closes. They need timeouts: Asynqmon has none.
	OpenRedis func() (redis.UniversalClient, error)
	Records   *status.Redis
	Providers []overview.Settings
	Campaigns Campaigns
	Auth      Auth
	// Act is what a visitor may do; nil makes everything read-only.
	Act Act
	// Keys find messages by their recipient, as Definitions read one; nil when there are
	// none, and then nothing is found so.
	Keys        *tasks.Keyring
	Definitions []providers.Definition
	// Prometheus is what Asynqmon's metrics view asks; empty for no such view.
	Prometheus string
	// Registry takes the dashboard's metrics, and /metrics shows all it has.
	Registry *prometheus.Registry
	Version  string
	Log      zerolog.Logger
	// Now is the clock; nil means [time.Now].
	Now func() time.Time
}

// Act is what may be done to dead letters. It is safe for concurrent use, and
// repeating what was done does no harm.
type Act interface {
	// Replay queues a dead letter again and returns the id of the new message.
	Replay(ctx context.Context, id string) (newID string, err error)
	// Discard gives a provider's dead letter up.
	Discard(ctx context.Context, provider, id string) error
}

// Dashboard serves the pages. It is safe for concurrent use.
type Dashboard struct {
	cfg      Config
	monitor  *monitor
	gate     *gate
	requests requests
}

// New makes a Dashboard. It does not connect to Redis. It fails when the users
// are no users.
func New(cfg Config) (*Dashboard, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	g, err := newGate(cfg.Auth, cfg.Log, cfg.Now)
	if err != nil {
		return nil, err
	}
	m, err := newMonitor(cfg.OpenRedis, cfg.Prometheus, cfg.Act != nil)
	if err != nil {
		return nil, err
	}
	metrics.Build(cfg.Registry, cfg.Version)
	return &Dashboard{cfg: cfg, monitor: m, gate: g, requests: requests{metrics.NewDashboard(cfg.Registry)}}, nil
}

// Close ends the connections that the Dashboard opened. Call it after the server
// has stopped.
func (d *Dashboard) Close() error { return d.monitor.Close() }

// Handler is all that the Dashboard serves. What a probe and Prometheus ask for is
// outside the gate: it tells nothing of any message.
func (d *Dashboard) Handler() http.Handler {
	inside := http.NewServeMux()
	inside.Handle(asynqmonRoot+"/", d.monitor)
	d.addPages(inside)

	outside := http.NewServeMux()
	outside.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, nil) })
	outside.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), time.Second)
		defer cancel()
		if d.cfg.Redis.Ping(ctx).Err() != nil {
			answer(w, errors.New("redis does not answer"))
			return
		}
		answer(w, nil)
	})
	outside.Handle("GET /metrics", promhttp.HandlerFor(d.cfg.Registry, promhttp.HandlerOpts{}))
	for _, at := range []string{"/healthz", "/readyz", "/metrics"} {
		// Or the pages behind the gate would be asked, which know no such path.
		outside.HandleFunc(at, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, http.StatusText(http.StatusMethodNotAllowed), http.StatusMethodNotAllowed)
		})
	}
	// Every browser sends these, so a page of another site cannot act for whoever
	// is signed in here.
	outside.Handle("/", d.gate.guard(http.NewCrossOriginProtection().Handler(inside)))
	return d.requests.count(secure(outside))
}

// answer tells a probe yes, or what is wrong.
func answer(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write([]byte(`{"status":"failing","error":"` + err.Error() + `"}` + "\n"))
		return
	}
	_, _ = w.Write([]byte(`{"status":"ok"}` + "\n"))
}

// pagePolicy is for pages without scripts.
const pagePolicy = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// secure sets what every answer has, unless a handler knows better.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		// Not no-referrer: browsers would hide from us where a form came from too.
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// serveAssets serves the embedded files.
func serveAssets() http.Handler {
	files, err := fs.Sub(assets, "assets")
	if err != nil {
		panic(err) // the folder is embedded
	}
	server := http.StripPrefix(strings.TrimSuffix(assetsRoot, "/"), http.FileServerFS(files))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/") {
			http.NotFound(w, r) // no list of files
			return
		}
		w.Header().Set("Cache-Control", "private, max-age=3600")
		if strings.HasSuffix(r.URL.Path, ".woff2") {
			w.Header().Set("Content-Type", "font/woff2")
		}
		server.ServeHTTP(w, r)
	})
}
