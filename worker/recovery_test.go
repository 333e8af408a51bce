package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// person is the n-th recipient of a test.
func person(n int) string { return fmt.Sprintf("user%d@example.com", n) }

// sendMany queues a message each for so many people and returns the ids.
func (r *rig) sendMany(count int, opts ...enqueue.Option) []string {
	r.t.Helper()
	ids := make([]string, count)
	for i := range ids {
		ids[i] = r.sendTo(unimedbh.Request{Username: person(i), Type: "EMAIL"}, opts...)
	}
	return ids
}

// TestWhatAKilledWorkerHeldGoesOn kills a worker with messages in hand, in the
// middle of their requests, and others waiting behind them.
func TestWhatAKilledWorkerHeldGoesOn(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(map[bool]string{false: "at a worker that was up", true: "at one that is started afterwards"}[restarted], func(t *testing.T) {
			r := newRig(t)
			var healed atomic.Bool
			d := newDesk(t, func(w http.ResponseWriter, r *http.Request, _ string, _ int) {
				if !healed.Load() {
					<-r.Context().Done()
					return
				}
				takes(w)
			})
			victim := r.startProcess(d.URL)
			const messages, inHand = 12, 8
			ids := r.sendMany(messages)
			eventually(t, func() bool { return d.recipients() == inHand }, func() string {
				return fmt.Sprintf("%d requests are in flight, want %d", d.recipients(), inHand)
			})
			healed.Store(true)
			held := map[string]bool{} // in the middle of a request that nobody will answer
			for i, id := range ids {
				held[id] = len(d.requests(person(i))) > 0
			}
			if !restarted {
				r.startProcess(d.URL, func(s *processSettings) { s.Concurrency = 4 })
			}
			victim.kill()
			killed := time.Now()
			if restarted {
				r.startProcess(d.URL)
			}
			for i, id := range ids {
				rec := r.awaitState(id, status.Accepted)
				requests := d.requests(person(i))
				if held[id] && (len(requests) != 2 || !rec.PossibleDuplicate || rec.Attempts[0].Reason != string(ReasonWorkerLost)) {
					t.Errorf("a message whose request was in flight: %d requests, record %+v; want a second one, said to be a possible duplicate", len(requests), rec)
				}
			}
			// Seven seconds here; the rest is for machines that are busy.
			if took := time.Since(killed); took > 15*time.Second {
				t.Errorf("all went on after %s, want ten seconds", took)
			}
			t.Logf("all %d accepted %s after the kill", messages, time.Since(killed).Round(100*time.Millisecond))
			r.awaitEmptyQueues()
		})
	}
}

// awaitEmptyQueues waits until asynq has nothing left of unimedbh's.
func (r *rig) awaitEmptyQueues() {
	r.t.Helper()
	eventually(r.t, func() bool {
		for _, lane := range tasks.Lanes() {
			keys, err := r.rdb.Keys(r.t.Context(), "asynq:{"+tasks.QueueName("unimedbh", lane)+"}:t:*").Result()
			if err != nil || len(keys) > 0 {
				return false
			}
		}
		return true
	}, func() string { return "asynq still has tasks" })
}

// TestAWorkerThatStoodStillDoesNoHarm stops a worker for so long that it is taken
// for dead, and lets it go on.
func TestAWorkerThatStoodStillDoesNoHarm(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	release := make(chan struct{})
	d := newDesk(t, func(w http.ResponseWriter, req *http.Request, _ string, n int) {
		if n == 1 { // answered while the worker that asks cannot hear it
			select {
			case <-release:
			case <-req.Context().Done():
				return
			}
		}
		mu.Lock()
		defer mu.Unlock()
		takes(w)
	})
	sleeper := r.startProcess(d.URL, func(s *processSettings) { s.Concurrency = 4 })
	const messages = 16
	ids := r.sendMany(messages)
	eventually(t, func() bool { return d.recipients() == 4 }, func() string { return "the first requests never came" })
	sleeper.signal(syscall.SIGSTOP)
	close(release)
	r.startProcess(d.URL)
	for _, id := range ids {
		r.awaitState(id, status.Accepted)
	}
	sleeper.signal(syscall.SIGCONT)
	last := r.sendMany(8) // for whoever is quicker
	for _, id := range last {
		r.awaitState(id, status.Accepted)
	}
	r.awaitEmptyQueues()
	for i, id := range ids {
		rec, made := r.get(id), len(d.requests(person(i)))
		if i < len(last) {
			made-- // the second message for the same person
		}
		if made > 2 || made == 2 && !rec.PossibleDuplicate {
			t.Errorf("message %d: %d requests, possible duplicate %v; record %+v", i, made, rec.PossibleDuplicate, rec)
		}
	}
}

