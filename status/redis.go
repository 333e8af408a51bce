package status

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/coalesce"
	"github.com/otpq/otpq/internal/redisscript"
)

//go:embed lua/create.lua
var createLua string

//go:embed lua/record.lua
var recordLua string

//go:embed lua/claim.lua
var claimLua string

//go:embed lua/finish.lua
var finishLua string

//go:embed lua/move.lua
var moveLua string

//go:embed lua/release.lua
var releaseLua string

//go:embed lua/shared.lua
var sharedLua string

var (
	createScript = redisscript.New(createLua)
	claimScript  = newScript(claimLua)
	finishScript = newScript(finishLua)
	moveScript   = newScript(moveLua)

	releaseScript = redis.NewScript(releaseLua)
)

// Retention says how long records are kept after a message has come to its end.
type Retention struct {
	// Records is for messages that ended well or too late, which may be kept a
	// hundredth longer; those that expired with their sealed payload. Zero means 72 h.
	Records time.Duration
	// DeadLetters is for dead letters with their sealed payload. Zero means 30 days.
	DeadLetters time.Duration
}

const (
	defaultRetention     = 72 * time.Hour
	defaultDeadRetention = 30 * 24 * time.Hour
)

// Redis is the [Store] in Redis: one hash a message, changed only by scripts
// that touch that one key, so that it works on a cluster too.
type Redis struct {
	rdb       redis.UniversalClient
	scripts   *runner
	retention Retention
	indexing  *coalesce.Group[*entry]
}

var _ Store = (*Redis)(nil)

// NewRedis returns a store in rdb, which must be made with ContextTimeoutEnabled
// so that a hung Redis does not outlive a caller's ctx.
func NewRedis(rdb redis.UniversalClient, keep Retention) *Redis {
	if keep.Records <= 0 {
		keep.Records = defaultRetention
	}
	if keep.DeadLetters <= 0 {
		keep.DeadLetters = defaultDeadRetention
	}
	s := &Redis{rdb: rdb, scripts: newRunner(rdb), retention: keep}
	s.indexing = coalesce.New(runCalls, mostRuns, s.indexAll)
	return s
}

// RecordsKept is how long the record of any message is kept after its end, at least.
func (s *Redis) RecordsKept() time.Duration { return min(s.retention.Records, s.retention.DeadLetters) }

func recordKey(id string) string { return "otpq:msg:" + id }

// keep is how long, in milliseconds, a record is kept after the end of its
// message; the scripts add to it what the message needs before.
func (s *Redis) keep(state State) int64 {
	if state.Dead() {
		return s.retention.DeadLetters.Milliseconds()
	}
	return s.retention.Records.Milliseconds()
}

// Create implements [Store].
func (s *Redis) Create(ctx context.Context, r Record) error {
	seed := s.Seed(r)
	return created(createScript.Run(ctx, s.rdb, []string{seed.Key}, append([]any{seed.Keep}, seed.Fields...)...))
}

// Get implements [Store].
func (s *Redis) Get(ctx context.Context, id string) (Record, error) {
	fields, err := s.rdb.HGetAll(ctx, recordKey(id)).Result()
	if err != nil {
		return Record{}, fmt.Errorf("read status record: %w", err)
	}
	if len(fields) == 0 {
		return Record{}, ErrNotFound
	}
	return DecodeRecord(id, fields), nil
}

// Claim implements [Store].
func (s *Redis) Claim(ctx context.Context, c Claim) (Claimed, error) {
	args := []any{c.Now.UnixMilli(), c.Token, c.AbandonedAfter.Milliseconds(), s.keep(Sending)}
	reply, err := s.claim(ctx, c.Seed.ID, args)
	if err == nil && reply[0] == "gone" { // the seed is rarely needed
		args = append(args, c.Seed.NotAfter.UnixMilli())
		reply, err = s.claim(ctx, c.Seed.ID, append(args, seedFields(c.Seed)...))
	}
	if err != nil {
		return Claimed{}, fmt.Errorf("claim attempt: %w", err)
	}
	detail, _ := reply[4].(string)
	out := Claimed{
		Result:  ClaimResult(asString(reply[0])),
		Attempt: asInt(reply[1]), Spent: asInt(reply[2]), Ambiguous: asInt(reply[3]),
	}
	switch out.Result {
	case ClaimBusy:
		out.BusyUntil = parseMS(detail)
	case ClaimAbandoned:
		out.StartedAt = decodeAttempt(out.Attempt, detail).StartedAt
	case ClaimOver:
		out.State = State(detail)
	case ClaimedNow:
		out.DueAt = parseMS(detail)
	}
	return out, nil
}

