package statustest

import (
	"slices"
	"time"

	"github.com/otpq/otpq/status"
)

// finals are the states that an attempt may lead to.
func finals() []status.State {
	return slices.DeleteFunc(status.States(), func(s status.State) bool { return !status.Sending.CanBecome(s) })
}

var finishRules = []rule{{
	name: "a finished attempt is written, with what it led to",
	why:  "nobody can tell what became of a message",
	check: func(p *probe) {
		for _, to := range finals() {
			p.run(string(to), func(p *probe) {
				id := p.reach(status.Sending)
				want := p.get(id)
				f := result(id, holder, 1, to, at(2*time.Second))
				f.Reference, f.CodeValid = "ref-7", 299999877*time.Microsecond
				p.finish(f)
				want.State, want.UpdatedAt, want.Reason, want.NextAttemptAt = to, f.Now, f.Reason, f.Next
				want.Attempts = []status.Attempt{f.Attempt}
				want.Reference, want.CodeValidSeconds = "ref-7", 299.999877
				p.want(id, want)
			})
		}
	},
}, {
	name: "a repeated Finish changes nothing",
	why:  "a lost reply counts an attempt twice, or makes a worker believe it lost the message",
	check: func(p *probe) {
		for _, to := range finals() {
			p.run(string(to), func(p *probe) {
				id := p.reach(status.Sending)
				f := result(id, holder, 1, to, at(2*time.Second))
				f.Ambiguous = true
				p.finish(f)
				before := p.get(id)
				f.Now = at(3 * time.Second)
				p.finish(f)
				p.want(id, before)
				if to == status.Deferred {
					p.wantClaim(id, "next", at(time.Minute), status.Claimed{Result: status.ClaimedNow, Attempt: 2, Spent: 1, Ambiguous: 1})
				}
			})
		}
	},
}, {
	name: "an attempt ends only where the state machine lets it",
	why:  "a worker's mistake makes a record that says canceled of a message that was sent",
	check: func(p *probe) {
		for _, to := range status.States() {
			if status.Sending.CanBecome(to) {
				continue
			}
			p.run(string(to), func(p *probe) {
				id := p.reach(status.Sending)
				before := p.get(id)
				err := p.store.Finish(p.Context(), result(id, holder, 1, to, at(2*time.Second)))
				p.wantRefused(err, id, status.Sending, to)
				p.want(id, before)
			})
		}
	},
}, {
	name: "after a takeover the new owner ends the attempt and the old one cannot",
	why:  "a worker that was only slow overwrites what was decided without it",
	check: func(p *probe) {
		for _, to := range finals() {
			if to == status.Accepted {
				continue // the next rules'
			}
			p.run(string(to), func(p *probe) {
				id := p.reach(status.Sending)
				taken := at(time.Second + abandonedAfter)
				p.wantClaim(id, "taker", taken, status.Claimed{Result: status.ClaimAbandoned, Attempt: 1, StartedAt: at(time.Second)})
				before := p.get(id)
				err := p.store.Finish(p.Context(), result(id, holder, 1, to, taken))
				p.wantRefused(err, id, status.Sending, to)
				p.want(id, before)
				p.finish(result(id, "taker", 1, to, taken))
				if got := p.get(id).State; got != to {
					p.Errorf("the taker's Finish led to %s, want %s", got, to)
				}
			})
		}
	},
}, {
	name: "a late accepted is believed where the message may still become accepted",
	why:  "a message that the provider took is sent again, or its record says unknown for good",
	check: func(p *probe) {
		for _, state := range []status.State{status.Deferred, status.Unknown} {
			p.run("from "+string(state), func(p *probe) {
				id := p.overtaken(state)
				p.wantBelieved(id, 1)
			})
		}
		p.run("from sending, the same attempt in another's hand", func(p *probe) {
			id := p.reach(status.Sending)
			p.claim(id, "taker", at(time.Second+abandonedAfter))
			p.wantBelieved(id, 1)
			err := p.store.Finish(p.Context(), result(id, "taker", 1, status.Unknown, at(2*time.Minute)))
			p.wantRefused(err, id, status.Accepted, status.Unknown)
		})
		p.run("from sending, the next attempt in another's hand", func(p *probe) {
			id := p.overtaken(status.Deferred)
			p.wantClaim(id, "next", at(2*time.Minute), status.Claimed{Result: status.ClaimedNow, Attempt: 2, Spent: 1, Ambiguous: 1})
			p.wantBelieved(id, 2)
			err := p.store.Finish(p.Context(), result(id, "next", 2, status.Deferred, at(3*time.Minute)))
			p.wantRefused(err, id, status.Accepted, status.Deferred)
		})
	},
}, {
	name: "a late accepted does not move a message from any other state",
	why:  "a record moves backwards, or a canceled message is both canceled and sent",
	check: func(p *probe) {
		for _, state := range terminal() {
			if state.CanBecome(status.Accepted) {
				continue
			}
			p.run(string(state), func(p *probe) {
				id := p.overtaken(state)
				want := p.get(id)
				f := result(id, holder, 1, status.Accepted, at(3*time.Minute))
				p.wantRefused(p.store.Finish(p.Context(), f), id, state, status.Accepted)
				// The attempt itself may say what became of it: that is true
				// whatever the message became.
				got := p.get(id)
				if a := got.Attempts[0]; a != want.Attempts[0] && a != f.Attempt {
					p.Errorf("the attempt is %+v, want it as it was or as it ended", a)
				}
				want.Attempts[0] = got.Attempts[0]
				p.want(id, want)
			})
		}
	},
}, {
	name: "every other late result is refused and changes nothing",
	why:  "a worker that comes too late undoes what happened since",
	check: func(p *probe) {
		states := slices.DeleteFunc(status.States(), func(s status.State) bool { return s == status.Queued })
		for _, state := range states {
			for _, to := range finals() {
				if to == status.Accepted {
					continue
				}
				p.run(pair(state, to), func(p *probe) {
					id := p.overtaken(state)
					before := p.get(id)
					err := p.store.Finish(p.Context(), result(id, holder, 1, to, at(3*time.Minute)))
					p.wantRefused(err, id, state, to)
					p.want(id, before)
				})
			}
		}
	},
}, {
	name: "a message whose claim was lost takes no result but that it was accepted",
	why:  "a made-up attempt ends a message that nobody sent, or one that was sent is sent again",
	check: func(p *probe) {
		for _, to := range finals() {
			p.run(string(to), func(p *probe) {
				id := p.create()
				err := p.store.Finish(p.Context(), result(id, "", 1, to, at(time.Second)))
				if got := p.get(id); to == status.Accepted {
					if err != nil || got.State != status.Accepted || len(got.Attempts) != 1 {
						p.Errorf("Finish() = %v, record %+v; want accepted by its one attempt", err, got)
					}
					return
				}
				p.wantRefused(err, id, status.Queued, to)
				if got := p.get(id).State; got != status.Queued {
					p.Errorf("the message is %s, want queued", got)
				}
			})
		}
	},
}}

