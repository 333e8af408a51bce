package enqueue

import (
	"strconv"
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
