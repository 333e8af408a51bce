// Package statustest checks that a [status.Store] keeps the rules of its
// interface: one suite for every store there is. It is not a store, and only
// tests may import it.
package statustest

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// rule is one promise of a store.
type rule struct {
	name string
	// why tells what breaks for a person or an operator when the rule does.
	why   string
	check func(*probe)
}

// Run checks every rule against the stores that open returns. open is called
// once a rule; the stores may share their data, since no rule uses the ids of
// another.
func Run(t *testing.T, open func(t *testing.T) status.Store) {
	for _, r := range slices.Concat(recordRules, claimRules, finishRules, moveRules) {
		t.Run(r.name, func(t *testing.T) {
			t.Cleanup(func() {
				if t.Failed() {
					t.Logf("broken rule: %s. Without it: %s", r.name, r.why)
				}
			})
			r.check(&probe{T: t, store: open(t)})
		})
	}
}

// start is when every message of the suite is created. Time is passed to the
// store, so nothing here waits.
var start = time.Date(2026, 11, 20, 12, 0, 0, 123e6, time.UTC)

const (
	validity       = 5 * time.Minute
	abandonedAfter = 40 * time.Second
)

// at is a time so long after start.
func at(d time.Duration) time.Time { return start.Add(d) }

// probe is a store under test, with what most rules need.
type probe struct {
	*testing.T
	store status.Store
}

// run checks a case of a rule.
func (p *probe) run(name string, check func(*probe)) {
	p.T.Run(name, func(t *testing.T) { check(&probe{T: t, store: p.store}) })
}

// record is that of a new message.
func (p *probe) record() status.Record {
	return status.NewRecord(tasks.Message{
		ID: tasks.NewID(), Provider: "kinpos", Lane: tasks.Interactive, CreatedAt: start, NotAfter: at(validity),
	}, "+504 ••••7766")
}

func (p *probe) release(id, owner string) {
	p.Helper()
	if err := p.store.Release(p.Context(), id, owner); err != nil {
		p.Fatalf("Release(%s, %q) = %v, want nil", id, owner, err)
	}
}

func (p *probe) unclaim(id string, now time.Time, tokens ...string) {
	p.Helper()
	if err := p.store.Unclaim(p.Context(), id, now, tokens...); err != nil {
		p.Fatalf("Unclaim(%s, %q) = %v, want nil", id, tokens, err)
	}
}

// create writes the record of a new message and returns its id.
func (p *probe) create() string {
	p.Helper()
	r := p.record()
	if err := p.store.Create(p.Context(), r); err != nil {
		p.Fatalf("Create() = %v, want nil", err)
	}
	return r.ID
}

func (p *probe) get(id string) status.Record {
	p.Helper()
	r, err := p.store.Get(p.Context(), id)
	if err != nil {
		p.Fatalf("Get() = %v, want a record", err)
	}
	return r
}

// want compares the whole record.
func (p *probe) want(id string, want status.Record) {
	p.Helper()
	if diff := cmp.Diff(want, p.get(id)); diff != "" {
		p.Errorf("record (-want +got):\n%s", diff)
	}
}

// claim asks for the next attempt.
func (p *probe) claim(id, token string, now time.Time) status.Claimed {
	p.Helper()
	seed := p.record()
	seed.ID = id
	c, err := p.store.Claim(p.Context(), status.Claim{Seed: seed, Token: token, Now: now, AbandonedAfter: abandonedAfter})
	if err != nil {
		p.Fatalf("Claim(%s) = %v, want an answer", token, err)
	}
	return c
}

// wantClaim claims and compares the answer, but for when the message fell due, which
// has a rule of its own.
func (p *probe) wantClaim(id, token string, now time.Time, want status.Claimed) {
	p.Helper()
	got := p.claim(id, token, now)
	got.DueAt = time.Time{}
	if diff := cmp.Diff(want, got); diff != "" {
		p.Fatalf("Claim(%s) (-want +got):\n%s", token, diff)
	}
}

// result is the end of an attempt as a worker would report it.
func result(id, token string, number int, to status.State, now time.Time) status.Finish {
	outcome := map[status.State]string{
		status.Accepted: "accepted", status.Rejected: "rejected", status.Unknown: "ambiguous",
		status.Exhausted: "retry_later", status.Deferred: "retry_later",
	}[to]
	f := status.Finish{
		ID: id, Provider: "kinpos", Token: token, State: to, Now: now, Spent: true, Payload: []byte("sealed"),
		Attempt: status.Attempt{
			Number: number, StartedAt: now.Add(-time.Second), DurationMS: 250.125, Outcome: outcome, HTTPStatus: 200,
		},
		Ambiguous: to == status.Unknown,
	}
	if to == status.Deferred {
		f.Next = now.Add(10 * time.Second)
	}
	if to != status.Accepted {
		f.Reason, f.Attempt.Reason, f.Attempt.HTTPStatus = "provider_error", "provider_error", 500
	}
	return f
}

// finish ends an attempt that is the caller's.
func (p *probe) finish(f status.Finish) {
	p.Helper()
	if err := p.store.Finish(p.Context(), f); err != nil {
		p.Fatalf("Finish(%s) = %v, want nil", f.State, err)
	}
}

// wantRefused checks that err is a refusal that tells the truth.
func (p *probe) wantRefused(err error, id string, from, to status.State) {
	p.Helper()
	var refused *status.RefusedError
	if !errors.As(err, &refused) {
		p.Fatalf("%s to %s = %v, want a RefusedError", from, to, err)
	}
	if diff := cmp.Diff(&status.RefusedError{ID: id, From: from, To: to}, refused); diff != "" {
		p.Errorf("refusal (-want +got):\n%s", diff)
	}
	if status.IsUnreachable(err) {
		p.Errorf("IsUnreachable(%v) = true: a worker would ask again and again", err)
	}
}

// holder is the token of the one attempt that reach claims.
const holder = "holder"

// reach makes a message and takes it to the state the way messages get there.
// In every state but queued, expired and canceled one attempt has been made.
func (p *probe) reach(state status.State) string {
	p.Helper()
	id := p.create()
	if state == status.Queued {
		return id
	}
	if state == status.Expired || state == status.Canceled {
		p.move(status.Move{ID: id, Provider: "kinpos", To: state, Now: at(time.Second)})
		return id
	}
	p.wantClaim(id, holder, at(time.Second), status.Claimed{Result: status.ClaimedNow, Attempt: 1})
	if state != status.Sending {
		p.finish(result(id, holder, 1, state, at(2*time.Second)))
	}
	if got := p.get(id).State; got != state {
		p.Fatalf("the message is %s, want %s", got, state)
	}
	return id
}

func (p *probe) move(m status.Move) {
	p.Helper()
	if err := p.store.Move(p.Context(), m); err != nil {
		p.Fatalf("Move(%s) = %v, want nil", m.To, err)
	}
}

// terminal lists the states that end a message.
func terminal() []status.State {
	return slices.DeleteFunc(status.States(), func(s status.State) bool { return !s.Terminal() })
}

// pair names a case of the table of moves.
func pair(from, to status.State) string { return fmt.Sprintf("%s to %s", from, to) }
