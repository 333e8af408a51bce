package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/status"
)

// progress is how far a campaign is.
type progress struct {
	total, ended, failed, inQueue int64
}

func progressOf(c campaign.Counts) progress {
	failed := c.Rejected + c.Exhausted + c.Unknown + c.Expired
	return progress{
		total: c.Rows - c.Invalid - c.Duplicate, ended: c.Accepted + failed + c.Canceled,
		failed: failed, inQueue: c.Queued + c.Sending + c.Deferred,
	}
}

// share is how much of the total came to its end, from 0 to 1.
func (p progress) share() float64 {
	if p.total <= 0 {
		return 0
	}
	return min(float64(p.ended)/float64(p.total), 1)
}

// pace says how fast a campaign goes, and how long it will take at that.
func (p progress) pace(c campaign.Campaign) string {
	if c.RatePerSecond <= 0 || c.State != campaign.Running {
		return ""
	}
	s := strconv.FormatFloat(c.RatePerSecond, 'f', 1, 64)
	if c.RatePerSecond >= 10 {
		s = grouped(int64(c.RatePerSecond + 0.5))
	}
	s += "/s"
	if left := p.total - p.ended; left > 0 {
		eta := float64(left) / c.RatePerSecond
		if eta > float64(100*24*time.Hour/time.Second) {
			return s + ", more than 100 days left"
		}
		s += ", " + roughly(time.Duration(eta*float64(time.Second))) + " left"
	}
	return s
}

