package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/enqueue/oteltrace"
	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/overview"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

// maxRequest bounds a request from a file or a pipe; the largest documented one
// is under 4 KiB.
const maxRequest = 256 << 10

func (a *app) sendCommand() *cobra.Command {
	var (
		key, lane   string
		validFor    time.Duration
		at          string
		maxAttempts int
		wait        bool
	)
	cmd := &cobra.Command{
		Use:   "send PROVIDER REQUEST",
		Short: "Queue one request for a code and print its id",
		Long: "Queue one request for a code and print its id.\n\n" +
			"REQUEST is the provider's documented JSON, @FILE to read it from a file, or - to\nread it from standard input.",
		Example: `  otpq send unimedbh '{"username":"teste@gmail.com","type":"EMAIL"}' --wait`,
		Args:    exactArgs("PROVIDER", "REQUEST"),
		RunE: func(cmd *cobra.Command, args []string) error {
			def, ok := all.ByName(args[0])
			if !ok {
				return unknownProvider(args[0])
			}
			if err := noEmptyFlags(cmd); err != nil {
				return err
			}
			body, err := a.readRequest(cmd.Context(), args[1])
			if err != nil {
				return err
			}
			req, err := def.Decode(body)
			if err != nil {
				return usageError{err}
			}
			opts := []enqueue.Option{
				enqueue.IdempotencyKey(key), enqueue.ValidFor(validFor), enqueue.InLane(tasks.Lane(lane)),
				enqueue.MaxAttempts(maxAttempts),
			}
			if at != "" {
				now := time.Now()
				when, err := parseTime(at, now, fromNow)
				if err != nil {
					return usagef("--at %w", err)
				}
				if when.Before(now.Truncate(time.Second)) { // a time is typed in whole seconds
					return usagef("--at must not be in the past: leave it out to send at once")
				}
				opts = append(opts, enqueue.At(when))
			}
			client, cfg, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			ctx, cancel := withTimeout(cmd.Context())
			defer cancel()
			receipt, done, err := a.sendTraced(ctx, cfg, client, req, tasks.Lane(lane), opts)
			defer done()
			if err != nil {
				return sendError(err)
			}
			a.noteSent(ctx, cfg, def.Name, receipt)
			if wait {
				return a.waitFor(cmd.Context(), client, receipt)
			}
			return a.printReceipt(receipt)
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "idempotency `KEY`: a second send with the same one sends nothing and prints the first id")
	f.DurationVar(&validFor, "valid-for", enqueue.DefaultValidity, "how long the message may still be sent")
	f.StringVar(&lane, "lane", string(tasks.Interactive), "interactive or bulk")
	f.StringVar(&at, "at", "", "send not before this `TIME`: RFC 3339, or a duration from now such as 10m")
	f.IntVar(&maxAttempts, "max-attempts", 0, "attempts for this message (default: the worker's retry.max_attempts)")
	f.BoolVar(&wait, "wait", false, "wait for the message's end; exit 0 only when it was accepted")
	return cmd
}

// sendTraced is Send with a span of its own, where tracing is on, that the worker's
// come below. Done hands it over: after the id is printed, because a collector may
// be slow.
func (a *app) sendTraced(ctx context.Context, cfg config.Config, client *enqueue.Client, req providers.Request, lane tasks.Lane, opts []enqueue.Option) (r enqueue.Receipt, done func(), err error) {
	tracer, err := openTracer(ctx, cfg.Tracing, false, zerolog.Nop())
	if err != nil {
		return r, func() {}, err
	}
	ctx, span := tracer.Send(ctx, req.ProviderName(), string(lane), tasks.QueueName(req.ProviderName(), lane))
	if tracer != nil {
		opts = append(opts, oteltrace.FromContext(ctx))
	}
	r, err = client.Send(ctx, req, opts...)
	span.Done(r.ID, wordFor(err))
	return r, func() { closeTracer(tracer, commandFlush, zerolog.Nop()) }, err
}

// wordFor is why a message was not queued, without anything of the message.
func wordFor(err error) string {
	var option *enqueue.OptionError
	var unavailable *enqueue.UnavailableError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &unavailable):
		return "redis_unavailable"
	case errors.As(err, &option):
		return "invalid_option"
	}
	return "invalid_request"
}

