package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// spread has the rig's producer spread unimedbh's messages over n queues.
func (r *rig) spread(n int) {
	r.t.Helper()
	client, err := enqueue.Open(enqueue.Config{Redis: r.rdb, Keys: []tasks.Key{r.key}, Queues: map[string]int{"unimedbh": n}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.client = client
}

// queues sets how many queues a provider's lanes have.
func queues(n int) func(*ProviderConfig) { return func(pc *ProviderConfig) { pc.Queues = n } }

// slots sets a provider's concurrency.
func slots(n int) func(*ProviderConfig) {
	return func(pc *ProviderConfig) {
		pc.Concurrency = map[tasks.Lane]int{tasks.Interactive: n, tasks.Bulk: n}
	}
}

// listed counts what is in a list of each of the lane's first n queues.
func (r *rig) listed(list string, n int) map[string]int64 {
	r.t.Helper()
	out := map[string]int64{}
	for _, queue := range tasks.Queues("unimedbh", tasks.Interactive, n) {
		count, err := r.rdb.LLen(r.t.Context(), "asynq:{"+queue+"}:"+list).Result()
		if err != nil {
			r.t.Fatal(err)
		}
		out[queue] = count
	}
	return out
}

func sum(counts map[string]int64) (total int64) {
	for n := range maps.Values(counts) {
		total += n
	}
	return total
}

// sendInto queues a message that goes to the lane's queue of the number, of n, and
// returns its id.
func (r *rig) sendInto(number, n int) string {
	r.t.Helper()
	m := tasks.Message{
		Provider: "unimedbh", Lane: tasks.Interactive, Request: json.RawMessage(`{"username":"teste@gmail.com","type":"EMAIL"}`),
		CreatedAt: time.Now().Truncate(time.Millisecond), NotAfter: time.Now().Add(5 * time.Minute).Truncate(time.Millisecond),
	}
	want := tasks.Queues("unimedbh", tasks.Interactive, n)[number-1]
	for m.ID = tasks.NewID(); tasks.QueueOf(m.Provider, m.Lane, m.ID, n) != want; {
		m.ID = tasks.NewID()
	}
	if err := r.store.Create(r.t.Context(), status.NewRecord(m, "t***@***")); err != nil {
		r.t.Fatal(err)
	}
	r.put(m, want)
	return m.ID
}

// put queues a message's task, as a producer does that chooses this queue for it.
func (r *rig) put(m tasks.Message, queue string) {
	r.t.Helper()
	task, err := tasks.NewTask(r.keyring(), m)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := asynq.NewClientFromRedisClient(r.rdb).EnqueueContext(r.t.Context(), task, asynq.Queue(queue)); err != nil {
		r.t.Fatal(err)
	}
}

// TestALaneOfSeveralQueuesIsDrained spreads messages and has each accepted once, on
// one server and on three nodes.
func TestALaneOfSeveralQueuesIsDrained(t *testing.T) {
	const n, messages = 6, 300
	for name, url := range map[string]func(*testing.T) string{
		"one server":  func(t *testing.T) string { return redistest.Start(t).URL() },
		"three nodes": func(t *testing.T) string { return redistest.StartCluster(t).URL() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRigAt(t, url(t))
			r.spread(n)
			ids := r.sendMany(messages)
			waiting := r.listed("pending", n)
			for queue, count := range waiting {
				if count < messages/n/2 || count > messages/n*2 {
					t.Errorf("%d of %d messages are in %s, want about %d", count, messages, queue, messages/n)
				}
			}
			if sum(waiting) != messages {
				t.Errorf("in the queues: %v, want %d messages", waiting, messages)
			}
			f := always(accepted)
			w, _ := r.start(nil, f.config(queues(n)))
			for _, id := range ids {
				if rec := r.awaitState(id, status.Accepted); len(rec.Attempts) != 1 || rec.PossibleDuplicate {
					t.Errorf("record = %+v, want accepted by one attempt", rec)
				}
			}
			if got := len(f.requests()); got != messages {
				t.Errorf("%d requests for %d messages", got, messages)
			}
			eventually(t, func() bool { return sum(r.listed("active", n)) == 0 }, func() string { return "some tasks never ended" })
			if err := w.Healthy(); err != nil {
				t.Errorf("Healthy() = %v", err)
			}
			if log := r.log.String(); strings.Contains(log, `"level":"warn"`) || strings.Contains(log, `"level":"error"`) {
				t.Errorf("the worker complains: %s", log)
			}
		})
	}
}

// TestQueuesShareTheSlotsOfTheirLane fills queues that the worker knows of, and some
// that it does not, while the provider is slow.
func TestQueuesShareTheSlotsOfTheirLane(t *testing.T) {
	r := newRig(t)
	const known, all, size, messages = 3, 5, 4, 60
	var now, most atomic.Int64
	open := make(chan struct{})
	f := &fake{send: func(context.Context, int) providers.Outcome {
		n := now.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		<-open
		now.Add(-1)
		return accepted
	}}
	r.spread(all)
	ids := r.sendMany(messages)
	r.start(nil, f.config(queues(known), slots(size), func(pc *ProviderConfig) { pc.Timeout = 10 * time.Second }))
	eventually(t, func() bool { return now.Load() >= size }, func() string { return "the slots were never all taken" })
	// Longer than a queue waits for a slot: none is taken ahead of one.
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for range 40 {
		<-look.C
		if active := r.listed("active", all); sum(active) != size {
			t.Fatalf("in the worker's hands: %v, want %d in all", active, size)
		}
	}
	close(open)
	for _, id := range ids {
		r.awaitState(id, status.Accepted)
	}
	if most.Load() != size {
		t.Errorf("%d requests were in flight, want %d", most.Load(), size)
	}
}

// TestAHotQueueUsesTheSlotsOfIdleOnes has all messages in one of four queues.
func TestAHotQueueUsesTheSlotsOfIdleOnes(t *testing.T) {
	r := newRig(t)
	const size = 10
	var now atomic.Int64
	open := make(chan struct{})
	f := &fake{send: func(context.Context, int) providers.Outcome { now.Add(1); <-open; return accepted }}
	r.start(nil, f.config(queues(4), slots(size)))
	var ids []string
	for range size {
		ids = append(ids, r.sendInto(3, 4))
	}
	eventually(t, func() bool { return now.Load() == size }, func() string {
		return fmt.Sprintf("%d of %d slots work for the one queue that has messages", now.Load(), size)
	})
	close(open)
	for _, id := range ids {
		r.awaitState(id, status.Accepted)
	}
}

// TestAWorkerDrainsQueuesThatItsConfigurationDoesNotName has producer and worker
// disagree on how many there are, each way round.
func TestAWorkerDrainsQueuesThatItsConfigurationDoesNotName(t *testing.T) {
	for name, c := range map[string]struct {
		producer, worker int
		after            bool // the producer begins when the worker runs
		found            int  // queues that the worker comes upon
	}{
		"the producer is ahead of a running worker":     {producer: 4, worker: 1, after: true, found: 3},
		"what is left after going back from 4 to 1":     {producer: 4, worker: 1, found: 3},
		"what is left after going back from 4 to 2":     {producer: 4, worker: 2, found: 2},
		"the worker is ahead of the producer":           {producer: 1, worker: 4, after: true},
		"a producer that is not told of the new queues": {producer: 1, worker: 4},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.spread(c.producer)
			f := always(accepted)
			var ids []string
			if !c.after {
				ids = append(r.sendMany(40), r.sendMany(40, enqueue.InLane(tasks.Bulk))...)
			}
			w, _ := r.start(nil, f.config(queues(c.worker)))
			if c.after {
				ids = append(r.sendMany(40), r.sendMany(40, enqueue.InLane(tasks.Bulk))...)
			}
			for _, id := range ids {
				r.awaitState(id, status.Accepted)
			}
			if got := len(f.requests()); got != len(ids) {
				t.Errorf("%d requests for %d messages", got, len(ids))
			}
			const line = "draining a queue that this worker's configuration does not name"
			if got := strings.Count(r.log.String(), line); got != 2*c.found {
				t.Errorf("the worker says %d times that it came upon a queue, want %d: %s", got, 2*c.found, r.log)
			}
			if got, want := len(w.queues()), 2*max(c.worker, c.producer); got != want {
				t.Errorf("it drains %v, want %d", w.queues(), want)
			}
		})
	}
}

