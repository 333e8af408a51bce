package backlog

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"

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
		lane, err := Read(t.Context(), rdb, "unimedbh", tasks.Bulk, now)
		if err != nil {
			t.Fatal(err)
		}
		return lane
	}
	if diff := cmp.Diff(Lane{}, read(time.Now())); diff != "" {
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
	if diff := cmp.Diff(Lane{Pending: 3, Scheduled: 2, Paused: true}, got); diff != "" {
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
	if _, err := Read(t.Context(), rdb, "unimedbh", tasks.Bulk, time.Now()); err == nil {
		t.Error("Read() without Redis = nil error")
	}
}
