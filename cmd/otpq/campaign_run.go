package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/otpq/otpq/enqueue/campaign"
)

func (a *app) campaignStartCommand() *cobra.Command {
	var detach bool
	cmd := &cobra.Command{
		Use:   "start ID",
		Short: "Feed a campaign, from where it is, and show how it goes on",
		Long: "Feed a campaign from here, from where it is, and show how it goes on until it is\n" +
			"over. Ctrl-C pauses it. With --detach a worker feeds it and this returns at once; a\n" +
			"worker goes on with it then whoever else feeds it, and Ctrl-C leaves it alone.\n" +
			"When another process feeds it already, this only shows how it goes on.",
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if detach {
				return a.onCampaign(a.startDetached)(cmd, args)
			}
			c, err := a.campaigns()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.startCampaign(cmd.Context(), c, args[0])
		},
	}
	addDetach(cmd, &detach)
	return cmd
}

func addDetach(cmd *cobra.Command, detach *bool) {
	cmd.Flags().BoolVar(detach, "detach", false, "have a worker feed it, and return at once")
}

// startCampaign starts a campaign, and feeds and shows it until it is over.
func (a *app) startCampaign(ctx context.Context, c *openCampaigns, id string) error {
	short, cancel := withTimeout(ctx)
	defer cancel()
	now, err := c.Status(short, id)
	if err != nil {
		return campaignError(id, err)
	}
	if now.State != campaign.Running || now.Feeder == "" { // else it is fed elsewhere
		if err := c.Start(short, id, false); err != nil {
			return campaignError(id, err)
		}
	}
	a.noteNoWorker(short, c.rdb, now.Provider)
	r := campaignRun{a: a, c: c, id: id, view: campaignView{a: a, w: a.err}}
	return r.run(ctx)
}

// startDetached starts a campaign that workers feed.
func (a *app) startDetached(ctx context.Context, c *openControl, id string) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err := c.Start(ctx, id, true); err != nil {
		return campaignError(id, err)
	}
	now, err := c.Status(ctx, id)
	if err != nil {
		return campaignError(id, err)
	}
	a.noteNoWorker(ctx, c.rdb, now.Provider)
	if a.json {
		return a.printJSON(now)
	}
	by := "a worker"
	if now.Feeder != "" {
		by = describeFeeder(now)
	}
	if _, err := fmt.Fprintf(a.out, "%s %s: %s feeds it\n", now.ID, now.State, by); err != nil {
		return err
	}
	fmt.Fprintf(a.err, "`otpq campaign status %s --watch` shows how it goes on\n", now.ID)
	return nil
}

// campaignRun feeds a campaign from here and shows it.
type campaignRun struct {
	a    *app
	c    *openCampaigns
	id   string
	view campaignView
	fed  chan error // where Feed's end is told; nil while this process does not feed
}

// feed starts to feed.
func (r *campaignRun) feed(ctx context.Context) {
	fed := make(chan error, 1)
	r.fed = fed
	go func() { fed <- r.c.Feed(ctx, r.id, feederName("terminal")) }()
}

