package enqueue

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func TestFiftyCallersWithOneKeyQueueOneMessage(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) { fiftyCallers(t, newRig(t)) })
	}
}

func fiftyCallers(t *testing.T, r *rig) {
	t.Helper()
	const callers = 50
	receipts := make([]Receipt, callers)
	errs := make([]error, callers)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			<-start
			receipts[i], errs[i] = r.Send(t.Context(), example, IdempotencyKey("order 17"))
		})
	}
	close(start)
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	first := 0
	for _, receipt := range receipts {
		if receipt.ID != receipts[0].ID || !receipt.NotAfter.Equal(receipts[0].NotAfter) {
			t.Errorf("receipt = %+v, want that of %+v", receipt, receipts[0])
		}
		if !receipt.Repeated {
			first++
		}
	}
	if first != 1 {
		t.Errorf("%d of %d receipts are a first one, want 1", first, callers)
	}
	r.wantOne(receipts[0].ID)
}

func TestTheSameKeyLaterGivesTheFirstReceiptWithItsStateNow(t *testing.T) {
	r := newRig(t)
	first := r.send(IdempotencyKey("k"), ValidFor(time.Minute))
	for _, state := range []status.State{status.Queued, status.Accepted} {
		if state == status.Accepted {
			r.finish(first.ID, status.Accepted)
		}
		want := first
		want.State, want.Repeated = state, true
		// The options of the repetition change nothing.
		if diff := cmp.Diff(want, r.send(IdempotencyKey("k"), InLane(tasks.Bulk), ValidFor(time.Hour))); diff != "" {
			t.Errorf("receipt while %s (-want +got):\n%s", state, diff)
		}
	}
	r.wantKeys("otpq:msg:*", "otpq:msg:"+first.ID)
	r.wantKeys("asynq:*:t:*")
}

func TestAReceiptWhoseRecordIsGoneHasNoState(t *testing.T) {
	r := newRig(t)
	first := r.send(IdempotencyKey("k"))
	r.look.Del(t.Context(), "otpq:msg:"+first.ID)
	if again := r.send(IdempotencyKey("k")); again.ID != first.ID || again.State != "" || !again.Repeated {
		t.Errorf("receipt = %+v, want %s repeated without a state", again, first.ID)
	}
}

func TestKeysThatAreNotTheSameAreSeparate(t *testing.T) {
	r := newRig(t)
	ids := map[string]bool{r.send(IdempotencyKey("k")).ID: true}
	for name, send := range map[string]func() (Receipt, error){
		"another key":      func() (Receipt, error) { return r.Send(t.Context(), example, IdempotencyKey("K")) },
		"another provider": func() (Receipt, error) { return r.Send(t.Context(), requests()[0], IdempotencyKey("k")) },
		"no key":           func() (Receipt, error) { return r.Send(t.Context(), example) },
		"an empty key":     func() (Receipt, error) { return r.Send(t.Context(), example, IdempotencyKey("")) },
	} {
		receipt, err := send()
		if err != nil {
			t.Fatal(err)
		}
		if receipt.Repeated || ids[receipt.ID] {
			t.Errorf("%s: receipt = %+v, want a new message", name, receipt)
		}
		ids[receipt.ID] = true
	}
}

func TestAKeyIsForgottenWhenItsWindowEnds(t *testing.T) {
	r := newRig(t)
	c := r.producer(Config{Keys: []tasks.Key{newKey("k")}, IdempotencyWindow: 300 * time.Millisecond})
	first, err := c.Send(t.Context(), example, IdempotencyKey("k"))
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the window to end", func() bool { return len(r.look.Keys(t.Context(), "otpq:idem:*").Val()) == 0 })
	second, err := c.Send(t.Context(), example, IdempotencyKey("k"))
	if err != nil || second.Repeated || second.ID == first.ID {
		t.Errorf("Send = %+v, %v, want a new message", second, err)
	}
}

func TestTheWindowCountsFromTheFirstSend(t *testing.T) {
	r := newRig(t)
	r.send(IdempotencyKey("k"))
	keys := r.look.Keys(t.Context(), "otpq:idem:*").Val()
	if len(keys) != 1 {
		t.Fatalf("keys = %q, want one reservation", keys)
	}
	if ttl := r.look.PTTL(t.Context(), keys[0]).Val(); ttl <= 23*time.Hour || ttl > 24*time.Hour {
		t.Errorf("the reservation lives %v, want a day: marking it as queued must keep its TTL", ttl)
	}
	r.look.PExpire(t.Context(), keys[0], time.Hour)
	r.send(IdempotencyKey("k"))
	if ttl := r.look.PTTL(t.Context(), keys[0]).Val(); ttl > time.Hour {
		t.Errorf("the reservation lives %v after a repetition, want what was left", ttl)
	}
}

