package status

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/otpq/otpq/tasks"
)

// madeField is the field of a record with what never changes, because each field costs
// Redis time: provider|lane|created ms|deadline ms|print of the recipient, which may
// hold any byte. Up to 64 bytes it keeps the record in one piece of memory.
const madeField = "made"

// made is what a record's madeField says.
type made struct {
	provider          string
	lane              tasks.Lane
	created, notAfter time.Time
	who               string
}

func (m made) encode() string {
	b := append(append(append(make([]byte, 0, 64), m.provider...), '|'), m.lane...)
	b = strconv.AppendInt(append(b, '|'), m.created.UnixMilli(), 10)
	b = strconv.AppendInt(append(b, '|'), m.notAfter.UnixMilli(), 10)
	return string(append(append(b, '|'), m.who...))
}

// decodeMade leaves what cannot be read at its zero value.
func decodeMade(text string) made {
	p := append(strings.SplitN(text, "|", 5), "", "", "", "")
	return made{p[0], tasks.Lane(p[1]), parseMS(p[2]), parseMS(p[3]), p[4]}
}

// seedFields are the hash fields of a new record. What is derived or empty is
// not stored.
func seedFields(r Record) []any {
	fields := make([]any, 0, 6) // most have no others
	fields = append(fields, "state", string(r.State), "to", r.Recipient,
		madeField, made{r.Provider, r.Lane, r.CreatedAt, r.NotAfter, r.Who}.encode())
	if !r.UpdatedAt.Equal(r.CreatedAt) {
		fields = append(fields, "updated", r.UpdatedAt.UnixMilli())
	}
	if !r.NextAttemptAt.IsZero() {
		fields = append(fields, "next", r.NextAttemptAt.UnixMilli())
	}
	if r.Reason != "" {
		fields = append(fields, "reason", r.Reason)
	}
	if r.PossibleDuplicate {
		fields = append(fields, "duplicate", 1)
	}
	if r.Campaign != "" {
		fields = append(fields, "campaign", r.Campaign)
	}
	if r.ReplayOf != "" {
		fields = append(fields, "replay_of", r.ReplayOf)
	}
	return fields
}

// DecodeRecord reads a record from its hash's fields. What cannot be read is left at
// its zero value.
func DecodeRecord(id string, f map[string]string) Record {
	m := decodeMade(f[madeField])
	r := Record{
		ID: id, Provider: m.provider, Lane: m.lane, State: State(f["state"]), Reason: f["reason"],
		Recipient: f["to"], CreatedAt: m.created, UpdatedAt: parseMS(f["updated"]),
		NotAfter: m.notAfter, NextAttemptAt: parseMS(f["next"]), Attempts: []Attempt{},
		Reference: f["reference"], PossibleDuplicate: f["duplicate"] == "1",
		Campaign: f["campaign"], ReplayOf: f["replay_of"], ReplayedAs: f["replayed_as"], Who: m.who,
	}
	if r.UpdatedAt.IsZero() {
		r.UpdatedAt = r.CreatedAt
	}
	if us, err := strconv.ParseInt(f["code_valid_us"], 10, 64); err == nil {
		r.CodeValidSeconds = (time.Duration(us) * time.Microsecond).Seconds()
	}
	attempts, _ := strconv.Atoi(f["n"])
	for n := 1; n <= attempts; n++ {
		if line, ok := f["a"+strconv.Itoa(n)]; ok {
			r.Attempts = append(r.Attempts, decodeAttempt(n, line))
		}
	}
	return r
}

// encodeAttempt writes an attempt as one short line, because a record holds
// several: started ms|duration µs|outcome|reason|HTTP status.
func encodeAttempt(a Attempt) string {
	b := strconv.AppendInt(make([]byte, 0, 64), a.StartedAt.UnixMilli(), 10)
	b = strconv.AppendInt(append(b, '|'), int64(math.Round(a.DurationMS*1000)), 10)
	b = append(append(append(b, '|'), a.Outcome...), '|')
	b = append(append(b, a.Reason...), '|')
	return string(strconv.AppendInt(b, int64(a.HTTPStatus), 10))
}

// decodeAttempt reads what encodeAttempt wrote; an attempt under way is only
// its start.
func decodeAttempt(number int, line string) Attempt {
	parts := append(strings.Split(line, "|"), "", "", "", "")
	us, _ := strconv.ParseInt(parts[1], 10, 64)
	status, _ := strconv.Atoi(parts[4])
	return Attempt{
		Number: number, StartedAt: parseMS(parts[0]), DurationMS: float64(us) / 1000,
		Outcome: parts[2], Reason: parts[3], HTTPStatus: status,
	}
}
