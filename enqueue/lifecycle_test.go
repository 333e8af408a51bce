package enqueue

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func TestCancel(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*rig, string)
		refused status.State // empty: it is taken back
	}{
		"a queued message is taken back": {func(*rig, string) {}, ""},
		"a deferred message is taken back": {func(r *rig, id string) {
			err := r.store.Move(t.Context(), status.Move{ID: id, To: status.Deferred, Reason: "breaker_open", Next: time.Now().Add(time.Minute), Now: time.Now()})
			if err != nil {
				r.t.Fatal(err)
			}
		}, ""},
		"a message taken back before stays so": {func(r *rig, id string) {
			if err := r.Cancel(t.Context(), id); err != nil {
				r.t.Fatal(err)
			}
		}, ""},
		"a message in a worker's hands is refused": {func(r *rig, id string) { r.finish(id, status.Sending) }, status.Sending},
		"an accepted message is refused":           {func(r *rig, id string) { r.finish(id, status.Accepted) }, status.Accepted},
		"a dead letter is refused":                 {func(r *rig, id string) { r.finish(id, status.Rejected) }, status.Rejected},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			id := r.send().ID
			c.prepare(r, id)
			err := r.Cancel(t.Context(), id)
			if c.refused == "" {
				if got := r.record(id); err != nil || got.State != status.Canceled || got.Reason != "" || !got.NextAttemptAt.IsZero() {
					t.Errorf("Cancel = %v and the record is %+v, want canceled", err, got)
				}
				return
			}
			var refused *status.RefusedError
			if !errors.As(err, &refused) || refused.From != c.refused {
				t.Errorf("Cancel = %v, want a refusal because it is %s", err, c.refused)
			}
			if got := r.record(id).State; got != c.refused {
				t.Errorf("state = %s after a refused Cancel, want %s", got, c.refused)
			}
		})
	}
}

func TestAnUnknownMessageIsNotFound(t *testing.T) {
	r := newRig(t)
	if err := r.Cancel(t.Context(), "nope"); !errors.Is(err, status.ErrNotFound) {
		t.Errorf("Cancel = %v, want %v", err, status.ErrNotFound)
	}
	if _, err := r.Status(t.Context(), "nope"); !errors.Is(err, status.ErrNotFound) {
		t.Errorf("Status = %v, want %v", err, status.ErrNotFound)
	}
	if _, err := r.Replay(t.Context(), "nope"); !errors.Is(err, status.ErrNotFound) {
		t.Errorf("Replay = %v, want %v", err, status.ErrNotFound)
	}
	r.wantKeys("*")
}

// listed returns the ids in the list of dead letters.
func (r *rig) listed() []string {
	r.t.Helper()
	ids := []string{}
	for d, err := range r.store.Dead(r.t.Context(), "unimedbh", status.DeadFilter{}) {
		if err != nil {
			r.t.Fatal(err)
		}
		ids = append(ids, d.ID)
	}
	return ids
}