// run feeds unless another process does, shows how the campaign goes on, and returns
// when it is over. While somebody has paused it, it waits here for being resumed.
func (r *campaignRun) run(ctx context.Context) error {
	feeding, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer func() { // after it was paused, so that no other process takes it over
		stop()
		if r.fed == nil {
			return
		}
		if err := <-r.fed; err != nil && !errors.Is(err, context.Canceled) {
			fmt.Fprintf(r.a.err, "feeding ended: %v\n", campaignError(r.id, err))
		}
	}()
	tick := time.NewTicker(viewInterval)
	defer tick.Stop()
	away := false
	for {
		now, err := r.c.Status(ctx, r.id)
		switch {
		case ctx.Err() != nil:
			return r.interrupted(ctx)
		case errors.Is(err, campaign.ErrNotFound):
			return campaignError(r.id, err)
		case err != nil && !away:
			fmt.Fprintf(r.a.err, "redis does not do its part, and is waited for: %v\n", campaignError(r.id, err))
		case err == nil:
			if r.fed == nil && now.Feeder == "" && !now.State.Over() {
				r.feed(feeding)
			}
			if err := r.view.show(now, r.note(now)); err != nil {
				return err
			}
			// What feeds a canceled one takes back what is in the queue, and only then its
			// counts are the last.
			if isDone(now) && r.fed == nil {
				return r.over(now)
			}
		}
		away = err != nil
		select {
		case <-ctx.Done():
		case <-tick.C:
		case err := <-r.fed:
			r.fed = nil
			if err != nil && !errors.Is(err, campaign.ErrFed) {
				return fmt.Errorf("feeding ended: %w; `otpq campaign start %s` goes on from where it was", campaignError(r.id, err), r.id)
			}
		}
	}
}

// note says who feeds when it is not this process.
func (r *campaignRun) note(c campaign.Campaign) string {
	if r.fed != nil || c.State.Over() || describeFeeder(c) == "" {
		return ""
	}
	return fmt.Sprintf("fed by %s: this only shows it, and Ctrl-C leaves it alone", describeFeeder(c))
}

// interrupted pauses what this process feeds: nobody would feed it otherwise, and
// who presses Ctrl-C wants it to stop. What others feed it leaves alone.
func (r *campaignRun) interrupted(ctx context.Context) error {
	ctx, cancel := withTimeout(context.WithoutCancel(ctx))
	defer cancel()
	now, err := r.c.Status(ctx, r.id)
	switch {
	case err != nil:
	case now.State == campaign.Paused && now.Reason == campaign.ReasonOperator:
		return fmt.Errorf("interrupted: the campaign stays paused; `otpq campaign start %s` goes on from where it is", r.id)
	case isDone(now):
		return r.over(now)
	case now.State.Over():
		return fmt.Errorf("interrupted: the campaign is canceled, and what was in the queue is being taken back; `otpq campaign status %s` tells", r.id)
	case now.Detached, r.fed == nil && now.Feeder != "": // others feed it, or will
		r.a.noteNoWorker(ctx, r.c.rdb, now.Provider)
		return fmt.Errorf("interrupted: the campaign goes on without this; `otpq campaign pause %s` holds it", r.id)
	default:
		err = r.c.Pause(ctx, r.id)
	}
	if err != nil {
		return fmt.Errorf("interrupted: nothing is fed from here any more, but the campaign could not be paused: %w; `otpq campaign start %s` goes on", err, r.id)
	}
	return fmt.Errorf("interrupted: the campaign is paused, and what is in the queue still ends; "+
		"`otpq campaign start %s` goes on from where it is, with --detach in a worker", r.id)
}

// isDone reports whether nothing of a campaign will change any more, late replies apart.
func isDone(c campaign.Campaign) bool {
	return c.State.Over() && c.Counts.Waiting == 0 && progressOf(c.Counts).inQueue == 0
}

// over prints how a campaign ended, and says what can be done about it.
func (r *campaignRun) over(c campaign.Campaign) error {
	a, p := r.a, progressOf(c.Counts)
	if a.json {
		if err := a.printJSON(c); err != nil {
			return err
		}
	} else {
		_, err := fmt.Fprintf(a.out, "%s %s: %d accepted, %d failed, %d canceled, %d invalid, %d duplicate\n", printable(c.ID),
			strings.ReplaceAll(string(c.State), "_", " "), c.Counts.Accepted, p.failed, c.Counts.Canceled, c.Counts.Invalid, c.Counts.Duplicate)
		if err != nil {
			return err
		}
	}
	if p.failed > 0 {
		fmt.Fprintf(a.err, "%d failed: `otpq campaign report %s --state failed` tells which\n", p.failed, c.ID)
	}
	if c.Counts.Invalid > 0 {
		fmt.Fprintf(a.err, "%d invalid, and not sent: `otpq campaign report %s --state invalid` tells why\n", c.Counts.Invalid, c.ID)
	}
	if c.State == campaign.CompletedWithFailures && c.Counts.Exhausted+c.Counts.Expired > 0 {
		fmt.Fprintf(a.err, "`otpq campaign retry-failed %s` tries the exhausted and expired ones again\n", c.ID)
	}
	if c.State == campaign.Canceled {
		return errSilent
	}
	return nil
}

