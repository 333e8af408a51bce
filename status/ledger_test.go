package status_test

import (
	"errors"
	"flag"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
)

// ledger is what the store should hold of one message: the model that it is
// checked against. Its methods are all the rules there are.
type ledger struct {
	record           status.Record
	claim            claimed // of the message while it is sending
	spent, ambiguous int
	sealed           bool // the payload is kept
}

// claimed is a claim that stands.
type claimed struct {
	token    string
	since    time.Time
	takeover bool // of an attempt that another began
	released bool
}

func (c claimed) abandoned(now time.Time) bool {
	return c.released || !now.Before(c.since.Add(abandonedAfter))
}

// ask is the rule of Claim: an attempt has one holder, who may ask twice, until
// it is abandoned; one after another that may have been acted on is a possible
// duplicate.
func (l *ledger) ask(token string, now time.Time) status.Claimed {
	r := &l.record
	answer := status.Claimed{Result: status.ClaimedNow, Attempt: len(r.Attempts), Spent: l.spent, Ambiguous: l.ambiguous}
	sending, own := r.State == status.Sending, l.claim.token == token
	switch {
	case r.State.Terminal():
		answer.Result, answer.State = status.ClaimOver, r.State
	case sending && own && !l.claim.takeover && !l.claim.released: // the reply was lost
	case sending && !own && !l.claim.abandoned(now):
		answer.Result, answer.BusyUntil = status.ClaimBusy, l.claim.since.Add(abandonedAfter)
	case sending:
		answer.Result, answer.StartedAt = status.ClaimAbandoned, r.Attempts[answer.Attempt-1].StartedAt
		if !own {
			l.claim = claimed{token: token, since: now, takeover: true}
		}
	default:
		answer.Attempt++
		answer.DueAt = r.NextAttemptAt
		l.claim = claimed{token: token, since: now}
		r.Attempts = append(r.Attempts, status.Attempt{Number: answer.Attempt, StartedAt: now})
		r.PossibleDuplicate = l.ambiguous > 0
		l.become(status.Sending, "", time.Time{}, now)
	}
	return answer
}

// finish is the rule of Finish: the holder's word is taken, anybody else's only
// when it is that the provider took the message.
func (l *ledger) finish(f status.Finish) error {
	r := &l.record
	attempt := &r.Attempts[f.Attempt.Number-1]
	own := r.State == status.Sending && l.claim.token == f.Token
	late := f.State == status.Accepted
	switch {
	case !own && r.State == f.State && *attempt == f.Attempt: // said before
		return nil
	case own || late:
		*attempt = f.Attempt // even when the message ended otherwise: it is what the provider said
	}
	if !r.State.CanBecome(f.State) || !own && !late {
		return &status.RefusedError{ID: r.ID, From: r.State, To: f.State}
	}
	if f.Spent {
		l.spent++
	}
	if f.Ambiguous {
		l.ambiguous++
	}
	if f.Reference != "" {
		r.Reference = f.Reference
	}
	l.become(f.State, f.Reason, f.Next, f.Now)
	return nil
}

// move is the rule of Move: what is claimed is not moved.
func (l *ledger) move(m status.Move) error {
	state := l.record.State
	switch {
	case state == m.To && m.To.Terminal(): // said before
		return nil
	case state == status.Sending || !state.CanBecome(m.To):
		return &status.RefusedError{ID: m.ID, From: state, To: m.To}
	}
	l.become(m.To, m.Reason, m.Next, m.Now)
	return nil
}

// become is the rule of reasons and payloads: what ends without an answer tells
// that an earlier attempt may have been acted on; dead letters are kept, and what
// expired.
func (l *ledger) become(state status.State, reason string, next, now time.Time) {
	if l.ambiguous > 0 && (state == status.Expired || state == status.Canceled) {
		reason = status.ReasonMaybeSent
	}
	l.record.State, l.record.Reason, l.record.NextAttemptAt, l.record.UpdatedAt = state, reason, next, now
	l.sealed = state.Dead() || state == status.Expired
}

