package rows_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// past is a Redis in which messages have ended.
type past struct {
	*testing.T
	redis *redistest.Server
	store *status.Redis
	keys  *tasks.Keyring
	now   time.Time
}

func newPast(t *testing.T) *past {
	t.Helper()
	t.Parallel()
	server := redistest.Start(t)
	return &past{t, server, status.NewRedis(server.Client(), status.Retention{}), newKeys(t, "k"), time.Now().Truncate(time.Millisecond)}
}

func newKeys(t *testing.T, id string) *tasks.Keyring {
	t.Helper()
	keys, err := tasks.NewKeyring(tasks.Key{ID: id, Secret: tasks.GenerateSecret()})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// message is one for the n-th person. A millisecond is between each and the next.
func (p *past) message(n int) tasks.Message {
	p.now = p.now.Add(time.Millisecond)
	return tasks.Message{
		ID: tasks.NewID(), Provider: "unimedbh", Lane: tasks.Interactive, CreatedAt: p.now, NotAfter: p.now.Add(time.Minute),
		Request: json.RawMessage(fmt.Sprintf(`{"username":"pessoa%d@example.com","type":"EMAIL"}`, n)),
	}
}

func (p *past) seal(keys *tasks.Keyring, m tasks.Message) []byte {
	p.Helper()
	payload, err := tasks.Encode(keys, m)
	if err != nil {
		p.Fatal(err)
	}
	return payload
}

// end brings a message to its end with the payload, after attempts with the outcomes,
// and returns its id.
func (p *past) end(m tasks.Message, payload []byte, to status.State, reason string, outcomes ...string) string {
	p.Helper()
	seed := status.NewRecord(m, "p***@example.com")
	for i, outcome := range outcomes {
		if _, err := p.store.Claim(p.Context(), status.Claim{Seed: seed, Token: "w/1", Now: p.now, AbandonedAfter: time.Minute}); err != nil {
			p.Fatal(err)
		}
		f := status.Finish{
			ID: m.ID, Provider: "unimedbh", Token: "w/1", State: status.Deferred, Reason: reason, Payload: payload, Now: p.now,
			Attempt: status.Attempt{Number: i + 1, StartedAt: p.now, Outcome: outcome}, Ambiguous: outcome == "ambiguous",
		}
		if i == len(outcomes)-1 {
			f.State = to
		}
		if err := p.store.Finish(p.Context(), f); err != nil {
			p.Fatal(err)
		}
	}
	if len(outcomes) == 0 {
		move := status.Move{ID: m.ID, Seed: &seed, Provider: "unimedbh", To: to, Reason: reason, Payload: payload, Now: p.now}
		if err := p.store.Move(p.Context(), move); err != nil {
			p.Fatal(err)
		}
	}
	return m.ID
}

func (p *past) rows(f status.EndedFilter) (all []rows.Row) {
	p.Helper()
	for row, err := range rows.FromStatus(p.Context(), p.store, p.keys, unimedbh.Definition(), f) {
		if err != nil {
			p.Fatal(err)
		}
		all = append(all, row)
	}
	return all
}

func person(n int) providers.Request {
	return unimedbh.Request{Username: fmt.Sprintf("pessoa%d@example.com", n), Type: "EMAIL"}
}

func TestACampaignIsMadeFromWhatHappened(t *testing.T) {
	p := newPast(t)
	id := map[string]string{}
	for n, c := range []struct {
		name     string
		to       status.State
		reason   string
		outcomes []string
	}{
		{"expired behind a breaker", status.Expired, "deadline", nil},
		{"used up", status.Exhausted, "provider_error", []string{"retry_later", "retry_later"}},
		{"maybe sent", status.Unknown, "timeout", []string{"ambiguous"}},
		{"refused", status.Rejected, "recipient_unknown", []string{"rejected"}},
		{"sent", status.Accepted, "", []string{"accepted"}},
		{"used up, maybe sent", status.Exhausted, "provider_error", []string{"ambiguous", "retry_later"}},
		{"expired, maybe sent", status.Expired, "deadline", []string{"ambiguous"}},
		{"replayed", status.Expired, "deadline", nil},
		{"given up", status.Exhausted, "provider_error", []string{"retry_later"}},
	} {
		m := p.message(n)
		id[c.name] = p.end(m, p.seal(p.keys, m), c.to, c.reason, c.outcomes...)
	}
	if _, errs := p.store.MarkResent(t.Context(), []status.Resend{{ID: id["replayed"], NewID: "new"}}); errs[0] != nil {
		t.Fatal(errs[0])
	}
	if err := p.store.DropDead(t.Context(), "unimedbh", id["given up"]); err != nil {
		t.Fatal(err)
	}
	row := func(line, n int, of string, duplicate bool) rows.Row {
		return rows.Row{Line: line, Request: person(n), ReplayOf: id[of], PossibleDuplicate: duplicate}
	}
	for about, c := range map[string]struct {
		filter status.EndedFilter
		want   []rows.Row
	}{
		"after an outage": {status.EndedFilter{States: []status.State{status.Exhausted, status.Expired, status.Unknown}}, []rows.Row{
			row(1, 0, "expired behind a breaker", false), row(2, 1, "used up", false), row(3, 2, "maybe sent", true),
			row(4, 5, "used up, maybe sent", true), row(5, 6, "expired, maybe sent", true),
		}},
		"by reason": {status.EndedFilter{Reason: "recipient_unknown"}, []rows.Row{row(1, 3, "refused", false)}},
		"nobody":    {status.EndedFilter{Since: p.now.Add(time.Hour)}, nil},
	} {
		if diff := cmp.Diff(c.want, p.rows(c.filter)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", about, diff)
		}
	}
}

// TestWhatCannotBeReadIsARowWithAProblem and stops no other.
func TestWhatCannotBeReadIsARowWithAProblem(t *testing.T) {
	p := newPast(t)
	quarantine := func(keys *tasks.Keyring, id string, payload []byte) []byte {
		sealed, err := tasks.Quarantine(keys, id, payload)
		if err != nil {
			t.Fatal(err)
		}
		return sealed
	}
	stranger := newKeys(t, "lost")
	for n, payload := range []func(m tasks.Message) []byte{
		func(m tasks.Message) []byte { return p.seal(p.keys, m) },
		func(m tasks.Message) []byte { return p.seal(stranger, m) },
		func(m tasks.Message) []byte { return quarantine(p.keys, m.ID, []byte("send a code to maria")) },
		func(m tasks.Message) []byte { return quarantine(stranger, m.ID, p.seal(p.keys, m)) },
		func(m tasks.Message) []byte { return quarantine(p.keys, m.ID, []byte(`{"v":99,"id":"maria"}`)) },
		func(tasks.Message) []byte { return nil },
		func(tasks.Message) []byte { return p.seal(p.keys, p.message(0)) }, // another's
		func(m tasks.Message) []byte { m.Provider = "kinpos"; return p.seal(p.keys, m) },
		func(m tasks.Message) []byte { m.Request = json.RawMessage(`{"maria":1}`); return p.seal(p.keys, m) },
		func(m tasks.Message) []byte {
			return []byte(strings.Replace(string(p.seal(p.keys, m)), `"lane":"interactive"`, `"lane":"bulk"`, 1))
		},
		func(m tasks.Message) []byte { return quarantine(p.keys, m.ID, p.seal(p.keys, m)) }, // whose key is there again
		func(m tasks.Message) []byte { return p.seal(p.keys, m) },
	} {
		m := p.message(n)
		p.end(m, payload(m), status.Rejected, "undecodable")
	}
	const (
		unreadable = "payload is not a message that can be read"
		noKey      = "payload is sealed with a key that is not configured"
	)
	want := []string{
		"1 pessoa0@example.com", "2 " + noKey, "3 " + unreadable, "4 " + noKey, "5 payload was made by a newer otpq", "6 " + unreadable,
		"7 " + unreadable, "8 " + unreadable, "9 fields", "10 payload was changed, or is another message's",
		"11 pessoa10@example.com", "12 pessoa11@example.com",
	}
	var got []string
	for _, row := range p.rows(status.EndedFilter{}) {
		said := fmt.Sprint(row.Line, " ")
		switch {
		case row.Request != nil && row.Problems == nil:
			said += row.Request.Recipient()
		case row.Request != nil || len(row.Problems) == 0 || row.ReplayOf == "":
			t.Errorf("row %d has a request and problems, or neither, or no message: %+v", row.Line, row)
		case row.Problems[0].Field != "payload":
			said += "fields"
		default:
			said += row.Problems[0].Field + " " + row.Problems[0].Problem
		}
		if text := fmt.Sprint(row.Problems); strings.Contains(text, "maria") && row.Line != 9 {
			t.Errorf("the problem tells what it could not read: %s", text)
		}
		got = append(got, said)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestAReaderOfWhatHappenedMayStop(t *testing.T) {
	p := newPast(t)
	for n := range 3 {
		m := p.message(n)
		p.end(m, p.seal(p.keys, m), status.Expired, "deadline")
	}
	source := rows.FromStatus(t.Context(), p.store, p.keys, unimedbh.Definition(), status.EndedFilter{})
	for range 2 { // and it may be read again
		for row, err := range source {
			if err != nil || row.Line != 1 {
				t.Errorf("row %d, %v; want the first", row.Line, err)
			}
			break
		}
	}
	p.redis.Stop()
	var errs []error
	for row, err := range source {
		if err == nil {
			t.Errorf("row %d of a Redis that is down", row.Line)
		}
		errs = append(errs, err)
	}
	if len(errs) != 1 || !status.IsUnreachable(errors.Join(errs...)) {
		t.Errorf("errors = %v, want one", errs)
	}
}
