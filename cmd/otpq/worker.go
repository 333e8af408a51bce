package main

import (
	"context"
	"errors"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

func (a *app) workerCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "worker",
		Short: "Drain the queues until SIGTERM, then finish what is in flight",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.loadConfig()
			if err != nil {
				return err
			}
			log := a.logger(cfg.Log)
			redisconn.LogTo(log)
			collectLess()
			return runWorker(cmd.Context(), cfg, log)
		},
	}
}

// collectLess has the garbage collected when the heap is five times what is in use,
// not twice: a worker uses a few tens of megabytes and makes garbage fast, and a fifth of
// its CPU went into collecting it. GOGC still decides where it is set.
func collectLess() {
	const percent = 400
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// runWorker runs a worker with its admin server until ctx ends.
func runWorker(ctx context.Context, cfg config.Config, log zerolog.Logger) error {
	ring, err := tasks.NewKeyring(keys(cfg)...)
	if err != nil {
		return err
	}
	on, off := workerProviders(cfg, log)
	for _, p := range off {
		log.Warn().Str("provider", p.name).Str("why", p.why).Msg("provider is off; its messages wait")
	}
	if len(on) == 0 {
		return noProvider(off)
	}
	rdb, err := openRedis(cfg, "otpq-worker", poolSize(on))
	if err != nil {
		return err
	}
	defer rdb.Close() // after Shutdown has returned: asynq panics otherwise
	tracer, err := openTracer(ctx, cfg.Tracing, true, log)
	if err != nil {
		return err
	}
	defer closeTracer(tracer, workerFlush, log)

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics.Build(registry, version())
	store := openStore(cfg, rdb)
	w, err := worker.New(worker.Config{
		Redis: rdb, Keys: ring, Store: store, Providers: on,
		ShutdownTimeout: cfg.Worker.ShutdownTimeout, Metrics: metrics.NewWorker(registry), Tracer: tracer, Log: log,
	})
	if err != nil {
		return err
	}
	rdb.AddHook(metrics.RedisErrors(registry)) // below the worker's, which tries again
	registry.MustRegister(queueMetrics(rdb, store), campaignMetrics(campaign.NewControl(campaignConfig(cfg, rdb))))
	// First, so that a taken address ends the worker before it has messages in
	// hand, and so that /readyz tells what a worker waits for.
	alive := &health{loops: w.Healthy}
	alive.waits()
	ready := newReadiness(cfg, on, off, ring, rdb, alive.turning)
	stopAdmin, err := serveAdmin(cfg.Admin.Listen, adminHandler(alive, ready, registry), log)
	if err != nil {
		return err
	}
	defer stopAdmin()
	if err := startWorker(ctx, w, alive, log); err != nil {
		if ctx.Err() != nil {
			log.Info().Msg("stopped before redis answered")
			return nil
		}
		return err
	}
	alive.started()
	names := make([]string, 0, len(on))
	for _, p := range on {
		names = append(names, p.Name)
	}
	log.Info().Strs("providers", names).Str("redis", redisconn.Describe(cfg.Redis.URL.Reveal())).
		Str("version", version()).Msg("worker started")

	stopFeeding, err := feedDetached(ctx, cfg, rdb, log)
	if err != nil {
		w.Shutdown()
		return err
	}
	defer stopFeeding() // before Redis is closed

	<-ctx.Done()
	log.Info().Msg("stopping: finishing what is in flight")
	w.Shutdown()
	log.Info().Msg("worker stopped")
	return nil
}

// noProvider says what each provider lacks.
func noProvider(off []offProvider) error {
	var lines []string
	for _, p := range off {
		lines = append(lines, p.name+" "+p.why)
	}
	return errors.New("no provider is on:\n  " + strings.Join(lines, "\n  "))
}

// startTry bounds one try to start a worker.
const startTry = 5 * time.Second

// startWorker waits for Redis: a worker that is started before it, or beside a
// failover, should not need a second start.
func startWorker(ctx context.Context, w *worker.Worker, alive *health, log zerolog.Logger) error {
	for {
		alive.waits()
		try, cancel := context.WithTimeout(ctx, startTry)
		err := w.Start(try)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, worker.ErrNoRedis):
			return err
		}
		log.Error().Err(err).Msg("waiting for redis")
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// poolSize is how many connections a worker may use at once: each slot writes
// its records on one, and each queue needs a few for asynq's own loops. Too small
// a pool delays the extension of leases, and a lost lease runs a task twice.
func poolSize(on []worker.ProviderConfig) int {
	const feeders = 10 // of campaigns
	size := 10 + feeders
	for _, p := range on {
		for _, slots := range p.Concurrency {
			size += slots + 4*max(p.Queues, 1)
		}
	}
	return min(size, 1000)
}
