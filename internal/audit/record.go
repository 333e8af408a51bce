package audit

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
)

// record is what Redis holds of a message.
type record struct {
	status.Record
	claimed    time.Time // when the attempt under way was claimed; zero for released
	hasPayload bool
}

func recordKey(id string) string { return "otpq:msg:" + id }

// readRecords reads the records of ids in one round trip. What has no record is
// not among them.
func readRecords(ctx context.Context, rdb redis.Cmdable, ids []string) (map[string]record, error) {
	reads := make([]*redis.MapStringStringCmd, len(ids))
	_, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, id := range ids {
			reads[i] = p.HGetAll(ctx, recordKey(id))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read records: %w", err)
	}
	out := make(map[string]record, len(ids))
	for i, id := range ids {
		if fields := reads[i].Val(); len(fields) > 0 {
			out[id] = decodeRecord(id, fields)
		}
	}
	return out, nil
}

// Records reads the records of the ids, a page at a time. What has no record is
// not among them.
func Records(ctx context.Context, rdb redis.UniversalClient, ids []string) (map[string]status.Record, error) {
	out := make(map[string]status.Record, len(ids))
	for page := range slices.Chunk(ids, defaultPage) {
		records, err := readRecords(ctx, rdb, page)
		if err != nil {
			return nil, err
		}
		for id, r := range records {
			out[id] = r.Record
		}
	}
	return out, nil
}

func decodeRecord(id string, f map[string]string) record {
	r := record{Record: status.DecodeRecord(id, f), claimed: timeOf(f["claimed"]), hasPayload: f["payload"] != ""}
	r.Attempts = r.Attempts[:0] // all there are, whatever the record says of their number
	for name, line := range f {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, "a")); err == nil && strings.HasPrefix(name, "a") {
			r.Attempts = append(r.Attempts, decodeAttempt(n, line))
		}
	}
	slices.SortFunc(r.Attempts, func(a, b status.Attempt) int { return cmp.Compare(a.Number, b.Number) })
	return r
}

// decodeAttempt reads started ms|duration µs|outcome|reason|HTTP status. An
// attempt under way is only its start.
func decodeAttempt(number int, line string) status.Attempt {
	p := append(strings.Split(line, "|"), "", "", "", "")
	us, _ := strconv.ParseFloat(p[1], 64) // empty is no duration
	code, _ := strconv.Atoi(p[4])
	return status.Attempt{
		Number: number, StartedAt: timeOf(p[0]), DurationMS: us / 1000, Outcome: p[2], Reason: p[3], HTTPStatus: code,
	}
}

func timeOf(ms string) time.Time {
	n, err := strconv.ParseFloat(ms, 64)
	if err != nil || n <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(n)).UTC()
}

// What package worker writes as an attempt's reason; its test compares them.
const (
	reasonStalled    = "worker_stalled" // the attempt was claimed and no request was made
	reasonWorkerLost = "worker_lost"    // the attempt's worker died; when its request began is not known
)

// mayHaveActed reports whether the provider may have acted on the attempt: all
// but what is known to have been refused or never asked. An attempt that nobody
// ended says nothing, which is no refusal.
func mayHaveActed(a status.Attempt) bool {
	return a.Outcome != providers.Rejected.String() && a.Outcome != providers.RetryLater.String()
}

// readable reports whether the record has what every record has.
func (r record) readable() bool {
	return slices.Contains(status.States(), r.State) && r.Provider != "" && r.Lane.Valid() && !r.NotAfter.IsZero() && !r.CreatedAt.IsZero()
}

// broken returns what is wrong with a record by itself.
func (r record) broken() []Finding {
	if !r.readable() {
		return []Finding{found(Malformed, r.Record, "its state, provider, lane, deadline or time of creation cannot be read")}
	}
	var out []Finding
	if f, ok := silentDouble(r.Record); ok {
		out = append(out, f)
	}
	if f, ok := lateAttempt(r.Record); ok {
		out = append(out, f)
	}
	if f, ok := maybeSent(r.Record); ok {
		out = append(out, f)
	}
	return out
}

// maybeSent looks at messages that ended without a provider's word, after an
// attempt that may have been acted on: the reason has to say so.
func maybeSent(r status.Record) (Finding, bool) {
	if r.State != status.Expired && r.State != status.Canceled || r.Reason == status.ReasonMaybeSent {
		return Finding{}, false
	}
	i := slices.IndexFunc(r.Attempts, mayHaveActed)
	if i < 0 {
		return Finding{}, false
	}
	return found(Untrue, r, "it is %s with the reason %q, and the provider may have acted on attempt %d: the reason should be %s",
		r.State, r.Reason, r.Attempts[i].Number, status.ReasonMaybeSent), true
}

func silentDouble(r status.Record) (Finding, bool) {
	if r.PossibleDuplicate {
		return Finding{}, false
	}
	for i, a := range r.Attempts[:max(0, len(r.Attempts)-1)] {
		if !mayHaveActed(a) {
			continue
		}
		said := "may have acted on"
		if a.Outcome == providers.Accepted.String() {
			said = "accepted"
		}
		return found(SilentDouble, r, "attempt %d was begun after attempt %d, which the provider %s, and possible_duplicate is false",
			r.Attempts[i+1].Number, a.Number, said), true
	}
	return Finding{}, false
}

// lateAttempt looks at attempts that made a request. Of one whose worker died
// only the time of its claim is known, and of one under way its end: the deadline
// is looked at once more between the claim and the request.
func lateAttempt(r status.Record) (Finding, bool) {
	for _, a := range r.Attempts {
		if a.Outcome == "" || a.Reason == reasonStalled || a.Reason == reasonWorkerLost || a.StartedAt.Before(r.NotAfter) {
			continue
		}
		return found(Late, r, "attempt %d started %s after the deadline", a.Number, span(a.StartedAt.Sub(r.NotAfter))), true
	}
	return Finding{}, false
}

// unfinished returns what is wrong with a message that should have come to its
// end, or gone on, by now.
func (r record) unfinished(now time.Time, grace time.Duration) (Finding, bool) {
	if r.State.Terminal() || !r.readable() {
		return Finding{}, false
	}
	claimed := r.claimed
	if claimed.IsZero() {
		claimed = r.UpdatedAt // which a claim sets, and its release leaves
	}
	switch {
	case r.State == status.Sending && now.Sub(claimed) > grace:
		return found(StaleClaim, r.Record, "a worker began attempt %d %s ago and never said what became of it",
			len(r.Attempts), span(now.Sub(claimed))), true
	case now.Sub(r.NotAfter) > grace:
		return found(Overdue, r.Record, "still %s, %s after its deadline", r.State, span(now.Sub(r.NotAfter))), true
	}
	return Finding{}, false
}
