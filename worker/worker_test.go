package worker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func TestEveryProviderTakesItsExample(t *testing.T) {
	r := newRig(t)
	server, list := r.sandboxed(func(*ProviderConfig) {})
	r.start(nil, list...)
	for _, def := range all.All() {
		rec := r.awaitState(r.sendTo(def.Example), status.Accepted)
		if len(rec.Attempts) != 1 || rec.Attempts[0].HTTPStatus != 200 || rec.Attempts[0].Outcome != "accepted" {
			t.Errorf("%s: attempts = %+v, want one accepted with HTTP 200", def.Name, rec.Attempts)
		}
		if rec.PossibleDuplicate || rec.Reason != "" || !rec.NextAttemptAt.IsZero() {
			t.Errorf("%s: record = %+v, want no duplicate, reason or next attempt", def.Name, rec)
		}
		if n, err := server.Counts(def.Name); err != nil || n.Received != 1 || n.Acted != 1 {
			t.Errorf("%s: provider counted %+v, %v, want one request acted on", def.Name, n, err)
		}
		if def.Name == "medsenior" && rec.CodeValidSeconds != 299.999877 {
			t.Errorf("code_valid_seconds = %v, want the page's 299.999877", rec.CodeValidSeconds)
		}
	}
}

// TestEveryStateIsReached drives real providers through the sandbox into every
// state. That none of it names anybody is for privacy_test.go to say.
func TestEveryStateIsReached(t *testing.T) {
	r := newRig(t)
	server, list := r.sandboxed(func(pc *ProviderConfig) {
		pc.Timeout = time.Second
		pc.Retry.MaxAttempts = 2
	})
	fault := func(f sandbox.Fault) {
		t.Helper()
		if err := server.SetFault("unimedbh", f); err != nil {
			t.Fatal(err)
		}
	}

	queued := r.send()
	canceled := r.send()
	if err := r.client.Cancel(t.Context(), canceled); err != nil {
		t.Fatal(err)
	}
	r.awaitState(queued, status.Queued)
	fault(sandbox.Fault{Hang: true})
	r.start(nil, list...)

	sending := r.awaitState(queued, status.Sending)
	if len(sending.Attempts) != 1 || sending.Attempts[0].Outcome != "" {
		t.Errorf("attempts while sending = %+v, want one under way", sending.Attempts)
	}
	deferred := r.awaitState(queued, status.Deferred)
	if deferred.Reason != string(providers.ReasonTimeout) || deferred.NextAttemptAt.IsZero() {
		t.Errorf("after a timeout: %+v, want deferred for a timeout with a next attempt", deferred)
	}
	// The second attempt hangs too: maybe sent twice, and the policy says stop.
	unknown := r.awaitState(queued, status.Unknown)
	if !unknown.PossibleDuplicate {
		t.Error("a message with two ambiguous attempts is not marked possible_duplicate")
	}
	r.awaitState(canceled, status.Canceled)

	fault(sandbox.Fault{ErrorRate: 1})
	exhausted := r.awaitState(r.send(), status.Exhausted)
	if len(exhausted.Attempts) != 2 || exhausted.Reason != string(providers.ReasonProviderError) {
		t.Errorf("exhausted record = %+v, want 2 attempts and the last one's reason", exhausted)
	}
	fault(sandbox.Fault{})
	r.awaitState(r.sendTo(unimedbh.Request{Username: "desconhecido-fulano", Type: "SMS"}), status.Rejected)
	for _, def := range all.All() {
		r.awaitState(r.sendTo(def.Example, enqueue.IdempotencyKey("login "+def.Name)), status.Accepted)
	}

	slow := sandbox.Fault{RateLimitedRate: 1, RetryAfter: sandbox.Duration(time.Minute)}
	if err := server.SetFault("kinpos", slow); err != nil {
		t.Fatal(err)
	}
	kinpos, _ := all.ByName("kinpos")
	expired := r.awaitState(r.sendTo(kinpos.Example, enqueue.ValidFor(1500*time.Millisecond)), status.Expired)
	if expired.UpdatedAt.Before(expired.NotAfter) {
		t.Errorf("expired at %s, before not_after %s", expired.UpdatedAt, expired.NotAfter)
	}
}