// TestAQueueThatIsNoneOfItsProvidersIsLeftAlone has others' queues in Redis.
func TestAQueueThatIsNoneOfItsProvidersIsLeftAlone(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"default", "otpq:kinpos:bulk:2", "otpq:unimedbh:bulk:65", "otpq:unimedbh:bulk:02", "otpq:unimedbh:slow", "otpq:unimedbh:bulk:2:2"} {
		r.rdb.SAdd(t.Context(), "asynq:queues", name)
	}
	r.rdb.SAdd(t.Context(), "asynq:queues", "otpq:unimedbh:bulk:64")
	w, _ := r.start(nil, always(accepted).config())
	if diff := cmp.Diff([]string{"otpq:unimedbh:interactive", "otpq:unimedbh:bulk", "otpq:unimedbh:bulk:64"}, w.queues()); diff != "" {
		t.Errorf("queues (-want +got):\n%s", diff)
	}
}

// TestAWorkerKeepsItsQueuesListed takes the list of queues away, as a failover does
// to whoever has announced a queue once. Another worker finds them all by it.
func TestAWorkerKeepsItsQueuesListed(t *testing.T) {
	r := newRig(t)
	r.spread(3)
	r.sendMany(20)
	w, _ := r.start(nil, always(accepted).config(queues(2)))
	if len(w.queues()) != 5 {
		t.Fatalf("queues = %v, want two of each lane, and the third that has messages", w.queues())
	}
	r.rdb.Del(t.Context(), "asynq:queues")
	want := slices.Sorted(slices.Values(w.queues()))
	var got []string
	eventually(t, func() bool {
		got = slices.Sorted(slices.Values(r.rdb.SMembers(t.Context(), "asynq:queues").Val()))
		return slices.Equal(got, want)
	}, func() string { return fmt.Sprintf("listed are %v, want %v", got, want) })
}