// TestAMessageThatKillsItsWorkerIsBuried restarts a worker each time a message has
// killed it, as a supervisor does. A message that comes alone is claimed as it is
// taken, and of what was claimed nobody can say that no request was made.
func TestAMessageThatKillsItsWorkerIsBuried(t *testing.T) {
	for _, c := range []struct {
		name     string
		others   int // before it, and behind it
		state    status.State
		attempts int
	}{
		{"among others", 20, status.Rejected, 0},
		{"alone", 0, status.Unknown, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			d := newDesk(t, nil)
			innocent := r.sendMany(c.others)
			poison := r.sendTo(unimedbh.Request{Username: killer, Type: "EMAIL"})
			innocent = append(innocent, r.sendMany(c.others)...)
			deaths := 0
			start := func() *process { // with room for all at once
				return r.startProcess(d.URL, func(s *processSettings) { s.Concurrency = 64 })
			}
			p := start()
			deadline := time.After(3 * patience)
			for !r.get(poison).State.Terminal() {
				select {
				case <-p.exited:
					if deaths++; deaths > 10 {
						t.Fatal("the message kills for ever")
					}
					p = start()
				case <-time.After(50 * time.Millisecond):
				case <-deadline:
					t.Fatalf("after %d deaths the message is %+v", deaths, r.get(poison))
				}
			}
			if rec := r.get(poison); rec.State != c.state || rec.Reason != string(ReasonKillsWorkers) || len(rec.Attempts) != c.attempts {
				t.Errorf("the message ended %s, %s with %d attempts; want %s, %s with %d", rec.State, rec.Reason, len(rec.Attempts), c.state, ReasonKillsWorkers, c.attempts)
			}
			if deaths != maxDeaths+1 {
				t.Errorf("it killed %d workers, want %d", deaths, maxDeaths+1)
			}
			for _, id := range innocent {
				rec := r.await(id, "came to its end", func(rec status.Record) bool { return rec.State.Terminal() })
				// Two workers may have died in the middle of its requests: then nobody knows.
				lost := rec.State == status.Unknown && rec.Reason == string(ReasonWorkerLost) && len(rec.Attempts) == 2
				if rec.State != status.Accepted && !lost {
					t.Errorf("an innocent message ended %+v", rec)
				}
			}
			if n := len(d.requests(killer)); n != 0 {
				t.Errorf("%d requests were made for it", n)
			}
			r.awaitEmptyQueues()
		})
	}
}