// release is the rule of Release: a dead worker's claim is an abandoned one.
func (l *ledger) release(owner string) {
	if l.record.State == status.Sending && strings.HasPrefix(l.claim.token, owner+"/") {
		l.claim.released = true
	}
}

// replay is the rule of MarkReplayed: a dead letter lives on as one message. MarkResent
// has the same, and takes what expired as well.
func (l *ledger) replay(newID, replace string, takesExpired bool) (string, error) {
	r := &l.record
	switch {
	case !r.State.Dead() && (r.State != status.Expired || !takesExpired):
	case r.ReplayedAs != "" && r.ReplayedAs != replace:
		return r.ReplayedAs, nil
	case l.sealed:
		r.ReplayedAs = newID
		return newID, nil
	}
	return "", &status.RefusedError{ID: r.ID, From: r.State, To: status.Queued}
}

// history is what was seen of a message. Its checks know nothing of the model:
// they are what people were promised, and hold whatever the rules are.
type history struct {
	holder   string // the last execution that was told that the attempt is its own
	since    time.Time
	released bool
	claims   map[int]string // which execution made the attempt
	maybe    map[int]bool   // a request may have left, and may have been acted on
	last     status.Record
}

// told checks the answer to a claim that gives the caller an attempt.
func (h *history) told(t *rapid.T, e *execution, now time.Time) {
	n := e.answer.Attempt
	switch e.answer.Result {
	case status.ClaimOver, status.ClaimBusy:
		return
	case status.ClaimedNow:
		if h.last.State == status.Accepted {
			t.Errorf("a request leaves for a message that was accepted")
		}
		if h.claims[n] != "" && h.claims[n] != e.token {
			t.Errorf("attempt %d is both %s's and %s's to make", n, h.claims[n], e.token)
		}
		h.claims[n], h.maybe[n] = e.token, true
	case status.ClaimAbandoned:
	}
	if h.holder != "" && h.holder != e.token {
		if !h.released && now.Before(h.since.Add(abandonedAfter)) {
			t.Errorf("%s was given what %s holds since %s", e.token, h.holder, now.Sub(h.since))
		}
		h.holder = ""
	}
	if h.holder == "" {
		h.holder, h.since, h.released = e.token, now, false
	}
}

// seen checks the record as it is now.
func (h *history) seen(t *rapid.T, r status.Record) {
	was := h.last
	if was.State.Terminal() && r.State != was.State && (was.State != status.Unknown || r.State != status.Accepted) {
		t.Errorf("the message was %s and is %s", was.State, r.State)
	}
	for n := range h.maybe {
		if h.maybe[n] && n < len(h.claims) && !r.PossibleDuplicate {
			t.Errorf("attempt %d may have been acted on, %d came after it, and the record does not say possible_duplicate", n, len(h.claims)-n)
		}
	}
	h.last = r
}

// abandonedAfter is how old a claim is that counts as abandoned. Time is made up.
const abandonedAfter = 30 * time.Second

// end is a way in which the worker's pipeline ends an attempt.
type end struct {
	outcome          string
	state            status.State
	spent, ambiguous bool
}

var (
	accepted   = end{"accepted", status.Accepted, true, false}
	rejected   = end{"rejected", status.Rejected, true, false}
	failed     = end{"retry_later", status.Deferred, true, false}
	refused    = end{"retry_later", status.Deferred, false, false} // our credentials, a 429
	exhausted  = end{"retry_later", status.Exhausted, true, false}
	notMade    = end{"retry_later", status.Expired, false, false} // claimed only to end it
	maybe      = end{"ambiguous", status.Deferred, true, true}
	unknown    = end{"ambiguous", status.Unknown, true, true}
	maybeAtEnd = end{"ambiguous", status.Expired, true, true}

	// ends are those of an attempt of one's own; what lets a message go on is more
	// frequent than it is in life. lost are those of one that a dead worker left.
	ends = []end{accepted, failed, maybe, refused, accepted, failed, maybe, maybe, unknown, rejected, exhausted, notMade}
	lost = []end{maybe, maybeAtEnd, unknown, maybe}
)

