package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/status"
)

// sample is one message that `otpq dev` sends to show what can become of it.
type sample struct {
	what     string
	provider string
	request  string // JSON; empty means the page's own example
	opts     []enqueue.Option
	// fault holds to the message's end; the samples of a provider are sent one
	// after the other, so it hits no other.
	fault  sandbox.Fault
	cancel bool

	record status.Record
	err    error
}

// samples are the messages of a dev run, with what is known of each so far.
type samples struct {
	client *enqueue.Client
	server *sandbox.Server

	mu      sync.Mutex
	list    []*sample
	changed chan struct{}
}

func newSamples(client *enqueue.Client, server *sandbox.Server) *samples {
	return &samples{client: client, server: server, changed: make(chan struct{}, 1), list: []*sample{
		{what: "all is well", provider: "medsenior"},
		{what: "the provider fails once (500)", provider: "medsenior", fault: sandbox.Fault{FailNext: 1}},
		{what: "the provider fails, as often as is tried", provider: "medsenior", fault: sandbox.Fault{ErrorRate: 1},
			opts: []enqueue.Option{enqueue.MaxAttempts(2)}},
		{what: "canceled before it is due", provider: "medsenior", cancel: true,
			opts: []enqueue.Option{enqueue.At(time.Now().Add(time.Hour))}},
		{what: "all is well", provider: "unimedbh"},
		{what: "a recipient the provider does not know", provider: "unimedbh",
			request: `{"username":"desconhecido@example.com","type":"EMAIL"}`},
		{what: "down for longer than the 1 s it is valid", provider: "unimedbh",
			fault: sandbox.Fault{ErrorRate: 1, ErrorStatus: 503},
			opts:  []enqueue.Option{enqueue.ValidFor(time.Second)}},
		{what: "all is well", provider: "kinpos"},
		{what: "the reply is cut off, so nobody knows", provider: "kinpos", fault: sandbox.Fault{CutNext: 1}},
		{what: "a captive portal answers 200 with HTML", provider: "kinpos", fault: sandbox.Fault{GarbageRate: 1}},
	}}
}

// run sends the samples, each provider's in turn, and returns when all have come
// to their end or ctx ends.
func (s *samples) run(ctx context.Context) {
	byProvider := map[string][]*sample{}
	for _, sm := range s.list {
		byProvider[sm.provider] = append(byProvider[sm.provider], sm)
	}
	var wg sync.WaitGroup
	for _, list := range byProvider {
		wg.Go(func() {
			for _, sm := range list {
				if err := s.send(ctx, sm); err != nil && ctx.Err() == nil {
					s.update(func() { sm.err = err })
				}
			}
		})
	}
	wg.Wait()
}

func (s *samples) send(ctx context.Context, sm *sample) error {
	def, ok := all.ByName(sm.provider)
	if !ok {
		return fmt.Errorf("no provider %q", sm.provider)
	}
	request := def.Example
	if sm.request != "" {
		var err error
		if request, err = def.Decode([]byte(sm.request)); err != nil {
			return err
		}
	}
	if err := s.server.SetFault(sm.provider, sm.fault); err != nil {
		return err
	}
	receipt, err := s.sendWhenUp(ctx, request, sm.opts)
	if err != nil {
		return err
	}
	if sm.cancel {
		if err := s.client.Cancel(ctx, receipt.ID); err != nil {
			return err
		}
	}
	err = follow(ctx, s.client.Status, receipt.ID, func(r status.Record) error {
		s.update(func() { sm.record = r })
		return nil
	})
	return errors.Join(err, s.server.SetFault(sm.provider, sandbox.Fault{}))
}

// sendWhenUp sends as an app should: with a short time limit, and again under
// the same idempotency key when Redis did not confirm.
func (s *samples) sendWhenUp(ctx context.Context, r providers.Request, opts []enqueue.Option) (enqueue.Receipt, error) {
	opts = append([]enqueue.Option{enqueue.IdempotencyKey("sample " + time.Now().Format(time.RFC3339Nano))}, opts...)
	for {
		short, cancel := context.WithTimeout(ctx, 2*time.Second)
		receipt, err := s.client.Send(short, r, opts...)
		cancel()
		var unavailable *enqueue.UnavailableError
		if !errors.As(err, &unavailable) || ctx.Err() != nil {
			return receipt, err
		}
	}
}

func (s *samples) update(change func()) {
	s.mu.Lock()
	change()
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// snapshot copies the samples.
func (s *samples) snapshot() []sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]sample, len(s.list))
	for i, sm := range s.list {
		out[i] = *sm
	}
	return out
}

// show runs the samples and shows each on its way: a table that changes on a
// terminal, a line a change elsewhere, JSON with --json.
func (d *dev) show(ctx context.Context, s *samples, workerDone <-chan error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		s.run(ctx)
	}()
	draw := d.drawLines()
	if isTerminal(d.out) && !d.json {
		draw = d.drawTable()
	}
	for {
		select {
		case <-s.changed:
			draw(s.snapshot())
		case <-finished:
			draw(s.snapshot())
			for _, sm := range s.snapshot() {
				if sm.err != nil {
					return fmt.Errorf("sample %q: %w", sm.what, sm.err)
				}
			}
			return nil
		case err := <-workerDone:
			cancel()
			<-finished
			return err
		}
	}
}

// drawLines prints each change once.
func (d *dev) drawLines() func([]sample) {
	seen := map[int]string{}
	return func(list []sample) {
		for i, sm := range list {
			if sm.record.ID == "" {
				continue
			}
			now := d.describe(sm.record)
			if seen[i] == now {
				continue
			}
			seen[i] = now
			if d.json {
				_ = d.printJSON(sm.record) // a closed pipe ends the run elsewhere
				continue
			}
			fmt.Fprintf(d.out, "%s  %-9s  %-40s  %s\n", clock(sm.record.UpdatedAt), sm.provider, sm.what, now)
		}
	}
}

// drawTable draws the table over itself.
func (d *dev) drawTable() func([]sample) {
	lines := 0
	return func(list []sample) {
		t := d.table("provider", "sample", "state")
		// A line that wraps would be two, and the next table start too low.
		t.Style().Size.WidthMax, _ = terminalSize(d.out)
		for _, sm := range list {
			state := "…"
			if sm.record.ID != "" {
				state = d.describe(sm.record)
			}
			t.AppendRow(table.Row{sm.provider, sm.what, state})
		}
		rendered := t.Render()
		if lines > 0 {
			fmt.Fprintf(d.out, "\x1b[%dA\x1b[J", lines) // up to its first line, and clear below
		}
		lines = strings.Count(rendered, "\n") + 1
		fmt.Fprintln(d.out, rendered)
	}
}
