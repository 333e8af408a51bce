package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// deadSelection is what a command that changes dead letters is told to act on.
type deadSelection struct {
	deadChoice
	every, dryRun bool

	ids    []string // named by the command's arguments
	names  []string // otherwise the providers to look at
	wanted status.DeadFilter
}

func (s *deadSelection) addFlags(cmd *cobra.Command, verb string) {
	s.deadChoice.addFlags(cmd)
	cmd.Flags().BoolVar(&s.every, "all", false, "all dead letters there are")
	cmd.Flags().BoolVar(&s.dryRun, "dry-run", false, "only say which would be "+verb)
}

// read takes the arguments and flags. To act on all dead letters takes a word,
// --all.
func (s *deadSelection) read(args []string) (err error) {
	chosen := s.deadChoice != deadChoice{}
	switch {
	case len(args) > 0 && (chosen || s.every):
		return usagef("name ids or choose by flags, not both")
	case len(args) == 0 && !chosen && !s.every:
		return usagef("name ids, choose by flags such as --provider and --since, or say --all")
	}
	for _, id := range args {
		if !slices.Contains(s.ids, id) { // twice would be at once
			s.ids = append(s.ids, id)
		}
	}
	s.names, s.wanted, err = s.filter(time.Now())
	return err
}

func (s *deadSelection) letters(ctx context.Context, store *status.Redis) iter.Seq2[status.DeadLetter, error] {
	if len(s.ids) == 0 {
		return chosenLetters(ctx, store, s.names, s.wanted, s.limit)
	}
	return func(yield func(status.DeadLetter, error) bool) {
		for _, id := range s.ids {
			d, err := store.DeadLetter(ctx, id)
			if err != nil {
				err = deadError(ctx, store, err)
			}
			d.ID = id
			if !yield(d, err) {
				return
			}
		}
	}
}

// deadAction is what a command did to one dead letter.
type deadAction struct {
	ID     string `json:"id"`
	Action string `json:"action"` // replayed, discarded, would_be_… or failed
	NewID  string `json:"new_id,omitempty"`
	Error  string `json:"error,omitempty"`
}

// deadTask is what a command does to each letter it was told to act on.
type deadTask struct {
	word string // replayed or discarded
	// begin, when not nil, is waited for before each letter.
	begin func(context.Context) error
	// act does it. Its ctx does not end with the command's: what was begun is
	// brought to its end.
	act func(ctx context.Context, d status.DeadLetter, result *deadAction) error
}

// deadAtOnce is how many letters are in hand at a time. Each costs some round trips
// to Redis, which would be the command's pace otherwise.
const deadAtOnce = 16

// handled is a letter in hand; done is closed when its result is there.
type handled struct {
	result deadAction
	done   chan struct{}
}

// actOnDead does the task to each selected letter and prints what it did, a line
// each and in order, in JSON too: there may be many. It fails when one of them failed.
func (a *app) actOnDead(ctx context.Context, store *status.Redis, sel deadSelection, task deadTask) error {
	begun, stop := context.WithCancel(ctx)
	defer stop()
	inHand := make(chan *handled, deadAtOnce)
	var listing error
	go func() {
		defer close(inHand)
		listing = begin(begun, store, sel, task, inHand)
	}()

	done, failed := 0, 0
	var printing error
	for h := range inHand {
		<-h.done
		if printing != nil {
			continue
		}
		if h.result.Error != "" {
			failed++
		} else {
			done++
		}
		if printing = a.printDeadAction(h.result); printing != nil {
			stop() // nobody would know what became of the others
		}
	}
	switch {
	case printing != nil:
		return printing
	case listing != nil && done+failed == 0:
		return listing
	}
	summary := task.word
	if sel.dryRun {
		summary = "would be " + task.word
	}
	fmt.Fprintf(a.err, "%d %s, %d failed\n", done, summary, failed)
	switch {
	case ctx.Err() != nil:
		return errors.New("interrupted: what is not listed was left alone")
	case listing != nil:
		return listing
	case failed > 0:
		return errSilent
	}
	return nil
}