// execution is one run of a task by a worker, who may be slow, deaf or dead.
type execution struct {
	message int
	worker  string
	token   string
	answer  status.Claimed
	began   time.Time
	deaf    bool           // the answer was lost: no request has left, and it asks again
	said    *status.Finish // what became of the attempt; when that reply is lost it says it again
}

// holds reports whether the execution believes that it has an attempt to end.
func (e *execution) holds() bool {
	return !e.deaf && e.said == nil && (e.answer.Result == status.ClaimedNow || e.answer.Result == status.ClaimAbandoned)
}

// clocks are the workers', by how much they are wrong. One worker's name begins
// with another's.
var clocks = map[string]time.Duration{"w": 0, "w1": -time.Second, "w11": 2 * time.Second}

// world is a store with all who use it. Each of their calls is one script, which
// Redis runs alone, so that an order of calls is all that concurrency comes to.
type world struct {
	*rapid.T
	store      *status.Redis
	now        time.Time
	ledgers    []*ledger
	histories  []*history
	executions []*execution
	last       int // the message that was acted on last
	names      int
}

// TestMain has rapid make more checks than its hundred: they take a few seconds.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "300"); err != nil { // before the command line is read
		panic(err)
	}
	m.Run()
}

// TestTheLedgerKeepsItsPromises has workers, apps and operators do what they may
// in random order. `-rapid.checks=10000 -rapid.steps=100` looks harder; a failure
// prints the seed that repeats it.
func TestTheLedgerKeepsItsPromises(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	rapid.Check(t, func(rt *rapid.T) {
		must(rt, rdb.FlushDB(rt.Context()).Err())
		w := &world{T: rt, store: newStore(rdb), now: start}
		w.send(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"":             w.check,
			"send":         w.send,
			"time passes":  w.timePasses,
			"claim":        w.claim,
			"claim again":  w.claimAgain,
			"finish":       w.finish,
			"stand still":  w.standStill,
			"finish late":  w.finishLate,
			"finish again": w.finishAgain,
			"crash":        w.crash,
			"release":      w.release,
			"move":         w.move,
			"operate":      w.operate,
		})
		w.checkAll(rt)
	})
}

// send begins a message. A few are enough for one to be taken for another.
func (w *world) send(t *rapid.T) {
	if len(w.ledgers) == 4 {
		return
	}
	r := newRecord("kinpos")
	r.ID = w.name("message-")
	must(t, w.store.Create(t.Context(), r))
	w.ledgers = append(w.ledgers, &ledger{record: r})
	w.histories = append(w.histories, &history{claims: map[int]string{}, maybe: map[int]bool{}})
	w.last = len(w.ledgers) - 1
}

func (w *world) timePasses(t *rapid.T) {
	w.now = w.now.Add(rapid.SampledFrom([]time.Duration{
		time.Millisecond, time.Second, abandonedAfter - time.Millisecond, abandonedAfter, 2 * abandonedAfter,
	}).Draw(t, "for"))
}

func (w *world) claim(t *rapid.T) { w.begin(t, w.message()) }

// standStill is what makes a worker late: it would come about by itself, but
// seldom.
func (w *world) standStill(t *rapid.T) {
	e := w.execution(func(e *execution) bool { return e.holds() && !w.late(e) })
	w.now = w.now.Add(2 * abandonedAfter)
	w.begin(t, e.message)
}

func (w *world) begin(t *rapid.T, message int) {
	e := &execution{message: message, worker: w.worker()}
	e.token = w.name(e.worker + "/")
	e.deaf = rapid.Bool().Draw(t, "the reply is lost")
	w.executions = append(w.executions, e)
	w.ask(e)
}

func (w *world) claimAgain(*rapid.T) {
	e := w.execution(func(e *execution) bool { return e.deaf })
	e.deaf = false
	w.ask(e)
}

func (w *world) ask(e *execution) {
	l, now := w.ledgers[e.message], w.clock(e.worker)
	e.began = now
	got, err := w.store.Claim(w.Context(), status.Claim{Seed: l.record, Token: e.token, Now: now, AbandonedAfter: abandonedAfter})
	must(w, err)
	w.same("claim by "+e.token, l.ask(e.token, now), got)
	e.answer = got
	w.histories[e.message].told(w.T, e, now)
}

