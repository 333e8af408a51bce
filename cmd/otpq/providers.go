package main

import (
	"context"
	"fmt"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/internal/backlog"
	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

// providerView is what `otpq providers` tells of one provider.
type providerView struct {
	Name string `json:"name"`
	On   bool   `json:"on"`
	// Off says why, for this configuration.
	Off       string              `json:"off,omitempty"`
	BaseURL   string              `json:"base_url,omitempty"`
	Timeout   string              `json:"timeout"`
	RateLimit rateLimitView       `json:"rate_limit"`
	Breaker   breakerView         `json:"breaker"`
	Lanes     map[string]laneView `json:"lanes"`
}

type rateLimitView struct {
	Limit  int    `json:"limit"` // 0 is no limit
	Period string `json:"period"`
}

// breakerView sums up the breakers of all living workers.
type breakerView struct {
	// State is open when any worker's is, then half-open, then closed; unknown
	// when no worker lives.
	State     string                            `json:"state"`
	OpenUntil time.Time                         `json:"open_until,omitzero"`
	Workers   map[string]worker.BreakerPresence `json:"workers"`
}

type laneView struct {
	Concurrency int `json:"concurrency"` // of each worker
	backlog.Lane
}

func (a *app) providersCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "providers",
		Short: "Show each provider's limits, breaker, lanes, backlog and oldest waiting",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, rdb, cfg, err := a.reader()
			if err != nil {
				return err
			}
			defer rdb.Close()
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
}

func viewProviders(ctx context.Context, cfg config.Config, rdb redis.UniversalClient) ([]providerView, error) {
	workers, err := worker.Workers(ctx, rdb)
	if err != nil {
		return nil, err
	}
	_, off := workerProviders(cfg, zerolog.Nop())
	var views []providerView
	for _, def := range all.All() {
		pc := cfg.Providers[def.Name]
		v := providerView{
			Name: def.Name, On: true, BaseURL: pc.URL(def), Timeout: pc.Timeout.String(),
			RateLimit: rateLimitView{pc.RateLimit.Limit, pc.RateLimit.Period.String()},
			Breaker:   sumBreakers(workers, def.Name), Lanes: map[string]laneView{},
		}
		for _, o := range off {
			if o.name == def.Name {
				v.On, v.Off = false, o.why
			}
		}
		slots := map[tasks.Lane]int{tasks.Interactive: pc.Concurrency.Interactive, tasks.Bulk: pc.Concurrency.Bulk}
		for _, lane := range tasks.Lanes() {
			waiting, err := backlog.Read(ctx, rdb, def.Name, lane, pc.Queues, time.Now())
			if err != nil {
				return nil, err
			}
			v.Lanes[string(lane)] = laneView{slots[lane], waiting}
		}
		views = append(views, v)
	}
	return views, nil
}

func sumBreakers(workers []worker.Presence, provider string) breakerView {
	out := breakerView{State: "unknown", Workers: map[string]worker.BreakerPresence{}}
	rank := map[string]int{"unknown": 0, worker.BreakerClosed: 1, worker.BreakerHalfOpen: 2, worker.BreakerOpen: 3}
	for _, w := range workers {
		b, ok := w.Breakers[provider]
		if !ok {
			continue
		}
		out.Workers[w.ID] = b
		if rank[b.State] > rank[out.State] {
			out.State = b.State
		}
		if b.OpenUntil.After(out.OpenUntil) {
			out.OpenUntil = b.OpenUntil
		}
	}
	return out
}

func (a *app) printProviders(views []providerView) {
	t := a.table("provider", "breaker", "limit", "lane", "slots", "queues", "pending", "active", "deferred", "scheduled", "oldest")
	for _, v := range views {
		name, limit := v.Name, "none"
		if v.RateLimit.Limit > 0 {
			limit = fmt.Sprintf("%d/%s", v.RateLimit.Limit, v.RateLimit.Period)
		}
		breaker := a.paint(breakerColour(v.Breaker.State), v.Breaker.State)
		if !v.On {
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
			t.AppendRow(table.Row{name, breaker, limit, lane, l.Concurrency, l.Queues, l.Pending, l.Active, l.Deferred, l.Scheduled, oldest})
			name, breaker, limit = "", "", "" // once a provider
		}
	}
	a.printTable(t)
	for _, v := range views {
		if !v.On {
			fmt.Fprintf(a.out, "%s is off: %s\n", v.Name, v.Off)
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
