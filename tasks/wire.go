package tasks

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Why a payload cannot be read. Each of them sends the message to the dead
// letters; none is worth a retry by the same worker.
var (
	// ErrMalformed means the payload is not an otpq message at all.
	ErrMalformed = errors.New("payload is not an otpq message")
	// ErrVersion means the message was made by a newer otpq.
	ErrVersion = errors.New("message version is not known to this otpq: upgrade the workers before the producers")
	// ErrKeyUnknown means the sealing key is not on the ring.
	ErrKeyUnknown = errors.New("sealing key is not configured")
	// ErrSealBroken means the sealed part was changed or belongs to another message.
	ErrSealBroken = errors.New("seal does not open: payload was changed or the key's secret is another")
)

// version is the version of the payloads that Encode makes. Payloads of each
// released version are frozen in testdata.
const version = 1

// maxPayload bounds what Decode looks at: the largest documented request, with
// every field at its maximum, is under 8 KiB sealed.
const maxPayload = 256 << 10

// isName reports whether an id or a provider's name is one: up to 64 letters,
// digits, - and _, the first of them neither. Both become parts of Redis keys, and
// braces there would move a key to another cluster slot.
func isName(s string) bool {
	if s == "" || len(s) > 64 || s[0] == '-' || s[0] == '_' {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case '0' <= c && c <= '9', 'A' <= c && c <= 'Z', 'a' <= c && c <= 'z', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

// wireV1 is the payload of version 1. What is outside Sealed is readable in
// Redis and in dashboards, so it names no person.
type wireV1 struct {
	Version     int    `json:"v"`
	ID          string `json:"id"`
	Provider    string `json:"provider"`
	Lane        Lane   `json:"lane"`
	CreatedMS   int64  `json:"created_ms"`
	NotAfterMS  int64  `json:"not_after_ms"`
	MaxAttempts int    `json:"max_attempts,omitempty"`
	Campaign    string `json:"campaign,omitempty"`
	ReplayOf    string `json:"replay_of,omitempty"`
	KeyID       string `json:"key"`
	Sealed      []byte `json:"sealed"`
}

// sealedV1 is what Sealed holds.
type sealedV1 struct {
	Request        json.RawMessage `json:"request"`
	IdempotencyKey string          `json:"idempotency_key,omitempty"`
}

// associated binds the sealed part to everything beside it: a payload whose id
// or deadline was edited, or whose sealed part was moved to another message,
// does not open.
func (w wireV1) associated() []byte { return w.appendAssociated(nil) }

func (w wireV1) appendAssociated(b []byte) []byte {
	b = append(b, "otpq/1"...)
	for _, s := range []string{w.ID, w.Provider, string(w.Lane)} {
		b = strconv.AppendQuote(append(b, '|'), s)
	}
	for _, n := range []int64{w.CreatedMS, w.NotAfterMS, int64(w.MaxAttempts)} {
		b = strconv.AppendInt(append(b, '|'), n, 10)
	}
	b = strconv.AppendQuote(append(b, '|'), w.Campaign)
	return strconv.AppendQuote(append(b, '|'), w.ReplayOf)
}

// appendJSON appends what [json.Marshal] makes of w, in a tenth of the time.
func (w wireV1) appendJSON(b []byte) []byte {
	// Of what has to be quoted only these two may need more than quotes: the id, the
	// provider, the lane and the key's id are names.
	b = append(b, `{"v":`...)
	b = strconv.AppendInt(b, int64(w.Version), 10)
	b = append(append(b, `,"id":"`...), w.ID...)
	b = append(append(b, `","provider":"`...), w.Provider...)
	b = append(append(b, `","lane":"`...), w.Lane...)
	b = strconv.AppendInt(append(b, `","created_ms":`...), w.CreatedMS, 10)
	b = strconv.AppendInt(append(b, `,"not_after_ms":`...), w.NotAfterMS, 10)
	if w.MaxAttempts != 0 {
		b = strconv.AppendInt(append(b, `,"max_attempts":`...), int64(w.MaxAttempts), 10)
	}
	if w.Campaign != "" {
		b = appendText(append(b, `,"campaign":`...), w.Campaign)
	}
	if w.ReplayOf != "" {
		b = appendText(append(b, `,"replay_of":`...), w.ReplayOf)
	}
	b = append(append(b, `,"key":"`...), w.KeyID...)
	b = append(b, `","sealed":"`...)
	b = base64.StdEncoding.AppendEncode(b, w.Sealed)
	return append(b, `"}`...)
}

// appendText appends a JSON string.
func appendText(b []byte, s string) []byte {
	quoted, _ := json.Marshal(s) // of a string, it cannot fail
	return append(b, quoted...)
}

func (w wireV1) message() Message {
	return Message{
		ID: w.ID, Provider: w.Provider, Lane: w.Lane,
		CreatedAt: timeOf(w.CreatedMS), NotAfter: timeOf(w.NotAfterMS),
		MaxAttempts: w.MaxAttempts, Campaign: w.Campaign, ReplayOf: w.ReplayOf,
	}
}

// timeOf is the zero Time, and not 1970, when there is no time: whoever reads
// part of a broken payload can tell.
func timeOf(ms int64) time.Time {
	if ms <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// check reports what a message cannot do without.
func (w wireV1) check() error {
	var bad []string
	note := func(name string, ok bool) {
		if !ok {
			bad = append(bad, name)
		}
	}
	note("id", isName(w.ID))
	note("provider", isName(w.Provider))
	note("lane", w.Lane.Valid())
	note("created_ms", w.CreatedMS > 0)
	note("not_after_ms", w.NotAfterMS > 0)
	note("max_attempts", w.MaxAttempts >= 0)
	// JSON would replace what is no UTF-8, and the seal would not open.
	note("campaign", utf8.ValidString(w.Campaign))
	note("replay_of", utf8.ValidString(w.ReplayOf))
	if bad != nil {
		return fmt.Errorf("%w: wrong or missing %s", ErrMalformed, strings.Join(bad, ", "))
	}
	return nil
}

// Encode seals m into a payload. It fails with [ErrNoKeys], or with
// [ErrMalformed] when m lacks what a worker needs or is too large. Trace is not part of the
// payload; [NewTask] puts it into the task's headers.
func Encode(keys *Keyring, m Message) ([]byte, error) {
	switch {
	case m.Request == nil:
		m.Request = json.RawMessage("null")
	case !json.Valid(m.Request):
		return nil, fmt.Errorf("%w: request is not JSON", ErrMalformed)
	}
	const beside = 512 // what is not the request takes about as much
	return EncodeValid(make([]byte, 0, beside+base64.StdEncoding.EncodedLen(len(m.Request))), keys, m)
}

// EncodeValid is [Encode] for a message whose Request is known to be JSON, because
// [json.Marshal] made it: to find that out takes longer than all the rest. The
// payload is appended to dst.
func EncodeValid(dst []byte, keys *Keyring, m Message) ([]byte, error) {
	w := wireV1{
		Version: version, ID: m.ID, Provider: m.Provider, Lane: m.Lane,
		CreatedMS: m.CreatedAt.UnixMilli(), NotAfterMS: m.NotAfter.UnixMilli(),
		MaxAttempts: m.MaxAttempts, Campaign: m.Campaign, ReplayOf: m.ReplayOf,
	}
	if err := w.check(); err != nil {
		return nil, err
	}
	s, _ := scratches.Get().(*scratch)
	defer scratches.Put(s)
	// The JSON of a sealedV1.
	s.plain = append(append(s.plain[:0], `{"request":`...), m.Request...)
	if m.IdempotencyKey != "" {
		s.plain = appendText(append(s.plain, `,"idempotency_key":`...), m.IdempotencyKey)
	}
	s.plain = append(s.plain, '}')
	s.beside = w.appendAssociated(s.beside[:0])
	var err error
	if w.KeyID, s.sealed, err = keys.appendSeal(s.sealed[:0], s.plain, s.beside); err != nil {
		return nil, err
	}
	w.Sealed = s.sealed
	payload := w.appendJSON(dst)
	if size := len(payload) - len(dst); size > maxPayload {
		return nil, errTooLarge(size)
	}
	return payload, nil
}

// scratch is what encoding a message needs and does not keep.
type scratch struct{ plain, beside, sealed []byte }

var scratches = sync.Pool{New: func() any { return new(scratch) }}

func errTooLarge(size int) error {
	return fmt.Errorf("%w: %d bytes are more than %d", ErrMalformed, size, maxPayload)
}

// Peek reads the part of a payload that is not sealed, and the id of the key
// that sealed the rest. It needs no key. It fails with [ErrMalformed] or
// [ErrVersion]; on ErrVersion the message still has its ID when one was there.
func Peek(payload []byte) (m Message, keyID string, err error) {
	w, err := parse(payload)
	return w.message(), w.KeyID, err
}

// Decode reads a payload of any released version. It fails with [ErrMalformed],
// [ErrVersion], [ErrKeyUnknown] or [ErrSealBroken]. No error holds any part of
// the payload's sealed content.
func Decode(keys *Keyring, payload []byte) (Message, error) {
	w, err := parse(payload)
	if err != nil {
		return w.message(), err
	}
	m := w.message()
	plain, err := keys.Open(w.KeyID, w.Sealed, w.associated())
	if err != nil {
		return m, err
	}
	if request, ok := quickRequest(plain); ok {
		m.Request = request
		return m, nil
	}
	var inner sealedV1
	if err := json.Unmarshal(plain, &inner); err != nil {
		return m, ErrMalformed // the text of err may quote the request
	}
	m.Request, m.IdempotencyKey = inner.Request, inner.IdempotencyKey
	return m, nil
}

func parse(payload []byte) (wireV1, error) {
	var w wireV1
	if len(payload) > maxPayload {
		return w, errTooLarge(len(payload))
	}
	if quick, ok := quickParse(payload); ok {
		return quick, quick.check()
	}
	if err := json.Unmarshal(payload, &w); err == nil && w.Version == version {
		return w, w.check()
	}
	// Of another version, whatever its fields are, or no message.
	var head struct {
		Version int    `json:"v"`
		ID      string `json:"id"`
	}
	if err := json.Unmarshal(payload, &head); err != nil || head.Version <= version {
		return wireV1{}, ErrMalformed
	}
	return wireV1{ID: head.ID}, fmt.Errorf("%w (version %d, known up to %d)", ErrVersion, head.Version, version)
}

// Quarantine seals a payload that Decode could not read, so that it can be kept
// as a dead letter without showing what is in it. [Release] gives it back.
func Quarantine(keys *Keyring, taskID string, payload []byte) ([]byte, error) {
	q := quarantined{TaskID: taskID}
	var err error
	if q.KeyID, q.Sealed, err = keys.Seal(payload, q.associated()); err != nil {
		return nil, err
	}
	return json.Marshal(q)
}

// Release gives back what [Quarantine] sealed. It fails with [ErrMalformed],
// [ErrKeyUnknown] or [ErrSealBroken].
func Release(keys *Keyring, quarantine []byte) ([]byte, error) {
	var q quarantined
	if err := json.Unmarshal(quarantine, &q); err != nil || q.TaskID == "" {
		return nil, ErrMalformed
	}
	return keys.Open(q.KeyID, q.Sealed, q.associated())
}

// quarantined has no version, so Decode calls it malformed, as it should.
type quarantined struct {
	TaskID string `json:"quarantined"`
	KeyID  string `json:"key"`
	Sealed []byte `json:"sealed"`
}

func (q quarantined) associated() []byte {
	return fmt.Appendf(nil, "otpq/quarantine|%q", q.TaskID)
}
