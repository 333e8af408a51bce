package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/status"
)

const (
	asCSV   = "csv"
	asJSONL = "jsonl"
	asTable = "table"
)

func (a *app) campaignReportCommand() *cobra.Command {
	var (
		format, output, state string
		reveal, force         bool
	)
	cmd := &cobra.Command{
		Use:   "report ID",
		Short: "Tell what became of each row",
		Long: "Tell what became of each row: its line, recipient, message, state and reason.\n" +
			"Recipients are masked. With --reveal each row's request stands beside them, in the clear.",
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := noEmptyFlags(cmd); err != nil {
				return err
			}
			wanted, err := readStates(state, reportStates()...)
			if err != nil {
				return err
			}
			format, err := a.reportFormat(format, output)
			if err != nil {
				return err
			}
			if force && output == "" {
				return usagef("--force goes with --output")
			}
			c, err := a.campaigns()
			if err != nil {
				return err
			}
			defer c.Close()
			return a.report(cmd.Context(), c, args[0], reportChoice{format, output, force, reveal, wanted})
		},
	}
	f := cmd.Flags()
	f.StringVar(&format, "format", "", "csv or jsonl (default: by --output's ending, and csv)")
	f.StringVar(&output, "output", "", "write to `FILE`, which only you can read")
	f.BoolVar(&force, "force", false, "replace FILE when it is there")
	f.StringVar(&state, "state", "", "only rows in these `STATES`, separated by commas; failed is short for "+strings.Join(failedStates(), ","))
	f.BoolVar(&reveal, "reveal", false, "have the requests too, in the clear: they name people")
	return cmd
}

// reportStates are the states that a row can be in.
func reportStates() []string {
	out := []string{campaign.RowWaiting, campaign.RowInvalid, campaign.RowDuplicate}
	for _, s := range []status.State{status.Queued, status.Sending, status.Deferred, status.Accepted} {
		out = append(out, string(s))
	}
	return append(append(out, failedStates()...), string(status.Canceled))
}

// reportFormat is what the flags ask for.
func (a *app) reportFormat(format, output string) (string, error) {
	switch {
	case format != "" && format != asCSV && format != asJSONL:
		return "", usagef("--format must be csv or jsonl, not %q", format)
	case format == asCSV && a.json:
		return "", usagef("--format csv and --json exclude each other")
	case format != "":
		return format, nil
	case a.json, strings.HasSuffix(output, ".jsonl"):
		return asJSONL, nil
	case output == "" && isTerminal(a.out):
		return asTable, nil
	}
	return asCSV, nil
}

type reportChoice struct {
	format, output string
	force, reveal  bool
	states         []string
}

// report writes the rows that are chosen, and tells how many there are.
func (a *app) report(ctx context.Context, c *openCampaigns, id string, choice reportChoice) error {
	short, cancel := withTimeout(ctx)
	defer cancel()
	if _, err := c.Status(short, id); err != nil { // before a file is made
		return campaignError(id, err)
	}
	to, finish := a.out, func() error { return nil }
	if choice.output != "" {
		f, err := createFile(choice.output, choice.force)
		if err != nil {
			return err
		}
		defer f.abandon()
		to, finish = f, f.commit
	}
	w := a.reportWriter(to, choice)
	n := int64(0)
	for row, err := range c.Report(ctx, id, choice.reveal) {
		switch {
		case err != nil && ctx.Err() != nil:
			return errors.New("interrupted before the report's end")
		case err != nil:
			return campaignError(id, err)
		}
		if len(choice.states) > 0 && !slices.Contains(choice.states, row.State) {
			continue
		}
		n++
		if err := w.row(row); err != nil {
			return fmt.Errorf("write the report: %w", err)
		}
	}
	if err := w.end(); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	if err := finish(); err != nil {
		return err
	}
	where := ""
	if choice.output != "" {
		where = " in " + choice.output
	}
	fmt.Fprintln(a.err, counted(n, "row")+where)
	return nil
}

