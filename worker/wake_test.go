package worker

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// soon is how late an idle worker may begin. One that waits until it looks again
// would take a second or more, every time.
const soon = 300 * time.Millisecond

// redisStat is one number of INFO.
func redisStat(t *testing.T, server *redistest.Server, name string) int64 {
	t.Helper()
	info, err := server.Client().Info(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(info, "\n"+name+":")
	value, _, _ := strings.Cut(rest, "\r")
	n, err := strconv.ParseInt(value, 10, 64)
	if !ok || err != nil {
		t.Fatalf("INFO has no number %s: %v", name, err)
	}
	return n
}

// awaitIdle waits until so many lanes wait for their queues at Redis, each anew.
func (r *rig) awaitIdle(lanes int) {
	r.t.Helper()
	eventually(r.t, func() bool { return redisStat(r.t, r.redis, "blocked_clients") == int64(lanes) },
		func() string { return "the lanes never came to wait for their queues" })
}

// mostly fails when fewer than three quarters of the delays are short: a machine
// may stall at any time, but not mostly.
func mostly(t *testing.T, what string, delays []time.Duration) {
	t.Helper()
	slices.Sort(delays)
	t.Logf("%s: %s", what, delays)
	if late := delays[len(delays)*3/4]; late > soon {
		t.Errorf("%s: of %d, no more than three quarters came within %s: %s", what, len(delays), soon, delays)
	}
}

// TestAnyProducerWakesAnIdleWorker queues messages in every way that there is, one
// at a time, at a worker that waits.
func TestAnyProducerWakesAnIdleWorker(t *testing.T) {
	queue := tasks.QueueName("unimedbh", tasks.Interactive)
	later := func(r *rig) string {
		return r.send(enqueue.At(time.Now().Add(time.Hour)), enqueue.ValidFor(2*time.Hour))
	}
	for what, c := range map[string]struct {
		prepare func(r *rig) string     // returns a message's id
		queue   func(r *rig, id string) // makes it due
		outcome func(n int) providers.Outcome
	}{
		"a message that is sent":   {queue: func(r *rig, _ string) { r.send() }},
		"a task of a stock client": {queue: func(r *rig, _ string) { r.enqueueAgain(stock(0)) }},
		"a scheduled message that an operator runs": {prepare: later, queue: func(r *rig, id string) {
			if err := asynq.NewInspectorFromRedisClient(r.rdb).RunTask(queue, id); err != nil {
				r.t.Fatal(err)
			}
		}},
		"a dead letter that is replayed": {
			prepare: func(r *rig) string {
				id := r.send()
				r.awaitState(id, status.Rejected)
				return id
			},
			queue: func(r *rig, id string) {
				if _, err := r.client.Replay(r.t.Context(), id); err != nil {
					r.t.Fatal(err)
				}
			},
			outcome: func(n int) providers.Outcome {
				if n%2 == 1 {
					return providers.Reject(providers.ReasonRecipientUnknown, nil)
				}
				return accepted
			},
		},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			f := &fake{send: func(_ context.Context, n int) providers.Outcome {
				if c.outcome != nil {
					return c.outcome(n)
				}
				return accepted
			}}
			r.start(nil, f.config())
			var delays []time.Duration
			for range 8 {
				var id string
				if c.prepare != nil {
					id = c.prepare(r)
				}
				r.awaitIdle(2)
				before := len(f.requests())
				at := time.Now()
				c.queue(r, id)
				eventually(t, func() bool { return len(f.requests()) > before }, func() string { return "it never came to the provider" })
				delays = append(delays, f.requests()[before].Sub(at))
			}
			mostly(t, what, delays)
		})
	}
}

// TestARetryRunsSoonAfterItsTime has attempts fail, and compares when they are made
// again with when the record says that they are due.
func TestARetryRunsSoonAfterItsTime(t *testing.T) {
	r := newRig(t)
	f := &fake{send: func(_ context.Context, n int) providers.Outcome {
		if n%2 == 1 {
			return providers.Retry(providers.ReasonProviderError, 0, nil)
		}
		return accepted
	}}
	r.start(nil, f.config(func(pc *ProviderConfig) { pc.Retry.Initial, pc.Retry.Max = 700*time.Millisecond, 700*time.Millisecond }))
	var delays []time.Duration
	for n := range 8 {
		id := r.send()
		deferred := r.awaitState(id, status.Deferred)
		r.awaitState(id, status.Accepted)
		delay := f.requests()[2*n+1].Sub(ceilSecond(deferred.NextAttemptAt))
		if delay < 0 {
			t.Errorf("a retry ran %s before its time", -delay)
		}
		delays = append(delays, delay)
	}
	mostly(t, "retries", delays)
}

