package asynqredis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/redis/go-redis/v9"
)

// passenger notes in Redis what it rides along with, but for the task it is not to.
type passenger struct {
	told    []any
	unheard []*Ride
	left    []string
}

func (p *passenger) Lua() string {
	return `
local function ride(id, now, told)
  if id == told[2] then return '' end
  redis.call('SET', told[1] .. id, now)
  return 'done'
end
`
}
func (p *passenger) Board() []any                                { return p.told }
func (p *passenger) Unheard(r *Ride)                             { p.unheard = append(p.unheard, r) }
func (p *passenger) Leave(_ context.Context, id string, _ *Ride) { p.left = append(p.left, id) }

func TestARiderComesWithATaskThatIsAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tasks int
		told  []any
		rides bool
	}{
		"alone":                   {1, []any{"ride:", "no other"}, true},
		"two":                     {2, []any{"ride:", "no other"}, false},
		"nothing is to be done":   {1, nil, false},
		"nothing was done for it": {1, []any{"ride:", "0"}, false},
	} {
		b := newByHand(t, 1, c.tasks)
		p := &passenger{told: c.told}
		b.hook.ServeWith("default", NewSlots(4), p) // in place of the rig's
		id := b.asked()
		ride := b.hook.TakeRide("default", id)
		if (ride != nil) != c.rides || b.rdb.Exists(t.Context(), "ride:0").Val() == 1 != c.rides {
			t.Errorf("%s: ride = %v, and %d keys", name, ride, b.rdb.DBSize(t.Context()).Val())
		}
		if c.rides && (fmt.Sprint(ride.Args) != fmt.Sprint(c.told) || ride.Asked.IsZero()) {
			t.Errorf("%s: ride = %+v", name, ride)
		}
		if b.hook.TakeRide("other", id) != nil || b.hook.TakeRide("default", id) != nil {
			t.Errorf("%s: it is taken twice, or where no queue is served", name)
		}
		if err := b.end(id); err != nil || len(b.lane().given) != 0 {
			t.Errorf("%s: the task is kept after its end, %v", name, err)
		}
	}
}

func TestARiderIsToldOfWhatIsPutBackAndOfWhatIsNotHeardOf(t *testing.T) {
	t.Parallel()
	b := newByHand(t, 1, 1)
	p := &passenger{told: []any{"ride:", "no other"}}
	b.hook.ServeWith("default", NewSlots(4), p)
	taken, err := b.hook.takeAhead(t.Context(), b.lane(), b.run, 4)
	if err != nil || len(taken) != 1 {
		t.Fatalf("%d were taken, %v", len(taken), err)
	}
	if err := b.hook.giveBack(t.Context(), b.lane(), taken); err != nil || fmt.Sprint(p.left) != "[0]" || b.list("pending") != "[0]" {
		t.Errorf("put back: %v, %q were left, pending %s", err, p.left, b.list("pending"))
	}
	broken := errors.New("connection reset by the test")
	dial := &net.OpError{Op: "dial", Err: broken}
	for answer, unheard := range map[error]int{redis.Nil: 0, broken: 1, dial: 0, &net.OpError{Op: "read", Err: broken}: 1, notFound{}: 0} {
		p.unheard = nil
		run := func(_ context.Context, cmd redis.Cmder) error { cmd.SetErr(answer); return answer }
		if _, err := b.hook.takeAhead(t.Context(), b.lane(), run, 4); !errors.Is(err, answer) || len(p.unheard) != unheard {
			t.Errorf("%v: %v, and told of %d, want %d", answer, err, len(p.unheard), unheard)
		}
	}
}
