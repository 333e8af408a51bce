package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/goccy/go-yaml"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/internal/backlog"
	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/internal/secret"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

func (a *app) devCommand() *cobra.Command {
	var (
		redisURL, listen, pages string
		once, verbose           bool
	)
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process, with nothing installed, and show how it works",
		Long: "Run everything in one process: a Redis in memory, the sandbox of the three provider\n" +
			"APIs, a worker and the dashboard. Send a few samples with some faults on, show what\n" +
			"became of each, and stay until Ctrl-C. Nothing is kept.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if redisURL != "" {
				if err := redisconn.Check(redisURL); err != nil {
					return usagef("--redis %w", err)
				}
			}
			d := dev{app: a, redisURL: redisURL, listen: listen, pages: pages, once: once, verbose: verbose}
			return d.run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&redisURL, "redis", "", "use the Redis at `URL` instead of one in memory")
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "`ADDR` of the sandbox")
	cmd.Flags().StringVar(&pages, "dashboard", "127.0.0.1:0", "`ADDR` of the dashboard")
	cmd.Flags().BoolVar(&once, "once", false, "stop when every sample has come to its end")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "show the worker's log")
	return cmd
}

// dev is one run of `otpq dev`.
type dev struct {
	*app
	redisURL, listen, pages string
	once, verbose           bool
	closers                 []func()
}

// later registers what the end of the run undoes, last first.
func (d *dev) later(f func()) { d.closers = append(d.closers, f) }

func (d *dev) run(ctx context.Context) error {
	defer func() {
		for i := len(d.closers) - 1; i >= 0; i-- {
			d.closers[i]()
		}
	}()
	log := zerolog.Nop()
	if d.verbose {
		log = d.logger(config.Log{Level: "debug", Format: "auto"})
	}
	redisconn.LogTo(log)

	if err := d.findRedis(ctx); err != nil {
		return err
	}
	server, sandboxURL, err := d.startSandbox(ctx)
	if err != nil {
		return err
	}
	cfg, err := d.config(sandboxURL)
	if err != nil {
		return err
	}
	file, err := d.writeConfig(cfg)
	if err != nil {
		return err
	}
	client, err := openClient(cfg)
	if err != nil {
		return err
	}
	d.later(func() { _ = client.Close() })
	workerDone := d.startWorker(ctx, cfg, log)

	dashboardURL, err := d.startDashboard(ctx, cfg, log)
	if err != nil {
		return err
	}
	d.printWhere(cfg, sandboxURL, dashboardURL, file)
	samples := newSamples(client, server)
	if err := d.show(ctx, samples, workerDone); err != nil {
		return err
	}
	if d.once || ctx.Err() != nil {
		return nil
	}
	if !d.json {
		fmt.Fprintln(d.out, "\nStill running; Ctrl-C ends it.")
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-workerDone:
		return err
	}
}

// findRedis looks whether the given Redis is there, or starts one. A worker would
// wait for it, and nobody would see what for.
func (d *dev) findRedis(ctx context.Context) error {
	if d.redisURL == "" {
		return d.startRedis(ctx)
	}
	rdb, err := redisconn.Open(d.redisURL, redisconn.Options{ClientName: "otpq-dev"})
	if err != nil {
		return err
	}
	defer rdb.Close()
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err := rdb.Ping(ctx).Err(); err != nil {
		return fmt.Errorf("--redis: %s does not answer: %w", redisconn.Describe(d.redisURL), err)
	}
	return d.refuseUsed(ctx, rdb)
}

// refuseUsed keeps dev off a Redis that others work with: its worker would hand
// their messages to the sandbox, and tell their apps that the codes are out.
func (d *dev) refuseUsed(ctx context.Context, rdb redis.UniversalClient) error {
	const instead = "; dev would hand its messages to the sandbox: use an empty database"
	workers, err := worker.Workers(ctx, rdb)
	if err != nil {
		return err
	}
	if len(workers) > 0 {
		return fmt.Errorf("--redis: %s has a worker already%s", redisconn.Describe(d.redisURL), instead)
	}
	queues, err := backlog.ReadAll(ctx, rdb, time.Now())
	if err != nil {
		return err
	}
	for _, q := range queues {
		if q.Pending+q.Active+q.Retry+q.Scheduled > 0 {
			return fmt.Errorf("--redis: %s has messages queued for %s%s", redisconn.Describe(d.redisURL), q.Provider, instead)
		}
	}
	return nil
}

// startRedis starts a Redis in memory whose clock moves: miniredis lets TTLs
// pass only when it is told how much time did.
func (d *dev) startRedis(ctx context.Context) error {
	m := miniredis.NewMiniRedis()
	// Its port was another's a moment ago: a stray client of that one must not
	// take part here.
	password := rand.Text()
	m.RequireAuth(password)
	if err := m.Start(); err != nil {
		return fmt.Errorf("start the embedded Redis: %w", err)
	}
	d.redisURL = "redis://:" + password + "@" + m.Addr() + "/0"
	moving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() {
		const step = 100 * time.Millisecond
		tick := time.NewTicker(step)
		defer tick.Stop()
		last := time.Now()
		for {
			select {
			case <-moving.Done():
				return
			case now := <-tick.C:
				m.FastForward(now.Sub(last))
				last = now
			}
		}
	})
	d.later(func() { stop(); wg.Wait(); m.Close() })
	return nil
}

