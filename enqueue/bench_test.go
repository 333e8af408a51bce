package enqueue

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/tasks"
)

// benchCallers is how many calls of Send run at once, for each CPU.
const benchCallers = 64

// benchClient is a producer of a Redis that logs what is written, as in production.
func benchClient(b *testing.B) *Client {
	b.Helper()
	server := redistest.Start(b, redistest.Args("--appendonly", "yes", "--appendfsync", "everysec"))
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true})
	b.Cleanup(func() { _ = rdb.Close() })
	c, err := Open(Config{Redis: rdb, Keys: []tasks.Key{newKey("bench")}})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return c
}

func BenchmarkSend(b *testing.B) {
	c := benchClient(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Send(b.Context(), example); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSendFromManyCallers(b *testing.B) {
	c := benchClient(b)
	b.ReportAllocs()
	b.SetParallelism(benchCallers)
	b.RunParallel(func(turns *testing.PB) {
		for turns.Next() {
			if _, err := c.Send(b.Context(), example); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

func BenchmarkSendWithAnIdempotencyKey(b *testing.B) {
	c := benchClient(b)
	b.ReportAllocs()
	turn := 0
	for b.Loop() {
		turn++
		if _, err := c.Send(b.Context(), example, IdempotencyKey("login "+strconv.Itoa(turn))); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSendBatch counts messages, not batches.
func BenchmarkSendBatch(b *testing.B) {
	for _, c := range []struct {
		name string
		key  bool
	}{{"plain", false}, {"keyed", true}} {
		b.Run(c.name, func(b *testing.B) {
			client := benchClient(b)
			items := make([]Item, b.N)
			for i := range items {
				items[i].Request = example
				if c.key {
					items[i].Options = []Option{IdempotencyKey("row " + strconv.Itoa(i))}
				}
			}
			b.ReportAllocs()
			before := redisCPU(b, client)
			b.ResetTimer()
			results, err := client.SendBatch(b.Context(), items)
			b.StopTimer()
			if err != nil {
				b.Fatal(err)
			}
			for _, r := range results {
				if r.Err != nil || r.Receipt.Repeated {
					b.Fatal(r)
				}
			}
			b.ReportMetric((redisCPU(b, client)-before)*1e9/float64(b.N), "redis-ns/op")
		})
	}
}

// redisCPU is how many seconds of CPU Redis has used.
func redisCPU(b *testing.B, c *Client) float64 {
	b.Helper()
	info, err := c.rdb.Info(context.Background(), "cpu").Result()
	if err != nil {
		b.Fatal(err)
	}
	var system, user float64
	for line := range strings.Lines(info) {
		_, _ = fmt.Sscanf(line, "used_cpu_sys:%g", &system)
		_, _ = fmt.Sscanf(line, "used_cpu_user:%g", &user)
	}
	return system + user
}
