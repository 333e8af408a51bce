// Command otpq is everything of otpq in one binary: the worker, the commands of
// people who send, look and repair, and a sandbox to try it all. It only wires
// packages together and talks to the terminal.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // to silence it
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	_ "time/tzdata" // quiet hours have a time zone, and an image may have none

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/internal/redisconn"
)

// Exit codes, as the command line's contract has them.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	// net/http writes bytes that a provider sent unasked to the standard
	// logger. They may name a person; our own lines go through zerolog.
	log.SetOutput(io.Discard)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	// Once the first signal is handled, a second one ends the process at once.
	context.AfterFunc(ctx, stop)
	// A command's own error says what go-redis would log of its pool; those that
	// keep a log turn this on again.
	redisconn.LogTo(zerolog.Nop())
	os.Exit(run(ctx, os.Args[1:], streams{in: os.Stdin, out: os.Stdout, err: os.Stderr}, os.Environ()))
}

// streams are where a command reads and writes.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// run is main without the process: tests call it.
func run(ctx context.Context, args []string, s streams, environ []string) int {
	out := &output{Writer: s.out}
	s.out = out
	a := &app{streams: s, environ: environ}
	root := a.rootCommand()
	root.SetArgs(args)
	root.SetIn(s.in)
	root.SetOut(s.out)
	root.SetErr(s.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.failed()
	}
	var usage usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errSilent):
		return exitFailed
	case errors.As(err, &usage):
		fmt.Fprintf(s.err, "otpq: %s\n", hidePersonal(err.Error(), args))
		return exitUsage
	default:
		fmt.Fprintf(s.err, "otpq: %v%s\n", err, adviceFor(err))
		return exitFailed
	}
}

// output is where a command writes, and remembers the first time that it could not: most
// commands print without looking, and must not succeed on a full disk.
type output struct {
	io.Writer
	mu  sync.Mutex
	err error
}

// Write implements [io.Writer].
func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.err = cmp.Or(o.err, err)
	}
	return n, err
}

func (o *output) failed() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err == nil {
		return nil
	}
	return fmt.Errorf("write the output: %w", o.err)
}

// adviceFor says what to do about an error that does not say it: a refused
// connection names an address, and nothing more.
func adviceFor(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" {
		return "; is Redis running there? `otpq check` looks at all that is needed"
	}
	switch {
	case redis.HasErrorPrefix(err, "WRONGPASS"), redis.HasErrorPrefix(err, "NOAUTH"):
		return "; check the user and the password in redis.url (OTPQ_REDIS_URL)"
	case redis.HasErrorPrefix(err, "NOPERM"):
		return "; deploy/redis/otpq.acl lists what the user in redis.url has to be allowed"
	}
	return ""
}

// errSilent fails a command that has said why already.
var errSilent = errors.New("failed")

// usageError is a command called wrongly: exit code 2.
type usageError struct{ error }

// Unwrap returns the cause.
func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// app is one invocation.
type app struct {
	streams
	environ    []string
	configFile string
	json       bool
}

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "otpq",
		Short:         "Send one-time-code requests through a queue",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		Version:       version(),
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.PersistentFlags().StringVar(&a.configFile, "config", "", "configuration `FILE` (default: the one that OTPQ_CONFIG names, or none)")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%w; see `%s --help`", flagError(err), cmd.CommandPath())
	})
	root.SetHelpCommand(helpCommand(root))
	root.AddCommand(
		a.devCommand(), a.workerCommand(), a.sendCommand(), a.statusCommand(), a.cancelCommand(), a.deadCommand(),
		a.campaignCommand(), a.providersCommand(), a.auditCommand(), a.sandboxCommand(), a.dashboardCommand(), a.checkCommand(),
		a.probeCommand(), a.keygenCommand(), a.versionCommand(),
	)
	return root
}

// helpCommand is cobra's own, but for a topic that there is not: that is a wrong
// usage, and cobra calls it done.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Help about any command",
		RunE: func(_ *cobra.Command, args []string) error {
			about, rest, err := root.Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("there is no command %q; see `%s --help`", strings.Join(args, " "), root.CommandPath())
			}
			return about.Help()
		},
	}
}

// noArgs refuses arguments: an unknown command, mostly.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		cmd.SuggestionsMinimumDistance = 2 // cobra's own, which it sets only on a path not taken here
		message := fmt.Sprintf("unknown command %q for `%s`", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			message += fmt.Sprintf("; did you mean %q?", near[0])
		}
		return usagef("%s; see `%s --help`", message, cmd.CommandPath())
	}
	return usagef("`%s` takes no argument, not %q", cmd.CommandPath(), args[0])
}

// exactArgs wants as many arguments as there are names.
func exactArgs(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return usagef("`%s` needs %s; see `%s --help`", cmd.CommandPath(), names[len(args)], cmd.CommandPath())
		case len(args) > len(names):
			return usagef("`%s` does not take %q", cmd.CommandPath(), args[len(names)])
		}
		if i := slices.Index(args, ""); i >= 0 {
			return usagef("%s must not be empty: is a variable not set?", names[i])
		}
		return nil
	}
}