func (d *dev) startSandbox(ctx context.Context) (*sandbox.Server, string, error) {
	listener, err := listenOn(ctx, listenFlag, d.listen)
	if err != nil {
		return nil, "", err
	}
	server := newSandbox(1)
	stop := serve(listener, server.Handler(), zerolog.Nop())
	d.later(func() { server.Close(); stop() })
	return server, "http://" + listener.Addr().String(), nil
}

// config is the user's, with every provider in the sandbox and a key of its own
// when there is none.
func (d *dev) config(sandboxURL string) (config.Config, error) {
	cfg, err := d.loadConfig()
	if err != nil {
		return cfg, err
	}
	cfg.Redis.URL = secret.Text(d.redisURL)
	cfg.Admin.Listen = ""
	cfg.Dashboard = config.Dashboard{Listen: d.pages}
	if len(cfg.Keys) == 0 {
		cfg.Keys = []config.Key{{ID: "dev", Secret: tasks.GenerateSecret()}}
	}
	for _, def := range all.All() {
		p := cfg.Providers[def.Name]
		p.BaseURL = sandboxURL
		if def.NeedsToken {
			p.Token, p.TokenFile = "dev-token", ""
		}
		cfg.Providers[def.Name] = p
	}
	return cfg, nil
}

// writeConfig writes a configuration with which other commands, in another
// terminal, reach this run. It goes when the run ends.
func (d *dev) writeConfig(cfg config.Config) (string, error) {
	providers := map[string]any{}
	for name, p := range cfg.Providers {
		settings := map[string]any{"base_url": p.BaseURL}
		if !p.Token.IsZero() {
			settings["token"] = p.Token.Reveal()
		}
		providers[name] = settings
	}
	var sealing []map[string]string
	for _, k := range cfg.Keys {
		sealing = append(sealing, map[string]string{"id": k.ID, "secret": k.Secret.Reveal()})
	}
	text, err := yaml.Marshal(map[string]any{
		"redis": map[string]string{"url": cfg.Redis.URL.Reveal()}, "keys": sealing, "providers": providers,
	})
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "otpq-dev-")
	if err != nil {
		return "", err
	}
	d.later(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "otpq.yaml")
	return file, os.WriteFile(file, text, 0o600)
}

// startWorker runs a worker until the dev run ends.
func (d *dev) startWorker(ctx context.Context, cfg config.Config, log zerolog.Logger) <-chan error {
	ctx, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		err := runWorker(ctx, cfg, log)
		switch {
		case ctx.Err() != nil:
			err = nil // it was told to end, perhaps before it had begun
		case err == nil:
			err = errors.New("the worker stopped")
		}
		done <- err
	}()
	d.later(func() { stop(); <-finished })
	return done
}

// startDashboard serves the dashboard until the dev run ends, and returns its
// address. Here everybody may act: nothing is kept, and the sandbox sends nothing.
func (d *dev) startDashboard(ctx context.Context, cfg config.Config, log zerolog.Logger) (string, error) {
	ctx, stop := context.WithCancel(ctx)
	at, ended, finished := make(chan string, 1), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(finished)
		ended <- runDashboard(ctx, cfg, true, log, func(url string) { at <- url })
	}()
	d.later(func() { stop(); <-finished })
	select {
	case url := <-at:
		return url, nil
	case err := <-ended:
		return "", err
	}
}

// printWhere tells how to reach this run. With --json only JSON is on stdout.
func (d *dev) printWhere(cfg config.Config, sandboxURL, dashboardURL, file string) {
	w := d.out
	if d.json {
		w = d.err
	}
	fmt.Fprintf(w, "redis      %s\n", redisconn.Describe(cfg.Redis.URL.Reveal()))
	fmt.Fprintf(w, "sandbox    %s  (faults and counts: %s/_sandbox/)\n", sandboxURL, sandboxURL)
	fmt.Fprintf(w, "dashboard  %s\n", dashboardURL)
	fmt.Fprintf(w, "In another terminal:\n")
	fmt.Fprintf(w, "  export OTPQ_CONFIG=%s\n", file)
	self := callSelf()
	fmt.Fprintf(w, "  %s send unimedbh '{\"username\":\"teste@gmail.com\",\"type\":\"EMAIL\"}' --wait\n", self)
	fmt.Fprintf(w, "  %s providers\n  %s dead list\n\n", self, self)
}

// callSelf is what to type to run this program again: `go run` builds it in a
// folder that goes with it.
func callSelf() string {
	exe, err := os.Executable()
	switch {
	case err != nil:
		return "otpq"
	case strings.Contains(exe, "go-build"):
		return "go run ./cmd/otpq"
	}
	if inPath, err := exec.LookPath("otpq"); err == nil && inPath == exe {
		return "otpq"
	}
	return exe
}
