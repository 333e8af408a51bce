// Package providertest is the contract that every provider keeps, as a test: the
// vendor's documented exchanges, one a file, and what no vendor documents
// (lost replies, captive portals, redirects). It is not a sandbox: its
// vendors only misbehave, on real sockets, for one rule each.
package providertest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/secret"
	"github.com/otpq/otpq/providers"
)

// token is what a provider that needs one is given.
const token = "kit-TOKEN-a1b2c3d4e5"

// Harness says which provider keeps the contract, and how it is set up.
type Harness struct {
	Definition providers.Definition
	// Format is one of the Definition's; empty means its first.
	Format string
	// Exchanges is the folder of the vendor's exchanges, testdata/exchanges
	// when empty. At least one of them is accepted.
	Exchanges string
}

// Run checks the provider against its exchanges and against the rules. With the
// flag -update it writes the requests of the exchanges anew.
func Run(t *testing.T, h Harness) {
	t.Helper()
	quiet(t)
	if h.Exchanges == "" {
		h.Exchanges = filepath.Join("testdata", "exchanges")
	}
	exchanges, err := readExchanges(h.Exchanges)
	if err != nil {
		t.Fatal(err)
	}
	k := &kit{Harness: h, soon: 5 * time.Second}
	for _, x := range exchanges {
		if x.outcome.Kind == providers.Accepted {
			k.accepted = x.response
		}
	}
	if k.accepted == nil {
		t.Fatalf("no exchange in %s is accepted", h.Exchanges)
	}
	for _, x := range exchanges {
		t.Run(x.name, func(t *testing.T) {
			if err := k.exchange(x, *update); err != nil {
				t.Error(err)
			}
		})
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			k := *k
			k.dir = t.TempDir()
			if err := r.check(&k); err != nil {
				t.Error(err)
			}
		})
	}
}

// quiet silences net/http, which logs what a vendor says unasked, until the test ends.
func quiet(t *testing.T) {
	t.Helper()
	old := log.Writer()
	log.SetOutput(io.Discard)
	t.Cleanup(func() { log.SetOutput(old) })
}

// kit is what a rule works with.
type kit struct {
	Harness
	accepted []byte        // a reply that the provider accepts
	dir      string        // for token files
	soon     time.Duration // bounds a Send that has nothing to wait for
}

// provider makes the provider for a vendor at url. change, when not nil, has the
// last word on its settings.
func (k *kit) provider(url string, log *logs, change func(*providers.Settings)) (providers.Provider, error) {
	s := providers.Settings{BaseURL: url, Format: k.Format, Log: zerolog.New(log).Level(zerolog.DebugLevel)}
	if k.Definition.NeedsToken {
		s.Token = secret.Text(token)
	}
	if change != nil {
		change(&s)
	}
	return k.Definition.New(s)
}

// send hands the example to a new provider for a vendor at url.
func (k *kit) send(ctx context.Context, url string) (providers.Outcome, error) {
	return k.sendRequest(ctx, url, k.Definition.Example)
}

func (k *kit) sendRequest(ctx context.Context, url string, r providers.Request) (providers.Outcome, error) {
	log := new(logs)
	p, err := k.provider(url, log, nil)
	if err != nil {
		return providers.Outcome{}, fmt.Errorf("New() = %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, k.soon)
	defer cancel()
	out := p.Send(ctx, r)
	return out, leaks(r, out, log)
}

// leaks finds what names the person, or the token, in what a Send left behind.
func leaks(r providers.Request, out providers.Outcome, log *logs) error {
	places := map[string]string{
		"outcome": fmt.Sprintf("%+v %#v", out, out),
		"log":     log.String(),
	}
	if out.Err != nil {
		places["error"] = fmt.Sprintf("%v %+v %#v", out.Err, out.Err, out.Err)
	}
	secrets := []string{token}
	if r != nil {
		secrets = append(secrets, r.Personal()...)
		if who := strings.TrimSpace(r.Recipient()); who != "" {
			secrets = append(secrets, who)
		}
	}
	var errs []error
	for place, text := range places {
		for i, s := range secrets {
			if shows(text, s) {
				what := "the token"
				if i > 0 {
					what = fmt.Sprintf("what names the person (%q)", s)
				}
				errs = append(errs, fmt.Errorf("the %s holds %s:\n%s", place, what, text))
			}
		}
	}
	return errors.Join(errs...)
}

// expect compares what a rule is about.
func expect(got providers.Outcome, kind providers.Kind, reason providers.Reason) error {
	if got.Kind != kind || got.Reason != reason {
		return fmt.Errorf("Send() = %v %q (%v), want %v %q", got.Kind, got.Reason, got.Err, kind, reason)
	}
	return nil
}

// logs collects log lines from any goroutine.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements [io.Writer].
func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String returns what was logged.
func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