func TestReplayMakesANewMessageLinkedToTheOld(t *testing.T) {
	for _, state := range []status.State{status.Rejected, status.Exhausted, status.Unknown} {
		t.Run(string(state), func(t *testing.T) {
			r := newRig(t)
			old := r.send(IdempotencyKey("order 17"), InLane(tasks.Bulk), MaxAttempts(2), Campaign("c1"), ValidFor(time.Minute))
			r.finish(old.ID, state)
			if diff := cmp.Diff([]string{old.ID}, r.listed()); diff != "" {
				t.Fatalf("dead letters (-want +got):\n%s", diff)
			}
			receipt, err := r.Replay(t.Context(), old.ID, ValidFor(time.Hour))
			if err != nil {
				t.Fatal(err)
			}
			if receipt.ID == old.ID || receipt.State != status.Queued || receipt.Repeated {
				t.Errorf("receipt = %+v, want a new message", receipt)
			}
			record := r.record(receipt.ID)
			want := status.Record{
				ID: receipt.ID, Provider: "unimedbh", Lane: tasks.Bulk, State: status.Queued, Recipient: example.MaskedRecipient(),
				CreatedAt: record.CreatedAt, UpdatedAt: record.CreatedAt, NotAfter: record.CreatedAt.Add(time.Hour),
				Attempts: []status.Attempt{}, Campaign: "c1", ReplayOf: old.ID,
				Who:               r.keys.RecipientPrint("unimedbh", example.Recipient()),
				PossibleDuplicate: state == status.Unknown, // the provider may have acted on the old one
			}
			if diff := cmp.Diff(want, record); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
			m := r.message(receipt.ID, tasks.Bulk)
			if m.ReplayOf != old.ID || m.MaxAttempts != 0 || !m.NotAfter.Equal(receipt.NotAfter) || string(m.Request) == "" {
				t.Errorf("message = %+v, want the old request with a new budget and deadline", m)
			}
			if got := r.record(old.ID); got.ReplayedAs != receipt.ID || got.State != state {
				t.Errorf("the old record is %s, replayed as %q; want %s, %q", got.State, got.ReplayedAs, state, receipt.ID)
			}
			if diff := cmp.Diff([]string{}, r.listed()); diff != "" {
				t.Errorf("dead letters after the replay (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReplayTakesOptions(t *testing.T) {
	r := newRig(t)
	old := r.send()
	r.finish(old.ID, status.Rejected)
	receipt, err := r.Replay(t.Context(), old.ID, InLane(tasks.Bulk), MaxAttempts(7), Campaign("again"))
	if err != nil {
		t.Fatal(err)
	}
	if m := r.message(receipt.ID, tasks.Bulk); m.MaxAttempts != 7 || m.Campaign != "again" {
		t.Errorf("message = %+v, want 7 attempts in campaign again", m)
	}
	var wrong *OptionError
	if _, err := r.Replay(t.Context(), r.dead(), ValidFor(-1)); !errors.As(err, &wrong) {
		t.Errorf("Replay with a wrong option = %v, want an OptionError", err)
	}
}

// dead sends a message and makes a dead letter of it.
func (r *rig) dead() string {
	r.t.Helper()
	id := r.send().ID
	r.finish(id, status.Rejected)
	return id
}

func TestARepeatedReplayReturnsTheSameMessage(t *testing.T) {
	r := newRig(t)
	id := r.dead()
	first, err := r.Replay(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []status.State{status.Queued, status.Accepted} {
		if state == status.Accepted {
			r.finish(first.ID, status.Accepted)
		}
		again, err := r.Replay(t.Context(), id, ValidFor(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		want := Receipt{ID: first.ID, State: state, NotAfter: first.NotAfter, Repeated: true}
		if diff := cmp.Diff(want, again); diff != "" {
			t.Errorf("receipt of a repeated replay (-want +got):\n%s", diff)
		}
	}
	r.wantKeys("asynq:*:t:*")
}

func TestAReplayThatDiedIsGoneOnWith(t *testing.T) {
	for _, step := range []string{"replayed", "record", "task", "drop", "unlist"} {
		for _, lost := range []bool{false, true} {
			name := step + " refused"
			if lost {
				name = step + " reply lost"
			}
			t.Run(name, func(t *testing.T) {
				r := newRig(t)
				id := r.dead()
				r.faults.failOnce(step, lost)
				_, err := r.Replay(t.Context(), id, ValidFor(time.Minute))
				r.faults.broken(t)
				if err == nil {
					t.Fatal("Replay = nil, want an error")
				}
				// A letter that may not be queued yet can still be found.
				if got := r.listed(); step != "drop" && step != "unlist" && !cmp.Equal([]string{id}, got) {
					t.Errorf("dead letters = %q after a crash, want %s", got, id)
				}
				receipt, err := r.Replay(t.Context(), id, ValidFor(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				if got := r.record(id).ReplayedAs; got != receipt.ID {
					t.Errorf("replayed as %q, want %q", got, receipt.ID)
				}
				r.wantKeys("otpq:msg:*", "otpq:msg:"+id, "otpq:msg:"+receipt.ID)
				r.wantKeys("asynq:*:t:*", "asynq:{otpq:unimedbh:interactive}:t:"+receipt.ID)
				record, m := r.record(receipt.ID), r.message(receipt.ID, tasks.Interactive)
				if !m.NotAfter.Equal(record.NotAfter) || !receipt.NotAfter.Equal(record.NotAfter) {
					t.Errorf("not after: receipt %v, record %v, task %v; want one time", receipt.NotAfter, record.NotAfter, m.NotAfter)
				}
				if len(r.listed()) != 0 {
					t.Errorf("dead letters = %q, want none", r.listed())
				}
			})
		}
	}
}

func TestAReplayThatDiedLongAgoIsNotLate(t *testing.T) {
	r := newRig(t)
	id := r.dead()
	now := time.Now()
	r.now = func() time.Time { return now }
	r.faults.failOnce("task", false)
	if _, err := r.Replay(t.Context(), id, ValidFor(time.Minute)); err == nil {
		t.Fatal("Replay = nil, want an error")
	}
	now = now.Add(time.Hour)
	receipt, err := r.Replay(t.Context(), id, ValidFor(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if m := r.message(receipt.ID, tasks.Interactive); !m.NotAfter.After(now) {
		t.Errorf("the task's deadline is %v, want after %v: it would expire, and the letter is gone", m.NotAfter, now)
	}
}

func TestReplayRefusesWhatIsNoDeadLetter(t *testing.T) {
	r := newRig(t)
	queued := r.send().ID
	accepted := r.send().ID
	r.finish(accepted, status.Accepted)
	discarded := r.dead()
	if err := r.store.DropDead(t.Context(), "unimedbh", discarded); err != nil {
		t.Fatal(err)
	}
	for id, from := range map[string]status.State{queued: status.Queued, accepted: status.Accepted, discarded: status.Rejected} {
		_, err := r.Replay(t.Context(), id)
		var refused *status.RefusedError
		if !errors.As(err, &refused) || refused.From != from {
			t.Errorf("Replay of a %s message = %v, want a RefusedError", from, err)
		}
	}
}

func TestALetterThatCannotBeReadIsKept(t *testing.T) {
	for name, c := range map[string]struct {
		payload func(*rig, string) []byte
		want    error
	}{
		"a quarantined payload": {func(r *rig, id string) []byte {
			sealed, err := tasks.Quarantine(r.keys, id, []byte("rubbish"))
			if err != nil {
				r.t.Fatal(err)
			}
			return sealed
		}, tasks.ErrMalformed},
		"another message's payload": {func(r *rig, id string) []byte {
			sealed, err := tasks.Quarantine(r.keys, id, r.task(r.send().ID, tasks.Interactive).Payload)
			if err != nil {
				r.t.Fatal(err)
			}
			return sealed
		}, tasks.ErrMalformed},
		"a key that is not configured": {func(r *rig, id string) []byte {
			other, err := tasks.NewKeyring(newKey("lost"))
			if err != nil {
				r.t.Fatal(err)
			}
			payload, err := tasks.Encode(other, tasks.Message{
				ID: id, Provider: "unimedbh", Lane: tasks.Bulk, Request: []byte(`{}`), CreatedAt: time.Now(), NotAfter: time.Now(),
			})
			if err != nil {
				r.t.Fatal(err)
			}
			return payload
		}, tasks.ErrKeyUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			id := r.send().ID
			err := r.store.Move(t.Context(), status.Move{
				ID: id, Provider: "unimedbh", To: status.Rejected, Reason: "undecodable", Payload: c.payload(r, id), Now: time.Now(),
			})
			if err != nil {
				t.Fatal(err)
			}
			if _, err = r.Replay(t.Context(), id); !errors.Is(err, c.want) || !strings.Contains(err.Error(), id) {
				t.Errorf("Replay = %v, want %v with the id", err, c.want)
			}
			if diff := cmp.Diff([]string{id}, r.listed()); diff != "" {
				t.Errorf("dead letters (-want +got):\n%s", diff)
			}
		})
	}
}

// TestALetterThatCanBeReadAgainIsReplayed has a message that was buried unread,
// because workers died of it, replayed once that is mended.
func TestALetterThatCanBeReadAgainIsReplayed(t *testing.T) {
	r := newRig(t)
	id := r.send(ValidFor(time.Minute)).ID
	sealed, err := tasks.Quarantine(r.keys, id, r.task(id, tasks.Interactive).Payload)
	if err != nil {
		t.Fatal(err)
	}
	err = r.store.Move(t.Context(), status.Move{
		ID: id, Provider: "unimedbh", To: status.Rejected, Reason: "kills_workers", Payload: sealed, Now: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := r.Replay(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := json.Marshal(example)
	if m := r.message(receipt.ID, tasks.Interactive); m.ReplayOf != id || string(m.Request) != string(want) {
		t.Errorf("the new message is %+v, want the old request", m)
	}
}

func TestNoPersonIsReadableInRedis(t *testing.T) {
	r := newRig(t)
	hidden := []string{"order-of-98765432100", "Bearer s3cret"}
	for _, req := range requests() {
		hidden = append(hidden, req.Personal()...)
		opts := []Option{
			IdempotencyKey("order-of-98765432100"), Campaign("c1"),
			Trace(map[string]string{"traceparent": "00-1-2-01", "authorization": "Bearer s3cret"}),
		}
		for _, lane := range tasks.Lanes() {
			receipt, err := r.Send(t.Context(), req, append(opts, InLane(lane))...)
			if err != nil {
				t.Fatal(err)
			}
			if lane == tasks.Bulk && !receipt.Repeated {
				t.Error("the idempotency key does not hold across lanes")
			}
		}
		delayed, err := r.Send(t.Context(), req, At(time.Now().Add(time.Hour)))
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Cancel(t.Context(), delayed.ID); err != nil {
			t.Fatal(err)
		}
	}
	dead := r.dead()
	r.dead()
	if _, err := r.Replay(t.Context(), dead); err != nil {
		t.Fatal(err)
	}
	all := dump(t, r.look)
	if !strings.Contains(all, "otpq:idem:") || !strings.Contains(all, "otpq:dead:") || !strings.Contains(all, `"sealed":`) {
		t.Fatalf("the dump lacks what it should look through:\n%s", all)
	}
	for _, value := range hidden {
		if strings.Contains(all, value) {
			t.Errorf("%q is readable in Redis", value)
		}
	}
}

func TestErrorsNameNobody(t *testing.T) {
	r := newRig(t)
	r.server.Stop()
	for _, req := range requests() {
		_, err := r.Send(t.Context(), req, IdempotencyKey("order-of-98765432100"))
		if err == nil {
			t.Fatal("Send to a Redis that is down = nil")
		}
		for _, value := range append(req.Personal(), "order-of-98765432100") {
			if strings.Contains(err.Error(), value) {
				t.Errorf("error %q names %q", err, value)
			}
		}
	}
}