func TestAHangingProviderLeavesTheOthersAlone(t *testing.T) {
	r := newRig(t)
	server, list := r.sandboxed(func(pc *ProviderConfig) { pc.Timeout = 10 * time.Second })
	if err := server.SetFault("kinpos", sandbox.Fault{Hang: true}); err != nil {
		t.Fatal(err)
	}
	r.start(nil, list...)
	examples := map[string]providers.Request{}
	for _, def := range all.All() {
		examples[def.Name] = def.Example
	}
	// More than every slot of kinpos, in both lanes.
	for i := range 30 {
		r.sendTo(examples["kinpos"], enqueue.InLane(tasks.Lanes()[i%2]))
	}
	eventually(t, func() bool { n, _ := server.Counts("kinpos"); return n.Received == 8+4 }, func() string {
		return "kinpos never had all its slots taken"
	})
	for range 20 {
		r.awaitState(r.sendTo(examples["medsenior"]), status.Accepted)
	}
	if n, _ := server.Counts("kinpos"); n.Left != 0 {
		t.Errorf("%d requests to kinpos timed out before medsenior's 20 were accepted one by one", n.Left)
	}
	server.Close() // so that the worker's end need not wait for kinpos
}

func TestRetriesSpendTheBudgetAndWaitAsAsked(t *testing.T) {
	t.Run("a failure is tried again until it is accepted", func(t *testing.T) {
		r := newRig(t)
		f := inTurn(providers.Retry(providers.ReasonUnavailable, 0, nil), providers.Retry(providers.ReasonConnection, 0, nil), accepted)
		r.start(nil, f.config())
		rec := r.awaitState(r.send(), status.Accepted)
		var got []string
		for _, a := range rec.Attempts {
			got = append(got, fmt.Sprint(a.Number, " ", a.Outcome, " ", a.Reason))
		}
		want := []string{"1 retry_later provider_unavailable", "2 retry_later connection", "3 accepted "}
		if diff := cmp.Diff(want, got); diff != "" || rec.PossibleDuplicate {
			t.Errorf("attempts (-want +got):\n%s possible_duplicate=%v", diff, rec.PossibleDuplicate)
		}
	})
	t.Run("the message's own budget beats the worker's", func(t *testing.T) {
		r := newRig(t)
		f := always(providers.Retry(providers.ReasonProviderError, 0, nil))
		r.start(nil, f.config())
		rec := r.awaitState(r.send(enqueue.MaxAttempts(1)), status.Exhausted)
		if n := len(f.requests()); n != 1 || len(rec.Attempts) != 1 {
			t.Errorf("%d requests, %d attempts, want 1 of each", n, len(rec.Attempts))
		}
	})
	t.Run("Retry-After is honoured", func(t *testing.T) {
		r := newRig(t)
		f := inTurn(providers.Retry(providers.ReasonUnavailable, 2*time.Second, nil), accepted)
		r.start(nil, f.config())
		r.awaitState(r.send(), status.Accepted)
		at := f.requests()
		if gap := at[1].Sub(at[0]); gap < 2*time.Second {
			t.Errorf("second request came after %s, want at least the 2 s asked for", gap)
		}
	})
	t.Run("a retry that would come too late is not made", func(t *testing.T) {
		r := newRig(t)
		f := always(providers.Retry(providers.ReasonUnavailable, time.Minute, nil))
		r.start(nil, f.config())
		rec := r.awaitState(r.send(enqueue.ValidFor(time.Second)), status.Expired)
		if n := len(f.requests()); n != 1 || rec.Reason != string(ReasonDeadline) {
			t.Errorf("%d requests, reason %q, want 1 and %q", n, rec.Reason, ReasonDeadline)
		}
	})
	t.Run("no request starts after not_after, however often it is tried", func(t *testing.T) {
		r := newRig(t)
		f := always(providers.Retry(providers.ReasonUnavailable, 0, nil))
		r.start(nil, f.config(func(pc *ProviderConfig) { pc.Retry.MaxAttempts = 1000 }))
		notAfter := map[string]time.Time{}
		var ids []string
		for i := range 20 {
			name := fmt.Sprint("user", i)
			id := r.sendTo(unimedbh.Request{Username: name, Type: "SMS"}, enqueue.ValidFor(time.Duration(1500+100*i)*time.Millisecond))
			notAfter[name] = r.get(id).NotAfter
			ids = append(ids, id)
		}
		for _, id := range ids {
			r.awaitState(id, status.Expired)
		}
		for name, deadline := range notAfter {
			if at := f.last[name]; at.IsZero() || !at.Before(deadline) {
				t.Errorf("last request for %s at %s, deadline %s", name, at, deadline)
			}
		}
	})
	t.Run("a request is given no more time than the message has", func(t *testing.T) {
		r := newRig(t)
		left := make(chan time.Duration, 1)
		f := &fake{send: func(ctx context.Context, _ int) providers.Outcome {
			deadline, _ := ctx.Deadline()
			left <- time.Until(deadline)
			return accepted
		}}
		r.start(nil, f.config(func(pc *ProviderConfig) { pc.Timeout = 10 * time.Second }))
		r.send(enqueue.ValidFor(3 * time.Second))
		if got := <-left; got > 3*time.Second {
			t.Errorf("the request may take %s, want at most the message's 3 s", got)
		}
	})
}

