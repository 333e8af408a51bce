package worker

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// instant accepts every request at once.
type instant struct{ sent atomic.Int64 }

func (p *instant) Send(context.Context, providers.Request) providers.Outcome {
	p.sent.Add(1)
	return accepted
}

// yesStore grants every claim and forgets every result. What else a store can do
// is not asked of it.
type yesStore struct{ status.Store }

func (yesStore) Claim(context.Context, status.Claim) (status.Claimed, error) {
	return status.Claimed{Result: status.ClaimedNow, Attempt: 1}, nil
}

func (yesStore) Finish(context.Context, status.Finish) error { return nil }

// benchWorker is a worker as it ships, but for its provider: metrics on, a log at
// level info.
func benchWorker(b *testing.B, rdb redis.UniversalClient, key tasks.Key, store status.Store, p providers.Provider) *Worker {
	b.Helper()
	ring, err := tasks.NewKeyring(key)
	if err != nil {
		b.Fatal(err)
	}
	cfg := (&fake{}).config(func(pc *ProviderConfig) {
		pc.Provider = p
		pc.Concurrency = map[tasks.Lane]int{tasks.Interactive: 256, tasks.Bulk: 16}
	})
	w, err := New(Config{
		Redis: rdb, Keys: ring, Store: store, Providers: []ProviderConfig{cfg},
		Metrics: metrics.NewWorker(prometheus.NewRegistry()), Log: zerolog.New(io.Discard).Level(zerolog.InfoLevel),
	})
	if err != nil {
		b.Fatal(err)
	}
	return w
}

func BenchmarkClassify(b *testing.B) {
	rdb := redis.NewClient(&redis.Options{}) // nothing here talks to it
	defer rdb.Close()
	p := benchWorker(b, rdb, tasks.Key{ID: "bench", Secret: tasks.GenerateSecret()}, yesStore{}, &instant{}).handlers[0]
	for _, o := range []providers.Outcome{
		accepted,
		providers.Reject(providers.ReasonRecipientUnknown, nil),
		providers.Retry(providers.ReasonNotSent, 0, nil),
		providers.Unknown(providers.ReasonTimeout, nil),
	} {
		b.Run(o.Kind.String(), func(b *testing.B) {
			a := &attempt{message: tasks.Message{NotAfter: time.Now().Add(time.Hour)}, claimed: status.Claimed{Attempt: 1}}
			b.ReportAllocs()
			for b.Loop() {
				p.classify(a, o)
			}
		})
	}
}

// BenchmarkPipeline is what the worker itself does to a message, from its payload
// to the verdict for asynq, without Redis and HTTP.
func BenchmarkPipeline(b *testing.B) {
	rdb := redis.NewClient(&redis.Options{}) // nothing here talks to it
	defer rdb.Close()
	key := tasks.Key{ID: "bench", Secret: tasks.GenerateSecret()}
	p := benchWorker(b, rdb, key, yesStore{}, &instant{}).handlers[0]
	now := time.Now().UTC().Truncate(time.Millisecond)
	payloads := make([][]byte, b.N) // a message is not sent twice
	ids := make([]string, b.N)
	for i := range payloads {
		ids[i] = tasks.NewID()
		var err error
		payloads[i], err = tasks.Encode(p.keys, tasks.Message{
			ID: ids[i], Provider: p.cfg.Name, Lane: p.lane, Request: []byte(`{"username":"teste@gmail.com","type":"EMAIL"}`),
			CreatedAt: now, NotAfter: now.Add(time.Hour),
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i, payload := range payloads {
		// As ProcessTask, which reads the task's id from asynq's context.
		a := &attempt{taskID: ids[i], messageID: ids[i], payload: payload, started: p.now()}
		v := p.record(b.Context(), a, p.run(b.Context(), a))
		p.observe(a, v)
		if err := settle(v); err != nil {
			b.Fatalf("the message ended %s: %v", v.state, err)
		}
	}
}

// BenchmarkWorker drains a queue on a real Redis, with a provider that takes no time.
func BenchmarkWorker(b *testing.B) {
	b.Run("instant", func(b *testing.B) { benchDrain(b, &instant{}) })
	b.Run("http", func(b *testing.B) { // this is what cmd/otpq/default.pgo is made from
		vendor := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, `{"type":"EMAIL","sended":true,"requestedAt":"2026-11-20T12:00:00.000-0300"}`)
		}))
		defer vendor.Close()
		p, err := unimedbh.New(providers.Settings{BaseURL: vendor.URL, Log: zerolog.Nop()})
		if err != nil {
			b.Fatal(err)
		}
		benchDrain(b, &tallied{Provider: p})
	})
}

// tallied counts what a provider was sent.
type tallied struct {
	providers.Provider
	instant
}

// Send implements [providers.Provider].
func (c *tallied) Send(ctx context.Context, r providers.Request) providers.Outcome {
	defer c.sent.Add(1)
	return c.Provider.Send(ctx, r)
}

func (p *instant) count() int64 { return p.sent.Load() }

func benchDrain(b *testing.B, p interface {
	providers.Provider
	count() int64
}) {
	b.Helper()
	server := redistest.Start(b, redistest.Args("--appendonly", "yes", "--appendfsync", "everysec"))
	newClient := func() *redis.Client {
		rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true, MaxRetries: 1, PoolSize: 300})
		b.Cleanup(func() { _ = rdb.Close() })
		return rdb
	}
	key := tasks.Key{ID: "bench", Secret: tasks.GenerateSecret()}
	client, err := enqueue.Open(enqueue.Config{Redis: newClient(), Keys: []tasks.Key{key}})
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	var next atomic.Int64
	failed := make(chan error, 32)
	for range cap(failed) {
		wg.Go(func() {
			for int(next.Add(1)) <= b.N {
				if _, err := client.Send(b.Context(), example, enqueue.ValidFor(time.Hour)); err != nil {
					failed <- fmt.Errorf("fill the queue: %w", err)
					return
				}
			}
		})
	}
	wg.Wait()
	close(failed)
	if err := <-failed; err != nil {
		b.Fatal(err)
	}
	rdb := newClient()
	w := benchWorker(b, rdb, key, status.NewRedis(rdb, status.Retention{}), p)
	b.ReportAllocs()
	b.ResetTimer()
	if err := w.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	for tick := time.NewTicker(time.Millisecond); p.count() < int64(b.N); <-tick.C {
	}
	b.StopTimer()
	w.Shutdown()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}