// TestWhatAKilledWorkerHeldInAnyQueueGoesOn kills a worker with a message of the
// third queue in hand. It goes on at one that knows of three queues, and at one that
// knows of one.
func TestWhatAKilledWorkerHeldInAnyQueueGoesOn(t *testing.T) {
	for _, n := range []int{1, 3} {
		t.Run(fmt.Sprintf("at a worker of %d", n), func(t *testing.T) {
			r := newRig(t)
			d := newDesk(t, nil)
			hung := newDesk(t, func(_ http.ResponseWriter, req *http.Request, _ string, _ int) { <-req.Context().Done() })
			victim := r.startProcess(hung.URL, func(s *processSettings) { s.Queues = 3 })
			id := r.sendInto(3, 3)
			eventually(t, func() bool { return hung.recipients() == 1 }, func() string { return "the request never came" })
			r.startProcess(d.URL, func(s *processSettings) { s.Queues = n })
			victim.kill()
			killed := time.Now()
			rec := r.awaitState(id, status.Accepted)
			if len(rec.Attempts) != 2 || !rec.PossibleDuplicate || rec.Attempts[0].Reason != string(ReasonWorkerLost) {
				t.Errorf("record = %+v, want a second attempt, said to be a possible duplicate", rec)
			}
			if took := time.Since(killed); took > 15*time.Second { // seven seconds on a machine that is not busy
				t.Errorf("it went on after %s, want ten seconds", took)
			}
			eventually(t, func() bool { return sum(r.listed("active", 3))+sum(r.listed("pending", 3)) == 0 }, func() string { return "asynq still has tasks" })
		})
	}
}

// TestAMessageInTwoQueuesIsSentOnce is a Send that two producers have a part in, of
// which one spreads over more queues than the other.
func TestAMessageInTwoQueuesIsSentOnce(t *testing.T) {
	r := newRig(t)
	const messages = 20
	var ids []string
	for range messages {
		id := r.sendInto(2, 2)
		queue := tasks.QueueName("unimedbh", tasks.Interactive)
		other := tasks.Queues("unimedbh", tasks.Interactive, 2)[1]
		info, err := asynq.NewInspectorFromRedisClient(r.rdb).GetTaskInfo(other, id)
		if err != nil {
			t.Fatal(err)
		}
		m, err := tasks.Decode(r.keyring(), info.Payload)
		if err != nil {
			t.Fatal(err)
		}
		r.put(m, queue)
		ids = append(ids, id)
	}
	f := always(accepted)
	r.start(nil, f.config(queues(2)))
	for _, id := range ids {
		if rec := r.awaitState(id, status.Accepted); len(rec.Attempts) != 1 || rec.PossibleDuplicate {
			t.Errorf("record = %+v, want one attempt", rec)
		}
	}
	eventually(t, func() bool {
		n, err := r.rdb.Keys(t.Context(), "asynq:{otpq:unimedbh:*:t:*").Result()
		return err == nil && len(n) == 0
	}, func() string { return "the second task never ended" })
	if got := len(f.requests()); got != messages {
		t.Errorf("%d requests for %d messages", got, messages)
	}
}