// TestWhatAsynqCannotReadIsBuriedAndRecoveryGoesOn puts bytes into the queue that
// asynq cannot decode: it never hands them to anybody, and its own recovery stops
// for the whole queue as soon as their lease has ended. Bytes that it can decode to a
// task without an id it hands over, and can never acknowledge.
func TestWhatAsynqCannotReadIsBuriedAndRecoveryGoesOn(t *testing.T) {
	const unreadable, noTask = "\xff\xffjoana@example.com", "\xa2\x01\x11joana@example.com"
	for name, tc := range map[string]struct {
		bytes    string
		recorded bool
	}{
		"without a record": {unreadable, false},
		"with one, which is claimed as the task is taken": {unreadable, true},
		"no task, without a record":                       {noTask, false},
		"no task, with one":                               {noTask, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			queue := tasks.QueueName("unimedbh", tasks.Interactive)
			id, stranded := tasks.NewID(), r.send()
			if tc.recorded {
				now := time.Now()
				m := tasks.Message{ID: id, Provider: "unimedbh", Lane: tasks.Interactive, CreatedAt: now, NotAfter: now.Add(5 * time.Minute)}
				if err := r.store.Create(t.Context(), status.NewRecord(m, "j***@***")); err != nil {
					t.Fatal(err)
				}
			}
			// One that was dequeued under a holder long dead, and one that still waits.
			r.mustDo("HSET", "asynq:{"+queue+"}:t:"+id, "msg", tc.bytes, "state", "pending")
			r.mustDo("LPUSH", "asynq:{"+queue+"}:pending", id)
			r.mustDo("LREM", "asynq:{"+queue+"}:pending", "1", stranded)
			r.mustDo("LPUSH", "asynq:{"+queue+"}:active", stranded)
			r.mustDo("ZADD", "asynq:{"+queue+"}:lease", "1", stranded)
			r.mustDo("HSET", "asynq:{"+queue+"}:t:"+stranded, "state", "active", "otpq_holder", "long-dead")
			f := always(accepted)
			r.start(nil, f.config(func(pc *ProviderConfig) { pc.Concurrency[tasks.Interactive] = 1 }))

			r.awaitState(stranded, status.Accepted)
			var rec status.Record
			eventually(t, func() bool {
				var err error
				rec, err = r.store.Get(t.Context(), id)
				return err == nil && rec.State.Terminal()
			}, func() string { return "the unreadable task never became a dead letter" })
			if rec.State != status.Rejected || rec.Reason != string(ReasonUndecodable) || len(rec.Attempts) != 0 {
				t.Errorf("record = %+v; want rejected, and no attempt", rec)
			}
			letter, err := r.store.DeadLetter(t.Context(), id)
			if err != nil {
				t.Fatal(err)
			}
			if raw, err := tasks.Release(r.keyring(), letter.Payload); err != nil || string(raw) != tc.bytes {
				t.Errorf("the dead letter holds %q, %v", raw, err)
			}
			if n, err := r.store.CountDead(t.Context(), "unimedbh"); err != nil || n != 1 {
				t.Errorf("%d dead letters, %v; want the one", n, err)
			}
			r.awaitEmptyQueues()
			r.awaitState(r.send(), status.Accepted) // the only slot is free again
			logged := func() int { return strings.Count(r.log.String(), string(ReasonUndecodable)) }
			eventually(t, func() bool { return logged() > 0 }, func() string { return "no line says so" })
			if n := logged(); n != 1 {
				t.Errorf("%d lines say so, want one", n)
			}
		})
	}
}

func (r *rig) mustDo(args ...any) {
	r.t.Helper()
	if err := r.rdb.Do(r.t.Context(), args...).Err(); err != nil {
		r.t.Fatal(err)
	}
}

// loseReply lets the first dequeue that finds something run and loses its reply.
type loseReply struct {
	passHook
	once sync.Once
	lost chan struct{}
}

// passHook lets everything through.
type passHook struct{}

func (passHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (passHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (l *loseReply) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		reply, isScript := cmd.(interface{ Val() any })
		if !isScript || err != nil || !strings.HasSuffix(firstKey(cmd), ":pending") {
			return err
		}
		if list, _ := reply.Val().([]any); len(list) > 0 { // ours answers with ids and messages
			l.once.Do(func() {
				close(l.lost)
				err = errors.New("connection reset by the test")
				cmd.SetErr(err)
			})
		}
		return err
	}
}

func TestATaskWhoseDequeueWasNotHeardOfGoesOn(t *testing.T) {
	r := newRig(t)
	f := always(accepted)
	id := r.send()
	lose := &loseReply{lost: make(chan struct{})}
	r.startOn(r.newClient(), lose, nil, f.config())
	rec := r.awaitState(id, status.Accepted)
	select {
	case <-lose.lost:
	default:
		t.Fatal("no reply was lost: the test looks for another script")
	}
	if n := len(f.requests()); n != 1 || rec.PossibleDuplicate {
		t.Errorf("%d requests, possible duplicate %v; want one, and none", n, rec.PossibleDuplicate)
	}
}

// TestWhatALivingWorkerWorksOnIsLeftToIt has a request take longer than a dead
// worker's task is left alone.
func TestWhatALivingWorkerWorksOnIsLeftToIt(t *testing.T) {
	r := newRig(t)
	f := &fake{send: func(context.Context, int) providers.Outcome {
		<-time.After((sightings + 3) * roundInterval)
		return accepted
	}}
	r.start(nil, f.config(func(pc *ProviderConfig) { pc.Timeout = 10 * time.Second }))
	r.start(nil, f.config()) // another that looks
	r.awaitState(r.send(), status.Accepted)
	if log := r.log.String(); strings.Contains(log, "taken over") || len(f.requests()) != 1 {
		t.Errorf("%d requests; the log says:\n%s", len(f.requests()), log)
	}
}

