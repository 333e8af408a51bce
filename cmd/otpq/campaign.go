package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/overview"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/worker"
)

func (a *app) campaignCommand() *cobra.Command {
	const verbs = "create, start, pause, resume, cancel, status, list, report or retry-failed"
	cmd := &cobra.Command{
		Use:   "campaign",
		Short: "Send to many again, without hurting those who log in right now",
		Long: "A campaign sends one request for a code to each row of a file, or to everybody whom\n" +
			"an outage hit: in the bulk lane, a few at a time, each recipient once. Create it,\n" +
			"then start it; pause, resume, cancel and look at it from any machine.",
		Example: `  otpq campaign create november people.csv --provider unimedbh --map username=email --map type==EMAIL --check
  otpq campaign create november people.csv --provider unimedbh --map username=email --map type==EMAIL
  otpq campaign start november
  otpq campaign report november --state rejected,exhausted --output november.csv`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error { return usagef("say which: %s", verbs) },
	}
	cmd.AddCommand(
		a.campaignCreateCommand(), a.campaignStartCommand(),
		a.campaignActCommand("pause ID", "Stop feeding; what is in the queue still ends", pauseCampaign),
		a.campaignActCommand("resume ID", "Go on with a paused campaign, fed as before", resumeCampaign),
		a.campaignCancelCommand(), a.campaignStatusCommand(), a.campaignListCommand(),
		a.campaignReportCommand(), a.campaignRetryCommand(),
	)
	return cmd
}

// openControl is what controls campaigns, and its connection. It needs no sealing key.
type openControl struct {
	*campaign.Control
	rdb redis.UniversalClient
}

// onCampaign is a command that does something to a campaign, or to all of them, with no
// sealing key. id is the command's first argument, if it has one.
func (a *app) onCampaign(do func(ctx context.Context, c *openControl, id string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		_, rdb, cfg, err := a.reader()
		if err != nil {
			return err
		}
		defer rdb.Close()
		return do(cmd.Context(), &openControl{campaign.NewControl(campaignConfig(cfg, rdb)), rdb}, strings.Join(args, ""))
	}
}

// openCampaigns are the campaigns, and what they were opened with.
type openCampaigns struct {
	*campaign.Campaigns
	rdb redis.UniversalClient
	cfg config.Config
}

// Close ends them and their connection.
func (c *openCampaigns) Close() { _ = errors.Join(c.Campaigns.Close(), c.rdb.Close()) }

func (c *openCampaigns) control() *openControl { return &openControl{c.Control, c.rdb} }

func (a *app) campaigns() (*openCampaigns, error) {
	_, rdb, cfg, err := a.reader()
	if err != nil {
		return nil, err
	}
	c, err := campaignsOn(cfg, rdb)
	if err != nil {
		return nil, errors.Join(err, rdb.Close())
	}
	return &openCampaigns{c, rdb, cfg}, nil
}

// campaignsOn are the campaigns in a Redis that is open.
func campaignsOn(cfg config.Config, rdb redis.UniversalClient) (*campaign.Campaigns, error) {
	return campaign.Open(campaignConfig(cfg, rdb))
}

func campaignConfig(cfg config.Config, rdb redis.UniversalClient) campaign.Config {
	return campaign.Config{
		Redis: rdb, Keys: keys(cfg), Definitions: all.All(), Queues: queues(cfg), Retention: cfg.Campaigns.Retention,
		Status: status.Retention{Records: cfg.Status.Retention, DeadLetters: cfg.Status.DeadRetention},
	}
}

// feedDetached feeds the campaigns that no other process does, beside a worker, until
// ctx ends. What it returns waits for that.
func feedDetached(ctx context.Context, cfg config.Config, rdb redis.UniversalClient, log zerolog.Logger) (wait func(), err error) {
	c, err := campaignsOn(cfg, rdb)
	if err != nil {
		return nil, err
	}
	fed := make(chan struct{})
	go func() {
		defer close(fed)
		c.FeedDetached(ctx, feederName("worker"), func(id string, err error) {
			log.Error().Err(err).Str("campaign", id).Msg("feeding failed; it is tried again")
		})
	}()
	return func() {
		<-fed
		if err := c.Close(); err != nil {
			log.Warn().Err(err).Msg("campaigns did not close")
		}
	}, nil
}

// feederName tells people which process feeds. kind is worker or terminal.
func feederName(kind string) string {
	host, err := os.Hostname()
	if err != nil {
		host = "somewhere"
	}
	return fmt.Sprintf("%s %s:%d", kind, host, os.Getpid())
}