func TestAmbiguousOutcomesFollowThePolicy(t *testing.T) {
	maybe := providers.Unknown(providers.ReasonConnectionLost, nil)
	for name, c := range map[string]struct {
		outcomes  []providers.Outcome
		stop      bool
		state     status.State
		requests  int
		duplicate bool
	}{
		"resend_once sends again and marks it":       {[]providers.Outcome{maybe, accepted}, false, status.Accepted, 2, true},
		"resend_once sends no third time":            {[]providers.Outcome{maybe, maybe, accepted}, false, status.Unknown, 2, true},
		"a known failure after it may be retried":    {[]providers.Outcome{maybe, providers.Retry(providers.ReasonUnavailable, 0, nil), accepted}, false, status.Accepted, 3, true},
		"stop ends it as unknown":                    {[]providers.Outcome{maybe, accepted}, true, status.Unknown, 1, false},
		"a provider that forgets to classify: maybe": {[]providers.Outcome{{}}, true, status.Unknown, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			f := inTurn(c.outcomes...)
			r.start(nil, f.config(func(pc *ProviderConfig) { pc.Retry.StopAmbiguous = c.stop }))
			rec := r.awaitState(r.send(), c.state)
			if n := len(f.requests()); n != c.requests || rec.PossibleDuplicate != c.duplicate {
				t.Errorf("%d requests, possible_duplicate %v; want %d, %v", n, rec.PossibleDuplicate, c.requests, c.duplicate)
			}
			if c.state.Dead() {
				if d, err := r.store.DeadLetter(t.Context(), rec.ID); err != nil || len(d.Payload) == 0 {
					t.Errorf("DeadLetter() = %d bytes, %v, want the sealed message", len(d.Payload), err)
				}
			}
		})
	}
}