// TestATakeoverKeepsTheWaitThatWasAskedFor takes a task over whose record is
// waiting, as when the worker died between the record and the acknowledgement.
func TestATakeoverKeepsTheWaitThatWasAskedFor(t *testing.T) {
	r := newRig(t)
	id := r.send()
	queue := tasks.QueueName("unimedbh", tasks.Interactive)
	next := ceilSecond(time.Now().Add(8 * time.Second))
	if err := r.store.Move(t.Context(), status.Move{ID: id, Provider: "unimedbh", To: status.Deferred, Reason: string(providers.ReasonRateLimited), Next: next, Now: time.Now()}); err != nil {
		t.Fatal(err)
	}
	r.mustDo("RPOPLPUSH", "asynq:{"+queue+"}:pending", "asynq:{"+queue+"}:active")
	r.mustDo("HSET", "asynq:{"+queue+"}:t:"+id, "state", "active", "otpq_holder", "long-dead")
	f := always(accepted)
	r.start(nil, f.config())
	r.awaitState(id, status.Accepted)
	if first := f.requests()[0]; first.Before(next) {
		t.Errorf("the request was made %s early", next.Sub(first))
	}
}

// dropAcks loses acknowledgements: each on its way to Redis, or its reply on the
// way back.
type dropAcks struct {
	passHook
	mu    sync.Mutex
	left  int       // how many are still lost
	until time.Time // or until when, when set
	ran   bool      // whether Redis runs what is lost
	seen  int
}

func (d *dropAcks) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if !isAck(cmd) {
			return next(ctx, cmd)
		}
		d.mu.Lock()
		if d.seen++; d.seen == 1 && !d.until.IsZero() {
			d.until = time.Now().Add(5 * time.Second)
		}
		lost := d.left > 0 || time.Now().Before(d.until)
		d.left--
		d.mu.Unlock()
		if !lost {
			return next(ctx, cmd)
		}
		if d.ran {
			_ = next(ctx, cmd)
		}
		cmd.SetErr(errors.New("connection reset by the test"))
		return cmd.Err()
	}
}

// isAck recognises the script that tells of tasks which are done: its first key is
// the day's count.
func isAck(cmd redis.Cmder) bool { return strings.Contains(firstKey(cmd), "}:processed:") }

// firstKey is the first key of a script, or nothing.
func firstKey(cmd redis.Cmder) string {
	args := cmd.Args()
	if cmd.Name() != "evalsha" && cmd.Name() != "eval" || len(args) < 4 {
		return ""
	}
	key, _ := args[3].(string)
	return key
}

func TestALostAcknowledgementCostsNoSecondRequest(t *testing.T) {
	for name, d := range map[string]*dropAcks{
		"once": {left: 1}, "twice": {left: 2}, "for five seconds": {until: time.Now()},
		"once, though Redis ran it": {left: 1, ran: true}, "for five seconds, though Redis ran it": {until: time.Now(), ran: true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			f := always(accepted)
			r.startOn(r.newClient(), d, nil, f.config())
			id := r.send()
			rec := r.awaitState(id, status.Accepted)
			r.awaitEmptyQueues()
			d.mu.Lock()
			defer d.mu.Unlock()
			if d.seen < 2 {
				t.Fatalf("%d acknowledgements were seen: none was lost", d.seen)
			}
			if n := len(f.requests()); n != 1 || rec.PossibleDuplicate {
				t.Errorf("%d requests, possible duplicate %v; want one, and none", n, rec.PossibleDuplicate)
			}
			if strings.Contains(r.log.String(), "taken over") {
				t.Errorf("the task was taken for orphaned while it was acknowledged:\n%s", r.log)
			}
		})
	}
}

