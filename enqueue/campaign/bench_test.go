package campaign

import (
	"context"
	"testing"
	"time"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/tasks"
)

// BenchmarkRows is what a row costs: to be kept when a campaign is created, and to be
// put in the queue where nothing limits that.
func BenchmarkRows(b *testing.B) {
	server := redistest.Start(b)
	rdb, err := redisconn.Open(server.URL(), redisconn.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer rdb.Close()
	c, err := Open(Config{
		Redis: rdb, Keys: []tasks.Key{{ID: "bench", Secret: tasks.GenerateSecret()}}, Definitions: []providers.Definition{unimedbh.Definition()},
	})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	const most = MaxWindow
	total := 0
	var creating, feeding time.Duration
	for b.Loop() {
		rdb.FlushAll(b.Context())
		s := settings("bench")
		s.Window = most
		begun := time.Now()
		_, _, err := c.Create(b.Context(), s, Source{Rows: func(yield func(rows.Row, error) bool) {
			for n := range most {
				if !yield(rows.Row{Line: n + 1, Request: person(n)}, nil) {
					return
				}
			}
		}}, CreateOptions{})
		creating += time.Since(begun)
		if err == nil {
			err = c.Start(b.Context(), "bench", false)
		}
		if err != nil {
			b.Fatal(err)
		}
		begun = time.Now()
		ctx, cancel := context.WithCancel(b.Context())
		ended := make(chan error)
		go func() { ended <- c.Feed(ctx, "bench", "bench") }()
		for fed := int64(0); fed < most; {
			if err := sleep(ctx, time.Millisecond); err != nil {
				b.Fatal(err)
			}
			if fed, err = rdb.HGet(ctx, campaignKey("bench"), "fed").Int64(); err != nil {
				b.Fatal(err)
			}
		}
		feeding += time.Since(begun)
		cancel()
		<-ended
		total += most
	}
	b.ReportMetric(float64(total)/creating.Seconds(), "created/s")
	b.ReportMetric(float64(total)/feeding.Seconds(), "fed/s")
	b.ReportMetric(0, "ns/op")
}
