package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"golang.org/x/term"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

// commandTimeout bounds a command that a person waits for.
const commandTimeout = 10 * time.Second

func (a *app) loadConfig() (config.Config, error) {
	return config.Load(config.Options{File: a.configFile, Environ: a.environ, Definitions: all.All()})
}

// keys are the configured sealing keys.
func keys(cfg config.Config) []tasks.Key {
	var out []tasks.Key
	for _, k := range cfg.Keys {
		out = append(out, tasks.Key{ID: k.ID, Secret: k.Secret})
	}
	return out
}

// queues are how many each provider's lanes have.
func queues(cfg config.Config) map[string]int {
	out := map[string]int{}
	for name, p := range cfg.Providers {
		out[name] = p.Queues
	}
	return out
}

func openRedis(cfg config.Config, name string, poolSize int) (redis.UniversalClient, error) {
	return redisconn.Open(cfg.Redis.URL.Reveal(), redisconn.Options{ClientName: name, PoolSize: poolSize})
}

func openStore(cfg config.Config, rdb redis.UniversalClient) *status.Redis {
	return status.NewRedis(rdb, status.Retention{Records: cfg.Status.Retention, DeadLetters: cfg.Status.DeadRetention})
}

// client opens what the commands that send, look and repair work with.
func (a *app) client() (*enqueue.Client, config.Config, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, cfg, err
	}
	c, err := openClient(cfg)
	return c, cfg, err
}

func openClient(cfg config.Config) (*enqueue.Client, error) {
	return enqueue.Open(enqueue.Config{
		RedisURL: cfg.Redis.URL.Reveal(), Keys: keys(cfg), IdempotencyWindow: cfg.Enqueue.IdempotencyWindow, Queues: queues(cfg),
		Retention: status.Retention{Records: cfg.Status.Retention, DeadLetters: cfg.Status.DeadRetention},
	})
}

// reader opens the records for a command that needs no key.
func (a *app) reader() (*status.Redis, redis.UniversalClient, config.Config, error) {
	cfg, err := a.loadConfig()
	if err != nil {
		return nil, nil, cfg, err
	}
	rdb, err := openRedis(cfg, "otpq-cli", 0)
	if err != nil {
		return nil, nil, cfg, err
	}
	return openStore(cfg, rdb), rdb, cfg, nil
}

// offProvider is a provider that cannot be used, and why.
type offProvider struct{ name, why string }

// workerProviders makes the providers that are on, and names the others.
func workerProviders(cfg config.Config, log zerolog.Logger) (on []worker.ProviderConfig, off []offProvider) {
	for _, def := range all.All() {
		pc := cfg.Providers[def.Name]
		if why := pc.OffReason(def); why != "" {
			off = append(off, offProvider{def.Name, why})
			continue
		}
		p, err := def.New(providers.Settings{
			BaseURL: pc.URL(def), Token: pc.Token, TokenFile: pc.TokenFile, Format: pc.Format, Log: log,
		})
		if err != nil {
			off = append(off, offProvider{def.Name, err.Error()})
			continue
		}
		on = append(on, workerProvider(def, p, pc))
	}
	return on, off
}

func workerProvider(def providers.Definition, p providers.Provider, pc config.Provider) worker.ProviderConfig {
	return worker.ProviderConfig{
		Name: def.Name, Provider: p, Decode: def.Decode, Timeout: pc.Timeout,
		Concurrency: map[tasks.Lane]int{
			tasks.Interactive: pc.Concurrency.Interactive, tasks.Bulk: pc.Concurrency.Bulk,
		},
		Queues:    pc.Queues,
		RateLimit: worker.RateLimit{Limit: pc.RateLimit.Limit, Period: pc.RateLimit.Period},
		Breaker: worker.BreakerConfig{
			ConsecutiveFailures: pc.Breaker.ConsecutiveFailures, FailureRatio: pc.Breaker.FailureRatio,
			MinimumRequests: pc.Breaker.MinimumRequests, OpenFor: pc.Breaker.OpenFor,
		},
		Retry: worker.Retry{
			MaxAttempts: pc.Retry.MaxAttempts, Initial: pc.Retry.Initial, Max: pc.Retry.Max,
			StopAmbiguous: pc.Retry.OnAmbiguous == config.Stop,
		},
	}
}

// logger writes to stderr: for people on a terminal, as JSON elsewhere.
func (a *app) logger(cfg config.Log) zerolog.Logger {
	level, err := zerolog.ParseLevel(cfg.Level)
	if err != nil {
		level = zerolog.InfoLevel // config has checked it
	}
	var w io.Writer = a.err
	if cfg.Format == "console" || cfg.Format == "auto" && isTerminal(a.err) {
		w = zerolog.ConsoleWriter{Out: a.err, TimeFormat: "15:04:05.000", NoColor: !isTerminal(a.err)}
	}
	return zerolog.New(w).Level(level).With().Timestamp().Logger()
}

// fileOf is the file that is read or written through f.
func fileOf(f any) (*os.File, bool) {
	if o, ok := f.(*output); ok {
		f = o.Writer
	}
	file, ok := f.(*os.File)
	return file, ok
}

// isTerminal reports whether a person sees what is written to w.
func isTerminal(w any) bool {
	f, ok := fileOf(w)
	return ok && term.IsTerminal(int(f.Fd()))
}

// terminalSize is how many columns and rows the terminal behind w has, or 0.
func terminalSize(w any) (width, height int) {
	f, ok := fileOf(w)
	if !ok {
		return 0, 0
	}
	width, height, err := term.GetSize(int(f.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}

// colours reports whether output to w may have colour; see https://no-color.org.
func (a *app) colours(w any) bool {
	for _, e := range a.environ {
		if e == "TERM=dumb" || len(e) > len("NO_COLOR=") && e[:len("NO_COLOR=")] == "NO_COLOR=" {
			return false
		}
	}
	if d, ok := w.(*drawing); ok {
		return d.colours
	}
	return isTerminal(w)
}

func withTimeout(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, commandTimeout)
}

// unknownProvider names the providers there are.
func unknownProvider(name string) error {
	var names []string
	for _, def := range all.All() {
		names = append(names, def.Name)
	}
	return usagef("there is no provider %q; the providers are %s", name, fmt.Sprint(names))
}