// begin hands on each selected letter, and starts to act on it, until ctx ends. It
// returns the error that kept it from the rest of the letters.
func begin(ctx context.Context, store *status.Redis, sel deadSelection, task deadTask, inHand chan<- *handled) error {
	for d, err := range sel.letters(ctx, store) {
		switch {
		case ctx.Err() != nil:
			return nil // the rest would all fail, and say so
		case err != nil && d.ID == "":
			return err
		}
		h := &handled{result: deadAction{ID: d.ID, Action: task.word}, done: make(chan struct{})}
		switch {
		case err != nil:
			h.fail(err)
		case sel.dryRun:
			h.result.Action = "would_be_" + task.word
			close(h.done)
		default:
			if task.begin != nil && task.begin(ctx) != nil {
				return nil
			}
			inHand <- h // first: there is room for so many, and no more
			go h.take(context.WithoutCancel(ctx), d, task)
			continue
		}
		inHand <- h
	}
	return nil
}

func (h *handled) take(ctx context.Context, d status.DeadLetter, task deadTask) {
	ctx, cancel := withTimeout(ctx)
	defer cancel()
	if err := task.act(ctx, d, &h.result); err != nil {
		h.fail(err)
		return
	}
	close(h.done)
}

func (h *handled) fail(err error) {
	h.result.Action, h.result.Error = "failed", err.Error()
	close(h.done)
}

func (a *app) printDeadAction(r deadAction) error {
	if a.json {
		return a.printJSON(r)
	}
	line := printable(r.ID) + " " + strings.ReplaceAll(r.Action, "_", " ")
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
		sel      deadSelection
		validFor time.Duration
		lane     string
		rate     float64
	)
	cmd := &cobra.Command{
		Use:   "replay [ID …]",
		Short: "Queue dead letters again, each as a new message with a new deadline",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := sel.read(args); err != nil {
				return err
			}
			// What no letter can be replayed with is said once, before the first.
			switch {
			case !(rate > 0):
				return usagef("--rate must be more than 0")
			case validFor <= 0 || validFor > enqueue.MaxValidity:
				return usagef("--valid-for must be more than 0 and at most %s, not %s", enqueue.MaxValidity, validFor)
			case lane != "" && !tasks.Lane(lane).Valid():
				return usagef("--lane must be %s or %s, not %q", tasks.Interactive, tasks.Bulk, lane)
			}
			opts := []enqueue.Option{enqueue.ValidFor(validFor)}
			if lane != "" {
				opts = append(opts, enqueue.InLane(tasks.Lane(lane)))
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
			return a.actOnDead(cmd.Context(), openStore(cfg, rdb), sel, deadTask{
				word: "replayed", begin: newPace(rate).wait,
				act: func(ctx context.Context, d status.DeadLetter, result *deadAction) error {
					receipt, err := client.Replay(ctx, d.ID, opts...)
					result.NewID = receipt.ID
					return err
				},
			})
		},
	}
	sel.addFlags(cmd, "replayed")
	f := cmd.Flags()
	f.DurationVar(&validFor, "valid-for", enqueue.DefaultValidity, "how long each may be sent from now on")
	f.StringVar(&lane, "lane", "", "interactive or bulk (default: the lane each came from)")
	f.Float64Var(&rate, "rate", 50, "most replays in a second")
	return cmd
}

func (a *app) deadDiscardCommand() *cobra.Command {
	var sel deadSelection
	cmd := &cobra.Command{
		Use:   "discard [ID …]",
		Short: "Give dead letters up: their requests are deleted, their records stay a while",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := sel.read(args); err != nil {
				return err
			}
			store, rdb, _, err := a.reader()
			if err != nil {
				return err
			}
			defer rdb.Close()
			return a.actOnDead(cmd.Context(), store, sel, deadTask{
				word: "discarded",
				act: func(ctx context.Context, d status.DeadLetter, _ *deadAction) error {
					return store.DropDead(ctx, d.Provider, d.ID)
				},
			})
		},
	}
	sel.addFlags(cmd, "discarded")
	return cmd
}
