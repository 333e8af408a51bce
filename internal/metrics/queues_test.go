package metrics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/tasks"
)

// queuesOn are the metrics of what is in the server.
func queuesOn(s *redistest.Server) *Queues {
	return &Queues{
		Redis: s.Client(), Providers: []string{"kinpos", "unimedbh"},
		Dead:    func(context.Context, string) (int64, error) { return 3, nil },
		Workers: func(context.Context) (int, error) { return 2, nil },
	}
}

// series are all values, by name and labels; but what differs from run to run.
func series(t *testing.T, c prometheus.Collector) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			out[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

func TestQueuesAreShownAsAsynqSeesThem(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb := s.Client()
	queue := tasks.QueueName("unimedbh", tasks.Bulk)
	client, inspector := asynq.NewClientFromRedisClient(rdb), asynq.NewInspectorFromRedisClient(rdb)
	add := func(n int, queue string, opts ...asynq.Option) {
		for range n {
			if _, err := client.Enqueue(asynq.NewTask("t", make([]byte, 500)), append(opts, asynq.Queue(queue))...); err != nil {
				t.Fatal(err)
			}
		}
	}
	add(4, queue)
	add(2, queue, asynq.ProcessIn(time.Hour))
	add(1, "somebody-elses")
	pending, err := inspector.ListPendingTasks(queue)
	if err != nil {
		t.Fatal(err)
	}
	if err := inspector.ArchiveTask(queue, pending[0].ID); err != nil {
		t.Fatal(err)
	}
	if err := inspector.PauseQueue(queue); err != nil {
		t.Fatal(err)
	}
	rdb.Set(t.Context(), "asynq:{"+queue+"}:processed", 41, 0)
	rdb.Set(t.Context(), "asynq:{"+queue+"}:failed", 5, 0)
	info, err := inspector.GetQueueInfo(queue)
	if err != nil {
		t.Fatal(err)
	}

	got := series(t, queuesOn(s))
	want := map[string]float64{
		"otpq_redis_up{}": 1, "otpq_workers{}": 2, "otpq_dead_letters{kinpos}": 3, "otpq_dead_letters{unimedbh}": 3,
		"otpq_redis_memory_max_bytes{}": 0,
	}
	for _, lane := range []string{"interactive,kinpos", "bulk,kinpos", "interactive,unimedbh", "bulk,unimedbh"} {
		for _, state := range []string{"pending", "active", "deferred", "scheduled"} {
			want["otpq_queue_messages{"+lane+","+state+"}"] = 0
		}
		want["otpq_queue_oldest_seconds{"+lane+"}"], want["otpq_queue_paused{"+lane+"}"] = 0, 0
	}
	want["otpq_queue_messages{bulk,unimedbh,pending}"], want["otpq_queue_messages{bulk,unimedbh,scheduled}"] = 3, 2
	want["otpq_queue_paused{bulk,unimedbh}"] = 1
	for state, n := range map[string]int{
		"pending": info.Pending, "active": info.Active, "scheduled": info.Scheduled,
		"retry": info.Retry, "archived": info.Archived, "completed": info.Completed,
	} {
		want["asynq_tasks_enqueued_total{"+queue+","+state+"}"] = float64(n)
	}
	want["asynq_queue_size{"+queue+"}"] = float64(info.Size)
	want["asynq_tasks_processed_total{"+queue+"}"] = float64(info.ProcessedTotal)
	want["asynq_tasks_failed_total{"+queue+"}"] = float64(info.FailedTotal)
	want["asynq_queue_paused_total{"+queue+"}"] = 1

	between := func(name string, low, high float64) {
		t.Helper()
		if v, ok := got[name]; !ok || v < low || v > high {
			t.Errorf("%s = %v (there: %v), want between %v and %v", name, v, ok, low, high)
		}
		delete(got, name)
	}
	between("otpq_redis_memory_used_bytes{}", 1e5, 1e9)
	// Asynq samples twenty tasks and adds what the lists take.
	between("asynq_queue_memory_usage_approx_bytes{"+queue+"}", float64(info.MemoryUsage)/2, float64(info.MemoryUsage)*2)
	between("asynq_queue_latency_seconds{"+queue+"}", 1e-9, 60)
	between("otpq_queue_oldest_seconds{bulk,unimedbh}", 1e-9, 60)
	delete(want, "otpq_queue_oldest_seconds{bulk,unimedbh}")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// calls are how often each command was called.
func calls(t *testing.T, rdb *redis.Client) map[string]string {
	t.Helper()
	info, err := rdb.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for line := range strings.Lines(info) {
		if name, stats, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			count, _, _ := strings.Cut(stats, ",")
			out[strings.TrimPrefix(name, "cmdstat_")] = count
		}
	}
	return out
}

// What is asked must not depend on how much is queued, and must be commands that
// take Redis a constant time.
func TestALookAtALongQueueCostsAsMuchAsOneAtAShortOne(t *testing.T) {
	t.Parallel()
	asked := func(length int) map[string]string {
		s := redistest.Start(t)
		rdb := s.Client()
		queue := tasks.QueueName("unimedbh", tasks.Bulk)
		rdb.SAdd(t.Context(), "asynq:queues", queue)
		_, err := rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
			for i := range length {
				id := fmt.Sprint("id", i)
				p.LPush(t.Context(), "asynq:{"+queue+"}:pending", id)
				p.ZAdd(t.Context(), "asynq:{"+queue+"}:retry", redis.Z{Score: float64(i), Member: id})
				p.HSet(t.Context(), "asynq:{"+queue+"}:t:"+id, "msg", "m", "pending_since", "1")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		q := queuesOn(s)
		rdb.ConfigResetStat(t.Context())
		if got := series(t, q)["otpq_queue_messages{bulk,unimedbh,pending}"]; got != float64(length) {
			t.Errorf("pending = %v, want %d", got, length)
		}
		return calls(t, rdb)
	}
	short, long := asked(10), asked(20_000)
	if diff := cmp.Diff(short, long); diff != "" {
		t.Errorf("commands for 10 tasks and for 20,000 (-10 +20,000):\n%s", diff)
	}
	constant := []string{
		"smembers", "llen", "zcard", "exists", "get", "hget", "lindex", "zrange", "memory|usage", "info",
		"hello", "client|setinfo", "client|maint_notifications", "config|resetstat", "select", "ping", "client", "auth",
	}
	for name := range long {
		if !slices.Contains(constant, name) {
			t.Errorf("it asks %s, which is not among what is known to take a constant time", name)
		}
	}
}

func TestTwoScrapesAtOnceCostRedisOne(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	rdb, q := s.Client(), queuesOn(s)
	series(t, q)
	before := calls(t, rdb)["smembers"]
	series(t, q)
	if after := calls(t, rdb)["smembers"]; after != before {
		t.Errorf("queues were listed: %s, then %s; want no second time", before, after)
	}
	q.last.at = q.last.at.Add(-lookedFresh)
	series(t, q)
	if after := calls(t, rdb)["smembers"]; after == before {
		t.Error("what was seen is shown for ever")
	}
}

func TestAHungRedisIsSaidToBeDownAndHoldsNoScrapeUp(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	q := queuesOn(s)
	series(t, q)
	s.Pause()
	defer s.Resume()
	q.last.at = q.last.at.Add(-lookedFresh)
	if diff := cmp.Diff(map[string]float64{"otpq_redis_up{}": 0}, series(t, q)); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// Whoever may write to Redis can name a queue as they like; a label that is no UTF-8
// leaves every worker and dashboard without any metrics.
func TestQueuesOfNobodyMakeNoSeries(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	s.Client().SAdd(t.Context(), "asynq:queues", "otpq:\xff:bulk", "otpq:maria@example.com:bulk", "otpq:kinpos:bulk")
	got := series(t, queuesOn(s))
	if _, there := got["asynq_queue_size{otpq:kinpos:bulk}"]; !there {
		t.Errorf("series = %v, want those of the queue that is ours", got)
	}
	for name := range got {
		if strings.Contains(name, "maria") || strings.Contains(name, "\xff") {
			t.Errorf("%q is shown, and is of no provider", name)
		}
	}
}

func TestWhatCannotBeReadIsLeftOutAlone(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t)
	q := queuesOn(s)
	q.Dead = func(context.Context, string) (int64, error) { return 0, errors.New("broken by the test") }
	q.Workers = func(context.Context) (int, error) { return 0, errors.New("broken by the test") }
	s.Client().Do(t.Context(), "acl", "setuser", "default", "-info", "-memory")
	got := series(t, q)
	for name, want := range map[string]bool{
		"otpq_redis_up{}": true, "otpq_queue_messages{bulk,kinpos,pending}": true,
		"otpq_dead_letters{kinpos}": false, "otpq_workers{}": false, "otpq_redis_memory_used_bytes{}": false,
	} {
		if _, there := got[name]; there != want {
			t.Errorf("%s is there: %v, want %v", name, there, want)
		}
	}
}
