package campaign_test

import (
	"context"
	"fmt"
	"log"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

// open stands in for a program's start, and for the worker that runs elsewhere.
func open() (campaigns *campaign.Campaigns, end func()) {
	machine := &machine{}
	rdb := redis.NewClient(&redis.Options{Addr: redistest.Start(machine).Addr(), ContextTimeoutEnabled: true})
	machine.Cleanup(func() { _ = rdb.Close() })
	// From `otpq keygen`; the workers have the same.
	keys := []tasks.Key{{ID: "2026-11", Secret: tasks.GenerateSecret()}}
	machine.work(rdb, keys)
	campaigns, err := campaign.Open(campaign.Config{
		Redis: rdb, Keys: keys, Definitions: []providers.Definition{unimedbh.Definition()},
	})
	if err != nil {
		log.Fatal(err)
	}
	machine.Cleanup(func() { _ = campaigns.Close() })
	return campaigns, machine.end
}

func Example() {
	campaigns, end := open()
	defer end()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	people := strings.NewReader(`name,mail
Ana,ana@example.com
Rui,rui@example.com
nobody,
Ana again,ANA@example.com
`)
	mapping, err := rows.ParseMapping([]string{"username=mail", "type==EMAIL"})
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := rows.Open(ctx, people, unimedbh.Definition(), rows.FileOptions{Map: mapping})
	if err != nil {
		fmt.Println(err) // of the whole file: what is wrong with a row is found below
		return
	}

	// Reads all rows and keeps them. Nothing is sent.
	made, _, err := campaigns.Create(ctx,
		campaign.Settings{ID: "november", Provider: unimedbh.Name, Rate: 500, ValidFor: campaign.Duration(30 * time.Minute)},
		campaign.Source{Rows: file.Rows(), Name: "people.csv"},
		campaign.CreateOptions{OnInvalid: func(line int, problems []providers.FieldError) {
			fmt.Println("line", line, problems[0].Field, problems[0].Problem)
		}},
	)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(made.State, made.Counts.Rows, "rows,", made.Counts.Waiting, "wait")

	// Start says that it is to run; Feed does it, from here, until it is over. With
	// true in place of false any worker feeds it, and Feed is not called.
	if err := campaigns.Start(ctx, "november", false); err != nil {
		fmt.Println(err)
		return
	}
	if err := campaigns.Feed(ctx, "november", "this program"); err != nil {
		fmt.Println(err)
		return
	}

	now, err := campaigns.Status(ctx, "november")
	if err != nil {
		fmt.Println(err)
		return
	}
	n := now.Counts
	fmt.Println(now.State, n.Accepted, "accepted,", n.Invalid, "invalid,", n.Duplicate, "duplicate")
	for row, err := range campaigns.Report(ctx, "november", false) {
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(row.Line, row.State)
	}
	// Output:
	// line 4 username is required
	// created 4 rows, 2 wait
	// completed_with_failures 2 accepted, 1 invalid, 1 duplicate
	// 2 accepted
	// 3 accepted
	// 4 invalid
	// 5 duplicate
}

// machine runs what the example needs, a Redis and a worker among them, until its end.
type machine struct {
	testing.TB // of which it has what redistest calls
	ends       []func()
}

func (m *machine) Helper()                   {}
func (m *machine) Cleanup(end func())        { m.ends = append(m.ends, end) }
func (m *machine) Fatal(args ...any)         { log.Panic(args...) }
func (m *machine) Fatalf(f string, a ...any) { log.Panicf(f, a...) }

func (m *machine) TempDir() string {
	dir, err := os.MkdirTemp("", "otpq-example")
	if err != nil {
		log.Panic(err)
	}
	m.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func (m *machine) end() {
	for i := len(m.ends); i > 0; i-- {
		m.ends[i-1]()
	}
}

// work runs a worker against the provider's sandbox.
func (m *machine) work(rdb *redis.Client, keys []tasks.Key) {
	sandbox := httptest.NewServer(unimedbh.Sandbox())
	m.Cleanup(sandbox.Close)
	ring, err := tasks.NewKeyring(keys...)
	if err != nil {
		log.Panic(err)
	}
	provider, err := unimedbh.New(providers.Settings{BaseURL: sandbox.URL, Log: zerolog.Nop()})
	if err != nil {
		log.Panic(err)
	}
	w, err := worker.New(worker.Config{
		Redis: rdb, Keys: ring, Store: status.NewRedis(rdb, status.Retention{}), Log: zerolog.Nop(),
		Providers: []worker.ProviderConfig{{
			Name: unimedbh.Name, Provider: provider, Decode: unimedbh.Decode, Timeout: 5 * time.Second,
			Concurrency: map[tasks.Lane]int{tasks.Interactive: 1, tasks.Bulk: 4},
			Breaker:     worker.BreakerConfig{ConsecutiveFailures: 5, FailureRatio: 0.5, MinimumRequests: 20, OpenFor: time.Second},
			Retry:       worker.Retry{MaxAttempts: 2, Initial: time.Second, Max: time.Second},
		}},
	})
	if err != nil {
		log.Panic(err)
	}
	if err := w.Start(context.Background()); err != nil {
		log.Panic(err)
	}
	m.Cleanup(w.Shutdown)
}
