// Command bench compares the product with what people would pick instead of it.
// It runs each of them in processes of their own against the same provider, in
// turns, and checks after each run that nothing was lost or doubled. See
// docs/benchmarks.md. It is a module of its own, so that the peers stay out of
// the product's go.mod.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

const usage = `usage: bench COMMAND

  run [FLAGS]        run suites and print what they came to; run -help lists the flags

What run starts:
  provider           the HTTP server that all post to
  nats DIR           a NATS server that keeps its streams in DIR
  work PEER PLAN     a worker
  produce PEER PLAN  a producer
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := command(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:forbidigo // a command's main
	}
}

func command(ctx context.Context, args []string) error {
	switch {
	case len(args) >= 1 && args[0] == "run":
		return runSuites(ctx, args[1:])
	case len(args) == 1 && args[0] == "provider":
		return child(ctx, serveProvider)
	case len(args) == 2 && args[0] == "nats":
		return child(ctx, func(ctx context.Context, p *parent) error { return serveNATS(ctx, p, args[1]) })
	case len(args) == 3 && args[0] == "work":
		return child(ctx, func(ctx context.Context, p *parent) error { return work(ctx, p, args[1], args[2]) })
	case len(args) == 3 && args[0] == "produce":
		return child(ctx, func(ctx context.Context, p *parent) error { return produce(ctx, p, args[1], args[2]) })
	}
	fmt.Fprint(os.Stderr, usage)
	return errors.New("no such command")
}

// parent is the process that started this one. It reads events from our stdout,
// and says "go" on our stdin, whose end is our end.
type parent struct {
	begin chan struct{} // closed by "go"
}

// child runs f until it returns, the parent closes our stdin or a signal comes.
func child(ctx context.Context, f func(context.Context, *parent) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &parent{begin: make(chan struct{})}
	go func() {
		lines := bufio.NewReader(os.Stdin)
		if line, err := lines.ReadString('\n'); err == nil && line == "go\n" {
			close(p.begin)
		}
		_, _ = io.Copy(io.Discard, lines)
		cancel()
	}()
	err := f(ctx, p)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// tell writes an event.
func (p *parent) tell(name string, data any) error {
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"event": name, "data": data})
}

// ready tells that everything is set up and waits for the word to begin.
func (p *parent) ready(ctx context.Context) error {
	if err := p.tell("ready", nil); err != nil {
		return err
	}
	select {
	case <-p.begin:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