// overtaken makes a message whose first attempt, the holder's, was taken over
// and ended by another, and which then came to the state.
func (p *probe) overtaken(state status.State) string {
	p.Helper()
	id := p.reach(status.Sending)
	taken := at(time.Second + abandonedAfter)
	p.wantClaim(id, "taker", taken, status.Claimed{Result: status.ClaimAbandoned, Attempt: 1, StartedAt: at(time.Second)})
	if state == status.Sending {
		return id
	}
	f := result(id, "taker", 1, state, taken.Add(time.Second))
	f.Ambiguous = true
	f.Attempt.DurationMS = 0
	if !status.Sending.CanBecome(state) {
		f.State = status.Deferred
	}
	p.finish(f)
	if f.State != state {
		p.move(status.Move{ID: id, Provider: "kinpos", To: state, Now: taken.Add(2 * time.Second)})
	}
	return id
}

// wantBelieved finishes the holder's attempt late, as accepted, and wants the
// record to say so and to keep to it. attempts is how many it tells of.
func (p *probe) wantBelieved(id string, attempts int) {
	p.Helper()
	f := result(id, holder, 1, status.Accepted, at(150*time.Second))
	f.Reference = "ref-late"
	p.finish(f)
	r := p.get(id)
	if r.State != status.Accepted || r.Reason != "" || !r.NextAttemptAt.IsZero() || r.Reference != "ref-late" {
		p.Errorf("the record is %s, reason %q, next %v, reference %q; want accepted and ref-late",
			r.State, r.Reason, r.NextAttemptAt, r.Reference)
	}
	if len(r.Attempts) != attempts || r.Attempts[0] != f.Attempt {
		p.Errorf("attempts %+v, want %d, the first %+v", r.Attempts, attempts, f.Attempt)
	}
	p.finish(f) // its reply may be lost too
	p.want(id, r)
	if c := p.claim(id, "another", at(time.Hour)); c.Result != status.ClaimOver || c.State != status.Accepted {
		p.Errorf("Claim() = %s %s, want over: it is accepted", c.Result, c.State)
	}
}
