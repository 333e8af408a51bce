package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// keysEnv is the environment of a process with the rig's configuration and these keys.
func (r *rig) keysEnv(keys ...tasks.Key) []string {
	var list []string
	for _, k := range keys {
		list = append(list, k.ID+":"+k.Secret.Reveal())
	}
	return []string{"OTPQ_CONFIG=" + r.file, "OTPQ_ADMIN_LISTEN=127.0.0.1:0", "OTPQ_LOG_LEVEL=debug", "OTPQ_KEYS=" + strings.Join(list, ",")}
}

// with runs a command in a process that has these keys.
func (r *rig) with(keys []tasks.Key, args ...string) result {
	r.t.Helper()
	return otpq(r.t, r.keysEnv(keys...), "", args...)
}

// app is a producer with these keys.
func (r *rig) app(keys ...tasks.Key) *enqueue.Client {
	r.t.Helper()
	c, err := enqueue.Open(enqueue.Config{Redis: r.rdb, Keys: keys})
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) sendAs(c *enqueue.Client, opts ...enqueue.Option) enqueue.Receipt {
	r.t.Helper()
	receipt, err := c.Send(r.t.Context(), unimedbh.Request{Username: person, Type: "EMAIL"}, opts...)
	if err != nil {
		r.t.Fatal(err)
	}
	return receipt
}

func (r *rig) ends(id string, state status.State) {
	r.t.Helper()
	waitFor(r.t, fmt.Sprintf("%s to be %s", id, state), func() bool { return r.record(id).State.Terminal() })
	if got := r.record(id); got.State != state {
		r.t.Errorf("%s ended %s (%s), want %s", id, got.State, got.Reason, state)
	}
}

// inFlight is what a rotation finds: sealed with the old key.
type inFlight struct{ waiting, dead, delayed string }

// beforeRotation queues a message, buries one, and makes a campaign that has begun.
func (r *rig) beforeRotation() inFlight {
	r.t.Helper()
	old := r.app(r.key)
	f := inFlight{dead: r.dead("unimedbh", request, status.Rejected, "recipient_unknown", time.Now())}
	f.delayed = r.sendAs(old, enqueue.At(time.Now().Add(6*time.Second))).ID
	f.waiting = r.sendAs(old, enqueue.IdempotencyKey("login-1")).ID
	r.create("november", peopleFile(r.t, 200), "--rate", "20", "--window", "10")
	r.otpq("campaign", "start", "november", "--detach").want(r.t, exitDone)
	return f
}

// TestASealingKeyIsReplacedAsThePageSays goes through the steps of docs/operations.md
// with messages, a dead letter and a campaign on their way.
func TestASealingKeyIsReplacedAsThePageSays(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	older, newer := r.key, tasks.Key{ID: "new", Secret: tasks.GenerateSecret()}
	f := r.beforeRotation()
	worker := start(t, r.keysEnv(older), "worker")
	worker.says("worker started")
	r.ends(f.waiting, status.Accepted)

	// Step 1: the new key is the last one everywhere; the workers first.
	if code := worker.end(); code != exitDone {
		t.Fatalf("the worker ended with %d", code)
	}
	both := []tasks.Key{older, newer}
	r.with(both, "check").wantOut(t, `2; "k" seals`)
	worker = start(t, r.keysEnv(both...), "worker")
	worker.says("worker started")
	r.ends(r.sendAs(r.app(older)).ID, status.Accepted)
	r.ends(r.sendAs(r.app(both...)).ID, status.Accepted)

	// Step 2: the new key is the first one, at one after the other. Whatever an app and
	// a worker have by now, they understand each other.
	swapped := []tasks.Key{newer, older}
	r.with(swapped, "check").wantOut(t, `2; "new" seals`)
	byNew := r.sendAs(r.app(swapped...))
	r.ends(byNew.ID, status.Accepted)
	if again := r.sendAs(r.app(swapped...), enqueue.IdempotencyKey("login-1")); !again.Repeated || again.ID != f.waiting {
		t.Errorf("the key of %s led to %+v, want it repeated", f.waiting, again)
	}
	if again := r.sendAs(r.app(both...), enqueue.IdempotencyKey("login-2")); again.Repeated {
		t.Errorf("Send() = %+v, want a new message", again)
	} else if third := r.sendAs(r.app(swapped...), enqueue.IdempotencyKey("login-2")); third.ID != again.ID {
		t.Errorf("an app that has not got step 2 yet, and one that has, queued %s and %s", again.ID, third.ID)
	}
	worker.end()
	worker = start(t, r.keysEnv(swapped...), "worker")
	worker.says("worker started")
	r.ends(f.delayed, status.Accepted)
	r.with(swapped, "dead", "replay", f.dead).want(t, exitDone)
	r.ends(r.record(f.dead).ReplayedAs, status.Accepted)
	waitFor(t, "the campaign to end", func() bool { return r.campaign("november").State == campaign.Completed })

	// Step 3: nothing is left that needs the old one but the campaign's report and the
	// idempotency keys.
	r.with([]tasks.Key{newer}, "campaign", "report", "november").want(t, exitFailed, "sealing key is not configured")
	r.rdb.Del(t.Context(), r.rdb.Keys(t.Context(), "otpq:campaign:{november}*").Val()...) // as at the end of its retention
	worker.end()
	worker = start(t, r.keysEnv(newer), "worker")
	worker.says("worker started")
	r.ends(r.sendAs(r.app(newer)).ID, status.Accepted)
	if counts, err := r.sandbox.Counts("unimedbh"); err != nil || counts.Received != 200+8 {
		t.Errorf("the provider saw %+v, %v; want each of 208 messages once", counts, err)
	}
	r.with([]tasks.Key{newer}, "audit").want(t, exitDone)
}