// reportWriter writes rows one by one.
type reportWriter struct {
	row func(campaign.ReportRow) error
	end func() error
}

func (a *app) reportWriter(w io.Writer, choice reportChoice) reportWriter {
	switch choice.format {
	case asJSONL:
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		return reportWriter{row: func(r campaign.ReportRow) error { return enc.Encode(r) }, end: func() error { return nil }}
	case asTable:
		return a.reportTable(choice.reveal)
	}
	out := csv.NewWriter(w)
	// Errors stay: the next row's tells of this one.
	_ = out.Write(reportColumns(choice.reveal))
	return reportWriter{
		row: func(r campaign.ReportRow) error { return out.Write(reportCells(r, choice.reveal)) },
		end: func() error { out.Flush(); return out.Error() },
	}
}

func reportColumns(reveal bool) []string {
	columns := []string{"line", "recipient", "state", "reason", "message_id", "replay_of"}
	if reveal {
		columns = append(columns, "request")
	}
	return columns
}

func reportCells(r campaign.ReportRow, reveal bool) []string {
	cells := []string{strconv.Itoa(r.Line), r.Recipient, r.State, r.Reason, r.MessageID, r.ReplayOf}
	if reveal {
		cells = append(cells, string(r.Request))
	}
	return cells
}

// reportTable writes a page of a table at a time.
func (a *app) reportTable(reveal bool) reportWriter {
	const page = 200
	var header table.Row
	for _, name := range reportColumns(reveal) {
		header = append(header, strings.ReplaceAll(name, "_", " "))
	}
	t, n := a.table(header...), 0
	return reportWriter{
		row: func(r campaign.ReportRow) error {
			var row table.Row
			for _, cell := range reportCells(r, reveal) {
				row = append(row, printable(cell))
			}
			row[2] = a.paint(stateColour(status.State(r.State)), r.State)
			t.AppendRow(row)
			if n++; n%page == 0 {
				a.printTable(t)
				t = a.table()
			}
			return nil
		},
		end: func() error {
			if n%page != 0 {
				a.printTable(t)
			}
			return nil
		},
	}
}

func (a *app) campaignRetryCommand() *cobra.Command {
	var (
		state         string
		start, detach bool
	)
	cmd := &cobra.Command{
		Use:   "retry-failed ID",
		Short: "Make a new campaign of the rows of another that failed",
		Long: "Make a new campaign, ID.2, of the rows of a campaign that is over and that ended in\n" +
			"one of the states. Its messages are linked to the old ones.",
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := noEmptyFlags(cmd); err != nil {
				return err
			}
			if detach && !start {
				return usagef("--detach goes with --start")
			}
			wanted, err := readStates(state, append(failedStates(), string(status.Canceled))...)
			if err != nil {
				return err
			}
			var states []status.State
			for _, s := range wanted {
				states = append(states, status.State(s))
			}
			c, err := a.campaigns()
			if err != nil {
				return err
			}
			defer c.Close()
			made, repeated, err := c.RetryFailed(cmd.Context(), args[0], states...)
			switch {
			case err != nil && cmd.Context().Err() != nil:
				return fmt.Errorf("interrupted: nothing is sent; the same `otpq campaign retry-failed %s` begins anew", printable(args[0]))
			case err != nil:
				return campaignError(args[0], err)
			}
			return a.afterCreate(cmd.Context(), c, made, repeated, start, detach)
		},
	}
	var defaults []string
	for _, s := range campaign.RetryStates() {
		defaults = append(defaults, string(s))
	}
	f := cmd.Flags()
	f.StringVar(&state, "state", "", "`STATES` to try again, separated by commas (default: "+strings.Join(defaults, ",")+")")
	f.BoolVar(&start, "start", false, "start it at once")
	addDetach(cmd, &detach)
	return cmd
}
