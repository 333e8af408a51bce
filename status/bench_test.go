package status_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
)

// benchWriters is how many attempts end at once under load, for each CPU.
const benchWriters = 64

// benchStore is a store on a Redis that logs what is written, as in production.
func benchStore(b *testing.B) *status.Redis {
	b.Helper()
	server := redistest.Start(b, redistest.Args("--appendonly", "yes", "--appendfsync", "everysec"))
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), ContextTimeoutEnabled: true, PoolSize: 4 * benchWriters})
	b.Cleanup(func() { _ = rdb.Close() })
	return newStore(rdb)
}

// benchRecords writes a record for each turn of the benchmark.
func benchRecords(b *testing.B, s *status.Redis) []status.Record {
	b.Helper()
	records := make([]status.Record, b.N)
	for i := range records {
		records[i] = newRecord("unimedbh")
		must(b, s.Create(b.Context(), records[i]))
	}
	return records
}

func BenchmarkCreate(b *testing.B) {
	s := benchStore(b)
	b.ReportAllocs()
	for b.Loop() {
		must(b, s.Create(b.Context(), newRecord("unimedbh")))
	}
}

func BenchmarkClaim(b *testing.B) {
	s := benchStore(b)
	records := benchRecords(b, s)
	b.ReportAllocs()
	b.ResetTimer()
	for _, r := range records {
		claim(b, s, r, at(time.Second))
	}
}

func BenchmarkFinish(b *testing.B) {
	s := benchStore(b)
	records := benchRecords(b, s)
	attempts := make([]int, len(records))
	for i, r := range records {
		attempts[i] = claim(b, s, r, at(time.Second)).Attempt
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i, r := range records {
		must(b, s.Finish(b.Context(), finishOf(r, attempts[i], status.Accepted, "", at(2*time.Second))))
	}
}

func BenchmarkGet(b *testing.B) {
	s := benchStore(b)
	r := sent(b, s, "unimedbh", status.Accepted, "", at(time.Second))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(b.Context(), r.ID); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRecordOfOneMessage is every write of a message that is accepted at
// once, as many messages at a time as a busy worker has.
func BenchmarkRecordOfOneMessage(b *testing.B) {
	s := benchStore(b)
	b.ReportAllocs()
	b.SetParallelism(benchWriters)
	b.RunParallel(func(turns *testing.PB) {
		for turns.Next() {
			r := newRecord("unimedbh")
			err := s.Create(b.Context(), r)
			if err == nil {
				_, err = s.Claim(b.Context(), status.Claim{Seed: r, Token: token, Now: at(time.Second), AbandonedAfter: time.Minute})
			}
			if err == nil {
				err = s.Finish(b.Context(), finishOf(r, 1, status.Accepted, "", at(2*time.Second)))
			}
			if err != nil {
				b.Error(err) // Fatal is for the benchmark's own goroutine
				return
			}
		}
	})
}