// settingFlags are the flags of those settings that are called otherwise.
var settingFlags = map[string]string{
	"id": "the campaign's ID", "validity": "--valid-for", "share of failures that pauses": "--pause-above",
}

// campaignError says in the command's words what went wrong, and what to do.
func campaignError(id string, err error) error {
	var setting *campaign.SettingError
	var state *campaign.StateError
	var row *campaign.InvalidRowError
	switch {
	case errors.As(err, &setting):
		flag, ok := settingFlags[setting.Setting]
		if !ok {
			flag = "--" + strings.ReplaceAll(setting.Setting, " ", "-")
		}
		return usagef("%s %s", flag, setting.Problem)
	case errors.Is(err, campaign.ErrNotFound):
		return fmt.Errorf("%s: %w; `otpq campaign list` shows what there is", printable(id), err)
	case errors.Is(err, campaign.ErrExists):
		return fmt.Errorf("%s: %w; `otpq campaign status %[1]s` shows the one there is", printable(id), err)
	case errors.Is(err, campaign.ErrNoFailures):
		return fmt.Errorf("%w; --state says which to try again", err)
	case errors.As(err, &row):
		var problems []string
		for _, p := range row.Problems {
			problems = append(problems, p.Field+" "+p.Problem)
		}
		wrong := fmt.Sprintf("line %d is wrong: %s", row.Line, strings.Join(problems, "; "))
		switch {
		case row.All > 1:
			wrong = fmt.Sprintf("all %s rows are wrong; %s", grouped(row.All), wrong)
			fallthrough
		case row.All > 0:
			return fmt.Errorf("nothing was created, because nobody would be sent to: %s; --bad-rows FILE writes down what is wrong with each", wrong)
		}
		return fmt.Errorf("nothing was created: %s; --check lists all that are", wrong)
	case errors.As(err, &state):
		return fmt.Errorf("%w; %s", err, insteadOf(state))
	case redis.HasErrorPrefix(err, "OOM"):
		return fmt.Errorf("redis is full: raise its maxmemory, and do this again; what it has is not lost: %w", err)
	}
	return err
}

// insteadOf says what can be done to a campaign in its state.
func insteadOf(e *campaign.StateError) string {
	switch {
	case e.From == campaign.Creating:
		return "its rows are still being read; if that was broken off, run the same `create` again"
	case e.From == campaign.Completed:
		return fmt.Sprintf("`otpq campaign report %s` tells what became of each row", e.ID)
	case e.From == campaign.Canceled:
		return fmt.Sprintf("`otpq campaign report %s` tells what became of each row, and `otpq campaign retry-failed %[1]s --state canceled` sends to the rest", e.ID)
	case e.From.Over():
		return fmt.Sprintf("`otpq campaign report %s` tells what became of each row, and `otpq campaign retry-failed %[1]s` tries those again that are exhausted or expired, if any are", e.ID)
	case e.From == campaign.Paused:
		return fmt.Sprintf("`otpq campaign start %s` goes on with it", e.ID)
	case e.From == campaign.Created:
		return fmt.Sprintf("`otpq campaign start %s` starts it", e.ID)
	}
	return fmt.Sprintf("`otpq campaign pause %s` holds it", e.ID)
}

// noteNoWorker tells a person that nobody works on a provider's messages.
func (a *app) noteNoWorker(ctx context.Context, rdb redis.UniversalClient, provider string) {
	workers, err := worker.Workers(ctx, rdb)
	switch {
	case err != nil: // the campaign goes on: that is what counts
	case len(workers) == 0:
		fmt.Fprintln(a.err, "no worker is running: nothing is sent before one is")
	case overview.SumBreakers(workers, provider).State == "unknown":
		fmt.Fprintf(a.err, "no running worker has %s on: nothing is sent before one has; see `otpq providers`\n", provider)
	}
}

// readStates reads a flag that lists states, separated by commas: some of allowed, or
// "failed" for all of those.
func readStates(text string, allowed ...string) ([]string, error) {
	if text == "" {
		return nil, nil
	}
	var out []string
	for s := range strings.SplitSeq(text, ",") {
		switch s = strings.TrimSpace(s); {
		case s == "failed":
			out = append(out, failedStates()...)
		case slices.Contains(allowed, s):
			out = append(out, s)
		default:
			return nil, usagef("--state takes any of %s and failed, separated by commas, not %q", strings.Join(allowed, ", "), s)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// failedStates are those of a message that ended and was not accepted.
func failedStates() []string {
	return []string{string(status.Rejected), string(status.Exhausted), string(status.Unknown), string(status.Expired)}
}
