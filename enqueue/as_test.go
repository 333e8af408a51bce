package enqueue

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func TestFiftyProcessesThatSendAsOneIdentityQueueOneMessage(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			key := newKey("k")
			const callers = 50
			receipts := make([]Receipt, callers)
			errs := make([]error, callers)
			start := make(chan struct{})
			var wg sync.WaitGroup
			for i := range callers {
				c := r.producer(Config{Keys: []tasks.Key{key}})
				c.apart.Store(r.apart.Load())
				wg.Go(func() {
					<-start
					receipts[i], errs[i] = c.Send(t.Context(), example, As(Identity{ID: "row-17"}))
				})
			}
			close(start)
			wg.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
			for _, receipt := range receipts {
				if receipt.ID != "row-17" {
					t.Errorf("receipt = %+v, want that of row-17", receipt)
				}
			}
			r.wantOne("row-17")
			if got := r.queued(tasks.Interactive); !slices.Equal(got, []string{"row-17"}) {
				t.Errorf("queued = %q, want it once", got)
			}
		})
	}
}

func TestSendsAsOneIdentityThatGoTogetherQueueOneMessage(t *testing.T) {
	r := newRig(t)
	var items []*item
	for _, id := range []string{"row-17", "row-17", "row-18", "row-17"} {
		now := time.Now()
		o, err := newOptions([]Option{As(Identity{ID: id})}, now)
		if err != nil {
			t.Fatal(err)
		}
		it, err := r.newItem(example, o, now)
		if err != nil {
			t.Fatal(err)
		}
		it.ctx = t.Context()
		items = append(items, it)
	}
	r.submitSends(items) // as of callers that come while Redis is busy
	for _, it := range items {
		if it.err != nil {
			t.Error(it.err)
		}
	}
	if got := r.queued(tasks.Interactive); !slices.Equal(got, []string{"row-17", "row-18"}) {
		t.Errorf("queued = %q, want each once", got)
	}
}

func TestASendAsAnIdentityAgainChangesNothing(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.send(As(Identity{ID: "row-17"}))
			before := r.record("row-17")
			r.send(As(Identity{ID: "row-17", CreatedAt: time.Now().Add(time.Hour), ReplayOf: "x"}), ValidFor(time.Hour))
			if diff := cmp.Diff(before, r.record("row-17")); diff != "" {
				t.Errorf("the record of what was queued (-before +after):\n%s", diff)
			}
			if got := r.queued(tasks.Interactive); !slices.Equal(got, []string{"row-17"}) {
				t.Errorf("queued = %q, want it once", got)
			}
		})
	}
}

func TestASendAsAnIdentityThatHasEndedSendsNothing(t *testing.T) {
	for name, newRig := range rigs {
		for _, state := range []status.State{status.Accepted, status.Rejected, status.Unknown, status.Canceled} {
			t.Run(name+", "+string(state), func(t *testing.T) {
				r := newRig(t)
				r.send(As(Identity{ID: "row-17"}))
				if state == status.Canceled {
					if err := r.Cancel(t.Context(), "row-17"); err != nil {
						t.Fatal(err)
					}
				} else {
					r.finish("row-17", state)
				}
				before := r.record("row-17")
				queue := "asynq:{" + tasks.QueueName(unimedbh.Name, tasks.Interactive) + "}:"
				if err := r.look.Del(t.Context(), queue+"pending", queue+"t:row-17").Err(); err != nil { // it was acknowledged
					t.Fatal(err)
				}
				receipt, err := r.Send(t.Context(), example, As(Identity{ID: "row-17"}))
				if err != nil || receipt.ID != "row-17" {
					t.Fatalf("Send = %+v, %v", receipt, err)
				}
				if diff := cmp.Diff(before, r.record("row-17")); diff != "" {
					t.Errorf("the record of what has ended (-before +after):\n%s", diff)
				}
				if got := r.queued(tasks.Interactive); len(got) > 0 && name == "in one step" {
					t.Errorf("queued = %q, want nothing of what has ended", got)
				}
				// A worker that met a task of it would be told that it is over.
				claimed, err := r.store.Claim(t.Context(), status.Claim{Seed: before, Token: "another", Now: time.Now(), AbandonedAfter: time.Minute})
				if err != nil || claimed.Result != status.ClaimOver {
					t.Errorf("Claim = %+v, %v, want %s", claimed, err, status.ClaimOver)
				}
			})
		}
	}
}

func TestAnIdentityIsInTheRecordAndTheMessage(t *testing.T) {
	created := time.Now().Add(-time.Minute).UTC().Truncate(time.Millisecond)
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			id := Identity{ID: "November_2-a1", CreatedAt: created, ReplayOf: "old-1", PossibleDuplicate: true}
			receipt := r.send(As(id), ValidFor(10*time.Minute), Campaign("november"))
			record, m := r.record(id.ID), r.message(id.ID, tasks.Interactive)
			if want := (Receipt{ID: id.ID, State: status.Queued, NotAfter: created.Add(10 * time.Minute)}); !cmp.Equal(want, receipt) {
				t.Errorf("receipt = %+v, want %+v", receipt, want)
			}
			if !record.CreatedAt.Equal(created) || !record.NotAfter.Equal(receipt.NotAfter) || record.ReplayOf != "old-1" || !record.PossibleDuplicate || record.Campaign != "november" {
				t.Errorf("record = %+v, want what %+v says", record, id)
			}
			if !m.CreatedAt.Equal(created) || !m.NotAfter.Equal(receipt.NotAfter) || m.ReplayOf != "old-1" {
				t.Errorf("message = %+v, want what %+v says", m, id)
			}
			// What it does not say is made up.
			plain := r.record(r.send(As(Identity{ID: "plain"})).ID)
			if plain.CreatedAt.Before(created) || plain.ReplayOf != "" || plain.PossibleDuplicate {
				t.Errorf("record = %+v, want one of now", plain)
			}
			if made := r.send(As(Identity{ReplayOf: "old-2"})); made.ID == "" || r.record(made.ID).ReplayOf != "old-2" {
				t.Errorf("receipt = %+v, want an id that was made up", made)
			}
		})
	}
}

