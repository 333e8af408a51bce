package tasks_test

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/tasks"
)

func TestLanes(t *testing.T) {
	if diff := cmp.Diff([]tasks.Lane{tasks.Interactive, tasks.Bulk}, tasks.Lanes()); diff != "" {
		t.Errorf("Lanes(): the more urgent comes first (-want +got):\n%s", diff)
	}
	for lane, want := range map[tasks.Lane]bool{
		tasks.Interactive: true, tasks.Bulk: true, "": false, "Bulk": false, "bulk ": false, "urgent": false,
	} {
		if got := lane.Valid(); got != want {
			t.Errorf("Lane(%q).Valid() = %v, want %v", lane, got, want)
		}
	}
}

func TestTheListOfLanesCannotBeChangedByItsReader(t *testing.T) {
	tasks.Lanes()[0] = "changed"
	if got := tasks.Lanes()[0]; got != tasks.Interactive {
		t.Errorf("Lanes()[0] = %s after a reader wrote to its copy", got)
	}
}

func TestNewIDsSortByTimeAndAreUUIDsOfVersion7(t *testing.T) {
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = tasks.NewID()
		if u, err := uuid.Parse(ids[i]); err != nil || u.Version() != 7 {
			t.Fatalf("NewID() = %q, want a UUID of version 7", ids[i])
		}
	}
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Error("1000 ids made one after the other are not sorted and different")
	}
}

func TestEachLaneOfAProviderHasItsQueue(t *testing.T) {
	// The names are part of the wire contract: a worker of one version drains
	// what a producer of another queued.
	for _, tt := range []struct {
		provider string
		lane     tasks.Lane
		want     string
	}{
		{"medsenior", tasks.Interactive, "otpq:medsenior:interactive"},
		{"medsenior", tasks.Bulk, "otpq:medsenior:bulk"},
		{"kinpos", tasks.Bulk, "otpq:kinpos:bulk"},
	} {
		if got := tasks.QueueName(tt.provider, tt.lane); got != tt.want {
			t.Errorf("QueueName(%q, %q) = %q, want %q", tt.provider, tt.lane, got, tt.want)
		}
	}
}

// TestATaskCarriesItsOptionsToRedis looks at the task as asynq stored it.
func TestATaskCarriesItsOptionsToRedis(t *testing.T) {
	rdb := redistest.Start(t).Client()
	client, inspector := asynq.NewClientFromRedisClient(rdb), asynq.NewInspectorFromRedisClient(rdb)
	ring := newRing(t, newKey("k"))
	m := fullMessage()
	m.Trace = map[string]string{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}

	task, err := tasks.NewTask(ring, m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.EnqueueContext(t.Context(), task); err != nil {
		t.Fatalf("enqueue: %v", err)
	}
	info, err := inspector.GetTaskInfo("otpq:medsenior:bulk", m.ID)
	if err != nil {
		t.Fatalf("the task is not in its queue under the message's id: %v", err)
	}
	if info.Type != "otpq:send" {
		t.Errorf("type %q, want otpq:send", info.Type)
	}
	if info.Timeout != 25*time.Second {
		t.Errorf("timeout %v, want %v", info.Timeout, 25*time.Second)
	}
	if info.MaxRetry < 100_000 {
		t.Errorf("MaxRetry %d is near: asynq would archive a message that waits for a breaker", info.MaxRetry)
	}
	if !info.Deadline.IsZero() || info.Retention != 0 {
		t.Errorf("deadline %v and retention %v, want neither: expiry is the worker's", info.Deadline, info.Retention)
	}
	if !maps.Equal(info.Headers, m.Trace) {
		t.Errorf("headers %v, want the trace context %v", info.Headers, m.Trace)
	}
	got, err := tasks.Decode(ring, info.Payload)
	if err != nil {
		t.Fatalf("Decode() of the stored payload: %v", err)
	}
	m.Trace = nil
	if diff := cmp.Diff(m, got); diff != "" {
		t.Errorf("stored message (-want +got):\n%s", diff)
	}

	again, err := tasks.NewTask(ring, m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.EnqueueContext(t.Context(), again); !errors.Is(err, asynq.ErrTaskIDConflict) {
		t.Errorf("enqueuing a message twice = %v, want %v", err, asynq.ErrTaskIDConflict)
	}
}

func TestATaskStaysUnderTheLease(t *testing.T) {
	const lease = 30 * time.Second // asynq's; a handler that outlives it runs twice
	if tasks.TaskTimeout >= lease {
		t.Errorf("TaskTimeout is %v, want less than asynq's lease of %v", tasks.TaskTimeout, lease)
	}
}

func TestNewTaskOfABadMessageFails(t *testing.T) {
	m := fullMessage()
	m.Lane = "urgent"
	if task, err := tasks.NewTask(newRing(t, newKey("k")), m); task != nil || !errors.Is(err, tasks.ErrMalformed) {
		t.Errorf("NewTask() = %v, %v, want ErrMalformed", task, err)
	}
}

func TestATakeoverKeepsTheMessagesID(t *testing.T) {
	for _, c := range []struct {
		task, message string
		takeovers     int
		next          string
	}{
		{"m", "m", 0, "m~1"},
		{"m~1", "m", 1, "m~2"},
		{"m~9", "m", 9, "m~10"},
		{"m~x", "m", 0, "m~1"}, // nobody made this one
		{"", "", 0, "~1"},
	} {
		if got := tasks.MessageID(c.task); got != c.message {
			t.Errorf("MessageID(%q) = %q, want %q", c.task, got, c.message)
		}
		if got := tasks.Takeovers(c.task); got != c.takeovers {
			t.Errorf("Takeovers(%q) = %d, want %d", c.task, got, c.takeovers)
		}
		if got := tasks.TakeoverID(c.task); got != c.next {
			t.Errorf("TakeoverID(%q) = %q, want %q", c.task, got, c.next)
		}
	}
}
