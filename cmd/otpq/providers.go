package main

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/overview"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

func (a *app) providersCommand() *cobra.Command {
	var watch bool
	interval := time.Second
	cmd := &cobra.Command{
		Use:   "providers",
		Short: "Show each provider's limits, breaker, lanes, backlog and oldest waiting",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case !watch && cmd.Flags().Changed("interval"):
				return usagef("--interval needs --watch")
			case interval < shortestWatch:
				return usagef("--interval must be at least %s", shortestWatch)
			}
			_, rdb, cfg, err := a.reader()
			if err != nil {
				return err
			}
			defer rdb.Close()
			if watch {
				w := &providersWatch{a: a, read: func(ctx context.Context) ([]overview.Provider, error) { return viewProviders(ctx, cfg, rdb) }}
				return w.run(cmd.Context(), interval)
			}
			ctx, cancel := withTimeout(cmd.Context())
			defer cancel()
			views, err := viewProviders(ctx, cfg, rdb)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(views)
			}
			a.printProviders(views)
			return nil
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "show it again and again until Ctrl-C, in place on a terminal")
	cmd.Flags().DurationVar(&interval, "interval", interval, "how often --watch looks")
	return cmd
}

func viewProviders(ctx context.Context, cfg config.Config, rdb redis.UniversalClient) ([]overview.Provider, error) {
	return overview.Read(ctx, rdb, providerSettings(cfg), time.Now())
}

// providerSettings is what the configuration says of each provider.
func providerSettings(cfg config.Config) []overview.Settings {
	_, off := workerProviders(cfg, zerolog.Nop())
	var out []overview.Settings
	for _, def := range all.All() {
		pc := cfg.Providers[def.Name]
		s := overview.Settings{
			Name: def.Name, BaseURL: pc.URL(def), Timeout: pc.Timeout, Queues: pc.Queues,
			RateLimit: overview.RateLimit{Limit: pc.RateLimit.Limit, Period: pc.RateLimit.Period.String()},
			Concurrency: map[tasks.Lane]int{
				tasks.Interactive: pc.Concurrency.Interactive, tasks.Bulk: pc.Concurrency.Bulk,
			},
		}
		for _, o := range off {
			if o.name == def.Name {
				s.Off = o.why
			}
		}
		out = append(out, s)
	}
	return out
}

func (a *app) printProviders(views []overview.Provider) {
	t := a.table("provider", "breaker", "workers", "limit", "lane", "slots", "queues", "pending", "active", "deferred", "scheduled", "oldest")
	for _, v := range views {
		name, limit, workers := v.Name, "none", strconv.Itoa(len(v.Breaker.Workers))
		if v.RateLimit.Limit > 0 {
			limit = fmt.Sprintf("%d/%s", v.RateLimit.Limit, v.RateLimit.Period)
		}
		breaker := a.paint(breakerColour(v.Breaker.State), v.Breaker.State)
		if v.OffEverywhere() {
			breaker = "off"
		}
		for _, lane := range tasks.Lanes() {
			l := v.Lanes[string(lane)]
			oldest := "-"
			if l.Pending > 0 {
				oldest = (time.Duration(l.OldestSeconds * float64(time.Second))).Round(time.Millisecond).String()
			}
			if l.Paused {
				oldest += " (paused)"
			}
			t.AppendRow(table.Row{name, breaker, workers, limit, lane, l.Concurrency, l.Queues, l.Pending, l.Active, l.Deferred, l.Scheduled, oldest})
			name, breaker, workers, limit = "", "", "", "" // once a provider
		}
	}
	a.printTable(t)
	for _, v := range views {
		switch {
		case v.OffEverywhere():
			fmt.Fprintf(a.out, "%s is off: %s\n", v.Name, v.Off)
		case !v.On:
			fmt.Fprintf(a.out, "%s is on in the workers, and not in this configuration: %s\n", v.Name, v.Off)
		}
		if v.Breaker.State == worker.BreakerOpen {
			fmt.Fprintf(a.out, "%s: breaker open until %s\n", v.Name, clock(v.Breaker.OpenUntil))
		}
	}
}

func breakerColour(state string) text.Colors {
	switch state {
	case worker.BreakerClosed:
		return text.Colors{text.FgGreen}
	case worker.BreakerHalfOpen:
		return text.Colors{text.FgYellow}
	case worker.BreakerOpen:
		return text.Colors{text.FgRed}
	}
	return text.Colors{}
}
