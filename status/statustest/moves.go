package statustest

import (
	"errors"
	"slices"
	"time"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

var moveRules = []rule{{
	name: "exactly the transitions of the state machine are possible",
	why:  "records move backwards, and a message that is over comes to life again",
	check: func(p *probe) {
		for _, from := range status.States() {
			for _, to := range status.States() {
				p.run(pair(from, to), func(p *probe) {
					id := p.reach(from)
					before := p.get(id)
					err := p.ask(id, from, to)
					after := p.get(id)
					if from.CanBecome(to) {
						if err != nil || after.State != to {
							p.Errorf("%s = %v and the message is %s, want it to be possible", pair(from, to), err, after.State)
						}
						return
					}
					// What is said twice is no change, and no error either.
					if said := from == to && err == nil; !said {
						p.wantRefused(err, id, from, to)
					}
					p.want(id, before)
				})
			}
		}
	},
}, {
	name: "a message at its end stays there, but for unknown, which may turn out accepted",
	why:  "an app that was told how it ended was told wrong",
	check: func(p *probe) {
		for _, from := range status.States() {
			for _, to := range status.States() {
				want := from == status.Unknown && to == status.Accepted
				if from.Terminal() && from.CanBecome(to) != want {
					p.Errorf("%s: CanBecome = %v, want %v", pair(from, to), !want, want)
				}
			}
			if from.Dead() && !from.Terminal() {
				p.Errorf("%s is a dead letter's state and not terminal", from)
			}
			if !from.Terminal() && !slices.ContainsFunc(terminal(), from.CanBecome) {
				p.Errorf("%s leads to no end", from)
			}
		}
	},
}, {
	name: "only a claim makes a message sending",
	why:  "an attempt is under way that nobody makes",
	check: func(p *probe) {
		for _, from := range status.States() {
			p.run(string(from), func(p *probe) {
				id := p.reach(from)
				before := p.get(id)
				err := p.store.Move(p.Context(), status.Move{ID: id, Provider: "kinpos", To: status.Sending, Now: at(time.Minute)})
				p.wantRefused(err, id, from, status.Sending)
				p.want(id, before)
			})
		}
	},
}, {
	name: "what is claimed is finished by its owner, not moved by another",
	why:  "a message is canceled, or expires, while its request is on the way",
	check: func(p *probe) {
		for _, to := range status.States() {
			p.run(string(to), func(p *probe) {
				id := p.reach(status.Sending)
				before := p.get(id)
				err := p.store.Move(p.Context(), status.Move{ID: id, Provider: "kinpos", To: to, Now: at(time.Minute)})
				p.wantRefused(err, id, status.Sending, to)
				p.want(id, before)
				p.finish(result(id, holder, 1, status.Accepted, at(time.Minute)))
			})
		}
	},
}, {
	name: "a message is canceled from queued and deferred only, and canceling again is no error",
	why:  "an app believes a code was taken back that is on its way",
	check: func(p *probe) {
		for _, from := range status.States() {
			p.run(string(from), func(p *probe) {
				id := p.reach(from)
				before := p.get(id)
				err := p.store.Move(p.Context(), status.Move{ID: id, To: status.Canceled, Now: at(time.Minute)})
				switch from {
				case status.Queued, status.Deferred:
					before.State, before.UpdatedAt = status.Canceled, at(time.Minute)
					before.Reason, before.NextAttemptAt = "", time.Time{}
					if err != nil {
						p.Errorf("cancel = %v, want nil", err)
					}
				case status.Canceled:
					if err != nil {
						p.Errorf("cancel once more = %v, want nil", err)
					}
				default:
					p.wantRefused(err, id, from, status.Canceled)
				}
				p.want(id, before)
			})
		}
	},
}, {
	name: "a message that waits tells why and until when, and the last wait counts",
	why:  "operators see a breaker that closed long ago",
	check: func(p *probe) {
		id := p.create()
		want := p.get(id)
		for i, reason := range []string{"breaker_open", "rate_limit"} {
			now := at(time.Duration(i+1) * 10 * time.Second)
			p.move(status.Move{ID: id, Provider: "kinpos", To: status.Deferred, Reason: reason, Next: now.Add(30 * time.Second), Now: now})
			want.State, want.Reason, want.UpdatedAt, want.NextAttemptAt = status.Deferred, reason, now, now.Add(30*time.Second)
			p.want(id, want)
		}
		p.move(status.Move{ID: id, Provider: "kinpos", To: status.Expired, Reason: "deadline", Now: at(validity)})
		want.State, want.Reason, want.UpdatedAt, want.NextAttemptAt = status.Expired, "deadline", at(validity), time.Time{}
		p.want(id, want)
	},
}, {
	name: "a Move writes a missing record first, when it has a seed and is possible",
	why:  "a message that cannot be read or came too late vanishes without a trace",
	check: func(p *probe) {
		for _, to := range status.States() {
			p.run(string(to), func(p *probe) {
				seed := p.record()
				seed.ID = tasks.NewID()
				m := status.Move{
					ID: seed.ID, Seed: &seed, Provider: "kinpos", To: to, Reason: "deadline", Payload: []byte("sealed"), Now: at(time.Second),
				}
				err := p.store.Move(p.Context(), m)
				if status.Queued.CanBecome(to) && to != status.Sending {
					if err != nil {
						p.Fatalf("Move() = %v, want nil", err)
					}
					want := seed
					want.State, want.Reason, want.UpdatedAt = to, "deadline", m.Now
					p.want(seed.ID, want)
					return
				}
				p.wantRefused(err, seed.ID, status.Queued, to)
				if r, err := p.store.Get(p.Context(), seed.ID); !errors.Is(err, status.ErrNotFound) {
					p.Errorf("a refused Move left the record %+v, %v behind", r, err)
				}
			})
		}
	},
}, {
	name: "a Move leaves an existing record's own facts alone",
	why:  "the seed of an old task overwrites what the app wrote",
	check: func(p *probe) {
		id := p.reach(status.Deferred)
		want := p.get(id)
		seed := p.record()
		seed.ID, seed.Recipient, seed.Campaign = id, "someone else", "another"
		p.move(status.Move{ID: id, Seed: &seed, Provider: "kinpos", To: status.Expired, Reason: "deadline", Now: at(validity)})
		want.State, want.Reason, want.UpdatedAt, want.NextAttemptAt = status.Expired, "deadline", at(validity), time.Time{}
		p.want(id, want)
	},
}, {
	name: "a repeated Move to an end changes nothing",
	why:  "a lost reply changes when and why a message ended",
	check: func(p *probe) {
		for _, to := range []status.State{status.Expired, status.Rejected, status.Canceled} {
			p.run(string(to), func(p *probe) {
				id := p.create()
				m := status.Move{ID: id, Provider: "kinpos", To: to, Reason: "deadline", Payload: []byte("sealed"), Now: at(time.Second)}
				p.move(m)
				before := p.get(id)
				m.Now, m.Reason = at(time.Hour), "another"
				p.move(m)
				p.want(id, before)
			})
		}
	},
}}

// ask asks for a transition the way it comes about: an attempt is claimed,
// what is claimed is finished, everything else is moved.
func (p *probe) ask(id string, from, to status.State) error {
	p.Helper()
	now := at(10 * time.Second)
	switch {
	case to == status.Sending:
		c := p.claim(id, "another", now)
		if c.Result == status.ClaimedNow {
			return nil
		}
		if from.Terminal() != (c.Result == status.ClaimOver) {
			p.Errorf("Claim() of a message that is %s = %s", from, c.Result)
		}
		return &status.RefusedError{ID: id, From: from, To: to}
	case from == status.Sending:
		return p.store.Finish(p.Context(), result(id, holder, 1, to, now))
	default:
		return p.store.Move(p.Context(), status.Move{
			ID: id, Provider: "kinpos", To: to, Reason: "deadline", Payload: []byte("sealed"), Now: now,
		})
	}
}
