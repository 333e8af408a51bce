package statustest

import (
	"context"
	"errors"
	"time"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

var recordRules = []rule{{
	name: "a record can be read once Create has returned, with all that was written",
	why:  "an app that asks for the status of what it just sent gets \"no such message\"",
	check: func(p *probe) {
		r := status.NewRecord(tasks.Message{
			ID: tasks.NewID(), Provider: "medsenior", Lane: tasks.Bulk, CreatedAt: start, NotAfter: at(validity),
			Campaign: "november", ReplayOf: "019ab5d2-0000-7000-8000-000000000001",
		}, "CPF ••••••••901")
		if err := p.store.Create(p.Context(), r); err != nil {
			p.Fatalf("Create() = %v, want nil", err)
		}
		p.want(r.ID, r)
	},
}, {
	name: "a second Create fails with ErrExists and changes nothing",
	why:  "a message whose Create is repeated after a lost reply falls back to queued and is sent again",
	check: func(p *probe) {
		for _, state := range status.States() {
			p.run(string(state), func(p *probe) {
				id := p.reach(state)
				before := p.get(id)
				again := p.record()
				again.ID, again.Recipient, again.Campaign = id, "someone else", "another"
				if err := p.store.Create(p.Context(), again); !errors.Is(err, status.ErrExists) || status.IsUnreachable(err) {
					p.Errorf("Create() = %v, want ErrExists", err)
				}
				p.want(id, before)
			})
		}
	},
}, {
	name: "Get of an unknown id fails with ErrNotFound",
	why:  "an app cannot tell a wrong id from a Redis that is down",
	check: func(p *probe) {
		r, err := p.store.Get(p.Context(), tasks.NewID())
		if !errors.Is(err, status.ErrNotFound) || status.IsUnreachable(err) {
			p.Errorf("Get() = %+v, %v, want ErrNotFound", r, err)
		}
	},
}, {
	name: "Finish and Move of an unknown id fail with ErrNotFound and write nothing",
	why:  "half a record appears that is of no provider and in no lane, and is kept for days",
	check: func(p *probe) {
		for _, to := range status.States() {
			p.run(string(to), func(p *probe) {
				id := tasks.NewID()
				f := result(id, holder, 1, to, at(time.Second))
				if err := p.store.Finish(p.Context(), f); !errors.Is(err, status.ErrNotFound) {
					p.Errorf("Finish() = %v, want ErrNotFound", err)
				}
				m := status.Move{ID: id, Provider: "kinpos", To: to, Payload: []byte("sealed"), Now: start}
				if err := p.store.Move(p.Context(), m); !errors.Is(err, status.ErrNotFound) {
					p.Errorf("Move() = %v, want ErrNotFound", err)
				}
				if r, err := p.store.Get(p.Context(), id); !errors.Is(err, status.ErrNotFound) {
					p.Errorf("Get() = %+v, %v, want ErrNotFound", r, err)
				}
			})
		}
	},
}, {
	name: "an ended ctx ends every method with an error that means unreachable",
	why:  "a caller waits longer than it said, or takes \"don't know\" for an answer",
	check: func(p *probe) {
		id := p.create()
		before := p.get(id)
		ctx, cancel := context.WithCancel(p.Context())
		cancel()
		_, getErr := p.store.Get(ctx, id)
		_, claimErr := p.store.Claim(ctx, status.Claim{Seed: before, Token: holder, Now: start, AbandonedAfter: abandonedAfter})
		for method, err := range map[string]error{
			"Get": getErr, "Claim": claimErr,
			"Create": p.store.Create(ctx, p.record()),
			"Finish": p.store.Finish(ctx, result(id, holder, 1, status.Rejected, at(time.Second))),
			"Move":   p.store.Move(ctx, status.Move{ID: id, Provider: "kinpos", To: status.Rejected, Now: start}),
		} {
			if !status.IsUnreachable(err) || !errors.Is(err, context.Canceled) {
				p.Errorf("%s() = %v, want context.Canceled", method, err)
			}
		}
		p.want(id, before)
	},
}}
