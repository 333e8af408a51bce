package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/worker"
)

// adminHandler serves /healthz (the worker's loops live), /readyz (it has all that
// it needs) and /metrics.
func adminHandler(healthy, ready http.Handler, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /healthz", healthy)
	mux.Handle("GET /readyz", ready)
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}

// health answers /healthz: well as long as the worker's loops turn or, before they
// were started, the one that waits for Redis. To restart a worker brings no Redis back.
type health struct {
	loops func() error
	// waited is when the loop that waits last turned; zero once it is over.
	waited atomic.Int64
}

// waitStill is how long the loop that waits for Redis may not turn: one takes
// [startTry] and a pause.
const waitStill = 3 * startTry

// waits notes a turn of the loop that waits for Redis.
func (h *health) waits() { h.waited.Store(time.Now().UnixNano()) }

// started notes that it is over.
func (h *health) started() { h.waited.Store(0) }

// turning fails too while it waits: then no loop drains a queue.
func (h *health) turning() error {
	if h.waited.Load() != 0 {
		return errors.New("the worker has not started yet: it waits for redis")
	}
	return h.loops()
}

// ServeHTTP answers 200, or 503 and what stands still.
func (h *health) ServeHTTP(rw http.ResponseWriter, _ *http.Request) {
	last := h.waited.Load()
	if last == 0 {
		answer(rw, "ok", h.loops())
		return
	}
	var err error
	if still := time.Since(time.Unix(0, last)); still > waitStill {
		err = fmt.Errorf("the loop that waits for redis last turned %s ago", still.Round(time.Second))
	}
	answer(rw, "waiting for redis", err)
}

// queueMetrics are those of what is in Redis, for any process that serves metrics.
func queueMetrics(rdb redis.UniversalClient, store *status.Redis) *metrics.Queues {
	var names []string
	for _, def := range all.All() {
		names = append(names, def.Name)
	}
	return &metrics.Queues{
		Redis: rdb, Providers: names, Dead: store.CountDead,
		Workers: func(ctx context.Context) (int, error) {
			list, err := worker.Workers(ctx, rdb)
			return len(list), err
		},
	}
}

// campaignMetrics are those of campaigns.
func campaignMetrics(all *campaign.Control) *metrics.Campaigns {
	list := func(ctx context.Context) ([]metrics.Campaign, error) {
		found, err := all.List(ctx)
		if err != nil {
			return nil, err
		}
		out := make([]metrics.Campaign, 0, len(found))
		for _, each := range found {
			out = append(out, campaignMetric(each))
		}
		return out, nil
	}
	return &metrics.Campaigns{List: list, Reasons: []string{
		campaign.ReasonOperator, campaign.ReasonQuietHours, campaign.ReasonBreakerOpen, campaign.ReasonFailures,
	}}
}

func campaignMetric(c campaign.Campaign) metrics.Campaign {
	n := c.Counts
	return metrics.Campaign{
		ID: c.ID, Provider: c.Provider, Reason: c.Reason, RatePerSecond: c.RatePerSecond, Over: c.State.Over(), Ended: c.CompletedAt,
		Rows: map[string]int64{
			"invalid": n.Invalid, "duplicate": n.Duplicate, "waiting": n.Waiting, "queued": n.Queued, "sending": n.Sending,
			"deferred": n.Deferred, "accepted": n.Accepted, "rejected": n.Rejected, "exhausted": n.Exhausted,
			"unknown": n.Unknown, "expired": n.Expired, "canceled": n.Canceled,
		},
	}
}

// answer says how it is, or what is wrong.
func answer(rw http.ResponseWriter, how string, err error) {
	rw.Header().Set("Content-Type", "application/json")
	body := map[string]string{"status": how}
	if err != nil {
		body = map[string]string{"status": "failing", "error": err.Error()}
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(rw).Encode(body) // the client has left if this fails
}

// defaultAdmin is admin.listen when nobody has set it; see [serveAdmin].
const defaultAdmin = "127.0.0.1:9090"

// serveAdmin listens until stop is called. An address that was asked for and is
// taken is an error. The default one is not worth dying for: a second worker on
// a machine, or a Prometheus, may have it already.
func serveAdmin(addr string, h http.Handler, log zerolog.Logger) (stop func(), err error) {
	if addr == "" {
		return func() {}, nil
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		if addr == defaultAdmin {
			log.Warn().Err(err).Msg("no health checks and no metrics: set admin.listen to a free address")
			return func() {}, nil
		}
		return nil, fmt.Errorf("admin.listen: %w", err)
	}
	log.Info().Str("address", listener.Addr().String()).Msg("admin server listens")
	return serve(listener, h, log), nil
}

// serve answers on listener until stop is called, which waits a moment for
// requests in flight.
func serve(listener net.Listener, h http.Handler, log zerolog.Logger) (stop func()) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error().Err(err).Msg("server stopped")
		}
	}()
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			_ = server.Close()
		}
	}
}
