package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/otpq/otpq/enqueue/campaign"
)

const (
	// viewInterval is how often a followed campaign is read. Each reading brings the
	// counts up to date, which costs Redis more than a record does.
	viewInterval = 500 * time.Millisecond
	// linesInterval is how often a pipe gets a line about a campaign whose state stays.
	linesInterval = 10 * time.Second
	barWidth      = 30
)

// campaignView shows a campaign on its way: a bar that is drawn over itself on a
// terminal, a line at each change of state and now and then elsewhere, and JSON, a
// line for each change, with --json.
type campaignView struct {
	a    *app
	w    io.Writer
	json bool

	last  campaign.Campaign
	note  string
	at    time.Time
	drawn redrawn
}

// show shows the campaign as it is now, with a note of who shows it.
func (v *campaignView) show(c campaign.Campaign, note string) error {
	turned := v.at.IsZero() || c.State != v.last.State || c.Reason != v.last.Reason || isDone(c) != isDone(v.last) || note != v.note
	moved := turned || c.Counts != v.last.Counts
	late := time.Since(v.at) >= linesInterval
	draw := isTerminal(v.w) && !v.json
	switch {
	case v.json && !moved, !v.json && !draw && !turned && !(late && moved):
		return nil
	}
	v.last, v.note, v.at = c, note, time.Now()
	switch {
	case v.json:
		return v.a.printJSON(c)
	case draw:
		return v.draw(c, note)
	}
	_, err := fmt.Fprintln(v.w, v.line(c, note))
	return err
}

// line says in one line where a campaign is.
func (v *campaignView) line(c campaign.Campaign, note string) string {
	p := progressOf(c.Counts)
	parts := []string{clock(time.Now()), "", printable(c.ID), string(c.State)}
	if why := whyNot(c); why != "" {
		parts = append(parts, "("+why+")")
	}
	s := strings.Join(parts, " ") + fmt.Sprintf(", %d of %d", p.ended, p.total)
	if pace := p.pace(c); pace != "" {
		s += ", " + pace
	}
	s += fmt.Sprintf(": accepted %d, failed %d, expired %d, in the queue %d, waiting %d",
		c.Counts.Accepted, p.failed-c.Counts.Expired, c.Counts.Expired, p.inQueue, c.Counts.Waiting)
	if c.Counts.Invalid > 0 { // else it ends with failures that nobody sees
		s += fmt.Sprintf(", invalid %d", c.Counts.Invalid)
	}
	if note != "" {
		s += "; " + note
	}
	return s
}

// draw draws the bar and what is below it over what was drawn before.
func (v *campaignView) draw(c campaign.Campaign, note string) error {
	p := progressOf(c.Counts)
	full := int(p.share()*barWidth + 0.5)
	title := text.Colors{}
	if v.a.colours(v.w) {
		text.EnableColors() // go-pretty asks the environment, not the writer
		title = campaignColour(c.State)
	}
	paint := func(s string) string {
		if len(title) == 0 {
			return s
		}
		return title.Sprint(s)
	}
	head := fmt.Sprintf("%s  %s%s  %5.1f %%  %s of %s", printable(c.ID), paint(strings.Repeat("█", full)),
		strings.Repeat("░", barWidth-full), 100*p.share(), grouped(p.ended), grouped(p.total))
	if pace := p.pace(c); pace != "" {
		head += "  " + pace
	}
	counts := fmt.Sprintf("accepted %s  failed %s  expired %s  in the queue %s  waiting %s", grouped(c.Counts.Accepted),
		grouped(p.failed-c.Counts.Expired), grouped(c.Counts.Expired), grouped(p.inQueue), grouped(c.Counts.Waiting))
	if c.Counts.Invalid > 0 {
		counts += "  invalid " + grouped(c.Counts.Invalid)
	}
	lines := []string{head, counts}
	state := paint(strings.ReplaceAll(string(c.State), "_", " "))
	if why := whyNot(c); why != "" {
		if c.State == campaign.Running {
			state += ", waits"
		}
		state += ": " + why
	}
	lines = append(lines, state)
	if note != "" {
		lines = append(lines, note)
	}
	return v.drawn.draw(v.w, lines)
}

// watchCampaign shows a campaign until it is over.
func (a *app) watchCampaign(ctx context.Context, c *openControl, id string) error {
	view := &campaignView{a: a, w: a.out, json: a.json}
	tick := time.NewTicker(viewInterval)
	defer tick.Stop()
	for first := true; ; first = false {
		one, err := c.Status(ctx, id)
		switch {
		case ctx.Err() != nil:
			return errors.New("interrupted before the campaign was over: it goes on without this")
		case err != nil && (first || errors.Is(err, campaign.ErrNotFound)):
			return campaignError(id, err)
		case err != nil: // Redis is away for a moment
		default:
			if err := view.show(one, watchNote(one)); err != nil {
				return err
			}
			if isDone(one) {
				return nil
			}
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

// watchNote tells who looks on what nobody does.
func watchNote(c campaign.Campaign) string {
	switch {
	case c.State == campaign.Created:
		return fmt.Sprintf("not started: `otpq campaign start %s`", c.ID)
	case c.State == campaign.Running && c.Feeder == "":
		return "fed by " + describeFeeder(c)
	}
	return ""
}
