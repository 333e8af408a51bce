package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

// readyTime bounds one look at what a worker needs.
const readyTime = time.Second

// readiness is what a worker needs to send anything.
type readiness struct {
	redis     func(context.Context) error
	keys      *tasks.Keyring
	providers map[string]func() error // of those that are on
	off       []offProvider
	loops     func() error
}

// newReadiness looks at the providers' token files too: they come and go while the
// worker runs.
func newReadiness(cfg config.Config, on []worker.ProviderConfig, off []offProvider, ring *tasks.Keyring, rdb redis.UniversalClient, loops func() error) readiness {
	r := readiness{keys: ring, providers: map[string]func() error{}, off: off, loops: loops}
	r.redis = func(ctx context.Context) error { return rdb.Ping(ctx).Err() }
	for _, p := range on {
		file := cfg.Providers[p.Name].TokenFile
		r.providers[p.Name] = func() error { return checkTokenFile(file) }
	}
	return r
}

func checkTokenFile(file string) error {
	if file == "" {
		return nil
	}
	content, err := os.ReadFile(file)
	if err == nil && len(bytes.TrimSpace(content)) == 0 {
		err = errors.New("is empty")
	}
	if err != nil {
		return fmt.Errorf("token_file: %w", err)
	}
	return nil
}

// readyReport is what /readyz tells: "ok" or what is wrong, for each thing that a
// worker needs, and for each provider.
type readyReport struct {
	Status    string            `json:"status"` // ok or failing
	Error     string            `json:"error,omitempty"`
	Checks    map[string]string `json:"checks"`
	Providers map[string]string `json:"providers"`
}

// checkOrder is that of the words in a report's error.
var checkOrder = []string{"redis", "keys", "providers", "loops"}

// look finds what is missing. An open breaker is not: it is the provider's trouble,
// and no worker is better off without the others.
func (r readiness) look(ctx context.Context) readyReport {
	report := readyReport{Status: "ok", Checks: map[string]string{}, Providers: map[string]string{}}
	for _, p := range r.off {
		report.Providers[p.name] = "off: " + p.why
	}
	usable := 0
	for name, check := range r.providers {
		err := check()
		if err == nil {
			usable++
		}
		report.Providers[name] = okOr(err)
	}
	var noneUsable error
	if usable == 0 {
		noneUsable = errors.New("no provider can be used")
	}
	found := map[string]error{
		"redis": r.checkRedis(ctx), "keys": checkKeyring(r.keys), "providers": noneUsable, "loops": r.loops(),
	}
	var wrong []string
	for _, name := range checkOrder {
		report.Checks[name] = okOr(found[name])
		if found[name] != nil {
			wrong = append(wrong, report.Checks[name])
		}
	}
	if wrong != nil {
		report.Status, report.Error = "failing", strings.Join(wrong, "; ")
	}
	return report
}

func okOr(err error) string {
	if err == nil {
		return "ok"
	}
	return err.Error()
}

func (r readiness) checkRedis(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	if err := r.redis(ctx); err != nil {
		return fmt.Errorf("redis does not answer: %w", err)
	}
	return nil
}

// checkKeyring seals and opens something.
func checkKeyring(ring *tasks.Keyring) error {
	const probe = "ready?"
	id, sealed, err := ring.Seal([]byte(probe), nil)
	if err != nil {
		return fmt.Errorf("keys do not seal: %w", err)
	}
	if plain, err := ring.Open(id, sealed, nil); err != nil || string(plain) != probe {
		return errors.New("keys do not open what they sealed")
	}
	return nil
}

// ServeHTTP answers 200 or 503, and which is wrong.
func (r readiness) ServeHTTP(rw http.ResponseWriter, req *http.Request) {
	report := r.look(req.Context())
	rw.Header().Set("Content-Type", "application/json")
	if report.Status != "ok" {
		rw.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(rw).Encode(report) // the client has left if this fails
}