// optionFlags are the flags of enqueue's options.
var optionFlags = map[string]string{
	"idempotency key": "--key", "validity": "--valid-for", "lane": "--lane", "time": "--at", "max attempts": "--max-attempts",
}

// sendError makes a wrong option a wrong usage, by the name of its flag.
func sendError(err error) error {
	var option *enqueue.OptionError
	if errors.As(err, &option) {
		return usagef("%s %s", optionFlags[option.Option], option.Problem)
	}
	return err
}

// readRequest reads a request that was typed, or is in a file or a pipe.
func (a *app) readRequest(ctx context.Context, arg string) ([]byte, error) {
	var r io.Reader
	from := "standard input"
	switch {
	case arg == "-":
		r = until(ctx, a.in)
	case strings.HasPrefix(arg, "@"):
		from = arg[1:]
		f, info, err := openInput(ctx, from)
		switch {
		case ctx.Err() != nil:
			return nil, errNothingQueued
		case err != nil:
			return nil, usagef("read the request: %s: %w", from, errors.Unwrap(err))
		case info.IsDir():
			return nil, usagef("read the request: %s is a folder", from)
		}
		defer f.Close()
		r = f
	default:
		return []byte(arg), nil
	}
	body, err := io.ReadAll(io.LimitReader(r, maxRequest+1))
	switch {
	case ctx.Err() != nil:
		return nil, errNothingQueued
	case err != nil:
		return nil, fmt.Errorf("read the request: %w", err)
	case len(body) > maxRequest:
		return nil, usagef("the request is longer than %d bytes", maxRequest)
	case len(bytes.TrimSpace(body)) == 0:
		return nil, usagef("there is no request in %s: nothing came", from)
	}
	return body, nil
}

var errNothingQueued = errors.New("interrupted: nothing was queued")

// noteSent tells a person, beside the id, what they may not expect: that this is
// an earlier message, or that nobody works on it.
func (a *app) noteSent(ctx context.Context, cfg config.Config, provider string, r enqueue.Receipt) {
	if r.Repeated {
		fmt.Fprintf(a.err, "this key was used before: nothing was queued, and the id is the first message's (%s)\n", r.State)
		return
	}
	rdb, err := openRedis(cfg, "otpq-cli", 0)
	if err != nil {
		return // the message is queued: that is what counts
	}
	defer rdb.Close()
	workers, err := worker.Workers(ctx, rdb)
	if err != nil || len(workers) == 0 {
		return // they may come later
	}
	if overview.SumBreakers(workers, provider).State == "unknown" {
		fmt.Fprintf(a.err, "no running worker has %s on: the message waits for one; see `otpq providers`\n", provider)
	}
}

func (a *app) printReceipt(r enqueue.Receipt) error {
	if a.json {
		return a.printJSON(r)
	}
	_, err := fmt.Fprintln(a.out, r.ID)
	return err
}

// waitFor prints the receipt, follows the message to its end and fails unless
// it was accepted.
func (a *app) waitFor(ctx context.Context, client *enqueue.Client, receipt enqueue.Receipt) error {
	if !a.json {
		if err := a.printReceipt(receipt); err != nil {
			return err
		}
	}
	var last status.Record
	err := follow(ctx, client.Status, receipt.ID, func(r status.Record) error {
		last = r
		if !a.json {
			fmt.Fprintln(a.err, a.describe(r))
		}
		return nil
	})
	if a.json {
		// In any case: who waited in vain needs the id more than anybody.
		if last.State != "" {
			receipt.State = last.State
		}
		if err := a.printJSON(receipt); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if last.State != status.Accepted {
		return errSilent
	}
	return nil
}
