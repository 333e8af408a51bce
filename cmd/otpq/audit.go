package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/internal/audit"
	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// auditChoice is how `otpq audit` looks.
type auditChoice struct {
	grace, slack       time.Duration
	rate               int
	toldFile, seenFile string
}

func (a *app) auditCommand() *cobra.Command {
	var choice auditChoice
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Look through all records and tasks for messages that are stuck, late or doubled",
		Long: "Looks at every record and every task in Redis, reads only, and says which message is\n" +
			"not as otpq promises, what that means and what to do. It may run beside apps and\n" +
			"workers. Exit code 1 means that something was found.\n\n" +
			"With --told and --seen it also compares what apps were told with what a provider saw:\n" +
			"two files with one JSON object a line.\n\n" +
			`  told  {"id":"…","tag":"…","not_after":"2026-11-23T12:05:00Z"} for each Send, and where they` + "\n" +
			`        apply "failed":true when it returned an error and "canceled_at" when a Cancel of it did not` + "\n" +
			`  seen  {"tag":"…","at":"2026-11-23T12:00:01Z","acted":true,"refused":false,"status":200} for each` + "\n" +
			"        request: acted when a code was sent, refused when the answer says that none was\n\n" +
			"A tag is your name for one message on both sides: a hash of its recipient, say.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := a.newAuditRun(choice)
			if err != nil {
				return err
			}
			defer r.rdb.Close()
			report := a.auditReport()
			totals, err := r.run(cmd.Context(), report.add)
			switch {
			case cmd.Context().Err() != nil:
				return errors.New("interrupted: not all was looked at")
			case err != nil:
				return err
			}
			if err := report.end(totals); err != nil {
				return err
			}
			if totals.Found() > 0 {
				return errSilent
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.DurationVar(&choice.grace, "grace", audit.DefaultGrace, "how late a message may come to its end, and how long an attempt may be under way")
	f.DurationVar(&choice.slack, "slack", audit.DefaultSlack, "how long a request may be on its way, and how far the provider's clock may be off")
	f.IntVar(&choice.rate, "rate", 0, "most records read in a second (default: no bound)")
	f.StringVar(&choice.toldFile, "told", "", "`FILE` of what apps were told")
	f.StringVar(&choice.seenFile, "seen", "", "`FILE` of what the provider saw")
	return cmd
}

// readLines reads a file, or nothing when it has no name.
func readLines[V any](name string, read func(io.Reader) ([]V, error)) ([]V, error) {
	if name == "" {
		return nil, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out, err := read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

// auditRun is one audit.
type auditRun struct {
	choice auditChoice
	rdb    redis.UniversalClient
	cfg    config.Config
	told   []audit.Told
	seen   []audit.Seen
}

func (a *app) newAuditRun(choice auditChoice) (r auditRun, err error) {
	switch {
	case choice.grace <= 0:
		return r, usagef("--grace must be more than 0, not %s", choice.grace)
	case choice.slack <= 0:
		return r, usagef("--slack must be more than 0, not %s", choice.slack)
	case choice.rate < 0:
		return r, usagef("--rate must not be negative")
	case (choice.toldFile == "") != (choice.seenFile == ""):
		return r, usagef("--told and --seen go together")
	}
	r.choice = choice
	if r.told, err = readLines(choice.toldFile, audit.ReadTold); err != nil {
		return r, err
	}
	if r.seen, err = readLines(choice.seenFile, audit.ReadSeen); err != nil {
		return r, err
	}
	_, r.rdb, r.cfg, err = a.reader()
	return r, err
}

// run looks at Redis, and compares when there is something to compare.
func (r auditRun) run(ctx context.Context, report func(audit.Finding) error) (audit.Totals, error) {
	failed, promised := map[string]bool{}, map[string]bool{}
	for _, t := range r.told {
		if t.Failed {
			failed[t.ID] = true
		} else {
			promised[t.ID] = true
		}
	}
	opts := audit.Options{
		Grace: r.choice.grace, Rate: r.choice.rate, DeadRetention: r.cfg.Status.DeadRetention,
		Refused: func(id string) bool { return failed[id] && !promised[id] },
	}
	for _, def := range all.All() {
		for _, lane := range tasks.Lanes() {
			opts.Queues = append(opts.Queues, tasks.Queues(def.Name, lane, r.cfg.Providers[def.Name].Queues)...)
		}
	}
	totals, err := audit.Live(ctx, r.rdb, opts, report)
	if err != nil || r.told == nil {
		return totals, err
	}
	ids := make([]string, len(r.told))
	for i, t := range r.told {
		ids[i] = t.ID
	}
	records, err := audit.Records(ctx, r.rdb, ids)
	if err != nil {
		return totals, err
	}
	record := func(id string) (status.Record, bool) {
		rec, ok := records[id]
		return rec, ok
	}
	for _, f := range audit.Compare(r.told, r.seen, record, audit.CompareOptions{Grace: r.choice.grace, Slack: r.choice.slack}) {
		totals.Count(f)
		if err := report(f); err != nil {
			return totals, err
		}
	}
	return totals, nil
}

// auditReport writes findings as they come, and the totals at the end.
type auditReport struct {
	add func(audit.Finding) error
	end func(audit.Totals) error
}

func (a *app) auditReport() auditReport {
	if a.json {
		return a.auditJSON()
	}
	return a.auditTable()
}

// auditJSON writes one JSON value, finding by finding.
func (a *app) auditJSON() auditReport {
	separator := `{"findings":[`
	return auditReport{
		add: func(f audit.Finding) error {
			line, err := json.Marshal(f)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "%s%s", separator, line)
			separator = ",\n"
			return err
		},
		end: func(t audit.Totals) error {
			line, err := json.Marshal(t)
			if err != nil {
				return err
			}
			if separator != ",\n" {
				fmt.Fprint(a.out, separator)
			}
			_, err = fmt.Fprintf(a.out, "],\n\"ok\":%t,\"totals\":%s}\n", t.Found() == 0, line)
			return err
		},
	}
}

// auditTable writes for people, a page of the table at a time.
func (a *app) auditTable() auditReport {
	const page = 100
	t, n := a.table("id", "finding", "what, and what to do"), 0
	return auditReport{
		add: func(f audit.Finding) error {
			name := a.paint(text.Colors{text.FgRed}, strings.ReplaceAll(string(f.Kind), "_", " "))
			if f.Note {
				name = "note"
			}
			t.AppendRow(table.Row{printable(f.ID), name, printable(f.What) + "\n→ " + f.Do})
			if n++; n%page == 0 {
				a.printTable(t)
				t = a.table()
			}
			return nil
		},
		end: func(totals audit.Totals) error {
			if n%page != 0 {
				a.printTable(t)
			}
			if n > 0 {
				fmt.Fprintln(a.out)
			}
			return a.printAuditTotals(totals)
		},
	}
}

func (a *app) printAuditTotals(totals audit.Totals) error {
	var states, kinds []string
	for _, s := range status.States() {
		if n := totals.States[s]; n > 0 {
			states = append(states, fmt.Sprintf("%d %s", n, s))
		}
	}
	for _, k := range audit.Kinds() {
		if n := totals.Findings[k]; n > 0 {
			kinds = append(kinds, fmt.Sprintf("%d %s", n, strings.ReplaceAll(string(k), "_", " ")))
		}
	}
	verdict := a.paint(text.Colors{text.FgGreen}, "nothing")
	if len(kinds) > 0 {
		verdict = a.paint(text.Colors{text.FgRed}, strings.Join(kinds, ", "))
	}
	if totals.Notes > 0 {
		verdict += fmt.Sprintf("; %d notes", totals.Notes)
	}
	k := totals.Tasks
	t := a.table()
	t.AppendRow(table.Row{"records", fmt.Sprintf("%d: %s", totals.Records, orNone(states))})
	t.AppendRow(table.Row{"tasks", fmt.Sprintf("%d pending, %d active, %d scheduled, %d retry, %d archived", k.Pending, k.Active, k.Scheduled, k.Retry, k.Archived)})
	t.AppendRow(table.Row{"found", verdict})
	a.printTable(t)
	return nil
}

func orNone(words []string) string {
	if len(words) == 0 {
		return "none"
	}
	return strings.Join(words, ", ")
}
