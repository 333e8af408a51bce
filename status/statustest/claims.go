package statustest

import (
	"fmt"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

var claimRules = []rule{{
	name: "a queued message is claimed and is sending",
	why:  "nothing is ever sent",
	check: func(p *probe) {
		id := p.create()
		want := p.get(id)
		p.wantClaim(id, "a", at(time.Second), status.Claimed{Result: status.ClaimedNow, Attempt: 1})
		want.State, want.UpdatedAt = status.Sending, at(time.Second)
		want.Attempts = []status.Attempt{{Number: 1, StartedAt: at(time.Second)}}
		p.want(id, want)
	},
}, {
	name: "a deferred message is claimed, and what it waited for is no longer told",
	why:  "a message that a breaker held up is never sent, or its record says it waits while it is sent",
	check: func(p *probe) {
		id := p.create()
		p.move(status.Move{ID: id, Provider: "kinpos", To: status.Deferred, Reason: "breaker_open", Next: at(time.Minute), Now: at(time.Second)})
		p.wantClaim(id, "a", at(time.Minute), status.Claimed{Result: status.ClaimedNow, Attempt: 1})
		if r := p.get(id); r.State != status.Sending || r.Reason != "" || !r.NextAttemptAt.IsZero() {
			p.Errorf("the record is %s, %q, next %v; want sending and neither reason nor time", r.State, r.Reason, r.NextAttemptAt)
		}
	},
}, {
	name: "a claim writes a missing record first",
	why:  "a message whose record was lost can never be sent",
	check: func(p *probe) {
		seed := p.record()
		seed.Campaign = "november"
		c, err := p.store.Claim(p.Context(), status.Claim{Seed: seed, Token: "a", Now: at(time.Second), AbandonedAfter: abandonedAfter})
		if diff := cmp.Diff(status.Claimed{Result: status.ClaimedNow, Attempt: 1}, c); err != nil || diff != "" {
			p.Fatalf("Claim() = %v (-want +got):\n%s", err, diff)
		}
		seed.State, seed.UpdatedAt = status.Sending, at(time.Second)
		seed.Attempts = []status.Attempt{{Number: 1, StartedAt: at(time.Second)}}
		p.want(seed.ID, seed)
	},
}, {
	name: "a claim leaves an existing record's own facts alone",
	why:  "the seed of an old task overwrites what the app wrote",
	check: func(p *probe) {
		id := p.create()
		seed := p.record()
		seed.ID, seed.Recipient, seed.Campaign = id, "someone else", "another"
		if _, err := p.store.Claim(p.Context(), status.Claim{Seed: seed, Token: "a", Now: start, AbandonedAfter: abandonedAfter}); err != nil {
			p.Fatal(err)
		}
		if r := p.get(id); r.Recipient != p.record().Recipient || r.Campaign != "" {
			p.Errorf("recipient %q and campaign %q are the seed's", r.Recipient, r.Campaign)
		}
	},
}, {
	name: "a claim tells when a message that had to wait fell due",
	why:  "a message that waits for its time looks like one that no worker picks up",
	check: func(p *probe) {
		if c := p.claim(p.create(), "a", at(time.Second)); !c.DueAt.IsZero() {
			p.Errorf("a message that had not to wait was due at %s", c.DueAt)
		}
		id := p.reach(status.Deferred)
		next := p.get(id).NextAttemptAt
		if c := p.claim(id, "a", at(time.Minute)); next.IsZero() || !c.DueAt.Equal(next) {
			p.Errorf("a deferred message was due at %s, want %s", c.DueAt, next)
		}
		later := p.record()
		later.NextAttemptAt = at(time.Hour)
		if err := p.store.Create(p.Context(), later); err != nil {
			p.Fatal(err)
		}
		if c := p.claim(later.ID, "a", at(time.Hour)); !c.DueAt.Equal(later.NextAttemptAt) {
			p.Errorf("a message for later was due at %s, want %s", c.DueAt, later.NextAttemptAt)
		}
		if r := p.get(later.ID); !r.NextAttemptAt.IsZero() {
			p.Errorf("a message that is being sent has its next attempt at %s", r.NextAttemptAt)
		}
	},
}, {
	name: "the same token gets the same attempt again",
	why:  "a worker whose claim's reply was lost takes itself for another and gives the message up for a while",
	check: func(p *probe) {
		id := p.reach(status.Deferred)
		want := status.Claimed{Result: status.ClaimedNow, Attempt: 2, Spent: 1}
		p.wantClaim(id, "a", at(time.Minute), want)
		before := p.get(id)
		p.wantClaim(id, "a", at(time.Minute+time.Second), want)
		p.wantClaim(id, "a", at(time.Minute+2*abandonedAfter), want)
		p.want(id, before)
	},
}, {
	name: "what a dead worker claimed is abandoned at once when it is released",
	why:  "the messages that a killed worker had in hand wait until its claims are old",
	check: func(p *probe) {
		id := p.create()
		p.wantClaim(id, "dead/1", at(time.Second), status.Claimed{Result: status.ClaimedNow, Attempt: 1})
		p.release(id, "dead")
		p.wantClaim(id, "alive/1", at(2*time.Second), status.Claimed{
			Result: status.ClaimAbandoned, Attempt: 1, StartedAt: at(time.Second),
		})
		p.release(id, "dead") // it has nothing any more
		p.wantClaim(id, "third/1", at(3*time.Second), status.Claimed{
			Result: status.ClaimBusy, Attempt: 1, BusyUntil: at(2*time.Second + abandonedAfter),
		})
	},
}, {
	name: "a release leaves other workers' claims and other states alone",
	why:  "the attempt of a worker that lives is taken away from it",
	check: func(p *probe) {
		id := p.create()
		p.release(id, "dead")
		p.release(p.record().ID, "dead") // there is no such record
		p.wantClaim(id, "deadly/1", at(time.Second), status.Claimed{Result: status.ClaimedNow, Attempt: 1})
		before := p.get(id)
		p.release(id, "dead")
		p.want(id, before)
		p.wantClaim(id, "other/1", at(2*time.Second), status.Claimed{
			Result: status.ClaimBusy, Attempt: 1, BusyUntil: at(time.Second + abandonedAfter),
		})
	},
}, {
	name: "a claim that is taken back leaves no attempt behind",
	why:  "a message that a worker was given and never heard of, or could not send after all, counts as maybe sent",
	check: func(p *probe) {
		for _, tokens := range [][]string{{"w/1"}, {"w/0", "w/1", "w/2"}} {
			id := p.create()
			want := p.get(id)
			p.wantClaim(id, "w/1", at(time.Second), status.Claimed{Result: status.ClaimedNow, Attempt: 1})
			p.unclaim(id, at(2*time.Second), tokens...)
			want.State, want.UpdatedAt = status.Deferred, at(2*time.Second) // and not queued: it never goes backwards
			p.want(id, want)
			p.release(id, "w")
			p.wantClaim(id, "w/3", at(3*time.Second), status.Claimed{Result: status.ClaimedNow, Attempt: 1})
			p.finish(result(id, "w/3", 1, status.Accepted, at(4*time.Second)))
		}
	},
}, {
	name: "only a first attempt's claim that stands is taken back, and by its token",
	why:  "an attempt that may have been acted on is made again as if it had not been",
	check: func(p *probe) {
		stays := func(id string, tokens ...string) {
			p.Helper()
			before := p.get(id)
			p.unclaim(id, at(time.Hour), tokens...)
			p.want(id, before)
		}
		stays(p.create(), "w/1")
		p.unclaim(p.record().ID, start, "w/1") // there is no such record

		others := p.create()
		p.wantClaim(others, "w/1", start, status.Claimed{Result: status.ClaimedNow, Attempt: 1})
		stays(others, "w/2", "w/11", "w", "")
		p.wantClaim(others, "w/2", at(abandonedAfter), status.Claimed{Result: status.ClaimAbandoned, Attempt: 1, StartedAt: start})
		stays(others, "w/1", "w/2") // the second took over what the first may have sent

		second := p.reach(status.Deferred)
		p.claim(second, "w/1", at(time.Minute))
		stays(second, "w/1")
		for _, state := range []status.State{status.Deferred, status.Accepted, status.Unknown} {
			stays(p.reach(state), holder)
		}
	},
}, {
	name: "another token finds the attempt busy until it counts as abandoned",
	why:  "two workers make the same attempt: one person gets two codes",
	check: func(p *probe) {
		id := p.create()
		p.wantClaim(id, "a", start, status.Claimed{Result: status.ClaimedNow, Attempt: 1})
		before := p.get(id)
		busy := status.Claimed{Result: status.ClaimBusy, Attempt: 1, BusyUntil: at(abandonedAfter)}
		p.wantClaim(id, "b", start, busy)
		p.wantClaim(id, "b", at(abandonedAfter-time.Millisecond), busy)
		p.want(id, before)
		p.wantClaim(id, "b", at(abandonedAfter), status.Claimed{Result: status.ClaimAbandoned, Attempt: 1, StartedAt: start})
	},
}, {
	name: "an abandoned attempt has one new owner, for as long again",
	why:  "two workers end the same attempt, and one of them sends while the other counts",
	check: func(p *probe) {
		id := p.create()
		p.claim(id, "a", start)
		takeover := at(abandonedAfter + time.Second)
		p.wantClaim(id, "b", takeover, status.Claimed{Result: status.ClaimAbandoned, Attempt: 1, StartedAt: start})
		busy := status.Claimed{Result: status.ClaimBusy, Attempt: 1, BusyUntil: takeover.Add(abandonedAfter)}
		p.wantClaim(id, "c", takeover, busy)
		p.wantClaim(id, "a", takeover, busy)
		p.wantClaim(id, "c", takeover.Add(abandonedAfter), status.Claimed{Result: status.ClaimAbandoned, Attempt: 1, StartedAt: start})
	},
}, {
	name: "the same token finds the attempt that it took over abandoned again",
	why:  "a worker whose takeover's reply was lost believes the attempt is new and sends a second code in silence",
	check: func(p *probe) {
		id := p.create()
		p.claim(id, "a", start)
		want := status.Claimed{Result: status.ClaimAbandoned, Attempt: 1, StartedAt: start}
		p.wantClaim(id, "b", at(abandonedAfter), want)
		p.wantClaim(id, "b", at(abandonedAfter), want)
		p.wantClaim(id, "b", at(abandonedAfter+time.Second), want)

		id = p.create()
		p.claim(id, "dead/1", start)
		p.release(id, "dead")
		p.wantClaim(id, "b", start, want) // its clock is behind: the same millisecond
		p.wantClaim(id, "b", start, want)
	},
}, {
	name: "a message at its end is over, whoever claims it",
	why:  "a message that was accepted, refused or canceled is sent once more",
	check: func(p *probe) {
		for _, state := range terminal() {
			p.run(string(state), func(p *probe) {
				id := p.reach(state)
				before := p.get(id)
				for _, token := range []string{"another", holder} {
					c := p.claim(id, token, at(time.Hour))
					if c.Result != status.ClaimOver || c.State != state {
						p.Errorf("Claim(%s) = %s, state %q; want over and %s", token, c.Result, c.State, state)
					}
				}
				p.want(id, before)
			})
		}
	},
}, {
	name: "spent and ambiguous attempts are counted, each for itself",
	why:  "the attempt budget ends too early or never, and maybe-sent messages are sent on and on",
	check: func(p *probe) {
		id := p.create()
		now := start
		for i, step := range []struct{ spent, ambiguous bool }{{true, false}, {false, false}, {true, true}, {false, true}} {
			want := []status.Claimed{
				{Attempt: 1}, {Attempt: 2, Spent: 1}, {Attempt: 3, Spent: 1}, {Attempt: 4, Spent: 2, Ambiguous: 1},
			}[i]
			want.Result = status.ClaimedNow
			p.wantClaim(id, fmt.Sprint("t", i), now, want)
			now = now.Add(time.Second)
			f := result(id, fmt.Sprint("t", i), i+1, status.Deferred, now)
			f.Spent, f.Ambiguous = step.spent, step.ambiguous
			p.finish(f)
		}
		p.wantClaim(id, "last", now, status.Claimed{Result: status.ClaimedNow, Attempt: 5, Spent: 2, Ambiguous: 2})
		if n := len(p.get(id).Attempts); n != 5 {
			p.Errorf("the record tells of %d attempts, want 5", n)
		}
	},
}, {
	name: "possible_duplicate is set by the claim after an ambiguous attempt, and only then",
	why:  "a person may have two codes and nobody can tell, or every retry looks like one",
	check: func(p *probe) {
		id := p.create()
		duplicate := func(want bool, when string) {
			p.Helper()
			if got := p.get(id).PossibleDuplicate; got != want {
				p.Errorf("possible_duplicate is %v %s, want %v", got, when, want)
			}
		}
		duplicate(false, "before any attempt")
		p.claim(id, "a", start)
		duplicate(false, "in the first attempt")
		p.finish(result(id, "a", 1, status.Deferred, at(time.Second)))
		p.claim(id, "b", at(2*time.Second))
		duplicate(false, "after an attempt that the provider did not act on")
		f := result(id, "b", 2, status.Deferred, at(3*time.Second))
		f.Ambiguous = true
		p.finish(f)
		duplicate(false, "while only one request may have been acted on")
		p.move(status.Move{ID: id, Provider: "kinpos", To: status.Deferred, Next: at(time.Minute), Now: at(4 * time.Second)})
		duplicate(false, "while the message waits")
		p.claim(id, "c", at(time.Minute))
		duplicate(true, "once a second request may be made")
		p.finish(result(id, "c", 3, status.Accepted, at(61*time.Second)))
		duplicate(true, "in the end")
	},
}, {
	name: "what expires or is canceled tells when a request for it may have been acted on",
	why:  "an app takes expired or canceled for not sent, and sends a second code",
	check: func(p *probe) {
		for _, to := range []status.State{status.Expired, status.Canceled} {
			for ambiguous, want := range map[bool]string{true: status.ReasonMaybeSent, false: "r"} {
				id := p.create()
				p.claim(id, "a", start)
				f := result(id, "a", 1, status.Deferred, at(time.Second))
				f.Ambiguous = ambiguous
				p.finish(f)
				p.move(status.Move{ID: id, Provider: "kinpos", To: to, Reason: "r", Now: at(time.Minute)})
				if got := p.get(id); got.State != to || got.Reason != want {
					p.Errorf("ambiguous %v: %s (%s), want %s (%s)", ambiguous, got.State, got.Reason, to, want)
				}
			}
		}
		// A dead worker's attempt, and one that was claimed only to end the message.
		id := p.overtaken(status.Expired)
		if got := p.get(id); got.Reason != status.ReasonMaybeSent {
			p.Errorf("expired with a lost attempt: reason %q, want %q", got.Reason, status.ReasonMaybeSent)
		}
		id = p.overtaken(status.Deferred)
		p.claim(id, "last", at(3*time.Minute))
		p.finish(result(id, "last", 2, status.Expired, at(3*time.Minute)))
		if got := p.get(id); got.Reason != status.ReasonMaybeSent {
			p.Errorf("expired after a lost attempt: reason %q, want %q", got.Reason, status.ReasonMaybeSent)
		}
	},
}, {
	name: "of many that claim at once exactly one makes the attempt",
	why:  "one person gets many codes",
	check: func(p *probe) {
		const claimers, rounds = 50, 3
		id := p.create()
		for round := range rounds {
			now := at(time.Duration(round) * 10 * time.Second)
			answers := make([]status.Claimed, claimers)
			errs := make([]error, claimers)
			var wg sync.WaitGroup
			seed := p.record()
			seed.ID = id
			gun := make(chan struct{})
			for i := range claimers {
				wg.Go(func() {
					<-gun
					answers[i], errs[i] = p.store.Claim(p.Context(), status.Claim{
						Seed: seed, Token: fmt.Sprint(round, "/", i), Now: now, AbandonedAfter: abandonedAfter,
					})
				})
			}
			close(gun)
			wg.Wait()
			winner, won := "", 0
			for i, c := range answers {
				if errs[i] != nil {
					p.Fatalf("Claim() = %v", errs[i])
				}
				if c.Attempt != round+1 {
					p.Errorf("claimer %d was told of attempt %d, want %d", i, c.Attempt, round+1)
				}
				switch c.Result {
				case status.ClaimedNow:
					winner, won = fmt.Sprint(round, "/", i), won+1
				case status.ClaimBusy:
				default:
					p.Errorf("claimer %d: %s, want claimed or busy", i, c.Result)
				}
			}
			if won != 1 {
				p.Fatalf("%d of %d claimers won attempt %d, want one", won, claimers, round+1)
			}
			p.finish(result(id, winner, round+1, status.Deferred, now.Add(time.Second)))
		}
		if n := len(p.get(id).Attempts); n != rounds {
			p.Errorf("the record tells of %d attempts, want %d", n, rounds)
		}
	},
}, {
	name: "of many that claim a message without a record exactly one makes the attempt",
	why:  "a lost record is a licence to send twice",
	check: func(p *probe) {
		var wg sync.WaitGroup
		seed := p.record()
		seed.ID = tasks.NewID()
		results := make(chan status.ClaimResult, 20)
		for i := range cap(results) {
			wg.Go(func() {
				c, err := p.store.Claim(p.Context(), status.Claim{Seed: seed, Token: fmt.Sprint(i), Now: start, AbandonedAfter: abandonedAfter})
				if err != nil {
					p.Errorf("Claim() = %v", err)
				}
				results <- c.Result
			})
		}
		wg.Wait()
		close(results)
		won := 0
		for r := range results {
			if r == status.ClaimedNow {
				won++
			}
		}
		if won != 1 {
			p.Errorf("%d claimers won, want one", won)
		}
	},
}}