func pauseCampaign(ctx context.Context, c *openControl, id string) error  { return c.Pause(ctx, id) }
func resumeCampaign(ctx context.Context, c *openControl, id string) error { return c.Resume(ctx, id) }

// campaignActCommand is a command that does one thing to a campaign.
func (a *app) campaignActCommand(use, short string, act func(context.Context, *openControl, string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Args:  exactArgs("ID"),
		RunE: a.onCampaign(func(ctx context.Context, c *openControl, id string) error {
			return a.actOnCampaign(ctx, c, id, act)
		}),
	}
}

func (a *app) actOnCampaign(ctx context.Context, c *openControl, id string, act func(context.Context, *openControl, string) error) error {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err := act(ctx, c, id); err != nil {
		return campaignError(id, err)
	}
	now, err := c.Status(ctx, id)
	if err != nil {
		return campaignError(id, err)
	}
	if a.json {
		return a.printJSON(now)
	}
	p := progressOf(now.Counts)
	_, err = fmt.Fprintf(a.out, "%s %s: %d of %d done, %d in the queue, %d waiting\n", now.ID, now.State, p.ended, p.total, p.inQueue, now.Counts.Waiting)
	if err == nil && now.State == campaign.Running && now.Feeder == "" {
		if now.Detached {
			a.noteNoWorker(ctx, c.rdb, now.Provider)
		} else {
			fmt.Fprintf(a.err, "the `otpq campaign start` that is still open feeds it; if there is none, `otpq campaign start %s` does, with --detach in a worker\n", now.ID)
		}
	}
	return err
}

func (a *app) campaignCancelCommand() *cobra.Command {
	var yes bool
	cmd := a.campaignActCommand("cancel ID", "Stop a campaign for good, and take back what is in the queue",
		func(ctx context.Context, c *openControl, id string) error {
			return c.Cancel(ctx, id)
		})
	cancel := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if !yes && isTerminal(a.in) {
			if err := a.onCampaign(a.confirmCancel)(cmd, args); err != nil {
				return err
			}
		}
		return cancel(cmd, args)
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask on a terminal")
	return cmd
}

// confirmCancel asks, and fails unless the answer is yes.
func (a *app) confirmCancel(ctx context.Context, c *openControl, id string) error {
	short, cancel := withTimeout(ctx)
	defer cancel()
	now, err := c.Status(short, id)
	if err != nil {
		return campaignError(id, err)
	}
	if now.State.Over() { // there is nothing to ask about
		return nil
	}
	fmt.Fprintf(a.err, "Cancel campaign %s for good? Of its rows %s would not be sent any more. [y/N] ",
		now.ID, grouped(now.Counts.Waiting+progressOf(now.Counts).inQueue))
	yes, err := a.answer(ctx)
	if err != nil {
		return err
	}
	if !yes {
		return errors.New("nothing was canceled")
	}
	return nil
}

// answer reads a line from the terminal, and tells whether it says yes.
func (a *app) answer(ctx context.Context) (bool, error) {
	typed := make(chan string, 1)
	go func() {
		line, err := bufio.NewReader(a.in).ReadString('\n')
		if err != nil {
			line = ""
		}
		typed <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(a.err)
		return false, errors.New("interrupted: nothing was canceled")
	case line := <-typed:
		return line == "y" || line == "yes", nil
	}
}
