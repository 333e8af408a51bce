package enqueue

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// spreading makes the rig's producer spread over n queues.
func spreading(t *testing.T, n int) *rig {
	t.Helper()
	r := newRig(t)
	rdb := r.server.Client()
	rdb.AddHook(r.faults)
	r.Client = r.producer(Config{Redis: rdb, Keys: []tasks.Key{newKey("k")}, Queues: map[string]int{unimedbh.Name: n}})
	return r
}

// in is how many tasks of any kind a queue has.
func (r *rig) in(queue string) int {
	r.t.Helper()
	keys, err := r.look.Keys(r.t.Context(), "asynq:{"+queue+"}:t:*").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	return len(keys)
}

func TestMessagesAreSpreadOverTheQueuesOfTheirLane(t *testing.T) {
	t.Parallel()
	const n, messages = 4, 400
	r := spreading(t, n)
	for range messages {
		r.send(InLane(tasks.Bulk), At(time.Now().Add(time.Minute)))
	}
	total := 0
	for _, queue := range tasks.Queues(unimedbh.Name, tasks.Bulk, n) {
		count := r.in(queue)
		if total += count; count < messages/n/2 {
			t.Errorf("%d of %d messages are in %s, want about %d", count, messages, queue, messages/n)
		}
	}
	if total != messages {
		t.Errorf("%d messages are in the queues, want %d", total, messages)
	}
	for _, def := range requests() {
		if def.ProviderName() == unimedbh.Name {
			continue
		}
		if _, err := r.Send(t.Context(), def); err != nil {
			t.Fatal(err)
		}
		if n := r.in(tasks.QueueName(def.ProviderName(), tasks.Interactive)); n != 1 {
			t.Errorf("%s, which is not spread, has %d messages in its queue, want 1", def.ProviderName(), n)
		}
	}
}

// TestASendThatIsRepeatedNamesTheSameQueue loses the reply to the enqueue, and sends
// again with the same key.
func TestASendThatIsRepeatedNamesTheSameQueue(t *testing.T) {
	t.Parallel()
	const n = 7
	r := spreading(t, n)
	seen := map[string]bool{}
	for i := range 30 {
		key := IdempotencyKey(strings.Repeat("k", i+1))
		r.faults.failOnce("task", true)
		var unavailable *UnavailableError
		if _, err := r.Send(t.Context(), example, key); !errors.As(err, &unavailable) {
			t.Fatalf("Send whose reply is lost = %v", err)
		}
		again := r.send(key)
		if again.ID != unavailable.ID {
			t.Fatalf("the same key led to %s and %s", unavailable.ID, again.ID)
		}
		queue := tasks.QueueOf(unimedbh.Name, tasks.Interactive, again.ID, n)
		if _, err := r.tasks.GetTaskInfo(queue, again.ID); err != nil {
			t.Errorf("the message is not in %s: %v", queue, err)
		}
		seen[queue] = true
		r.wantKeys("asynq:*:t:"+again.ID, "asynq:{"+queue+"}:t:"+again.ID)
	}
	if len(seen) < 4 {
		t.Errorf("30 messages went to %d queues: %v", len(seen), seen)
	}
}

// TestAReplayIsSpreadToo replays dead letters.
func TestAReplayIsSpreadToo(t *testing.T) {
	t.Parallel()
	const n = 5
	r := spreading(t, n)
	for range 10 {
		old := r.send()
		queue := tasks.QueueOf(unimedbh.Name, tasks.Interactive, old.ID, n)
		info, err := r.tasks.GetTaskInfo(queue, old.ID)
		if err != nil {
			t.Fatal(err)
		}
		err = r.store.Move(t.Context(), status.Move{ID: old.ID, Provider: unimedbh.Name, To: status.Rejected, Payload: info.Payload, Now: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		next, err := r.Replay(t.Context(), old.ID)
		if err != nil {
			t.Fatal(err)
		}
		queue = tasks.QueueOf(unimedbh.Name, tasks.Interactive, next.ID, n)
		if _, err := r.tasks.GetTaskInfo(queue, next.ID); err != nil {
			t.Errorf("the replay is not in %s: %v", queue, err)
		}
	}
}

// TestQueuesOfALaneAreOnSeveralNodes is what they are for.
func TestQueuesOfALaneAreOnSeveralNodes(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	client, err := Open(Config{Redis: c.Client(), Keys: []tasks.Key{newKey("k")}, Queues: map[string]int{unimedbh.Name: 6}})
	if err != nil {
		t.Fatal(err)
	}
	for range 60 {
		if _, err := client.Send(t.Context(), example); err != nil {
			t.Fatal(err)
		}
	}
	for _, node := range c.Nodes {
		if n := tasksOn(t.Context(), node.Client()); n == 0 {
			t.Errorf("no task is on the node %s", node.Addr())
		}
	}
}

func tasksOn(ctx context.Context, rdb *redis.Client) int {
	return len(rdb.Keys(ctx, "asynq:{otpq:unimedbh:interactive*:t:*").Val())
}

func TestAWrongNumberOfQueuesIsNamed(t *testing.T) {
	t.Parallel()
	for _, n := range []int{-1, 0, 65} {
		_, err := Open(Config{RedisURL: "redis://127.0.0.1:1/0", Keys: []tasks.Key{newKey("k")}, Queues: map[string]int{"kinpos": 1, "unimedbh": n}})
		if err == nil || !strings.Contains(err.Error(), "queues of unimedbh: must be at least 1 and at most 64") {
			t.Errorf("Open() with %d queues = %v", n, err)
		}
	}
}