// TestOnlyWhatDoesNotComeThroughIsCounted has a message that was taken over many
// times and always came through: others died beside it.
func TestOnlyWhatDoesNotComeThroughIsCounted(t *testing.T) {
	r := newRig(t)
	s := newSuspects(r.rdb, zerolog.Nop())
	for range 2 * maxDeaths {
		a := &attempt{messageID: "m"}
		if deaths, err := s.begin(t.Context(), a); err != nil || deaths != 0 {
			t.Fatalf("begin() = %d, %v; want 0", deaths, err)
		}
		s.clear(a)
		s.clear(a) // again, as the pipeline does
	}
	for want := range maxDeaths + 1 {
		died := newSuspects(r.rdb, zerolog.Nop()) // a process each
		if deaths, err := died.begin(t.Context(), &attempt{messageID: "m"}); err != nil || deaths != want {
			t.Errorf("begin() = %d, %v; want %d", deaths, err, want)
		}
	}
}

func TestSuspectsGoOneAtATime(t *testing.T) {
	r := newRig(t)
	s := newSuspects(r.rdb, zerolog.Nop())
	first := &attempt{messageID: "first"}
	if _, err := s.begin(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.begin(short, &attempt{messageID: "second"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("begin() beside another = %v, want it to wait", err)
	}
	if n := r.rdb.Exists(t.Context(), suspectKey("second")).Val(); n != 0 {
		t.Error("a message that waited for its turn is counted")
	}
	s.clear(first)
	if _, err := s.begin(t.Context(), &attempt{messageID: "second"}); err != nil {
		t.Errorf("begin() after it = %v", err)
	}
}

// TestSuspectsDoNotHoldUpOneAnother has many at a provider whose limit is low,
// beside another provider: they go one at a time only until they are read.
func TestSuspectsDoNotHoldUpOneAnother(t *testing.T) {
	r := newRig(t)
	queue := asynq.NewClientFromRedisClient(r.rdb)
	put := func(provider, taskSuffix string) string {
		now := time.Now().UTC().Truncate(time.Millisecond)
		m := tasks.Message{ID: tasks.NewID(), Provider: provider, Lane: tasks.Interactive, CreatedAt: now, NotAfter: now.Add(5 * time.Minute)}
		m.Request, _ = json.Marshal(example)
		task, err := tasks.NewTask(r.keyring(), m)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.store.Create(t.Context(), status.NewRecord(m, "x")); err != nil {
			t.Fatal(err)
		}
		if _, err := queue.Enqueue(task, asynq.TaskID(m.ID+taskSuffix)); err != nil {
			t.Fatal(err)
		}
		return m.ID
	}
	const suspects = 12
	var limited, free []string
	for range suspects {
		limited, free = append(limited, put("unimedbh", "~1")), append(free, put("other", "~1"))
	}
	free = append(free, put("other", ""))
	f, other := always(accepted), always(accepted)
	r.start(nil, f.config(func(pc *ProviderConfig) {
		pc.RateLimit = RateLimit{Limit: 1, Period: time.Second}
		pc.Concurrency[tasks.Interactive] = 2 * suspects
	}), other.config(func(pc *ProviderConfig) { pc.Name = "other" }))
	for _, id := range free {
		r.awaitState(id, status.Accepted)
	}
	if n := len(f.requests()); n > suspects/2 {
		t.Errorf("%d requests at a second's distance came before those of another provider", n)
	}
	for _, id := range limited {
		if rec := r.awaitState(id, status.Accepted); len(rec.Attempts) != 1 {
			t.Errorf("a suspect took %d attempts: %+v", len(rec.Attempts), rec.Attempts)
		}
	}
}

// TestASilentWorkerTakesNothingOver has a worker whose own beat is stale: it, or
// Redis, was away, and it cannot tell who is dead.
func TestASilentWorkerTakesNothingOver(t *testing.T) {
	r := newRig(t)
	w, stop := r.start(nil, always(accepted).config())
	stop()
	queue := tasks.QueueName("unimedbh", tasks.Interactive)
	id := r.send()
	r.mustDo("RPOPLPUSH", "asynq:{"+queue+"}:pending", "asynq:{"+queue+"}:active")
	r.mustDo("HSET", "asynq:{"+queue+"}:t:"+id, "state", "active", "otpq_holder", "long-dead")
	rounds := func(n int) {
		for range n {
			if err := w.recovery.round(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	rounds(2 * sightings)
	if n := r.rdb.LLen(t.Context(), "asynq:{"+queue+"}:active").Val(); n != 1 {
		t.Fatal("the task was taken over by a worker that does not beat")
	}
	beat := func(id string) {
		if _, err := livingWorkers(t.Context(), r.rdb, silentAfter, id); err != nil {
			t.Fatal(err)
		}
	}
	clock := time.Now()
	w.recovery.now = func() time.Time { return clock }
	beat(w.recovery.self)
	rounds(2 * sightings)
	if n := r.rdb.LLen(t.Context(), "asynq:{"+queue+"}:active").Val(); n != 1 {
		t.Fatal("the task was taken over by a worker that has only just come back")
	}
	clock = clock.Add(calmFor)
	w.recovery.seen = nil
	rounds(sightings - 1)
	beat("long-dead") // it only was slow
	rounds(1)
	if n := r.rdb.LLen(t.Context(), "asynq:{"+queue+"}:active").Val(); n != 1 {
		t.Fatal("the task was taken from a worker that beats again")
	}
	r.mustDo("ZREM", workersKey, "long-dead")
	rounds(sightings - 1)
	if n := r.rdb.LLen(t.Context(), "asynq:{"+queue+"}:active").Val(); n != 1 {
		t.Fatal("the task was taken over before it was seen orphaned often enough")
	}
	rounds(1)
	if n := r.rdb.LLen(t.Context(), "asynq:{"+queue+"}:active").Val(); n != 0 {
		t.Error("the task was not taken over")
	}
}

// TestBeatsAreTimedByRedis has a beat of a worker whose clock is wrong stand beside
// ours: no clock but Redis's counts.
func TestBeatsAreTimedByRedis(t *testing.T) {
	r := newRig(t)
	var ids []string
	var err error
	for _, id := range []string{"a", "b"} {
		if ids, err = livingWorkers(t.Context(), r.rdb, silentAfter, id); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"a", "b"}; !cmp.Equal(want, ids) {
		t.Errorf("livingWorkers() = %v, want %v", ids, want)
	}
	now := r.rdb.Time(t.Context()).Val()
	for id, age := range map[string]time.Duration{"stale": silentAfter + time.Second, "old": presenceTTL + time.Second} {
		r.mustDo("ZADD", workersKey, now.Add(-age).UnixMilli(), id)
	}
	if ids, err = livingWorkers(t.Context(), r.rdb, silentAfter, ""); err != nil || !cmp.Equal([]string{"a", "b"}, ids) {
		t.Errorf("livingWorkers() = %v, %v; want a and b", ids, err)
	}
	if _, err = livingWorkers(t.Context(), r.rdb, silentAfter, "a"); err != nil {
		t.Fatal(err)
	}
	left := r.rdb.ZRange(t.Context(), workersKey, 0, -1).Val()
	if slices.Contains(left, "old") || !slices.Contains(left, "stale") {
		t.Errorf("after a beat there are %v, want the old one gone", left)
	}
}

// panicOnGet is a store with a bug.
type panicOnGet struct{ status.Store }

func (panicOnGet) Get(context.Context, string) (status.Record, error) { panic("a bug in the store") }

// TestAPanicInARecoveryEndsNothing meets a bug with a dead worker's task in hand:
// every worker would die of it, one after the other.
func TestAPanicInARecoveryEndsNothing(t *testing.T) {
	r := newRig(t)
	w, stop := r.start(nil, always(accepted).config())
	stop()
	queue := tasks.QueueName("unimedbh", tasks.Interactive)
	id := r.send()
	r.mustDo("RPOPLPUSH", "asynq:{"+queue+"}:pending", "asynq:{"+queue+"}:active")
	r.mustDo("HSET", "asynq:{"+queue+"}:t:"+id, "state", "active", "otpq_holder", "long-dead")
	if _, err := livingWorkers(t.Context(), r.rdb, silentAfter, w.recovery.self); err != nil {
		t.Fatal(err)
	}
	w.recovery.store = panicOnGet{}
	w.recovery.calm = time.Now().Add(-calmFor)
	var err error
	for range sightings {
		err = errors.Join(err, w.recovery.round(t.Context()))
	}
	if err == nil || !strings.Contains(err.Error(), "panic") || strings.Contains(err.Error(), "a bug in") {
		t.Errorf("round() = %v, want it to say where a panic came from, and not its value", err)
	}
}