func TestPoisonEndsAsADeadLetterAndStopsNothing(t *testing.T) {
	r := newRig(t)
	f := always(accepted)
	r.start(nil, f.config())
	ringOf := func(id string) *tasks.Keyring {
		t.Helper()
		ring, err := tasks.NewKeyring(tasks.Key{ID: id, Secret: tasks.GenerateSecret()})
		if err != nil {
			t.Fatal(err)
		}
		return ring
	}
	message := func(change func(*tasks.Message)) tasks.Message {
		m := tasks.Message{
			ID: tasks.NewID(), Provider: "unimedbh", Lane: tasks.Interactive,
			Request: json.RawMessage(`{"username":"teste@gmail.com","type":"EMAIL"}`), CreatedAt: time.Now(), NotAfter: time.Now().Add(time.Minute),
		}
		change(&m)
		return m
	}
	encode := func(ring *tasks.Keyring, m tasks.Message) []byte {
		t.Helper()
		b, err := tasks.Encode(ring, m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	queue := asynq.NewClientFromRedisClient(r.rdb)
	sealed, resealed := message(func(*tasks.Message) {}), message(func(*tasks.Message) {})
	for name, c := range map[string]struct {
		id      string
		payload []byte
		want    providers.Reason
	}{
		"not JSON":                          {tasks.NewID(), []byte("teste@gmail.com wants a code"), ReasonUndecodable},
		"empty":                             {tasks.NewID(), nil, ReasonUndecodable},
		"a version of the future":           {tasks.NewID(), []byte(`{"v":99,"id":"x","to":"teste@gmail.com"}`), ReasonVersion},
		"sealed with a lost key":            {sealed.ID, encode(ringOf("lost"), sealed), ReasonKey},
		"sealed with another secret":        {resealed.ID, encode(ringOf(r.key.ID), resealed), ReasonSeal},
		"another task's payload":            {tasks.NewID(), encode(r.keyring(), sealed), ReasonUndecodable},
		"another provider's message":        {"a1", encode(r.keyring(), message(func(m *tasks.Message) { m.ID, m.Provider = "a1", "kinpos" })), ReasonUndecodable},
		"a request the provider can't take": {"a2", encode(r.keyring(), message(func(m *tasks.Message) { m.ID, m.Request = "a2", json.RawMessage(`{}`) })), providers.ReasonInvalidRequest},
	} {
		task := asynq.NewTask(tasks.TaskType, c.payload, asynq.TaskID(c.id), asynq.Queue(tasks.QueueName("unimedbh", tasks.Interactive)))
		if _, err := queue.Enqueue(task); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { _, err := r.store.DeadLetter(t.Context(), c.id); return err == nil }, func() string {
			return name + ": no dead letter"
		})
		d, err := r.store.DeadLetter(t.Context(), c.id)
		if err != nil {
			t.Fatal(err)
		}
		kept := d.Payload
		if c.want == ReasonUndecodable || c.want == ReasonVersion {
			if kept, err = tasks.Release(r.keyring(), d.Payload); err != nil {
				t.Errorf("%s: Release() = %v", name, err)
			}
		}
		if !bytes.Equal(kept, c.payload) {
			t.Errorf("%s: the dead letter holds %q, want the payload as it was", name, kept)
		}
		if rec := r.get(c.id); rec.State != status.Rejected || rec.Reason != string(c.want) || rec.Provider != "unimedbh" {
			t.Errorf("%s: record = %+v, want rejected for %q", name, rec, c.want)
		}
	}
	r.awaitState(r.send(), status.Accepted)
	if n := len(f.requests()); n != 1 {
		t.Errorf("%d requests, want only that of the good message", n)
	}
	if s := r.dump(); strings.Contains(s, "teste@gmail.com") {
		t.Error("a person in an undecodable payload is readable in Redis")
	}
}

func TestAPanicEndsTheAttemptAndNotTheWorker(t *testing.T) {
	r := newRig(t)
	f := &fake{send: func(_ context.Context, n int) providers.Outcome {
		if n == 1 {
			panic("teste@gmail.com broke it")
		}
		return accepted
	}}
	r.start(nil, f.config(func(pc *ProviderConfig) { pc.Retry.StopAmbiguous = true }))
	rec := r.awaitState(r.send(), status.Unknown)
	if rec.Reason != string(ReasonPanic) {
		t.Errorf("reason = %q, want %q", rec.Reason, ReasonPanic)
	}
	r.awaitState(r.send(), status.Accepted)
	if strings.Contains(r.log.String(), "teste@gmail.com") {
		t.Error("the panic's value, which names a person, is in the log")
	}
}

func TestASecondExecutionOfAnAcceptedTaskSendsNothing(t *testing.T) {
	r := newRig(t)
	f := always(accepted)
	_, stop := r.start(nil, f.config())
	m := tasks.Message{
		ID: tasks.NewID(), Provider: "unimedbh", Lane: tasks.Interactive,
		Request: json.RawMessage(`{"username":"teste@gmail.com","type":"EMAIL"}`), CreatedAt: time.Now(), NotAfter: time.Now().Add(time.Minute),
	}
	queue := asynq.NewClientFromRedisClient(r.rdb)
	for range 3 { // what a lost acknowledgement or the Run button lead to
		task, err := tasks.NewTask(r.keyring(), m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := queue.Enqueue(task); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() bool { return r.rdb.Exists(t.Context(), "asynq:{otpq:unimedbh:interactive}:t:"+m.ID).Val() == 0 }, func() string {
			return "the task was never acknowledged"
		})
	}
	stop()
	if n := len(f.requests()); n != 1 {
		t.Errorf("%d requests for one message, want 1", n)
	}
	r.awaitState(m.ID, status.Accepted)
}

func TestAnAttemptThatADeadWorkerLeftIsAmbiguous(t *testing.T) {
	for name, c := range map[string]struct {
		stop     bool
		age      time.Duration
		want     status.State
		requests int
	}{
		"resend_once sends again":             {false, 2 * abandonedAfter, status.Accepted, 1},
		"stop ends it as unknown":             {true, 2 * abandonedAfter, status.Unknown, 0},
		"a claim that may live is left alone": {false, 0, status.Sending, 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			f := always(accepted)
			id := r.send()
			// Another worker claimed it, and was never heard of again.
			claimed, err := r.store.Claim(t.Context(), status.Claim{Seed: r.get(id), Token: "dead worker", Now: time.Now().Add(-c.age), AbandonedAfter: abandonedAfter})
			if err != nil || claimed.Result != status.ClaimedNow {
				t.Fatalf("Claim() = %+v, %v", claimed, err)
			}
			r.start(nil, f.config(func(pc *ProviderConfig) { pc.Retry.StopAmbiguous = c.stop }))
			if c.want == status.Sending {
				eventually(t, func() bool { return r.rdb.ZCard(t.Context(), "asynq:{otpq:unimedbh:interactive}:retry").Val() == 1 }, func() string {
					return "the task was not put off"
				})
			}
			rec := r.awaitState(id, c.want)
			if n := len(f.requests()); n != c.requests {
				t.Errorf("%d requests, want %d", n, c.requests)
			}
			if c.want != status.Sending && (rec.Attempts[0].Outcome != "ambiguous" || rec.Attempts[0].Reason != string(ReasonWorkerLost)) {
				t.Errorf("first attempt = %+v, want ambiguous, worker_lost", rec.Attempts[0])
			}
			if rec.PossibleDuplicate != (c.want == status.Accepted) {
				t.Errorf("possible_duplicate = %v", rec.PossibleDuplicate)
			}
		})
	}
}

