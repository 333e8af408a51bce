package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func (a *app) deadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "List, show, replay or discard dead letters",
		Long: "Dead letters are the messages that ended rejected, exhausted or unknown. They are\n" +
			"kept, sealed, until status.dead_retention ends.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return usagef("say which: list, show, replay or discard") },
	}
	cmd.AddCommand(a.deadListCommand(), a.deadShowCommand(), a.deadReplayCommand(), a.deadDiscardCommand())
	return cmd
}

// deadChoice is which dead letters a command is about.
type deadChoice struct {
	provider, state, reason, since, until string
	limit                                 int
}

func (c *deadChoice) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&c.provider, "provider", "", "only this provider's")
	f.StringVar(&c.state, "state", "", "only rejected, exhausted or unknown ones")
	f.StringVar(&c.reason, "reason", "", "only those with this reason")
	f.StringVar(&c.since, "since", "", "only those that died since this `TIME`: RFC 3339, a day, or a duration such as 2h")
	f.StringVar(&c.until, "until", "", "only those that died until this `TIME`")
	f.IntVar(&c.limit, "limit", 0, "at most this many (default: all)")
}

// filter reads the flags.
func (c *deadChoice) filter(now time.Time) (names []string, f status.DeadFilter, err error) {
	for _, def := range all.All() {
		if c.provider == "" || c.provider == def.Name {
			names = append(names, def.Name)
		}
	}
	if len(names) == 0 {
		return nil, f, unknownProvider(c.provider)
	}
	f.State, f.Reason = status.State(c.state), c.reason
	if c.state != "" && !f.State.Dead() {
		return nil, f, usagef("--state must be rejected, exhausted or unknown, not %q", c.state)
	}
	if c.limit < 0 {
		return nil, f, usagef("--limit must not be negative")
	}
	if c.since != "" {
		if f.Since, err = parseTime(c.since, now, ago); err != nil {
			return nil, f, usagef("--since %w", err)
		}
	}
	if c.until != "" {
		if f.Until, err = parseTime(c.until, now, ago); err != nil {
			return nil, f, usagef("--until %w", err)
		}
	}
	return names, f, nil
}

// letters yields the chosen dead letters, those of one provider after those of
// another.
func (c *deadChoice) letters(ctx context.Context, store *status.Redis) (iter.Seq2[status.DeadLetter, error], error) {
	names, f, err := c.filter(time.Now())
	if err != nil {
		return nil, err
	}
	return func(yield func(status.DeadLetter, error) bool) {
		n := 0
		for _, name := range names {
			for d, err := range store.Dead(ctx, name, f) {
				if c.limit > 0 && n >= c.limit || !yield(d, err) {
					return
				}
				n++
			}
		}
	}, nil
}

func (a *app) deadListCommand() *cobra.Command {
	var choice deadChoice
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, oldest first",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, rdb, _, err := a.reader()
			if err != nil {
				return err
			}
			defer rdb.Close()
			letters, err := choice.letters(cmd.Context(), store)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSONList(letters)
			}
			return a.printDead(letters)
		},
	}
	choice.addFlags(cmd)
	return cmd
}

// printJSONList writes one JSON array, element by element, so that its length
// costs no memory.
func (a *app) printJSONList(letters iter.Seq2[status.DeadLetter, error]) error {
	separator := "["
	for d, err := range letters {
		if err != nil {
			return err
		}
		line, err := json.Marshal(d)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(a.out, "%s%s", separator, line); err != nil {
			return err
		}
		separator = ",\n"
	}
	if separator == "[" {
		fmt.Fprint(a.out, "[")
	}
	_, err := fmt.Fprintln(a.out, "]")
	return err
}

// printDead writes a page of the table at a time.
func (a *app) printDead(letters iter.Seq2[status.DeadLetter, error]) error {
	const page = 200
	t, n := a.table("id", "provider", "state", "reason", "died", "attempts", "recipient"), 0
	for d, err := range letters {
		if err != nil {
			return err
		}
		t.AppendRow(table.Row{
			d.ID, d.Provider, a.paint(stateColour(d.State), string(d.State)), d.Reason, stamp(d.UpdatedAt), len(d.Attempts), d.Recipient,
		})
		if n++; n%page == 0 {
			a.printTable(t)
			t = a.table()
		}
	}
	if n%page != 0 {
		a.printTable(t)
	}
	fmt.Fprintf(a.err, "%d dead letters\n", n)
	return nil
}

// shownDeadLetter is a dead letter with the request in it.
type shownDeadLetter struct {
	status.Record
	Request json.RawMessage `json:"request,omitempty"`
}

