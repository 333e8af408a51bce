package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use:   "status ID",
		Short: "Show what is known of a message",
		Args:  exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, rdb, _, err := a.reader()
			if err != nil {
				return err
			}
			defer rdb.Close()
			id := tasks.MessageID(args[0]) // dashboards show task ids
			if watch {
				return follow(cmd.Context(), store.Get, id, func(r status.Record) error {
					if a.json {
						return a.printJSON(r)
					}
					_, err := fmt.Fprintf(a.out, "%s  %s\n", clock(r.UpdatedAt), a.describe(r))
					return err
				})
			}
			ctx, cancel := withTimeout(cmd.Context())
			defer cancel()
			r, err := store.Get(ctx, id)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(r)
			}
			a.printRecord(r)
			return nil
		},
	}
	cmd.Flags().BoolVar(&watch, "watch", false, "follow the message to its end")
	return cmd
}

// followInterval is how often a followed record is read: shorter than a person
// notices, and nothing for Redis.
const followInterval = 100 * time.Millisecond

// overdue is how long after its deadline a message is at its end when a worker
// lives: what a killed worker held may be claimed for half a minute.
const overdue = 30*time.Second + tasks.TaskTimeout

// follow calls seen with the record now and at each change, until the message
// has come to its end. A Redis that is away for a moment does not end it; a
// deadline that nobody heeds does, because nobody is there.
func follow(ctx context.Context, get func(context.Context, string) (status.Record, error), id string, seen func(status.Record) error) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	var last status.Record
	for first := true; ; first = false {
		r, err := get(ctx, id)
		switch {
		case ctx.Err() != nil:
			return errors.New("interrupted before the message came to its end")
		case status.IsUnreachable(err) && !first: // it may come back
		case err != nil:
			return err
		case first || !r.UpdatedAt.Equal(last.UpdatedAt) || r.State != last.State:
			if err := seen(r); err != nil {
				return err
			}
			last = r
		}
		if last.State.Terminal() {
			return nil
		}
		if late := time.Since(last.NotAfter); late > overdue {
			return fmt.Errorf("the message is still %s, %s after its deadline: is a worker running, with %s on?",
				last.State, late.Round(time.Second), last.Provider)
		}
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
}

func (a *app) cancelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "cancel ID",
		Short: "Take a message back before it is sent",
		Args:  exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, rdb, _, err := a.reader()
			if err != nil {
				return err
			}
			defer rdb.Close()
			id := tasks.MessageID(args[0])
			ctx, cancel := withTimeout(cmd.Context())
			defer cancel()
			if err := status.Cancel(ctx, store, id, time.Now()); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(map[string]string{"id": id, "state": string(status.Canceled)})
			}
			if _, err := fmt.Fprintf(a.out, "%s canceled\n", id); err != nil {
				return err
			}
			if r, err := store.Get(ctx, id); err == nil && r.Reason == status.ReasonMaybeSent {
				fmt.Fprintln(a.err, "an earlier attempt may have sent the code all the same")
			}
			return nil
		},
	}
}
