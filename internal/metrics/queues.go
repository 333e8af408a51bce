package metrics

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/backlog"
	"github.com/otpq/otpq/tasks"
)

// Queues shows what is in Redis: queues, dead letters, workers and memory. It is
// safe for concurrent use.
type Queues struct {
	Redis redis.UniversalClient
	// Providers are shown even when no message was ever queued for them.
	Providers []string
	// Dead is how many dead letters a provider has.
	Dead func(ctx context.Context, provider string) (int64, error)
	// Workers is how many live.
	Workers func(context.Context) (int, error)

	last looked
}

var _ prometheus.Collector = (*Queues)(nil)

var (
	redisUp       = redisUpSpec.read()
	redisUsed     = redisUsedSpec.read()
	redisMax      = redisMaxSpec.read()
	workers       = workersSpec.read()
	queueMessages = queueMessagesSpec.read()
	queueOldest   = queueOldestSpec.read()
	queuePaused   = queuePausedSpec.read()
	dead          = deadSpec.read()

	asynqTasks     = asynqTasksSpec.read()
	asynqSize      = asynqSizeSpec.read()
	asynqLatency   = asynqLatencySpec.read()
	asynqMemory    = asynqMemorySpec.read()
	asynqProcessed = asynqProcessedSpec.read()
	asynqFailed    = asynqFailedSpec.read()
	asynqPaused    = asynqPausedSpec.read()
)

// Describe implements [prometheus.Collector].
func (q *Queues) Describe(ch chan<- *prometheus.Desc) {
	for _, r := range []read{
		redisUp, redisUsed, redisMax, workers, queueMessages, queueOldest, queuePaused, dead,
		asynqTasks, asynqSize, asynqLatency, asynqMemory, asynqProcessed, asynqFailed, asynqPaused,
	} {
		ch <- r.Desc
	}
}

// Collect implements [prometheus.Collector].
func (q *Queues) Collect(ch chan<- prometheus.Metric) { q.last.collect(ch, q.look) }

// look reads all there is. Old figures would pass for new ones, so what cannot be
// read is left out.
func (q *Queues) look(ctx context.Context) []prometheus.Metric {
	queues, err := backlog.ReadAll(ctx, q.Redis, time.Now())
	if err != nil {
		return []prometheus.Metric{redisUp.value(0)}
	}
	out := []prometheus.Metric{redisUp.value(1)}
	out = append(out, q.lanes(queues)...)
	for _, each := range queues {
		if slices.Contains(q.Providers, each.Provider) { // anybody can name a queue; labels are a closed set
			out = append(out, asynqs(each)...)
		}
	}
	for _, p := range q.Providers {
		if n, err := q.Dead(ctx, p); err == nil {
			out = append(out, dead.value(float64(n), p))
		}
	}
	if n, err := q.Workers(ctx); err == nil {
		out = append(out, workers.value(float64(n)))
	}
	if used, most, err := memory(ctx, q.Redis); err == nil {
		out = append(out, redisUsed.value(used), redisMax.value(most))
	}
	return out
}

// lanes are those of each provider.
func (q *Queues) lanes(queues []backlog.Queue) []prometheus.Metric {
	var out []prometheus.Metric
	for _, provider := range q.Providers {
		for _, lane := range tasks.Lanes() {
			all := backlog.LaneOf(queues, provider, lane)
			of := []string{provider, string(lane)}
			for state, n := range map[string]int64{
				"pending": all.Pending, "active": all.Active, "deferred": all.Deferred, "scheduled": all.Scheduled,
			} {
				out = append(out, queueMessages.value(float64(n), provider, string(lane), state))
			}
			out = append(out, queueOldest.value(all.OldestSeconds, of...), queuePaused.value(oneIf(all.Paused), of...))
		}
	}
	return out
}

// asynqs is a queue under the names of asynq's own exporter.
func asynqs(q backlog.Queue) []prometheus.Metric {
	out := []prometheus.Metric{
		asynqSize.value(float64(q.Size()), q.Name), asynqLatency.value(q.OldestSeconds, q.Name),
		asynqProcessed.value(float64(q.Processed), q.Name), asynqFailed.value(float64(q.Failed), q.Name),
		asynqPaused.value(oneIf(q.Paused), q.Name),
	}
	if q.Bytes >= 0 {
		out = append(out, asynqMemory.value(float64(q.Bytes), q.Name))
	}
	for state, n := range map[string]int64{
		"pending": q.Pending, "active": q.Active, "scheduled": q.Scheduled,
		"retry": q.Retry, "archived": q.Archived, "completed": q.Completed,
	} {
		out = append(out, asynqTasks.value(float64(n), q.Name, state))
	}
	return out
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// memory is what Redis uses and may use, in bytes; of the fullest master where there
// are several.
func memory(ctx context.Context, rdb redis.UniversalClient) (used, most float64, err error) {
	cluster, ok := rdb.(*redis.ClusterClient)
	if !ok {
		return memoryOf(ctx, rdb)
	}
	var mu sync.Mutex
	err = cluster.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
		u, m, err := memoryOf(ctx, node)
		mu.Lock()
		defer mu.Unlock()
		if share(u, m) > share(used, most) || used == 0 {
			used, most = u, m
		}
		return err
	})
	return used, most, err
}

// share is how full a node is; one without a limit is never full.
func share(used, most float64) float64 {
	if most == 0 {
		return 0
	}
	return used / most
}

func memoryOf(ctx context.Context, rdb redis.Cmdable) (used, most float64, err error) {
	info, err := rdb.Info(ctx, "memory").Result()
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(info) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch name {
		case "used_memory":
			used, err = strconv.ParseFloat(value, 64)
		case "maxmemory":
			most, err = strconv.ParseFloat(value, 64)
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return used, most, nil
}