func (w *world) finish(t *rapid.T) {
	e := w.execution(func(e *execution) bool { return e.holds() && (!w.late(e) || e.answer.Result == status.ClaimAbandoned) })
	possible := ends
	if e.answer.Result == status.ClaimAbandoned {
		possible = lost
	}
	w.end(e, rapid.SampledFrom(possible).Draw(t, "end"))
}

// late reports whether an execution's claim was taken over.
func (w *world) late(e *execution) bool { return w.ledgers[e.message].claim.token != e.token }

// finishLate is what a worker that stood still does when it goes on.
func (w *world) finishLate(t *rapid.T) {
	e := w.execution(func(e *execution) bool { return e.holds() && e.answer.Result == status.ClaimedNow && w.late(e) })
	if rapid.Bool().Draw(t, "accepted") {
		w.end(e, accepted)
		return
	}
	w.end(e, rapid.SampledFrom(ends).Draw(t, "end"))
}

func (w *world) end(e *execution, how end) {
	l, began, reason, took := w.ledgers[e.message], e.began, "timeout", 250.125
	if e.answer.Result == status.ClaimAbandoned {
		began, reason, took = e.answer.StartedAt, "worker_lost", 0
	} else {
		w.histories[e.message].maybe[e.answer.Attempt] = how.outcome == "accepted" || how.outcome == "ambiguous"
	}
	e.said = &status.Finish{
		ID: l.record.ID, Provider: "kinpos", Token: e.token, Payload: []byte("sealed"),
		Attempt: status.Attempt{Number: e.answer.Attempt, StartedAt: began, DurationMS: took, Outcome: how.outcome, Reason: reason},
		Spent:   how.spent, Ambiguous: how.ambiguous, State: how.state, Reason: reason,
	}
	if how.state == status.Deferred {
		e.said.Next = w.now.Add(10 * time.Second)
	}
	if how.state == status.Accepted {
		e.said.Reference = "by " + e.token
	}
	w.say(e)
}

func (w *world) finishAgain(*rapid.T) {
	w.say(w.execution(func(e *execution) bool { return e.said != nil }))
}

func (w *world) say(e *execution) {
	f := *e.said
	f.Now = w.clock(e.worker)
	err := w.store.Finish(w.Context(), f)
	w.same(fmt.Sprintf("%s by %s", f.State, e.token), fmt.Sprint(w.ledgers[e.message].finish(f)), fmt.Sprint(err))
	if h := w.histories[e.message]; err == nil && h.holder == e.token {
		h.holder = ""
	}
}

// crash ends an execution in the middle.
func (w *world) crash(*rapid.T) {
	dead := w.execution(func(e *execution) bool { return e.deaf || e.holds() })
	w.executions = slices.DeleteFunc(w.executions, func(e *execution) bool { return e == dead })
}

// release says that a worker is dead. It may be one that only stood still.
func (w *world) release(t *rapid.T) {
	e := w.execution(func(*execution) bool { return true })
	l, h := w.ledgers[e.message], w.histories[e.message]
	must(t, w.store.Release(t.Context(), l.record.ID, e.worker))
	l.release(e.worker)
	if strings.HasPrefix(h.holder, e.worker+"/") {
		h.released = true
	}
}

// move is what happens without an attempt: an app cancels, a deadline passes, a
// breaker is open, a payload cannot be read.
func (w *world) move(t *rapid.T) {
	l := w.ledgers[w.message()]
	to := status.Deferred
	if rapid.IntRange(0, 3).Draw(t, "ends") == 0 {
		to = rapid.SampledFrom([]status.State{status.Canceled, status.Expired, status.Rejected}).Draw(t, "to")
	}
	m := status.Move{ID: l.record.ID, Provider: "kinpos", To: to, Reason: "r", Payload: []byte("sealed"), Now: w.now}
	if to == status.Deferred {
		m.Next = w.now.Add(time.Minute)
	}
	w.same("move to "+string(to), fmt.Sprint(l.move(m)), fmt.Sprint(w.store.Move(t.Context(), m)))
}