func (a *app) deadShowCommand() *cobra.Command {
	var reveal bool
	cmd := &cobra.Command{
		Use:   "show ID",
		Short: "Show one dead letter",
		Args:  exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, rdb, cfg, err := a.reader()
			if err != nil {
				return err
			}
			defer rdb.Close()
			ctx, cancel := withTimeout(cmd.Context())
			defer cancel()
			d, err := store.DeadLetter(ctx, args[0])
			if err != nil {
				return deadError(err)
			}
			shown := shownDeadLetter{Record: d.Record}
			if reveal {
				ring, err := tasks.NewKeyring(keys(cfg)...)
				if err != nil {
					return err
				}
				m, err := tasks.Decode(ring, d.Payload)
				if err != nil {
					return err
				}
				shown.Request = m.Request
			}
			if a.json {
				return a.printJSON(shown)
			}
			a.printRecord(d.Record)
			if reveal {
				fmt.Fprintf(a.out, "\nrequest  %s\n", shown.Request)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&reveal, "reveal", false, "show the request too, in the clear: it names a person; needs the sealing key")
	return cmd
}

// deadError says in words that a message is no dead letter.
func deadError(err error) error {
	var refused *status.RefusedError
	if errors.As(err, &refused) {
		return fmt.Errorf("message %s is %s: it is no dead letter, or was replayed or discarded", refused.ID, refused.From)
	}
	return err
}

// deadIDs are the letters that a command acts on: those named, or those chosen.
// To act on all of them takes a word, --all.
func (a *app) deadIDs(ctx context.Context, store *status.Redis, choice *deadChoice, args []string, every bool) (iter.Seq2[status.DeadLetter, error], error) {
	chosen := *choice != deadChoice{}
	switch {
	case len(args) > 0 && (chosen || every):
		return nil, usagef("name ids or choose by flags, not both")
	case len(args) == 0 && !chosen && !every:
		return nil, usagef("name ids, choose by flags such as --provider and --since, or say --all")
	case len(args) == 0:
		return choice.letters(ctx, store)
	}
	return func(yield func(status.DeadLetter, error) bool) {
		for _, id := range args {
			d, err := store.DeadLetter(ctx, id)
			d.ID = id
			if !yield(d, deadError(err)) {
				return
			}
		}
	}, nil
}

// deadAction is what a command did to one dead letter.
type deadAction struct {
	ID     string `json:"id"`
	Action string `json:"action"` // replayed, discarded, would_be_… or failed
	NewID  string `json:"new_id,omitempty"`
	Error  string `json:"error,omitempty"`
}

// actOnDead calls act for each chosen letter and prints what it did, a line
// each, in JSON too: there may be many. It fails when one of them failed.
func (a *app) actOnDead(letters iter.Seq2[status.DeadLetter, error], word string, dryRun bool, act func(status.DeadLetter, *deadAction) error) error {
	done, failed := 0, 0
	for d, err := range letters {
		if err != nil && d.ID == "" {
			return err
		}
		result := deadAction{ID: d.ID, Action: word}
		switch {
		case err != nil:
		case dryRun:
			result.Action = "would_be_" + word
		default:
			err = act(d, &result)
		}
		if err != nil {
			result.Action, result.Error = "failed", err.Error()
			failed++
		} else {
			done++
		}
		if err := a.printDeadAction(result); err != nil {
			return err
		}
	}
	summary := word
	if dryRun {
		summary = "would be " + word
	}
	fmt.Fprintf(a.err, "%d %s, %d failed\n", done, summary, failed)
	if failed > 0 {
		return errSilent
	}
	return nil
}

func (a *app) printDeadAction(r deadAction) error {
	if a.json {
		return a.printJSON(r)
	}
	line := r.ID + " " + r.Action
	if r.NewID != "" {
		line += " as " + r.NewID
	}
	if r.Error != "" {
		line += ": " + r.Error
	}
	_, err := fmt.Fprintln(a.out, line)
	return err
}

func (a *app) deadReplayCommand() *cobra.Command {
	var (
		choice        deadChoice
		every, dryRun bool
		validFor      time.Duration
		lane          string
		rate          float64
	)
	cmd := &cobra.Command{
		Use:   "replay [ID …]",
		Short: "Queue dead letters again, each as a new message with a new deadline",
		RunE: func(cmd *cobra.Command, args []string) error {
			if rate <= 0 {
				return usagef("--rate must be more than 0")
			}
			client, cfg, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			rdb, err := openRedis(cfg, "otpq-cli", 0)
			if err != nil {
				return err
			}
			defer rdb.Close()
			letters, err := a.deadIDs(cmd.Context(), openStore(cfg, rdb), &choice, args, every)
			if err != nil {
				return err
			}
			opts := []enqueue.Option{enqueue.ValidFor(validFor)}
			if lane != "" {
				opts = append(opts, enqueue.InLane(tasks.Lane(lane)))
			}
			pace := time.NewTicker(max(time.Duration(float64(time.Second)/rate), 1))
			defer pace.Stop()
			return sendError(a.actOnDead(letters, "replayed", dryRun, func(d status.DeadLetter, r *deadAction) error {
				receipt, err := client.Replay(cmd.Context(), d.ID, opts...)
				r.NewID = receipt.ID
				select {
				case <-pace.C:
				case <-cmd.Context().Done():
				}
				return err
			}))
		},
	}
	choice.addFlags(cmd)
	f := cmd.Flags()
	f.BoolVar(&every, "all", false, "all dead letters there are")
	f.BoolVar(&dryRun, "dry-run", false, "only say which would be replayed")
	f.DurationVar(&validFor, "valid-for", enqueue.DefaultValidity, "how long each may be sent from now on")
	f.StringVar(&lane, "lane", "", "interactive or bulk (default: the lane each came from)")
	f.Float64Var(&rate, "rate", 50, "most replays in a second")
	return cmd
}

func (a *app) deadDiscardCommand() *cobra.Command {
	var (
		choice        deadChoice
		every, dryRun bool
	)
	cmd := &cobra.Command{
		Use:   "discard [ID …]",
		Short: "Give dead letters up: their requests are deleted, their records stay a while",
		RunE: func(cmd *cobra.Command, args []string) error {
			store, rdb, _, err := a.reader()
			if err != nil {
				return err
			}
			defer rdb.Close()
			letters, err := a.deadIDs(cmd.Context(), store, &choice, args, every)
			if err != nil {
				return err
			}
			return a.actOnDead(letters, "discarded", dryRun, func(d status.DeadLetter, _ *deadAction) error {
				return store.DropDead(cmd.Context(), d.Provider, d.ID)
			})
		},
	}
	choice.addFlags(cmd)
	cmd.Flags().BoolVar(&every, "all", false, "all dead letters there are")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say which would be discarded")
	return cmd
}
