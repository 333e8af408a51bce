package dashboard

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/overview"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/worker"
)

func TestWhyAMessageWaits(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	in := func(d time.Duration) time.Time { return now.Add(d) }
	closed := overview.Provider{Name: "kinpos", On: true, Breaker: overview.Breaker{State: worker.BreakerClosed}}
	open := closed
	open.Breaker = overview.Breaker{State: worker.BreakerOpen, OpenUntil: in(12 * time.Second)}
	alone := closed
	alone.Breaker = overview.Breaker{State: overview.BreakerUnknown}
	limited := closed
	limited.RateLimit = overview.RateLimit{Limit: 50, Period: "1s"}
	off := alone
	off.On, off.Off = false, "needs a base URL"
	elsewhere := open // the workers have it on
	elsewhere.On, elsewhere.Off = false, "needs a base URL"
	elsewhere.Breaker.Workers = map[string]worker.BreakerPresence{"w": {State: worker.BreakerOpen}}
	record := func(s status.State, reason string, attempts ...status.Attempt) status.Record {
		return status.Record{
			Provider: "kinpos", State: s, Reason: reason, CreatedAt: in(-3 * time.Second), NotAfter: in(2 * time.Minute), Attempts: attempts,
		}
	}
	due := func(r status.Record, next time.Time) status.Record { r.NextAttemptAt = next; return r }
	late := func(r status.Record) status.Record { r.NotAfter = in(-time.Minute); return r }
	failed := status.Attempt{Number: 2, StartedAt: in(-2 * time.Second), Outcome: "retry_later", Reason: "provider_error", HTTPStatus: 500}
	const deadline = "It expires in 2 min, at 12:02:00 UTC, if no attempt has begun by then."

	for name, tc := range map[string]struct {
		record   status.Record
		provider overview.Provider
		at       place
		want     []string
	}{
		"queued behind others": {
			record(status.Queued, ""), closed, place{found: true, state: "pending", queue: "q", ahead: 41},
			[]string{"Queued 3.0 s ago, with 41 messages before it in q.", deadline},
		},
		"queued behind one": {
			record(status.Queued, ""), closed, place{found: true, state: "pending", queue: "q", ahead: 1},
			[]string{"Queued 3.0 s ago, with 1 message before it in q.", deadline},
		},
		"the next one, with no worker": {
			record(status.Queued, ""), alone, place{found: true, state: "pending", queue: "q"},
			[]string{"Queued 3.0 s ago; it is the next one in q.", "No running worker serves kinpos: it waits for one.", deadline},
		},
		"in a paused queue": {
			record(status.Queued, ""), closed, place{found: true, state: "pending", queue: "q", paused: true},
			[]string{"Queued 3.0 s ago; it is the next one in q.", "The queue q is paused: no worker takes anything from it until it is resumed.", deadline},
		},
		"scheduled": {
			record(status.Queued, ""), closed, place{found: true, state: "scheduled", due: in(90 * time.Second)},
			[]string{"It was asked for later: it is due in 1 min 30 s, at 12:01:30 UTC.", deadline},
		},
		"archived in asynq": {
			record(status.Queued, ""), closed, place{found: true, state: "archived", queue: "q"},
			[]string{"Somebody archived its task in q with asynq's tools: a worker makes it a dead letter within a minute or so."},
		},
		"archived while deferred, with no worker": {
			due(record(status.Deferred, "breaker_open"), in(15*time.Second)), alone, place{found: true, state: "archived", queue: "q"},
			[]string{"Somebody archived its task in q with asynq's tools: a worker makes it a dead letter within a minute or so.",
				"No running worker serves kinpos: it waits for one."},
		},
		"without a task": {
			record(status.Queued, ""), closed, place{},
			[]string{"Queued 3.0 s ago, and there is no task for it in any queue: a worker may have it in hand just now. " +
				"If it stays so, its task was lost or deleted; `otpq audit` says what to do.", deadline},
		},
		"the breaker is open": {
			due(record(status.Deferred, "breaker_open"), in(15*time.Second)), open, place{found: true, state: "retry"},
			[]string{"Deferred because the breaker of kinpos is open until 12:00:12 UTC: it failed too often, and nobody asks it before.",
				"The next attempt is due in 15 s, at 12:00:15 UTC.", deadline},
		},
		"the breaker was open": {
			due(record(status.Deferred, "breaker_open"), in(-time.Second)), closed, place{found: true, state: "pending"},
			[]string{"Deferred because the breaker of kinpos was open; now it is closed.",
				"The next attempt was due 1.0 s ago: it goes on as soon as a worker has a free slot.", deadline},
		},
		"the limit is full": {
			due(record(status.Deferred, "rate_limit"), in(time.Second)), limited, place{found: true, state: "retry"},
			[]string{"Deferred because the limit of 50 requests in 1s, which all workers share, was full.",
				"The next attempt is due in 1.0 s, at 12:00:01 UTC.", deadline},
		},
		"a retry": {
			due(record(status.Deferred, "provider_error", failed), in(4*time.Second)), closed, place{found: true, state: "retry"},
			[]string{"Deferred after attempt 2, because the provider says that it failed (HTTP 500).",
				"The next attempt is due in 4.0 s, at 12:00:04 UTC.", deadline},
		},
		"a retry that would come too late": {
			due(record(status.Deferred, "provider_error", failed), in(3*time.Minute)), closed, place{found: true, state: "retry"},
			[]string{"Deferred after attempt 2, because the provider says that it failed (HTTP 500).",
				"The next attempt would be at 12:03:00 UTC, which is not before its deadline.", deadline},
		},
		"being sent": {
			record(status.Sending, "", status.Attempt{Number: 1, StartedAt: in(-time.Second)}), closed, place{found: true, state: "active"},
			[]string{"Attempt 1 is under way: a worker asked kinpos 1.0 s ago.", "No other attempt begins after 12:02:00 UTC, in 2 min."},
		},
		"being sent when its deadline passes": {
			late(record(status.Sending, "", status.Attempt{Number: 1, StartedAt: in(-61 * time.Second)})), closed, place{found: true, state: "active"},
			[]string{"Attempt 1 is under way: a worker asked kinpos 1 min 1 s ago.", "Its deadline passed 1 min ago: no other attempt is made."},
		},
		"queued, where Redis failed a worker": {
			record(status.Queued, ""), closed, place{found: true, state: "retry", queue: "q", due: in(8 * time.Second)},
			[]string{"Queued 3.0 s ago; a worker took it and could not begin, and it is due again in 8.0 s, at 12:00:08 UTC.", deadline},
		},
		"deferred, without a task": {
			due(record(status.Deferred, "provider_error", failed), in(-time.Minute)), closed, place{},
			[]string{"Deferred after attempt 2, because the provider says that it failed (HTTP 500).",
				"There is no task for it in any queue: a worker may have it in hand just now. " +
					"If it stays so, its task was lost or deleted; `otpq audit` says what to do.", deadline},
		},
		"late, and the provider is off": {
			late(record(status.Queued, "")), off, place{found: true, state: "pending", queue: "q"},
			[]string{"Queued 3.0 s ago; it is the next one in q.", "No running worker serves kinpos: it waits for one.",
				"With the configuration of this dashboard kinpos is off: it needs a base URL.",
				"Its deadline passed 1 min ago: it expires as soon as a worker takes it."},
		},
		"with a breaker of workers' that have on what is off here": {
			record(status.Deferred, "breaker_open"), elsewhere, place{found: true, state: "retry", queue: "q"},
			[]string{"Deferred because the breaker of kinpos is open until 12:00:12 UTC: it failed too often, and nobody asks it before.", deadline},
		},
		"at its end": {record(status.Accepted, ""), closed, place{}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, explain(tc.record, tc.provider, tc.at, now)); diff != "" {
				t.Errorf("explain() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestASpanIsSaidInTwoUnitsAtMost(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Hour: "0 ms", 0: "0 ms", 1200 * time.Microsecond: "1.2 ms", 345 * time.Millisecond: "345 ms", 2500 * time.Millisecond: "2.5 s",
		59 * time.Second: "59 s", 60 * time.Second: "1 min", 3*time.Hour + 5*time.Minute + 7*time.Second: "3 h 5 min", 50 * time.Hour: "2 d 2 h",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %q, want %q", d, got, want)
		}
	}
}

// Whoever adds a reason adds its words too.
func TestEveryReasonHasWords(t *testing.T) {
	t.Parallel()
	found := 0
	for _, file := range []string{"../../providers/outcome.go", "../../worker/reasons.go", "../../status/record.go"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "Reason") || len(spec.Values) != 1 {
				return true
			}
			literal, ok := spec.Values[0].(*ast.BasicLit)
			if !ok {
				return true
			}
			reason, err := strconv.Unquote(literal.Value)
			if err != nil || reason == "" {
				return true
			}
			found++
			if _, ok := reasons[providers.Reason(reason)]; !ok {
				t.Errorf("%s (%q) has no words in words.go", spec.Names[0].Name, reason)
			}
			return true
		})
	}
	if found < 25 {
		t.Errorf("only %d reasons were found: have they moved?", found)
	}
	if got := reasonWords("news"); got != "news" {
		t.Errorf("reasonWords of an unknown one = %q", got)
	}
}
