package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/otpq/otpq/status"
)

// printJSON writes v as JSON: indented for a person, a line for a program.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	if isTerminal(a.out) {
		enc.SetIndent("", "  ")
	}
	return enc.Encode(v)
}

// table starts a table that looks the same everywhere.
func (a *app) table(header ...any) table.Writer {
	t := table.NewWriter()
	t.SetStyle(table.StyleLight)
	t.Style().Options = table.OptionsNoBordersAndSeparators
	t.Style().Format.Header = text.FormatDefault
	t.Style().Box.PaddingLeft = ""
	t.Style().Box.PaddingRight = "  "
	if a.colours(a.out) {
		t.Style().Color.Header = text.Colors{text.Bold}
	}
	if len(header) > 0 {
		t.AppendHeader(table.Row(header))
	}
	return t
}

func (a *app) printTable(t table.Writer) { writeTable(a.out, t) }

func writeTable(w io.Writer, t table.Writer) {
	for line := range strings.Lines(t.Render() + "\n") {
		fmt.Fprintln(w, strings.TrimRight(line, " \n"))
	}
}

// stateColour is how a state looks on a terminal.
func stateColour(s status.State) text.Colors {
	switch s {
	case status.Accepted:
		return text.Colors{text.FgGreen}
	case status.Rejected, status.Exhausted, status.Unknown, status.Expired:
		return text.Colors{text.FgRed}
	case status.Deferred:
		return text.Colors{text.FgYellow}
	case status.Queued, status.Sending, status.Canceled:
	}
	return text.Colors{}
}

func (a *app) paint(c text.Colors, s string) string {
	if !a.colours(a.out) || len(c) == 0 {
		return s
	}
	text.EnableColors() // go-pretty asks the environment, not a.out
	return c.Sprint(s)
}

// describe says a record's state in one line.
func (a *app) describe(r status.Record) string {
	s := a.paint(stateColour(r.State), string(r.State))
	if r.Reason != "" {
		s += " (" + r.Reason + ")"
	}
	if !r.NextAttemptAt.IsZero() {
		s += ", next attempt at " + clock(r.NextAttemptAt)
	}
	if n := len(r.Attempts); n > 1 {
		s += fmt.Sprintf(", %d attempts", n)
	}
	if r.PossibleDuplicate {
		s += ", possible duplicate"
	}
	return s
}

// printRecord shows a record to a person.
func (a *app) printRecord(r status.Record) {
	t := a.table()
	row := func(name, value string) {
		if value != "" {
			t.AppendRow(table.Row{name, value})
		}
	}
	row("id", printable(r.ID))
	row("state", a.describe(r))
	row("provider", r.Provider+", "+string(r.Lane))
	row("recipient", r.Recipient)
	row("created", stamp(r.CreatedAt))
	row("updated", stamp(r.UpdatedAt))
	row("not after", stamp(r.NotAfter))
	row("reference", r.Reference)
	if r.CodeValidSeconds > 0 {
		row("code valid", (time.Duration(r.CodeValidSeconds * float64(time.Second))).Round(time.Millisecond).String())
	}
	row("campaign", r.Campaign)
	row("replay of", r.ReplayOf)
	row("replayed as", r.ReplayedAs)
	a.printTable(t)
	if len(r.Attempts) == 0 {
		return
	}
	fmt.Fprintln(a.out)
	attempts := a.table("attempt", "started", "took", "outcome", "reason", "HTTP")
	for _, at := range r.Attempts {
		httpStatus, took := "", ""
		if at.HTTPStatus != 0 {
			httpStatus = fmt.Sprint(at.HTTPStatus)
		}
		if at.Outcome != "" {
			took = fmt.Sprintf("%.1f ms", at.DurationMS)
		}
		attempts.AppendRow(table.Row{at.Number, stamp(at.StartedAt), took, at.Outcome, at.Reason, httpStatus})
	}
	a.printTable(attempts)
}

func clock(t time.Time) string { return t.Local().Format("15:04:05.000") }

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05.000")
}