func TestAMessageThatADeadWorkerHeldEndsAfterItsDeadline(t *testing.T) {
	for name, c := range map[string]struct {
		key  bool // is the sealing key still there?
		want status.State
	}{
		"its deadline passed":                   {true, status.Expired},
		"nobody can read it, and maybe it left": {false, status.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			f := always(accepted)
			id := r.send(enqueue.ValidFor(100 * time.Millisecond))
			seed := r.get(id)
			if _, err := r.store.Claim(t.Context(), status.Claim{Seed: seed, Token: "dead worker", Now: time.Now().Add(-2 * abandonedAfter), AbandonedAfter: abandonedAfter}); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() bool { return time.Now().After(seed.NotAfter) }, func() string { return "time stands still" })
			if !c.key {
				r.key.ID = "another"
			}
			r.start(nil, f.config())
			rec := r.awaitState(id, c.want)
			if len(rec.Attempts) != 1 || rec.Attempts[0].Outcome != "ambiguous" || rec.Attempts[0].Reason != string(ReasonWorkerLost) {
				t.Errorf("attempts = %+v, want the lost one as ambiguous", rec.Attempts)
			}
			if n := len(f.requests()); n != 0 {
				t.Errorf("%d requests, want none", n)
			}
		})
	}
}

func TestAResultOutlivesAnOutageOfRedis(t *testing.T) {
	r := newRig(t)
	f := always(accepted)
	broken := &brokenStore{fail: map[string]int{"finish": 12}} // longer than a task is given
	r.start(func(cfg *Config) {
		broken.Store = cfg.Store
		cfg.Store = broken
	}, f.config())
	id := r.send()
	rec := r.awaitState(id, status.Accepted)
	if n := len(f.requests()); n != 1 || rec.PossibleDuplicate || len(rec.Attempts) != 1 {
		t.Errorf("%d requests, record %+v; want one and no duplicate", n, rec)
	}
}

