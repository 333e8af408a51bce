package audit

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/status"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// at is a time so many seconds after noon, when each message here is queued.
func at(seconds float64) time.Time { return noon.Add(time.Duration(seconds * float64(time.Second))) }

func attempt(n int, start, took float64, outcome, reason string) status.Attempt {
	return status.Attempt{Number: n, StartedAt: at(start), DurationMS: took * 1000, Outcome: outcome, Reason: reason}
}

func TestCompare(t *testing.T) {
	const id = "m1"
	told := Told{ID: id, Tag: "tag", NotAfter: at(60)}
	sent := Seen{Tag: "tag", At: at(1.1), Acted: true, Status: 200}
	refused := Seen{Tag: "tag", At: at(1.1), Refused: true, Status: 500}
	hung := Seen{Tag: "tag", At: at(1.1)}
	again := Seen{Tag: "tag", At: at(5.1), Acted: true, Status: 200}
	record := func(state status.State, ended float64, attempts ...status.Attempt) status.Record {
		return status.Record{ID: id, State: state, CreatedAt: noon, UpdatedAt: at(ended), NotAfter: at(60), Attempts: attempts}
	}
	flagged := func(r status.Record) status.Record {
		r.PossibleDuplicate = true
		return r
	}
	first := attempt(1, 1, 0.2, "accepted", "")
	for name, c := range map[string]struct {
		told    []Told
		seen    []Seen
		records []status.Record
		now     float64 // an hour, when zero
		want    []Kind
	}{
		"sent once": {told: []Told{told}, seen: []Seen{sent}, records: []status.Record{record(status.Accepted, 2, first)}},
		"refused, then sent": {told: []Told{told}, seen: []Seen{refused, again}, records: []status.Record{
			record(status.Accepted, 6, attempt(1, 1, 0.2, "retry_later", "provider_error"), attempt(2, 5, 0.2, "accepted", ""))}},
		"never sent": {told: []Told{told}, records: []status.Record{record(status.Expired, 61)}},
		"sent twice, and the record says so": {told: []Told{told}, seen: []Seen{again, sent}, records: []status.Record{
			flagged(record(status.Accepted, 6, attempt(1, 1, 0.2, "ambiguous", "timeout"), attempt(2, 5, 0.2, "accepted", "")))}},
		"sent by a worker that died": {told: []Told{told}, seen: []Seen{sent}, records: []status.Record{
			record(status.Unknown, 20, attempt(1, 0.9, 0, "ambiguous", reasonWorkerLost))}},
		"begun in time by a worker that stood still": {told: []Told{told}, seen: []Seen{{Tag: "tag", At: at(75), Acted: true}}, records: []status.Record{
			record(status.Accepted, 76, attempt(1, 59, 16.5, "accepted", ""))}},
		"a Send that failed promises nothing": {told: []Told{{ID: id, Tag: "tag", NotAfter: at(60), Failed: true}}},
		"a Send that failed may be sent all the same": {told: []Told{{ID: id, Tag: "tag", NotAfter: at(60), Failed: true}},
			seen: []Seen{sent}, records: []status.Record{record(status.Accepted, 2, first)}},
		"a Send that failed and was made again": {seen: []Seen{sent}, records: []status.Record{record(status.Accepted, 2, first)},
			told: []Told{{ID: "m0", Tag: "tag", NotAfter: at(50), Failed: true}, told, told}},
		"canceled after an attempt that may have been acted on": {seen: []Seen{sent},
			told: []Told{{ID: id, Tag: "tag", NotAfter: at(60), CanceledAt: at(4)}}, records: []status.Record{
				record(status.Canceled, 4, attempt(1, 1, 0.2, "ambiguous", "timeout"))}},
		"on its way":                   {told: []Told{told}, now: 70, records: []status.Record{record(status.Deferred, 30)}},
		"another's request, untold of": {told: []Told{told}, seen: []Seen{sent, {Tag: "other", At: at(900), Acted: true}}, records: []status.Record{record(status.Accepted, 2, first)}},

		"no record":           {told: []Told{told}, want: []Kind{Lost}},
		"no end":              {told: []Told{told}, records: []status.Record{record(status.Queued, 0)}, want: []Kind{Lost}},
		"an end far too late": {told: []Told{told}, records: []status.Record{record(status.Expired, 600)}, want: []Kind{Overdue}},
		"accepted, and the provider knows nothing": {told: []Told{told}, records: []status.Record{record(status.Accepted, 2, first)}, want: []Kind{Untrue}},
		"sent, and the record says rejected": {told: []Told{told}, seen: []Seen{sent},
			records: []status.Record{record(status.Rejected, 2, attempt(1, 1, 0.2, "rejected", "x"))}, want: []Kind{Untrue}},
		"sent twice, in silence": {told: []Told{told}, seen: []Seen{sent, again}, records: []status.Record{
			record(status.Accepted, 6, attempt(1, 1, 0.2, "retry_later", "timeout"), attempt(2, 5, 0.2, "accepted", ""))}, want: []Kind{SilentDouble}},
		"asked again after no answer, in silence": {told: []Told{told}, seen: []Seen{hung, again}, records: []status.Record{
			record(status.Accepted, 6, attempt(1, 1, 0.2, "retry_later", "timeout"), attempt(2, 5, 0.2, "accepted", ""))}, want: []Kind{SilentDouble}},
		"one key, two messages": {told: []Told{told, {ID: "m2", Tag: "tag", NotAfter: at(60)}}, seen: []Seen{sent, again}, records: []status.Record{
			record(status.Accepted, 2, first),
			{ID: "m2", State: status.Accepted, UpdatedAt: at(6), NotAfter: at(60), Attempts: []status.Attempt{attempt(1, 5, 0.2, "accepted", "")}},
		}, want: []Kind{SilentDouble}},
		"late": {told: []Told{told}, seen: []Seen{{Tag: "tag", At: at(63), Acted: true}}, records: []status.Record{
			record(status.Accepted, 64, attempt(1, 62.9, 0.2, "accepted", ""))}, want: []Kind{Late}},
		"a request that no attempt tells of": {told: []Told{told}, seen: []Seen{{Tag: "tag", At: at(30), Acted: true}}, records: []status.Record{
			record(status.Accepted, 31, attempt(1, 1, 0.2, "accepted", ""))}, want: []Kind{Unrecorded}},
		"canceled, and sent": {told: []Told{{ID: id, Tag: "tag", NotAfter: at(60), CanceledAt: at(4)}},
			records: []status.Record{record(status.Accepted, 2, first)}, seen: []Seen{sent}, want: []Kind{Untrue}},
		"asked after it was canceled": {told: []Told{{ID: id, Tag: "tag", NotAfter: at(60), CanceledAt: at(4)}},
			seen: []Seen{{Tag: "tag", At: at(9), Acted: true}}, records: []status.Record{
				record(status.Canceled, 4, attempt(1, 9, 0.2, "ambiguous", "timeout"))}, want: []Kind{Untrue}},
	} {
		t.Run(name, func(t *testing.T) {
			now := at(3600)
			if c.now > 0 {
				now = at(c.now)
			}
			var got []Kind
			for _, f := range Compare(c.told, c.seen, func(id string) (status.Record, bool) {
				for _, r := range c.records {
					if r.ID == id {
						return r, true
					}
				}
				return status.Record{}, false
			}, CompareOptions{Now: now}) {
				got = append(got, f.Kind)
				if f.ID == "" || f.What == "" || f.Do == "" {
					t.Errorf("finding %+v lacks a part", f)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadNamesTheLineAndNotWhatStandsThere(t *testing.T) {
	told, err := ReadTold(strings.NewReader(`{"id":"m1","tag":"a","not_after":"2026-11-20T12:01:00Z"}

{"id":"m2","tag":"b","not_after":"2026-11-20T12:01:00Z","failed":true,"canceled_at":"2026-11-20T12:00:30Z"}
`))
	want := []Told{{ID: "m1", Tag: "a", NotAfter: at(60)}, {ID: "m2", Tag: "b", NotAfter: at(60), Failed: true, CanceledAt: at(30)}}
	if diff := cmp.Diff(want, told); diff != "" || err != nil {
		t.Errorf("ReadTold() (-want +got), %v:\n%s", err, diff)
	}
	seen, err := ReadSeen(strings.NewReader(`{"tag":"a","at":"2026-11-20T12:00:01Z","acted":true,"refused":false,"status":200}`))
	if diff := cmp.Diff([]Seen{{Tag: "a", At: at(1), Acted: true, Status: 200}}, seen); diff != "" || err != nil {
		t.Errorf("ReadSeen() (-want +got), %v:\n%s", err, diff)
	}
	const person = "maria@example.com"
	good := `{"tag":"a","at":"2026-11-20T12:00:01Z"}` + "\n"
	for name, c := range map[string]struct{ in, want string }{
		"no JSON":            {good + person, "line 2 "},
		"an unknown field":   {`{"` + person + `":1}`, "line 1 is not one JSON object with the fields tag, at"},
		"a wrong time":       {good + good + `{"tag":"a","at":"` + person + `"}`, "line 3 "},
		"a wrong type":       {`{"tag":["` + person + `"]}`, "line 1 "},
		"two values":         {`{"tag":"a","at":"2026-11-20T12:00:01Z"} {"tag":"` + person + `"}`, "line 1 "},
		"no tag and no time": {good + `{"acted":true}`, "line 2 lacks tag and at"},
		"a line too long":    {good + strings.Repeat(person, maxLine), "line 2 is longer than"},
	} {
		_, err := ReadSeen(strings.NewReader(c.in))
		if err == nil || !strings.HasPrefix(err.Error(), c.want) || strings.Contains(err.Error(), person) {
			t.Errorf("%s: ReadSeen() = %v, want %q and no person", name, err, c.want)
		}
	}
	if _, err := ReadTold(strings.NewReader(`{}`)); err == nil || err.Error() != "line 1 lacks id and tag and not_after" {
		t.Errorf("ReadTold({}) = %v", err)
	}
}
