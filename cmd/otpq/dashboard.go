package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/dashboard"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func (a *app) dashboardCommand() *cobra.Command {
	var (
		listen string
		write  bool
	)
	cmd := &cobra.Command{
		Use:   "dashboard",
		Short: "Serve pages about providers, messages and dead letters, and Asynqmon, with nobody named",
		Long: "Serve what operators look at in a browser until SIGTERM: providers, messages and\n" +
			"dead letters under /deliveries, and Asynqmon under /asynqmon/. Nobody is named.\n\n" +
			"On loopback nobody is asked for a password unless dashboard.users is set; anywhere\n" +
			"else it is refused without. It speaks plain HTTP: put a proxy with TLS in front where\n" +
			"passwords travel between machines. It only shows; with --write whoever may see it may also\n" +
			"replay and discard dead letters, and pause, run and archive in Asynqmon.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.loadConfig()
			if err != nil {
				return err
			}
			if listen != "" {
				if _, _, err := net.SplitHostPort(listen); err != nil {
					return usagef("--listen must be host:port, such as 127.0.0.1:8080")
				}
				cfg.Dashboard.Listen = listen
			}
			log := a.logger(cfg.Log)
			redisconn.LogTo(log)
			return runDashboard(cmd.Context(), cfg, write, log, func(url string) {
				if a.json {
					_ = a.printJSON(map[string]string{"url": url}) // the log tells it too
					return
				}
				fmt.Fprintf(a.out, "dashboard at %s\n", url)
			})
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "`ADDR` to serve on (default: dashboard.listen, 127.0.0.1:8080)")
	cmd.Flags().BoolVar(&write, "write", false, "let whoever may see it act: replay, discard, pause, run and archive")
	cmd.AddCommand(a.dashboardHashCommand())
	return cmd
}

// runDashboard serves until ctx ends. It tells where once it listens.
func runDashboard(ctx context.Context, cfg config.Config, write bool, log zerolog.Logger, listening func(url string)) error {
	auth, err := dashboardAuth(cfg.Dashboard)
	if err != nil {
		return err
	}
	if err := dashboard.CheckListen(cfg.Dashboard.Listen, auth); err != nil {
		return err
	}
	rdb, err := openRedis(cfg, "otpq-dashboard", 0)
	if err != nil {
		return err
	}
	defer rdb.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	store := openStore(cfg, rdb)
	campaigns := campaign.NewControl(campaignConfig(cfg, rdb))
	registry.MustRegister(queueMetrics(rdb, store), campaignMetrics(campaigns))
	errs := metrics.RedisErrors(registry)
	rdb.AddHook(errs)
	c := dashboard.Config{
		Redis: rdb, Records: store, Providers: providerSettings(cfg), Campaigns: campaigns, Auth: auth,
		OpenRedis: func() (redis.UniversalClient, error) {
			asynqmon, err := openRedis(cfg, "otpq-asynqmon", 0)
			if err == nil {
				asynqmon.AddHook(errs)
			}
			return asynqmon, err
		},
		Prometheus: cfg.Dashboard.Prometheus, Registry: registry, Version: version(), Log: log,
		Definitions: all.All(),
	}
	if len(cfg.Keys) > 0 {
		if c.Keys, err = tasks.NewKeyring(keys(cfg)...); err != nil {
			return err
		}
	}
	if write {
		client, err := openClient(cfg)
		if err != nil {
			return err
		}
		defer client.Close()
		c.Act = deadActions{client, store}
	}
	d, err := dashboard.New(c)
	if err != nil {
		return fmt.Errorf("dashboard: %w", err)
	}
	defer func() { _ = d.Close() }() // nothing was written through it
	listener, err := listenOn(ctx, "dashboard.listen or "+listenFlag, cfg.Dashboard.Listen)
	if err != nil {
		return err
	}
	url := "http://" + listener.Addr().String()
	log.Info().Str("url", url).Bool("write", write).Str("redis", redisconn.Describe(cfg.Redis.URL.Reveal())).Msg("dashboard listens")
	stop := serve(listener, readTimed(d.Handler()), log)
	defer stop()
	listening(url)
	<-ctx.Done()
	return nil
}

// readTimed bounds what a request may bring: nobody sends more than a form.
func readTimed(h http.Handler) http.Handler { return http.MaxBytesHandler(h, 1<<20) }

// dashboardAuth reads who may see the dashboard.
func dashboardAuth(cfg config.Dashboard) (dashboard.Auth, error) {
	auth := dashboard.Auth{Users: config.Items(cfg.Users.Reveal()), TrustedHeader: cfg.TrustedHeader}
	if cfg.UsersFile != "" {
		text, err := os.ReadFile(cfg.UsersFile)
		if err != nil {
			return auth, fmt.Errorf("dashboard.users_file: %w", err)
		}
		auth.Users = strings.Split(strings.TrimSpace(string(text)), "\n")
	}
	for _, text := range config.Items(cfg.TrustedProxies) {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			return auth, fmt.Errorf("dashboard.trusted_proxies: %w", err) // config has checked it
		}
		auth.TrustedProxies = append(auth.TrustedProxies, network)
	}
	return auth, nil
}

// deadActions are what a visitor with --write may do.
type deadActions struct {
	client *enqueue.Client
	store  *status.Redis
}

// Replay implements [dashboard.Act].
func (d deadActions) Replay(ctx context.Context, id string) (string, error) {
	receipt, err := d.client.Replay(ctx, id, enqueue.ValidFor(enqueue.DefaultValidity))
	return receipt.ID, err
}

// Discard implements [dashboard.Act].
func (d deadActions) Discard(ctx context.Context, provider, id string) error {
	return d.store.DropDead(ctx, provider, id)
}

func (a *app) dashboardHashCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "hash NAME",
		Short: "Read a password from stdin and print the user's line for dashboard.users",
		Args:  exactArgs("NAME"),
		RunE: func(_ *cobra.Command, args []string) error {
			password, err := a.readPassword()
			if err != nil {
				return err
			}
			line, err := dashboard.HashPassword(args[0], password)
			if err != nil {
				return usageError{err}
			}
			if a.json {
				name, hash, _ := strings.Cut(line, ":")
				return a.printJSON(map[string]string{"name": name, "hash": hash})
			}
			_, err = fmt.Fprintln(a.out, line)
			return err
		},
	}
}

// readPassword reads a line, which a terminal does not show.
func (a *app) readPassword() (string, error) {
	if f, ok := a.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(a.err, "Password: ")
		text, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.err)
		return string(text), err
	}
	line, err := bufio.NewReader(io.LimitReader(a.in, 1<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}