func TestAKeyRotationForgetsNoIdempotencyKey(t *testing.T) {
	before, after := newKey("2026-10"), newKey("2026-11")
	for name, c := range map[string]struct{ first, second []tasks.Key }{
		"the new key moved to the first place":    {[]tasks.Key{before, after}, []tasks.Key{after, before}},
		"another producer is a step behind":       {[]tasks.Key{after, before}, []tasks.Key{before, after}},
		"the first producer had the old one only": {[]tasks.Key{before}, []tasks.Key{after, before}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			first, err := r.producer(Config{Keys: c.first}).Send(t.Context(), example, IdempotencyKey("k"))
			if err != nil {
				t.Fatal(err)
			}
			second, err := r.producer(Config{Keys: c.second}).Send(t.Context(), example, IdempotencyKey("k"))
			if err != nil || second.ID != first.ID || !second.Repeated {
				t.Errorf("Send = %+v, %v, want %s repeated", second, err, first.ID)
			}
			r.wantOne(first.ID)
		})
	}
}

func TestASendThatDiedIsFinishedUnderTheSameID(t *testing.T) {
	for _, c := range []struct {
		step   string
		lost   bool
		failed bool // the first Send reports an error
	}{
		{"reserve", false, true},
		{"reserve", true, true},
		{"record", false, true},
		{"record", true, true},
		{"task", false, true},
		{"task", true, true},
		{"mark", false, false},
		{"mark", true, false},
		{"submit", false, true},
		{"submit", true, true},
	} {
		t.Run(fmt.Sprintf("%s, reply lost %v", c.step, c.lost), func(t *testing.T) {
			r := newApartRig(t)
			r.apart.Store(c.step != "submit")
			r.faults.failOnce(c.step, c.lost)
			first, err := r.Send(t.Context(), example, IdempotencyKey("k"), ValidFor(time.Minute))
			r.faults.broken(t)
			id := first.ID
			if c.failed {
				id = wantUnavailable(t, err).ID
			} else if err != nil {
				t.Fatal(err)
			}
			second := r.send(IdempotencyKey("k"), ValidFor(time.Hour))
			if (c.step == "reserve" || c.step == "submit") && !c.lost {
				id = second.ID // nothing was there before
			}
			if second.ID != id || second.State != status.Queued {
				t.Errorf("Send = %+v, want %s queued", second, id)
			}
			r.wantOne(id)
			if got := r.record(id).NotAfter; !got.Equal(second.NotAfter) || !r.message(id, tasks.Interactive).NotAfter.Equal(got) {
				t.Errorf("receipt says not after %v, record %v, task %v; want one time",
					second.NotAfter, got, r.message(id, tasks.Interactive).NotAfter)
			}
			third := r.send(IdempotencyKey("k"))
			if want := (Receipt{ID: id, State: status.Queued, NotAfter: second.NotAfter, Repeated: true}); !cmp.Equal(want, third) {
				t.Errorf("a third Send = %+v, want %+v", third, want)
			}
			r.wantOne(id)
		})
	}
}

func TestASendThatDiedLongAgoIsBegunAgainUnlessItWasSent(t *testing.T) {
	for name, c := range map[string]struct {
		step  string // where it died
		end   status.State
		fresh bool
	}{
		"before its record":               {"record", "", true},
		"before its task":                 {"task", "", true},
		"and was queued, and expired":     {"mark", status.Expired, true},
		"and was queued, and accepted":    {"mark", status.Accepted, false},
		"and was queued, and may be sent": {"mark", status.Unknown, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := newApartRig(t)
			now := time.Now()
			r.now = func() time.Time { return now }
			r.faults.failOnce(c.step, false)
			first, err := r.Send(t.Context(), example, IdempotencyKey("k"), ValidFor(time.Minute))
			id := first.ID
			if c.step != "mark" {
				id = wantUnavailable(t, err).ID
			} else if err != nil {
				t.Fatal(err)
			}
			switch c.end {
			case "":
			case status.Expired:
				seed := r.record(id)
				if err := r.store.Move(t.Context(), status.Move{ID: id, Seed: &seed, To: status.Expired, Now: now}); err != nil {
					t.Fatal(err)
				}
			default:
				r.finish(id, c.end)
			}
			now = now.Add(time.Hour)
			again := r.send(IdempotencyKey("k"), ValidFor(time.Minute))
			if !c.fresh {
				if again.ID != id || again.State != c.end || !again.Repeated {
					t.Errorf("Send = %+v, want the first message, %s", again, c.end)
				}
				return
			}
			if again.ID == id || again.State != status.Queued || !again.NotAfter.After(now) || again.Repeated {
				t.Errorf("Send = %+v, want a new message with a deadline after %v", again, now)
			}
			task, record := r.message(again.ID, tasks.Interactive).NotAfter, r.record(again.ID).NotAfter
			if !task.Equal(again.NotAfter) || !record.Equal(again.NotAfter) {
				t.Errorf("deadlines: task %v, record %v, receipt %v; want one", task, record, again.NotAfter)
			}
			if third := r.send(IdempotencyKey("k")); third.ID != again.ID || !third.Repeated {
				t.Errorf("a third Send = %+v, want the second's message, repeated", third)
			}
		})
	}
}