// firstClaim is what claim.lua says in one word.
var firstClaim = []any{string(ClaimedNow), int64(1), int64(0), int64(0), ""}

func (s *Redis) claim(ctx context.Context, id string, args []any) ([]any, error) {
	answer, err := s.scripts.run(ctx, claimScript, recordKey(id), args)
	if answer == string(ClaimedNow) {
		return firstClaim, err
	}
	reply, _ := answer.([]any)
	if err == nil && len(reply) != 5 {
		err = fmt.Errorf("the script answered %d values, want 5", len(reply))
	}
	return reply, err
}

// Finish implements [Store].
func (s *Redis) Finish(ctx context.Context, f Finish) error {
	if err := s.index(ctx, f.State, f.Provider, f.ID, f.Now); err != nil {
		return err
	}
	args := []any{
		f.Now.UnixMilli(), f.Token, f.Attempt.Number, encodeAttempt(f.Attempt),
		string(f.State), flag(f.Spent), flag(f.Ambiguous), s.keep(f.State),
	}
	args = append(args, whyAndWhen(f.Reason, f.Next)...)
	if f.Reference != "" {
		args = append(args, "reference", f.Reference)
	}
	if f.CodeValid > 0 {
		args = append(args, "code_valid_us", f.CodeValid.Microseconds())
	}
	if indexOf(f.State) != "" {
		args = append(args, "payload", f.Payload)
	}
	return s.change(ctx, finishScript, f.ID, f.State, args)
}

// Move implements [Store].
func (s *Redis) Move(ctx context.Context, m Move) error {
	if err := s.index(ctx, m.To, m.Provider, m.ID, m.Now); err != nil {
		return err
	}
	change := whyAndWhen(m.Reason, m.Next)
	if indexOf(m.To) != "" {
		change = append(change, "payload", m.Payload)
	}
	args := append([]any{m.Now.UnixMilli(), string(m.To), s.keep(m.To), len(change)}, change...)
	if m.Seed != nil {
		args = append(append(args, m.Seed.NotAfter.UnixMilli()), seedFields(*m.Seed)...)
	}
	return s.change(ctx, moveScript, m.ID, m.To, args)
}

// Release implements [Store].
func (s *Redis) Release(ctx context.Context, id, owner string) error {
	if err := releaseScript.Run(ctx, s.rdb, []string{recordKey(id)}, owner+"/").Err(); err != nil {
		return fmt.Errorf("release claim: %w", err)
	}
	return nil
}

func (s *Redis) change(ctx context.Context, script *redisscript.Script, id string, to State, args []any) error {
	answer, err := s.scripts.run(ctx, script, recordKey(id), args)
	reply, _ := answer.([]any)
	if err == nil && answer != "ok" && len(reply) != 2 {
		err = fmt.Errorf("the script answered %d values, want 2", len(reply))
	}
	switch {
	case err != nil:
		return fmt.Errorf("write status record: %w", err)
	case answer == "ok":
		return nil
	case reply[0] == "gone":
		return ErrNotFound
	}
	return &RefusedError{ID: id, From: State(asString(reply[1])), To: to}
}

// whyAndWhen are the fields that say why a message is where it is, and until when.
// The scripts delete what they said before.
func whyAndWhen(reason string, next time.Time) (fields []any) {
	if reason != "" {
		fields = append(fields, "reason", reason)
	}
	if !next.IsZero() {
		fields = append(fields, "next", next.UnixMilli())
	}
	return fields
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

func asString(v any) string {
	s, _ := v.(string)
	return s
}

func asInt(v any) int {
	n, _ := v.(int64)
	return int(n)
}

func formatMS(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

// parseMS reads a time as Redis holds it; anything else is no time.
func parseMS(s string) time.Time {
	ms, err := strconv.ParseFloat(s, 64) // Lua may write a large number as 1.7e+12
	if err != nil || ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}

// IsUnreachable reports whether err means that the store did not answer, as
// opposed to one of this package's own answers.
func IsUnreachable(err error) bool {
	if err == nil {
		return false
	}
	var refused *RefusedError
	return !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrExists) && !errors.Is(err, ErrSearchLost) &&
		!errors.As(err, &refused)
}