// roughly is a duration as people say it: nobody reads the seconds of an hour.
func roughly(d time.Duration) string {
	switch {
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return d.Round(10 * time.Second).String()
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

// counted is a number of something whose plural ends in s.
func counted(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatInt(n, 10) + " " + noun + "s"
}

// grouped writes a number with its thousands apart.
func grouped(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func campaignColour(s campaign.State) text.Colors {
	switch s {
	case campaign.Completed:
		return text.Colors{text.FgGreen}
	case campaign.CompletedWithFailures, campaign.Canceled:
		return text.Colors{text.FgRed}
	case campaign.Paused:
		return text.Colors{text.FgYellow}
	case campaign.Creating, campaign.Created, campaign.Running:
	}
	return text.Colors{}
}

// whyNot says why a campaign does not feed, or "".
func whyNot(c campaign.Campaign) string {
	var why string
	switch c.Reason {
	case "":
		return ""
	case campaign.ReasonOperator:
		return fmt.Sprintf("by an operator; `otpq campaign resume %s` goes on", c.ID)
	case campaign.ReasonQuietHours:
		why = "quiet hours"
	case campaign.ReasonBreakerOpen:
		// Until is when its feeder looks again: nobody knows when the breaker closes.
		return "the provider is down: its breaker is open; goes on by itself when it closes"
	case campaign.ReasonFailures:
		why = "too many fail"
	default:
		why = c.Reason
	}
	if !c.Until.IsZero() {
		why += "; goes on by itself " + soon(c.Until)
	}
	return why
}

// soon is a time of today without its day.
func soon(t time.Time) string {
	t = t.Local()
	if t.Format(time.DateOnly) == time.Now().Format(time.DateOnly) {
		return "at " + t.Format(time.TimeOnly)
	}
	return "on " + t.Format("2006-01-02 at 15:04:05")
}

// describeCampaign is a campaign's state, with its reason.
func (a *app) describeCampaign(c campaign.Campaign) string {
	s := a.paint(campaignColour(c.State), string(c.State))
	if why := whyNot(c); why != "" {
		if c.State == campaign.Running {
			s += ", waits"
		}
		s += ": " + why
	}
	return s
}

// printCampaign shows a campaign to a person.
func (a *app) printCampaign(c campaign.Campaign) {
	t, p := a.table(), progressOf(c.Counts)
	row := func(name, value string) {
		if value != "" {
			t.AppendRow(table.Row{name, value})
		}
	}
	count := func(name string, n int64, of ...string) {
		value := grouped(n)
		if len(of) > 0 && n > 0 {
			value += ": " + strings.Join(of, ", ")
		}
		row(name, value)
	}
	row("campaign", printable(c.ID))
	row("state", a.describeCampaign(c))
	row("provider", c.Provider)
	row("source", printable(c.Source))
	count("rows", c.Counts.Rows, grouped(c.Counts.Invalid)+" invalid", grouped(c.Counts.Duplicate)+" duplicate")
	count("waiting", c.Counts.Waiting)
	count("in the queue", p.inQueue, grouped(c.Counts.Queued)+" queued", grouped(c.Counts.Sending)+" sending", grouped(c.Counts.Deferred)+" deferred")
	count("accepted", c.Counts.Accepted)
	count("failed", p.failed, grouped(c.Counts.Rejected)+" rejected", grouped(c.Counts.Exhausted)+" exhausted",
		grouped(c.Counts.Unknown)+" unknown", grouped(c.Counts.Expired)+" expired")
	count("canceled", c.Counts.Canceled)
	if c.State != campaign.Creating {
		row("done", strings.TrimSuffix(fmt.Sprintf("%.1f %%, %s", 100*p.share(), p.pace(c)), ", "))
	}
	row("settings", describeSettings(c.Settings))
	row("fed by", describeFeeder(c))
	row("created", stamp(c.CreatedAt))
	row("started", stamp(c.StartedAt))
	row("over", stamp(c.CompletedAt))
	row("retry of", c.RetryOf)
	row("retried as", c.RetriedAs)
	a.printTable(t)
}

func describeSettings(s campaign.Settings) string {
	var parts []string
	if s.Rate > 0 {
		parts = append(parts, fmt.Sprintf("at most %g rows a second", s.Rate))
	}
	if s.Window > 0 {
		parts = append(parts, fmt.Sprintf("at most %d in the queue", s.Window))
	}
	if s.ValidFor > 0 {
		parts = append(parts, "each valid for "+time.Duration(s.ValidFor).String())
	}
	if q := s.QuietHours; q.From != q.To {
		parts = append(parts, fmt.Sprintf("quiet from %s to %s, %s", q.From, q.To, q.Zone))
	}
	if s.PauseAbove > 0 {
		parts = append(parts, fmt.Sprintf("pauses when more than %g %% fail", 100*s.PauseAbove))
	}
	return strings.Join(parts, "; ")
}

// describeFeeder says who feeds a campaign, or will; "" where nobody is to.
func describeFeeder(c campaign.Campaign) string {
	switch {
	case c.State != campaign.Running && c.State != campaign.Paused:
		return ""
	case c.Feeder != "":
		return printable(c.Feeder)
	case c.State == campaign.Paused && c.Reason == campaign.ReasonOperator:
		return ""
	case c.Detached:
		return "nobody yet: it waits for a worker"
	}
	return fmt.Sprintf("nobody: a worker takes over in some seconds, or `otpq campaign start %s` feeds it from here", c.ID)
}

func (a *app) campaignListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List campaigns, the newest first",
		Args:  noArgs,
		RunE: a.onCampaign(func(ctx context.Context, c *openControl, _ string) error {
			ctx, cancel := withTimeout(ctx)
			defer cancel()
			list, err := c.List(ctx)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(append([]campaign.Campaign{}, list...)) // [] when there is none, not null
			}
			if len(list) == 0 {
				fmt.Fprintln(a.err, "no campaign; `otpq campaign create --help` tells how one is made")
				return nil
			}
			t := a.table("campaign", "state", "provider", "rows", "done", "accepted", "failed", "waiting", "created")
			for _, one := range list {
				p := progressOf(one.Counts)
				t.AppendRow(table.Row{
					printable(one.ID), a.paint(campaignColour(one.State), string(one.State)), one.Provider, grouped(one.Counts.Rows),
					fmt.Sprintf("%.1f %%", 100*p.share()), grouped(one.Counts.Accepted), a.failedCount(p.failed), grouped(one.Counts.Waiting),
					stamp(one.CreatedAt),
				})
			}
			a.printTable(t)
			return nil
		}),
	}
}

func (a *app) failedCount(n int64) string {
	if n == 0 {
		return "0"
	}
	return a.paint(stateColour(status.Rejected), grouped(n))
}

func (a *app) campaignStatusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status ID",
		Short: "Show how far a campaign is",
		Args:  exactArgs("ID"),
		RunE: a.onCampaign(func(ctx context.Context, c *openControl, id string) error {
			if watch {
				return a.watchCampaign(ctx, c, id)
			}
			ctx, cancel := withTimeout(ctx)
			defer cancel()
			one, err := c.Status(ctx, id)
			if err != nil {
				return campaignError(id, err)
			}
			if a.json {
				return a.printJSON(one)
			}
			a.printCampaign(one)
			return nil
		}),
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "follow the campaign to its end")
	return cmd
}