func TestAMessageThatEndedBeforeItWasMarkedIsNotBegunAgain(t *testing.T) {
	r := newApartRig(t)
	r.faults.failOnce("mark", false)
	first := r.send(IdempotencyKey("k"))
	r.finish(first.ID, status.Accepted)
	again := r.send(IdempotencyKey("k"))
	if again.ID != first.ID || again.State != status.Accepted || !again.Repeated {
		t.Errorf("Send = %+v, want %s accepted, repeated", again, first.ID)
	}
	// A worker that meets the leftover task finds the record at its end.
	claimed, err := r.store.Claim(t.Context(), status.Claim{
		Seed: r.record(first.ID), Token: "another", Now: time.Now(), AbandonedAfter: time.Minute,
	})
	if err != nil || claimed.Result != status.ClaimOver {
		t.Errorf("Claim = %+v, %v, want %s", claimed, err, status.ClaimOver)
	}
}

func TestARepetitionThatCannotBeReadIsUnavailable(t *testing.T) {
	r := newRig(t)
	first := r.send(IdempotencyKey("k"))
	r.faults.failOnce("read", false)
	_, err := r.Send(t.Context(), example, IdempotencyKey("k"))
	if u := wantUnavailable(t, err); u.ID != first.ID {
		t.Errorf("error is about %s, want %s", u.ID, first.ID)
	}
}

func TestAMalformedReservationIsAnErrorNotANewMessage(t *testing.T) {
	for _, held := range []string{"", "nonsense", "queued|id|bulk|soon|1", "queued|id|bulk|1|", "a|b|c|d|e|f"} {
		r := newRig(t)
		r.send(IdempotencyKey("k"))
		key := r.look.Keys(t.Context(), "otpq:idem:*").Val()[0]
		r.look.Set(t.Context(), key, held, 0)
		_, err := r.Send(t.Context(), example, IdempotencyKey("k"))
		if err == nil || !strings.Contains(err.Error(), "malformed") {
			t.Errorf("Send with %q held = %v, want an error", held, err)
		}
	}
}

func TestReservationsReadBack(t *testing.T) {
	want := reservation{
		id: tasks.NewID(), queued: true, lane: tasks.Bulk,
		created: time.UnixMilli(1764000000123).UTC(), notAfter: time.UnixMilli(1764000300123).UTC(),
	}
	got, err := parseReservation(want.String())
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(reservation{})); err != nil || diff != "" {
		t.Errorf("parseReservation(%q) = %v (-want +got):\n%s", want, err, diff)
	}
}

// FuzzParseReservation looks for what Redis could hold that reads back as
// something else.
func FuzzParseReservation(f *testing.F) {
	f.Add("queued|01a2|interactive|1764000000123|1764000300123")
	f.Add("reserved||||")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := parseReservation(s)
		if err != nil {
			return
		}
		again, err := parseReservation(r.String())
		if diff := cmp.Diff(r, again, cmp.AllowUnexported(reservation{})); err != nil || diff != "" {
			t.Errorf("parseReservation(%q) reads back as %v (-first +second):\n%s", s, err, diff)
		}
	})
}

// Eight bits of a plain hash choose the cluster slot of an idempotency key; the
// rest of the Redis key must not tell one key from another without the secret.
func TestIdempotencyKeysShareASlotAndHideTheKey(t *testing.T) {
	rdb := redistest.Start(t).Client()
	c, err := Open(Config{Redis: rdb, Keys: []tasks.Key{newKey("a"), newKey("b")}})
	if err != nil {
		t.Fatal(err)
	}
	keys := c.idempotencyKeys(medsenior.Name, "98765432100")
	if len(keys) != 2 || keys[0] == keys[1] {
		t.Fatalf("keys = %q, want one for each sealing key", keys)
	}
	for _, k := range keys {
		if strings.Contains(k, "98765432100") || !strings.HasPrefix(k, keys[0][:len("otpq:idem:{00}:")]) {
			t.Errorf("keys = %q, want one hash tag of two digits and nothing of the key", keys)
		}
	}
}