func TestAnIdentityThatCannotBeIsNamed(t *testing.T) {
	r := newRig(t)
	long := strings.Repeat("a", 65)
	for name, c := range map[string]struct {
		opts         []Option
		option, says string
	}{
		"a brace":              {[]Option{As(Identity{ID: "{row}"})}, "identity", "ID"},
		"a blank":              {[]Option{As(Identity{ID: "row 1"})}, "identity", "ID"},
		"a colon":              {[]Option{As(Identity{ID: "a:b"})}, "identity", "ID"},
		"a letter of others":   {[]Option{As(Identity{ID: "réu"})}, "identity", "ID"},
		"a hyphen first":       {[]Option{As(Identity{ID: "-row"})}, "identity", "ID"},
		"an underscore first":  {[]Option{As(Identity{ID: "_row"})}, "identity", "ID"},
		"too many characters":  {[]Option{As(Identity{ID: long})}, "identity", "ID"},
		"no name of a message": {[]Option{As(Identity{ID: "row", ReplayOf: "{old}"})}, "identity", "ReplayOf"},
		"too long an old one":  {[]Option{As(Identity{ID: "row", ReplayOf: long})}, "identity", "ReplayOf"},
		"a key as well":        {[]Option{As(Identity{ID: "row"}), IdempotencyKey("k")}, "identity", "exclude each other"},
		"from the future":      {[]Option{As(Identity{ID: "row", CreatedAt: time.Now().Add(2 * maxDelay)})}, "identity", "CreatedAt"},
		"from before 1970":     {[]Option{As(Identity{ID: "row", CreatedAt: time.Unix(0, 0)})}, "identity", "CreatedAt"},
	} {
		_, err := r.Send(t.Context(), example, c.opts...)
		var wrong *OptionError
		if !errors.As(err, &wrong) || wrong.Option != c.option || !strings.Contains(wrong.Problem, c.says) {
			t.Errorf("%s: Send = %v, want an OptionError of %s that says %s", name, err, c.option, c.says)
		}
		results, err := r.SendBatch(t.Context(), []Item{{Request: example, Options: c.opts}})
		if err != nil || !errors.As(results[0].Err, &wrong) {
			t.Errorf("%s: SendBatch = %+v, %v, want an OptionError", name, results, err)
		}
	}
	r.wantKeys("*")
	for _, id := range []string{"a", "9", strings.Repeat("a", 64), "A-b_9"} {
		if got := r.send(As(Identity{ID: id})); got.ID != id {
			t.Errorf("receipt = %+v, want %s", got, id)
		}
	}
}

func TestASendAsAnIdentityThatFailedIsNotTakenBack(t *testing.T) {
	for name, c := range map[string]struct {
		newRig func(*testing.T) *rig
		step   string
	}{
		"in one step":  {newRig, "submit"},
		"step by step": {newApartRig, "task"},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.newRig(t)
			r.send() // so that Redis knows the scripts
			r.faults.failOnce(c.step, true)
			_, err := r.Send(t.Context(), example, As(Identity{ID: "row-17"}))
			if u := wantUnavailable(t, err); u.ID != "row-17" {
				t.Errorf("error is about %s, want row-17", u.ID)
			}
			r.faults.broken(t)
			r.faults.failOnce(c.step, true)
			results, err := r.SendBatch(t.Context(), []Item{{Request: example, Options: []Option{As(Identity{ID: "row-18"})}}})
			if err == nil {
				t.Fatalf("SendBatch = %+v, want an error", results)
			}
			r.faults.broken(t)
			// Without an identity it is taken back, and by then these would be too.
			r.faults.failOnce(c.step, true)
			_, err = r.Send(t.Context(), example)
			plain := wantUnavailable(t, err).ID
			waitFor(t, "the message without an identity to be taken back", func() bool {
				return r.record(plain).State == status.Canceled
			})
			for _, id := range []string{"row-17", "row-18"} {
				if got := r.record(id).State; got != status.Queued {
					t.Errorf("%s is %s, want it queued still", id, got)
				}
				if r.send(As(Identity{ID: id})).ID != id {
					t.Errorf("%s cannot be repeated", id)
				}
			}
			want := []string{"row-17", "row-18"}
			got := slices.DeleteFunc(r.queued(tasks.Interactive), func(id string) bool { return !slices.Contains(want, id) })
			if !slices.Equal(got, want) {
				t.Errorf("queued = %q, want each once", got)
			}
		})
	}
}