// TestTwoWorkersAtOneQueueBothWork has a queue that either could drain alone.
func TestTwoWorkersAtOneQueueBothWork(t *testing.T) {
	r := newRig(t)
	const messages, slots = 200, 10
	var fakes [2]*fake
	for i := range fakes {
		fakes[i] = &fake{send: func(context.Context, int) providers.Outcome {
			<-time.After(50 * time.Millisecond)
			return accepted
		}}
		r.start(nil, fakes[i].config(func(pc *ProviderConfig) { pc.Concurrency[tasks.Interactive] = slots }))
	}
	r.awaitIdle(4)
	ids := r.sendMany(messages)
	active := "asynq:{" + tasks.QueueName("unimedbh", tasks.Interactive) + "}:active"
	most := int64(0)
	eventually(t, func() bool {
		most = max(most, r.rdb.LLen(t.Context(), active).Val())
		return len(fakes[0].requests())+len(fakes[1].requests()) == messages
	}, func() string { return "not all came to the provider" })
	for _, id := range ids {
		r.awaitState(id, status.Accepted)
	}
	first, second := len(fakes[0].requests()), len(fakes[1].requests())
	t.Logf("%d and %d requests, %d tasks taken at most", first, second, most)
	if first < messages/4 || second < messages/4 {
		t.Errorf("one worker made %d requests and the other %d, want a fair share each", first, second)
	}
	if most > 2*slots {
		t.Errorf("%d tasks were taken at a time by two workers with %d slots each", most, slots)
	}
}

// TestAnIdleWorkerAsksLittleOfRedis counts, by Redis, what a worker of all six lanes
// costs that has nothing to do.
func TestAnIdleWorkerAsksLittleOfRedis(t *testing.T) {
	r := newRig(t)
	_, list := r.sandboxed(func(*ProviderConfig) {})
	r.start(nil, list...)
	const lanes = 6
	r.awaitIdle(lanes)
	const asking = 3 // our own INFO, on a connection of its own
	before, start := redisStat(t, r.redis, "total_reads_processed"), time.Now()
	<-time.After(5 * time.Second) // a rate needs a stretch of time
	reads := redisStat(t, r.redis, "total_reads_processed") - before - asking
	rate := float64(reads) / time.Since(start).Seconds() / lanes
	t.Logf("%.1f socket reads a second and lane", rate)
	if rate > 5 {
		t.Errorf("an idle worker costs Redis %.1f socket reads a second and lane, want 5 at most", rate)
	}
}

// TestABusyWorkerAsksLittleOfRedis counts, by Redis, what a message costs of which
// many wait: asynq alone takes three reads, and its claim and its result one each.
// A worker that has just started opens connections besides, which is not counted.
func TestABusyWorkerAsksLittleOfRedis(t *testing.T) {
	r := newRig(t)
	const warmUp, messages = 500, 2000
	f := always(accepted)
	_, stop := r.start(nil, f.config(func(pc *ProviderConfig) { pc.Concurrency[tasks.Interactive] = 256 }))
	queue := tasks.QueueName("unimedbh", tasks.Interactive)
	inspector := asynq.NewInspectorFromRedisClient(r.rdb)
	requests := func(count int) {
		t.Helper()
		eventually(t, func() bool { return len(f.requests()) == count }, func() string {
			return fmt.Sprintf("%d messages came to the provider, want %d", len(f.requests()), count)
		})
	}
	fill := func(count int) {
		t.Helper()
		if err := inspector.PauseQueue(queue); err != nil {
			t.Fatal(err)
		}
		for n := range count {
			r.enqueueAgain(stock(n))
		}
	}
	fill(warmUp)
	if err := inspector.UnpauseQueue(queue); err != nil {
		t.Fatal(err)
	}
	requests(warmUp)
	r.awaitEmptyQueues()
	fill(messages)
	before := redisStat(t, r.redis, "total_reads_processed")
	if err := inspector.UnpauseQueue(queue); err != nil {
		t.Fatal(err)
	}
	requests(warmUp + messages)
	stop() // so that all have been recorded and acknowledged
	reads := redisStat(t, r.redis, "total_reads_processed") - before
	r.awaitEmptyQueues()
	each := float64(reads) / messages
	t.Logf("%.2f socket reads a message", each)
	if each > 0.5 {
		t.Errorf("a message costs Redis %.2f socket reads, want 0.5 at most", each)
	}
}

// stock is a message that an app queues without this module's client.
func stock(n int) tasks.Message {
	return tasks.Message{
		ID: tasks.NewID(), Provider: "unimedbh", Lane: tasks.Interactive, CreatedAt: time.Now(), NotAfter: time.Now().Add(10 * time.Minute),
		Request: []byte(`{"username":"` + person(n) + `","type":"EMAIL"}`),
	}
}