// TestWhatTheStepsOfARotationKeepFromHappening does them in the wrong order.
func TestWhatTheStepsOfARotationKeepFromHappening(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	older, newer := r.key, tasks.Key{ID: "new", Secret: tasks.GenerateSecret()}

	// An app seals with a key that the workers lack.
	worker := start(t, r.keysEnv(older), "worker")
	worker.says("worker started")
	unread := r.sendAs(r.app(newer, older)).ID
	r.ends(unread, status.Rejected)
	if got := r.record(unread); got.Reason != "unknown_key" {
		t.Errorf("its reason is %q, want unknown_key", got.Reason)
	}
	// Nothing is lost: with the key it can be replayed.
	worker.end()
	worker = start(t, r.keysEnv(older, newer), "worker")
	worker.says("worker started")
	r.with([]tasks.Key{older, newer}, "dead", "replay", unread).want(t, exitDone)
	r.ends(r.record(unread).ReplayedAs, status.Accepted)

	// The old key is taken out too soon.
	worker.end()
	first := r.sendAs(r.app(older), enqueue.IdempotencyKey("login-1"))
	letter := r.dead("medsenior", `{"cpf":"52998224725","emailId":"bed1066b-d8b5-47bc-a67f-2fd70a3c442d","primeiroAcesso":false}`,
		status.Exhausted, "provider_error", time.Now())
	r.create("november", peopleFile(t, 20))
	if again := r.sendAs(r.app(newer), enqueue.IdempotencyKey("login-1")); again.Repeated || again.ID == first.ID {
		t.Errorf("an idempotency key of the old sealing key was found: the page warns for nothing: %+v", again)
	}
	r.with([]tasks.Key{newer}, "dead", "replay", letter).want(t, exitFailed)
	if _, err := r.store.DeadLetter(t.Context(), letter); err != nil {
		t.Errorf("the letter that could not be opened: %v, want it kept", err)
	}
	if _, err := r.app(newer).Replay(t.Context(), letter); !errors.Is(err, tasks.ErrKeyUnknown) {
		t.Errorf("Replay() = %v, want ErrKeyUnknown", err)
	}
	lone := start(t, r.keysEnv(newer), "worker")
	lone.says("worker started")
	r.with([]tasks.Key{newer}, "campaign", "start", "november", "--detach")
	lone.says("sealing key is not configured")
	// With the key it goes on.
	lone.end()
	start(t, r.keysEnv(newer, older), "worker").says("worker started")
	waitFor(t, "the campaign to end", func() bool { return r.campaign("november").State == campaign.Completed })
}

// TestATokenIsReplacedWithoutARestart changes the token's file beneath a worker.
func TestATokenIsReplacedWithoutARestart(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	file := writeFile(t, "the-old-one")
	if err := r.sandbox.SetFault("medsenior", sandbox.Fault{Token: "the-old-one"}); err != nil {
		t.Fatal(err)
	}
	r.file = writeFile(t, fmt.Sprintf("redis: {url: %q}\nkeys: [{id: %q, secret: %q}]\nproviders:\n  medsenior: {base_url: %q, token_file: %q, breaker: {open_for: 200ms}}\n",
		r.redis.URL(), r.key.ID, r.key.Secret.Reveal(), r.url, file))
	r.worker(r.file)
	body := `{"cpf":"52998224725","emailId":"bed1066b-d8b5-47bc-a67f-2fd70a3c442d","primeiroAcesso":false}`
	send := func() string {
		return strings.TrimSpace(r.otpq("send", "medsenior", body).want(t, exitDone).out)
	}
	r.ends(send(), status.Accepted)

	// The vendor takes the new one only; the file still has the old one.
	if err := r.sandbox.SetFault("medsenior", sandbox.Fault{Token: "the-new-one"}); err != nil {
		t.Fatal(err)
	}
	id := send()
	waitFor(t, "the message to wait for a token", func() bool { return r.record(id).State == status.Deferred })
	replaceFile(t, file, "the-new-one")
	r.ends(id, status.Accepted)
	r.ends(send(), status.Accepted)
}

// replaceFile puts another file in a file's place, as `mv` does.
func replaceFile(t *testing.T, file, text string) {
	t.Helper()
	if err := os.Rename(writeFile(t, text), file); err != nil {
		t.Fatal(err)
	}
}
