package backlog

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/tasks"
)

func TestReadCountsWhatAsynqHolds(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client()
	queue := tasks.QueueName("unimedbh", tasks.Bulk)
	client, inspector := asynq.NewClientFromRedisClient(rdb), asynq.NewInspectorFromRedisClient(rdb)
	read := func(now time.Time) Lane {
		t.Helper()
		queues, err := ReadAll(t.Context(), rdb, now, queue)
		if err != nil {
			t.Fatal(err)
		}
		return LaneOf(queues, "unimedbh", tasks.Bulk)
	}
	if diff := cmp.Diff(Lane{Queues: 1}, read(time.Now())); diff != "" {
		t.Errorf("empty lane (-want +got):\n%s", diff)
	}

	for i := range 5 {
		opts := []asynq.Option{asynq.Queue(queue)}
		if i >= 3 {
			opts = append(opts, asynq.ProcessIn(time.Hour))
		}
		if _, err := client.Enqueue(asynq.NewTask("t", nil), opts...); err != nil {
			t.Fatal(err)
		}
	}
	if err := inspector.PauseQueue(queue); err != nil {
		t.Fatal(err)
	}
	got := read(time.Now().Add(time.Minute))
	if got.OldestSeconds < 59 || got.OldestSeconds > 120 {
		t.Errorf("oldest_seconds = %v a minute after the first message, want about 60", got.OldestSeconds)
	}
	got.OldestSeconds = 0
	if diff := cmp.Diff(Lane{Queues: 1, Pending: 3, Scheduled: 2, Paused: true}, got); diff != "" {
		t.Errorf("lane (-want +got):\n%s", diff)
	}

	// A task whose hash is gone breaks asynq's own inspector.
	ids, err := rdb.LRange(t.Context(), "asynq:{"+queue+"}:pending", 0, -1).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		rdb.Del(t.Context(), "asynq:{"+queue+"}:t:"+id)
	}
	if got := read(time.Now()); got.Pending != 3 || got.OldestSeconds != 0 {
		t.Errorf("with ghosts: %+v, want 3 pending of no known age", got)
	}
	server.Stop()
	if _, err := ReadAll(t.Context(), rdb, time.Now()); err == nil {
		t.Error("ReadAll() without Redis = nil error")
	}
}

// TestReadSumsOverAllQueuesOfALane has messages in queues that are configured, in one
// that is not, and in those of others.
func TestReadSumsOverAllQueuesOfALane(t *testing.T) {
	t.Parallel()
	for name, rdb := range map[string]redis.UniversalClient{
		"one server":  redistest.Start(t).Client(),
		"three nodes": redistest.StartCluster(t).Client(),
	} {
		t.Run(name, func(t *testing.T) {
			client, inspector := asynq.NewClientFromRedisClient(rdb), asynq.NewInspectorFromRedisClient(rdb)
			mine := tasks.Queues("unimedbh", tasks.Bulk, 5)
			for i, queue := range append(mine, tasks.QueueName("unimedbh", tasks.Interactive), tasks.QueueName("kinpos", tasks.Bulk), "default") {
				for range i + 1 {
					if _, err := client.Enqueue(asynq.NewTask("t", nil), asynq.Queue(queue)); err != nil {
						t.Fatal(err)
					}
				}
			}
			if _, err := client.Enqueue(asynq.NewTask("t", nil), asynq.Queue(mine[2]), asynq.ProcessIn(time.Hour)); err != nil {
				t.Fatal(err)
			}
			if err := inspector.PauseQueue(mine[4]); err != nil {
				t.Fatal(err)
			}
			oldest, err := rdb.LIndex(t.Context(), "asynq:{"+mine[3]+"}:pending", -1).Result()
			if err != nil {
				t.Fatal(err)
			}
			rdb.HSet(t.Context(), "asynq:{"+mine[3]+"}:t:"+oldest, "pending_since", time.Now().Add(-time.Hour).UnixNano())
			for configured, queues := range map[int]int{0: 5, 1: 5, 3: 5, 5: 5, 8: 8} {
				all, err := ReadAll(t.Context(), rdb, time.Now(), tasks.Queues("unimedbh", tasks.Bulk, configured)...)
				if err != nil {
					t.Fatal(err)
				}
				got := LaneOf(all, "unimedbh", tasks.Bulk)
				if got.OldestSeconds < 3600 || got.OldestSeconds > 3700 {
					t.Errorf("%d configured: oldest_seconds = %v, want an hour", configured, got.OldestSeconds)
				}
				got.OldestSeconds = 0
				if diff := cmp.Diff(Lane{Queues: queues, Pending: 15, Scheduled: 1, Paused: true}, got); diff != "" {
					t.Errorf("%d configured: lane (-want +got):\n%s", configured, diff)
				}
			}
		})
	}
}

// A key that is not there is the first that Redis tells of; what it refuses comes after.
func TestWhatRedisRefusesIsNotTakenForNothing(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client()
	rdb.SAdd(t.Context(), "asynq:queues", tasks.QueueName("unimedbh", tasks.Bulk))
	if _, err := ReadAll(t.Context(), rdb, time.Now()); err != nil {
		t.Fatal(err)
	}
	rdb.Do(t.Context(), "acl", "setuser", "default", "-exists")
	if queues, err := ReadAll(t.Context(), rdb, time.Now()); !redis.HasErrorPrefix(err, "NOPERM") {
		t.Errorf("ReadAll() = %+v, %v; want what Redis says", queues, err)
	}
}
