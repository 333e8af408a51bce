package asynqredis

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/otpq/otpq/internal/redistest"
)

// The digests of asynq v0.26.0's scripts that enqueue/lua/submit.lua stands in for.
// What is said of the digests beside asynqDequeue holds for them.
const (
	asynqEnqueue  = "98d28b42650870a743450ffda9791e9e19c6991b"
	asynqSchedule = "8ce6b38a99b73194585c251eb3c2a89559f37a87"
)

// theirs is what asynq's own client writes for a task.
func theirs(t Task) ([]byte, error) {
	r := &recorder{}
	_, err := asynq.NewClientFromRedisClient(r).Enqueue(asynq.NewTaskWithHeaders(t.Type, t.Payload, t.Headers),
		asynq.TaskID(t.ID), asynq.Queue(t.Queue), asynq.MaxRetry(t.MaxRetry), asynq.Timeout(t.Timeout))
	return r.msg, err
}

func TestAMessageIsByteByByteWhatAsynqWrites(t *testing.T) {
	t.Parallel()
	full := Task{
		ID: "019ab5d2-7c1e-7a40-9d5b-3f0e6f1c2a34", Type: "otpq:send", Queue: "otpq:medsenior:bulk", Payload: []byte(`{"v":1}`),
		Headers: map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}, MaxRetry: 1_000_000, Timeout: 25 * time.Second,
	}
	for name, change := range map[string]func(*Task){
		"every field":            func(*Task) {},
		"no headers":             func(t *Task) { t.Headers = nil },
		"an empty header":        func(t *Task) { t.Headers = map[string]string{"": ""} },
		"no payload":             func(t *Task) { t.Payload = nil },
		"an empty payload":       func(t *Task) { t.Payload = []byte{} },
		"a payload of 1 MiB":     func(t *Task) { t.Payload = make([]byte, 1<<20) },
		"no retries":             func(t *Task) { t.MaxRetry = 0 },
		"part of a second":       func(t *Task) { t.Timeout = 1999 * time.Millisecond },
		"a queue in Portuguese":  func(t *Task) { t.Queue = "promoção" },
		"more than 32 bits hold": func(t *Task) { t.MaxRetry = 1 << 40 },
	} {
		t.Run(name, func(t *testing.T) {
			task := full
			change(&task)
			want, err := theirs(task)
			if err != nil {
				t.Fatal(err)
			}
			got, err := task.AppendMessage([]byte("before"))
			if diff := cmp.Diff(append([]byte("before"), want...), got); diff != "" || err != nil {
				t.Errorf("AppendMessage() = %v (-asynq's +got):\n%s", err, diff)
			}
		})
	}
}

// notBlank is what asynq demands of a type.
func notBlank(s string) bool { return strings.TrimSpace(s) != "" }

func TestAnyMessageReadsAsAsynqsDoes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		task := Task{
			ID: rapid.StringMatching(`[a-z0-9~-]{1,70}`).Draw(t, "id"), Type: rapid.StringN(1, 50, -1).Filter(notBlank).Draw(t, "type"),
			Queue: rapid.StringMatching(`[a-z:]{1,200}`).Draw(t, "queue"), Payload: rapid.SliceOfN(rapid.Byte(), 0, 500).Draw(t, "payload"),
			Headers:  rapid.MapOfN(rapid.String(), rapid.String(), 0, 3).Draw(t, "headers"),
			MaxRetry: rapid.IntRange(0, 1<<31-1).Draw(t, "retry"), Timeout: time.Duration(rapid.Int64Range(1, 1<<30).Draw(t, "timeout")) * time.Second,
		}
		want, err := theirs(task)
		if err != nil {
			t.Fatal(err)
		}
		got, err := task.AppendMessage(nil)
		if err != nil {
			t.Fatal(err)
		}
		if len(task.Headers) < 2 && !cmp.Equal(want, got) { // asynq's order of several is any
			t.Errorf("AppendMessage() (-asynq's +got):\n%s", cmp.Diff(want, got))
		}
		a, err1 := Decode(want)
		b, err2 := Decode(got)
		if diff := cmp.Diff(a, b, cmpopts.EquateEmpty()); err1 != nil || err2 != nil || diff != "" {
			t.Errorf("Decode() = %v, %v (-asynq's +got):\n%s", err1, err2, diff)
		}
	})
}

func TestWhatIsNoTextIsNotEncoded(t *testing.T) {
	t.Parallel()
	for name, task := range map[string]Task{
		"type":   {Type: "\xff"},
		"id":     {ID: "\xff"},
		"queue":  {Queue: "\xff"},
		"header": {Headers: map[string]string{"\xff": ""}},
		"value":  {Headers: map[string]string{"a": "\xff"}},
	} {
		// protobuf refuses to read a message with such a text: the task would be lost.
		if msg, err := task.AppendMessage(nil); err == nil {
			t.Errorf("AppendMessage() of a bad %s = %q, want an error", name, msg)
		}
	}
}

func TestAsynqsWayToEnqueueIsTheKnownOne(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	s := &spy{}
	rdb.AddHook(s)
	client := asynq.NewClientFromRedisClient(rdb)
	for name, c := range map[string]struct {
		digest string
		opts   []asynq.Option
		keys   []any
	}{
		"enqueue":  {asynqEnqueue, nil, []any{TaskKey("q", "enqueue"), PendingKey("q")}},
		"schedule": {asynqSchedule, []asynq.Option{asynq.ProcessIn(time.Hour)}, []any{TaskKey("q", "schedule"), ScheduledKey("q")}},
	} {
		opts := append([]asynq.Option{asynq.Queue("q"), asynq.TaskID(name)}, c.opts...)
		if _, err := client.EnqueueContext(context.Background(), asynq.NewTask("any", nil), opts...); err != nil {
			t.Fatal(err)
		}
		var last redis.Cmder
		added := false
		for _, cmd := range s.commands() {
			if cmd.Name() == "evalsha" {
				last = cmd
			}
			added = added || cmd.Name() == "sadd" && cmd.Args()[1] == QueuesKey && cmd.Args()[2] == "q"
		}
		if args := last.Args(); args[1] != c.digest || !cmp.Equal(c.keys, args[3:5]) {
			t.Errorf("asynq's %s is %v of %q, want %s of %q: see the constants' comment", name, args[1], args[3:5], c.digest, c.keys)
		}
		if !added {
			t.Errorf("asynq does not add the queue to %s", QueuesKey)
		}
	}
}