// TestArchivesOfAllQueuesAreEmptied archives a task of a queue that the worker's
// configuration does not name.
func TestArchivesOfAllQueuesAreEmptied(t *testing.T) {
	r := newRig(t)
	id := r.sendInto(3, 3)
	inspector := asynq.NewInspectorFromRedisClient(r.rdb)
	if err := inspector.ArchiveTask(tasks.Queues("unimedbh", tasks.Interactive, 3)[2], id); err != nil {
		t.Fatal(err)
	}
	f := always(accepted)
	r.start(nil, f.config())
	if rec := r.awaitState(id, status.Rejected); rec.Reason != string(ReasonArchived) {
		t.Errorf("record = %+v, want the reason %s", rec, ReasonArchived)
	}
}

// TestEachQueueOfALaneIsWatched stops the loop of a lane's second queue.
func TestEachQueueOfALaneIsWatched(t *testing.T) {
	r := newRig(t)
	w, _ := r.start(nil, always(accepted).config(queues(2)))
	w.laneStill = 3 * time.Second
	eventually(t, func() bool { return w.Healthy() == nil }, func() string { return "a new worker is not healthy: " + w.Healthy().Error() })
	w.served.all()[1].server.Shutdown()
	eventually(t, func() bool { return w.Healthy() != nil }, func() string { return "the worker never said that a queue's loop is dead" })
	if err := w.Healthy(); !strings.Contains(err.Error(), "lane otpq:unimedbh:interactive:2 ") || strings.Contains(err.Error(), "interactive last") {
		t.Errorf("Healthy() = %v, want it to name the second queue alone", err)
	}
}

// TestAStoppedWorkerLeavesItsQueuesWhole stops a worker with all slots taken and much
// waiting: what it had not begun is in the queues.
func TestAStoppedWorkerLeavesItsQueuesWhole(t *testing.T) {
	r := newRig(t)
	const n, size, messages = 4, 8, 100
	r.spread(n)
	ids := r.sendMany(messages)
	begun := make(chan struct{}, messages)
	open := make(chan struct{})
	f := &fake{send: func(context.Context, int) providers.Outcome { begun <- struct{}{}; <-open; return accepted }}
	_, stop := r.start(nil, f.config(queues(n), slots(size)))
	for range size {
		<-begun
	}
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	eventually(t, func() bool { return sum(r.listed("pending", n)) == messages-size }, func() string {
		return fmt.Sprintf("%v wait, want %d", r.listed("pending", n), messages-size)
	})
	close(open)
	<-stopped
	if left, sent := sum(r.listed("pending", n)), int64(len(f.requests())); left+sent != messages || sum(r.listed("active", n)) != 0 {
		t.Errorf("%d are left, %v in hand, and %d were sent, of %d", left, r.listed("active", n), sent, messages)
	}
	r.start(nil, always(accepted).config(queues(n)))
	for _, id := range ids {
		r.awaitState(id, status.Accepted)
	}
}

func TestANumberOfQueuesThatThereCannotBeIsRefused(t *testing.T) {
	for _, n := range []int{-1, tasks.MaxQueues + 1} {
		_, err := New(Config{Keys: (&rig{t: t, key: tasks.Key{ID: "k", Secret: tasks.GenerateSecret()}}).keyring(), Providers: []ProviderConfig{always(accepted).config(queues(n))}})
		if err == nil || !strings.Contains(err.Error(), "providers.unimedbh.queues: must be at least 1 and at most 64") {
			t.Errorf("New() with %d queues = %v", n, err)
		}
	}
}
