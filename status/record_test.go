package status_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 123e6, time.UTC)

func at(d time.Duration) time.Time { return start.Add(d) }

// TestTheJSONOfARecordIsTheDocumentedOne: scripts read it, so a key that is
// renamed, or that comes and goes otherwise, breaks them.
func TestTheJSONOfARecordIsTheDocumentedOne(t *testing.T) {
	for name, tt := range map[string]struct {
		record status.Record
		want   string
	}{
		"all that can be known": {
			status.Record{
				ID: "m1", Provider: "medsenior", Lane: tasks.Bulk, State: status.Deferred, Reason: "timeout", Recipient: "CPF ••••••••901",
				CreatedAt: start, UpdatedAt: at(time.Second), NotAfter: at(5 * time.Minute), NextAttemptAt: at(1500 * time.Millisecond),
				Attempts: []status.Attempt{
					{Number: 1, StartedAt: at(time.Millisecond), DurationMS: 250.125, Outcome: "retry_later", Reason: "provider_error", HTTPStatus: 500},
					{Number: 2, StartedAt: at(time.Second), DurationMS: 10000, Outcome: "ambiguous", Reason: "timeout"},
				},
				Reference: "ref", CodeValidSeconds: 299.999877, PossibleDuplicate: true,
				Campaign: "november", ReplayOf: "m0", ReplayedAs: "m2",
			},
			`{
  "id": "m1",
  "provider": "medsenior",
  "lane": "bulk",
  "state": "deferred",
  "reason": "timeout",
  "recipient": "CPF ••••••••901",
  "created_at": "2026-11-20T12:00:00.123Z",
  "updated_at": "2026-11-20T12:00:01.123Z",
  "not_after": "2026-11-20T12:05:00.123Z",
  "next_attempt_at": "2026-11-20T12:00:01.623Z",
  "attempts": [
    {
      "number": 1,
      "started_at": "2026-11-20T12:00:00.124Z",
      "duration_ms": 250.125,
      "outcome": "retry_later",
      "reason": "provider_error",
      "http_status": 500
    },
    {
      "number": 2,
      "started_at": "2026-11-20T12:00:01.123Z",
      "duration_ms": 10000,
      "outcome": "ambiguous",
      "reason": "timeout"
    }
  ],
  "reference": "ref",
  "code_valid_seconds": 299.999877,
  "possible_duplicate": true,
  "campaign": "november",
  "replay_of": "m0",
  "replayed_as": "m2"
}`,
		},
		"a new message tells nothing that is not known": {
			status.NewRecord(tasks.Message{ID: "m1", Provider: "kinpos", Lane: tasks.Interactive, CreatedAt: start, NotAfter: at(time.Minute)}, ""),
			`{
  "id": "m1",
  "provider": "kinpos",
  "lane": "interactive",
  "state": "queued",
  "created_at": "2026-11-20T12:00:00.123Z",
  "updated_at": "2026-11-20T12:00:00.123Z",
  "not_after": "2026-11-20T12:01:00.123Z",
  "attempts": [],
  "possible_duplicate": false
}`,
		},
		"an attempt under way has neither duration nor outcome": {
			status.Record{
				ID: "m1", Provider: "kinpos", Lane: tasks.Interactive, State: status.Sending, CreatedAt: start, UpdatedAt: start, NotAfter: start,
				Attempts: []status.Attempt{{Number: 1, StartedAt: start}},
			},
			`{
  "id": "m1",
  "provider": "kinpos",
  "lane": "interactive",
  "state": "sending",
  "created_at": "2026-11-20T12:00:00.123Z",
  "updated_at": "2026-11-20T12:00:00.123Z",
  "not_after": "2026-11-20T12:00:00.123Z",
  "attempts": [
    {
      "number": 1,
      "started_at": "2026-11-20T12:00:00.123Z"
    }
  ],
  "possible_duplicate": false
}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(tt.record, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(got)); diff != "" {
				t.Errorf("JSON (-want +got):\n%s", diff)
			}
			dead, err := json.MarshalIndent(status.DeadLetter{Record: tt.record, Payload: []byte("sealed")}, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, string(dead)); diff != "" {
				t.Errorf("JSON of a dead letter: its record without the payload (-want +got):\n%s", diff)
			}
		})
	}
}

func TestANewRecordIsThatOfItsMessage(t *testing.T) {
	m := tasks.Message{
		ID: "m1", Provider: "kinpos", Lane: tasks.Bulk, Request: json.RawMessage(`{"emailAddress":"ana@example.com"}`),
		IdempotencyKey: "ana@example.com", CreatedAt: start, NotAfter: at(time.Minute), Campaign: "november", ReplayOf: "m0",
	}
	want := status.Record{
		ID: "m1", Provider: "kinpos", Lane: tasks.Bulk, State: status.Queued, Recipient: "a••@example.com",
		CreatedAt: start, UpdatedAt: start, NotAfter: at(time.Minute), Attempts: []status.Attempt{}, Campaign: "november", ReplayOf: "m0",
	}
	if diff := cmp.Diff(want, status.NewRecord(m, "a••@example.com")); diff != "" {
		t.Errorf("NewRecord() (-want +got):\n%s", diff)
	}
}

func TestTheStatesAndWhatTheyMean(t *testing.T) {
	type facts struct{ terminal, dead bool }
	want := map[status.State]facts{
		status.Queued: {}, status.Sending: {}, status.Deferred: {}, status.Accepted: {terminal: true},
		status.Rejected: {true, true}, status.Exhausted: {true, true}, status.Unknown: {true, true},
		status.Expired: {terminal: true}, status.Canceled: {terminal: true},
	}
	got := map[status.State]facts{}
	for _, s := range status.States() {
		got[s] = facts{s.Terminal(), s.Dead()}
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(facts{})); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
	if odd := status.State("lost"); odd.Terminal() || odd.Dead() || odd.CanBecome(status.Sending) {
		t.Error("a state that does not exist is terminal, dead or leads somewhere")
	}
}

// TestTheStateMachineIsTheDesignedOne spells the transitions out once more, so
// that a change of them is seen in two places.
func TestTheStateMachineIsTheDesignedOne(t *testing.T) {
	want := map[status.State][]status.State{
		status.Queued:   {status.Sending, status.Deferred, status.Accepted, status.Rejected, status.Expired, status.Canceled},
		status.Sending:  {status.Deferred, status.Accepted, status.Rejected, status.Exhausted, status.Unknown, status.Expired},
		status.Deferred: {status.Sending, status.Deferred, status.Accepted, status.Rejected, status.Expired, status.Canceled},
		status.Unknown:  {status.Accepted},
	}
	got := map[status.State][]status.State{}
	for _, from := range status.States() {
		for _, to := range status.States() {
			if from.CanBecome(to) {
				got[from] = append(got[from], to)
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("transitions (-want +got):\n%s", diff)
	}
}

func TestARefusalSaysWhatTheMessageIs(t *testing.T) {
	err := &status.RefusedError{ID: "m1", From: status.Sending, To: status.Canceled}
	if got, want := err.Error(), "message m1 is sending and cannot become canceled"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
}

func TestIsUnreachable(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"no error":              {nil, false},
		"no such message":       {fmt.Errorf("ask: %w", status.ErrNotFound), false},
		"a record exists":       {fmt.Errorf("ask: %w", status.ErrExists), false},
		"a refusal":             {fmt.Errorf("ask: %w", &status.RefusedError{}), false},
		"anything that is else": {fmt.Errorf("dial tcp"), true},
	} {
		if got := status.IsUnreachable(tt.err); got != tt.want {
			t.Errorf("%s: IsUnreachable(%v) = %v, want %v", name, tt.err, got, tt.want)
		}
	}
}
