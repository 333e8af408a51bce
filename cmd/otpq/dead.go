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

// chosenLetters yields up to limit dead letters of the named providers, those of
// one after those of another. A limit of zero is none.
func chosenLetters(ctx context.Context, store *status.Redis, names []string, f status.DeadFilter, limit int) iter.Seq2[status.DeadLetter, error] {
	return func(yield func(status.DeadLetter, error) bool) {
		n := 0
		for _, name := range names {
			for d, err := range store.Dead(ctx, name, f) {
				if limit > 0 && n >= limit || !yield(d, err) {
					return
				}
				n++
			}
		}
	}
}

func (a *app) deadListCommand() *cobra.Command {
	var choice deadChoice
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, oldest first",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names, filter, err := choice.filter(time.Now())
			if err != nil {
				return err
			}
			store, rdb, _, err := a.reader()
			if err != nil {
				return err
			}
			defer rdb.Close()
			letters := chosenLetters(cmd.Context(), store, names, filter, choice.limit)
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
			printable(d.ID), d.Provider, a.paint(stateColour(d.State), string(d.State)), d.Reason, stamp(d.UpdatedAt), len(d.Attempts), d.Recipient,
		})
		if n++; n%page == 0 {
			a.printTable(t)
			t = a.table()
		}
	}
	if n%page != 0 {
		a.printTable(t)
	}
	fmt.Fprintln(a.err, counted(int64(n), "dead letter"))
	return nil
}

// shownDeadLetter is a dead letter with the request in it.
type shownDeadLetter struct {
	status.Record
	Request json.RawMessage `json:"request,omitempty"`
}

func (a *app) deadShowCommand() *cobra.Command {
	var inTheClear bool
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
				return deadError(ctx, store, err)
			}
			shown := shownDeadLetter{Record: d.Record}
			if inTheClear {
				ring, err := tasks.NewKeyring(keys(cfg)...)
				if err != nil {
					return err
				}
				if shown.Request, err = reveal(ring, d.Payload); err != nil {
					return fmt.Errorf("the request cannot be revealed: %w", err)
				}
			}
			if a.json {
				return a.printJSON(shown)
			}
			a.printRecord(d.Record)
			if inTheClear {
				fmt.Fprintf(a.out, "\nrequest  %s\n", shown.Request)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&inTheClear, "reveal", false, "show the request too, in the clear: it names a person; needs the sealing key")
	return cmd
}

// reveal opens a dead letter's payload. What was no message at all is shown as a
// JSON string.
func reveal(ring *tasks.Keyring, payload []byte) (json.RawMessage, error) {
	m, err := tasks.Decode(ring, payload)
	if err == nil {
		return m.Request, nil
	}
	raw, notQuarantined := tasks.Release(ring, payload)
	if notQuarantined != nil {
		return nil, err
	}
	return json.Marshal(string(raw))
}

// deadError says in words why a message is no dead letter.
func deadError(ctx context.Context, store *status.Redis, err error) error {
	var refused *status.RefusedError
	if !errors.As(err, &refused) {
		return err
	}
	r, readErr := store.Get(ctx, refused.ID)
	switch {
	case readErr != nil:
		return err
	case r.ReplayedAs != "":
		return fmt.Errorf("message %s was replayed as %s", r.ID, r.ReplayedAs)
	case r.State.Dead():
		return fmt.Errorf("message %s was discarded", r.ID)
	}
	return fmt.Errorf("message %s is %s: only rejected, exhausted and unknown ones are dead letters", r.ID, r.State)
}