// forget sets a record back to what Redis had of it a moment ago, as one that
// crashed under `appendfsync everysec` does.
func (r *rig) forget(id string, then map[string]string) {
	r.t.Helper()
	_, err := r.rdb.TxPipelined(r.t.Context(), func(p redis.Pipeliner) error {
		p.Del(r.t.Context(), "otpq:msg:"+id)
		if len(then) > 0 {
			p.HSet(r.t.Context(), "otpq:msg:"+id, then)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) enqueueAgain(m tasks.Message) {
	r.t.Helper()
	task, err := tasks.NewTask(r.keyring(), m)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := asynq.NewClientFromRedisClient(r.rdb).Enqueue(task); err != nil {
		r.t.Fatal(err)
	}
}

func TestAWorkerRemembersWhatRedisForgets(t *testing.T) {
	newMessage := func() tasks.Message {
		return tasks.Message{
			ID: tasks.NewID(), Provider: "unimedbh", Lane: tasks.Interactive, CreatedAt: time.Now(), NotAfter: time.Now().Add(time.Minute),
			Request: json.RawMessage(`{"username":"teste@gmail.com","type":"EMAIL"}`),
		}
	}
	t.Run("an accepted message that comes back as queued is not sent again", func(t *testing.T) {
		r := newRig(t)
		f := always(accepted)
		r.start(nil, f.config())
		m := newMessage()
		if err := r.store.Create(t.Context(), status.NewRecord(m, "x")); err != nil {
			t.Fatal(err)
		}
		before := r.rdb.HGetAll(t.Context(), "otpq:msg:"+m.ID).Val()
		r.enqueueAgain(m)
		r.awaitState(m.ID, status.Accepted)
		for _, then := range []map[string]string{before, nil} {
			eventually(t, func() bool { return r.rdb.Exists(t.Context(), "asynq:{otpq:unimedbh:interactive}:t:"+m.ID).Val() == 0 }, func() string {
				return "the task was never acknowledged"
			})
			r.forget(m.ID, then)
			r.enqueueAgain(m)
			eventually(t, func() bool {
				rec, err := r.store.Get(t.Context(), m.ID)
				return err == nil && rec.State == status.Accepted
			}, func() string { return "the message is not accepted again" })
		}
		if n := len(f.requests()); n != 1 {
			t.Errorf("%d requests for one message", n)
		}
	})
	for name, whole := range map[string]bool{"its claim": false, "its whole record": true} {
		t.Run("a result is written though "+name+" is gone", func(t *testing.T) {
			r := newRig(t)
			release := make(chan struct{})
			f := &fake{send: func(context.Context, int) providers.Outcome { <-release; return accepted }}
			id := r.send()
			before := r.rdb.HGetAll(t.Context(), "otpq:msg:"+id).Val()
			if whole {
				before = nil
			}
			r.start(nil, f.config())
			r.awaitState(id, status.Sending)
			r.forget(id, before)
			close(release)
			eventually(t, func() bool {
				rec, err := r.store.Get(t.Context(), id)
				return err == nil && rec.State == status.Accepted && len(rec.Attempts) == 1
			}, func() string { return "the result is lost" })
		})
	}
	t.Run("an accepted message that comes back as sending is not sent again", func(t *testing.T) {
		r := newRig(t)
		f := always(accepted)
		r.start(nil, f.config())
		m := newMessage()
		r.enqueueAgain(m)
		eventually(t, func() bool { return len(f.requests()) == 1 }, func() string { return "the message was never sent" })
		r.awaitState(m.ID, status.Accepted)
		eventually(t, func() bool { return r.rdb.Exists(t.Context(), "asynq:{otpq:unimedbh:interactive}:t:"+m.ID).Val() == 0 }, func() string {
			return "the task was never acknowledged"
		})
		// The claim was kept, the result not; and it is old enough by now.
		seed := status.NewRecord(m, "x")
		r.forget(m.ID, nil)
		if _, err := r.store.Claim(t.Context(), status.Claim{Seed: seed, Token: "old", Now: time.Now().Add(-2 * abandonedAfter), AbandonedAfter: abandonedAfter}); err != nil {
			t.Fatal(err)
		}
		r.enqueueAgain(m)
		rec := r.awaitState(m.ID, status.Accepted)
		if n := len(f.requests()); n != 1 || rec.PossibleDuplicate || len(rec.Attempts) != 1 {
			t.Errorf("%d requests, record %+v; want one and no duplicate", n, rec)
		}
	})
	// What Redis kept of an accepted message, that comes back after its deadline.
	for name, kept := range map[string]func(r *rig, seed status.Record) error{
		"as queued": func(r *rig, seed status.Record) error { return r.store.Create(t.Context(), seed) },
		"as sending": func(r *rig, seed status.Record) error {
			_, err := r.store.Claim(t.Context(), status.Claim{Seed: seed, Token: "old", Now: time.Now().Add(-2 * abandonedAfter), AbandonedAfter: abandonedAfter})
			return err
		},
	} {
		t.Run("an accepted message that comes back late, "+name+", did not expire", func(t *testing.T) {
			r := newRig(t)
			f := always(accepted)
			r.start(nil, f.config())
			m := newMessage()
			m.NotAfter = time.Now().Add(2 * time.Second)
			if err := r.store.Create(t.Context(), status.NewRecord(m, "x")); err != nil {
				t.Fatal(err)
			}
			r.enqueueAgain(m)
			r.awaitState(m.ID, status.Accepted)
			eventually(t, func() bool {
				return time.Now().After(m.NotAfter) && r.rdb.Exists(t.Context(), "asynq:{otpq:unimedbh:interactive}:t:"+m.ID).Val() == 0
			}, func() string { return "the task was never acknowledged" })
			r.forget(m.ID, nil)
			if err := kept(r, status.NewRecord(m, "x")); err != nil {
				t.Fatal(err)
			}
			r.enqueueAgain(m)
			rec := r.await(m.ID, "came to its end", func(rec status.Record) bool { return rec.State.Terminal() })
			if rec.State != status.Accepted || len(rec.Attempts) != 1 || len(f.requests()) != 1 {
				t.Errorf("record = %+v, %d requests; want accepted by its one attempt", rec, len(f.requests()))
			}
		})
	}
	t.Run("a message in hand that comes back is not taken twice", func(t *testing.T) {
		r := newRig(t)
		release := make(chan struct{})
		f := &fake{send: func(context.Context, int) providers.Outcome { <-release; return accepted }}
		r.start(nil, f.config())
		m := newMessage()
		if err := r.store.Create(t.Context(), status.NewRecord(m, "x")); err != nil {
			t.Fatal(err)
		}
		r.enqueueAgain(m)
		r.awaitState(m.ID, status.Sending)
		before := r.rdb.HGetAll(t.Context(), "otpq:msg:"+m.ID).Val()
		delete(before, "claim")
		before["state"] = "queued"
		r.forget(m.ID, before)
		r.rdb.Del(t.Context(), "asynq:{otpq:unimedbh:interactive}:t:"+m.ID)
		r.enqueueAgain(m)
		eventually(t, func() bool { return r.rdb.ZCard(t.Context(), "asynq:{otpq:unimedbh:interactive}:retry").Val() == 1 }, func() string {
			return "the second task was not put off"
		})
		close(release)
		r.await(m.ID, "was accepted", func(rec status.Record) bool { return rec.State == status.Accepted })
		if n := len(f.requests()); n != 1 {
			t.Errorf("%d requests for one message", n)
		}
	})
}

// heap is how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory()
	now := time.Now()
	before := heap()
	for n := range memorySize + 10 {
		// An id is a part of the text that it was read from.
		text := fmt.Sprintf("%036d%s", n, strings.Repeat(" ", 700))
		m.remember(text[:36], remembered{attempt: 1, sentAt: now})
	}
	if each := (heap() - before) / memorySize; each > 300 {
		t.Errorf("an attempt that is remembered takes %d bytes, want 300 at most", each)
	}
	if len(m.done) != memorySize || len(m.order) != memorySize {
		t.Errorf("%d and %d attempts are remembered, want %d", len(m.done), len(m.order), memorySize)
	}
	m.remember("late", remembered{attempt: 2, sentAt: now.Add(memorySpan + time.Second)})
	if len(m.done) != 1 || len(m.order) != 1 {
		t.Errorf("%d attempts are remembered after their time", len(m.done))
	}
	if _, ok := m.recall("late", 3); ok {
		t.Error("an attempt that was never made is recalled")
	}
	if _, ok := m.recall("late", 1); !ok {
		t.Error("an attempt that was made is not recalled")
	}
}

func TestAsynqCountsFailuresAndNotWaits(t *testing.T) {
	r := newRig(t)
	f := always(providers.Retry(providers.ReasonUnavailable, time.Minute, nil))
	r.start(nil, f.config(func(pc *ProviderConfig) {
		pc.Breaker = BreakerConfig{ConsecutiveFailures: 1, FailureRatio: 1, MinimumRequests: 1, OpenFor: time.Hour}
	}))
	retried := func(id string) int {
		t.Helper()
		count := -1
		eventually(t, func() bool {
			list, err := asynq.NewInspectorFromRedisClient(r.rdb).ListRetryTasks(tasks.QueueName("unimedbh", tasks.Interactive))
			for _, info := range list {
				if info.ID == id {
					count = info.Retried
				}
			}
			return err == nil && count >= 0
		}, func() string { return "the task is not in asynq's retry set" })
		return count
	}
	if n := retried(r.send()); n != 1 {
		t.Errorf("asynq counts %d retries after a failed attempt, want 1", n)
	}
	if n := retried(r.send()); n != 0 {
		t.Errorf("asynq counts %d retries after a wait for the breaker, want 0", n)
	}
}

func TestAResultIsWrittenThoughRedisFailsForAWhile(t *testing.T) {
	for _, method := range []string{"claim", "finish", "move"} {
		t.Run(method, func(t *testing.T) {
			r := newRig(t)
			f := always(accepted)
			validity := time.Minute
			if method == "move" {
				validity = time.Millisecond // expires, which is a move
			}
			id := r.send(enqueue.ValidFor(validity))
			r.start(func(cfg *Config) {
				cfg.Store = &brokenStore{Store: cfg.Store, fail: map[string]int{method: 3}}
			}, f.config())
			want, requests := status.Accepted, 1
			if method == "move" {
				want, requests = status.Expired, 0
			}
			rec := r.awaitState(id, want)
			if n := len(f.requests()); n != requests || len(rec.Attempts) != requests || rec.PossibleDuplicate {
				t.Errorf("%d requests, record %+v; want exactly %d and no duplicate", n, rec, requests)
			}
		})
	}
}

func TestShutdownFinishesWhatIsInFlightAndLeavesTheRest(t *testing.T) {
	r := newRig(t)
	release := make(chan struct{})
	f := &fake{send: func(ctx context.Context, _ int) providers.Outcome {
		select {
		case <-release:
			return accepted
		case <-ctx.Done():
			return providers.Unknown(providers.ReasonTimeout, nil)
		}
	}}
	_, stop := r.start(nil, f.config(func(pc *ProviderConfig) { pc.Timeout = 10 * time.Second }))
	var ids []string
	for range 12 { // eight slots
		ids = append(ids, r.send())
	}
	eventually(t, func() bool { return len(f.requests()) == 8 }, func() string { return "the slots never filled" })
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	select {
	case <-stopped:
		t.Fatal("Shutdown returned with requests in flight")
	case <-time.After(100 * time.Millisecond): // long enough for a shutdown that does not wait
	}
	close(release)
	<-stopped

	byState := map[status.State]int{}
	for _, id := range ids {
		byState[r.get(id).State]++
	}
	if diff := cmp.Diff(map[status.State]int{status.Accepted: 8, status.Queued: 4}, byState); diff != "" {
		t.Errorf("after shutdown (-want +got):\n%s", diff)
	}
	r.start(nil, f.config())
	for _, id := range ids {
		r.awaitState(id, status.Accepted)
	}
	if n := len(f.requests()); n != len(ids) {
		t.Errorf("%d requests for %d messages", n, len(ids))
	}
}

func TestATokenThatIsRefusedStopsTheProviderAndBuriesNothing(t *testing.T) {
	r := newRig(t)
	server, list := r.sandboxed(func(*ProviderConfig) {})
	file := filepath.Join(t.TempDir(), "token")
	writeToken := func(token string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	writeToken("old")
	if err := server.SetFault("medsenior", sandbox.Fault{Token: "new"}); err != nil {
		t.Fatal(err)
	}
	def, _ := all.ByName("medsenior")
	base := list[0]
	for _, pc := range list {
		if pc.Name == "medsenior" {
			base = pc
		}
	}
	info, err := server.Counts("medsenior")
	if err != nil || info.Received != 0 {
		t.Fatal(info, err)
	}
	base.Breaker.OpenFor = 300 * time.Millisecond
	base.Retry.MaxAttempts = 2
	base.Provider = r.medsenior(server, file)
	r.start(nil, base)

	var ids []string
	for range 20 {
		ids = append(ids, r.sendTo(def.Example))
	}
	first := r.await(ids[0], "waited", func(rec status.Record) bool { return rec.State == status.Deferred })
	if first.State.Terminal() {
		t.Fatalf("record = %+v", first)
	}
	// Several times as many refusals as the budget has attempts.
	eventually(t, func() bool { n, _ := server.Counts("medsenior"); return n.ByStatus[401] >= 6 }, func() string { return "the provider was not probed" })
	for _, id := range ids {
		if rec := r.get(id); rec.State.Terminal() {
			t.Errorf("message was buried by a refused token: %+v", rec)
		}
	}
	if n, _ := server.Counts("medsenior"); n.Received > 40 {
		t.Errorf("%d requests with a refused token: the provider was not stopped", n.Received)
	}
	writeToken("new")
	for _, id := range ids {
		r.awaitState(id, status.Accepted)
	}
}

// medsenior is the real provider with its token in a file.
func (r *rig) medsenior(server *sandbox.Server, tokenFile string) providers.Provider {
	r.t.Helper()
	def, _ := all.ByName("medsenior")
	p, err := def.New(providers.Settings{BaseURL: serveSandbox(r.t, server), TokenFile: tokenFile})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func TestNewRefusesWhatCannotWork(t *testing.T) {
	ring, err := tasks.NewKeyring(tasks.Key{ID: "k", Secret: tasks.GenerateSecret()})
	if err != nil {
		t.Fatal(err)
	}
	good := always(accepted).config()
	long := good
	long.Timeout = MaxTimeout + time.Millisecond
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no key":                       {Config{Providers: []ProviderConfig{good}}, "otpq keygen"},
		"no provider":                  {Config{Keys: ring}, "no provider is on"},
		"a timeout above the ladder":   {Config{Keys: ring, Providers: []ProviderConfig{long}}, "providers.unimedbh.timeout"},
		"a shutdown below the timeout": {Config{Keys: ring, Providers: []ProviderConfig{good}, ShutdownTimeout: time.Second}, "worker.shutdown_timeout"},
	} {
		if _, err := New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: New() = %v, want an error with %q", name, err, c.want)
		}
	}
	if MaxTimeout+holdBudget+recordBudget >= tasks.TaskTimeout || tasks.TaskTimeout >= lease || abandonedAfter < tasks.TaskTimeout {
		t.Error("the ladder's rungs are in the wrong order")
	}
}

func TestStartFailsWhenRedisDoesNotAnswer(t *testing.T) {
	r := newRig(t)
	rdb := r.newClient()
	w, err := New(Config{Redis: rdb, Keys: r.keyring(), Store: r.store, Providers: []ProviderConfig{always(accepted).config()}})
	if err != nil {
		t.Fatal(err)
	}
	r.redis.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	if err := w.Start(ctx); !errors.Is(err, ErrNoRedis) {
		t.Errorf("Start() with no Redis = %v, want ErrNoRedis", err)
	}
	if err := w.Healthy(); err == nil {
		t.Error("Healthy() = nil for a worker that never reached Redis")
	}
}

func TestErrorsThatAsynqStoresAreReasonsOnly(t *testing.T) {
	err := settle(&verdict{write: writeFinish, state: status.Deferred, reason: providers.ReasonTimeout, err: errors.New("detail")})
	if err == nil || err.Error() != "timeout" || !isFailure(err) {
		t.Errorf("settle(deferred) = %v, failure %v, want \"timeout\", true", err, isFailure(err))
	}
	if wait := settle(&verdict{write: writeMove, state: status.Deferred, reason: ReasonBreakerOpen}); isFailure(wait) {
		t.Error("waiting for a breaker counts as a failure")
	}
	if d := retryDelay(0, errors.New("lease expired"), nil); d <= 0 {
		t.Errorf("retryDelay(unknown error) = %s", d)
	}
	for _, s := range status.States() {
		if got := settle(&verdict{state: s}) == nil; got != s.Terminal() {
			t.Errorf("settle(%s) is done: %v, want %v", s, got, s.Terminal())
		}
	}
}