// operate replays a message that ended or, as at the end of a replay, takes it off the
// list: one alone, or as one of many.
func (w *world) operate(t *rapid.T) {
	l := w.ledgers[w.message()]
	many := rapid.Bool().Draw(t, "many")
	if rapid.Bool().Draw(t, "drop") {
		if many {
			must(t, errors.Join(w.store.DropEnded(t.Context(), "kinpos", []string{"none", l.record.ID})...))
		} else {
			must(t, w.store.DropDead(t.Context(), "kinpos", l.record.ID))
		}
		l.sealed = false
		return
	}
	newID, replace := w.name("replay-"), rapid.SampledFrom([]string{"", l.record.ReplayedAs}).Draw(t, "replace")
	wantID, wantErr := l.replay(newID, replace, many)
	if many {
		ids, errs := w.store.MarkResent(t.Context(), []status.Resend{{ID: "none"}, {ID: l.record.ID, NewID: newID, Replace: replace}})
		w.same("mark", fmt.Sprint(wantID, wantErr), fmt.Sprint(ids[1], errs[1]))
		return
	}
	gotID, err := w.store.MarkReplayed(t.Context(), l.record.ID, newID, replace)
	w.same("replay", fmt.Sprint(wantID, wantErr), fmt.Sprint(gotID, err))
}

// check compares the record that was acted on last with the model.
func (w *world) check(t *rapid.T) { w.checkRecord(t, w.last) }

func (w *world) checkRecord(t *rapid.T, i int) {
	l := w.ledgers[i]
	r, err := w.store.Get(t.Context(), l.record.ID)
	must(t, err)
	w.same(r.ID, l.record, r)
	w.histories[i].seen(t, r)
}

// checkAll looks at what was not acted on, too.
func (w *world) checkAll(t *rapid.T) {
	ended, dead := map[string]int{}, map[string]int{}
	for i, l := range w.ledgers {
		w.checkRecord(t, i)
		if l.sealed {
			ended[l.record.ID] = 1
		}
		if l.sealed && l.record.State.Dead() {
			dead[l.record.ID] = 1
		}
	}
	w.same("ended messages", ended, count(t, w.store.Ended(t.Context(), "kinpos", status.EndedFilter{})))
	w.same("dead letters", dead, count(t, w.store.Dead(t.Context(), "kinpos", status.DeadFilter{})))
}

// count tells how often each message is listed.
func count(t *rapid.T, list iter.Seq2[status.EndedMessage, error]) map[string]int {
	n := map[string]int{}
	for m, err := range list {
		must(t, err)
		n[m.ID]++
	}
	return n
}

// same fails when what the store did is not what the model says. It goes on to
// the history's checks, which tell what that would mean for people.
func (w *world) same(what string, want, got any) {
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("%s at %s (-model +redis):\n%s", what, w.now.Sub(start), diff)
	}
}

// message chooses one, the last most often: the others are over, mostly.
func (w *world) message() int {
	back := rapid.SampledFrom([]int{0, 0, 0, 0, 1, 2, 3}).Draw(w.T, "messages back")
	w.last = max(0, len(w.ledgers)-1-back)
	return w.last
}

func (w *world) worker() string {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(clocks))).Draw(w.T, "worker")
}

func (w *world) clock(worker string) time.Time { return w.now.Add(clocks[worker]) }

// name makes a name that nothing else has.
func (w *world) name(prefix string) string {
	w.names++
	return fmt.Sprint(prefix, w.names)
}

// execution chooses one of those that are as wanted.
func (w *world) execution(wanted func(*execution) bool) *execution {
	byToken := map[string]*execution{}
	for _, e := range w.executions {
		if wanted(e) {
			byToken[e.token] = e
		}
	}
	if len(byToken) == 0 {
		w.Skip("there is none")
	}
	e := byToken[rapid.SampledFrom(slices.Sorted(maps.Keys(byToken))).Draw(w.T, "execution")]
	w.last = e.message
	return e
}
