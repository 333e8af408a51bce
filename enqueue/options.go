package enqueue

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/tasks"
)

// Option changes how one message is sent.
type Option func(*options)

type options struct {
	key         string
	validity    time.Duration
	lane        tasks.Lane
	at          time.Time
	maxAttempts int
	campaign    string
	trace       map[string]string
	identity    Identity
}

// OptionError says which option is wrong and why.
type OptionError struct{ Option, Problem string }

// Error implements error.
func (e *OptionError) Error() string { return e.Option + " " + e.Problem }

// IdempotencyKey makes the message unique: another Send with the same key and
// provider, within the Client's window, returns the first receipt and queues
// nothing. Up to 255 bytes; it is never stored in the clear. An empty key is none.
func IdempotencyKey(key string) Option { return func(o *options) { o.key = key } }

// ValidFor is how long after now (or after [At]) the message may still be sent.
// Without it, [DefaultValidity]. At most [MaxValidity].
func ValidFor(d time.Duration) Option { return func(o *options) { o.validity = d } }

// InLane chooses the queue. Without it, [tasks.Interactive].
func InLane(lane tasks.Lane) Option { return func(o *options) { o.lane = lane } }

// At delays the message until t, rounded up to a whole second; at most a year.
func At(t time.Time) Option { return func(o *options) { o.at = t } }

// MaxAttempts is the message's own attempt budget, instead of the worker's.
func MaxAttempts(n int) Option { return func(o *options) { o.maxAttempts = n } }

// Campaign notes which campaign the message belongs to, in up to 128 bytes that
// everybody who looks into Redis can read.
func Campaign(id string) Option { return func(o *options) { o.campaign = id } }

// Trace carries a W3C trace context (traceparent, tracestate) to the worker; see
// package oteltrace for apps with OpenTelemetry. What is no trace context is left
// out, and so are other headers: they travel in the clear, and baggage names people.
func Trace(headers map[string]string) Option { return func(o *options) { o.trace = headers } }

// Identity is what whoever queues a message knows of it already, so that the message
// can be queued again after a crash and is still one message. Zero fields are made up
// as ever.
type Identity struct {
	// ID is the message's: up to 64 letters, digits, - and _, the first of them
	// neither of the last. A message that is queued or has ended already is left as it
	// is, while its record is kept. No two items of a batch have the same.
	ID string
	// CreatedAt is when the message was first queued; its validity counts from then.
	CreatedAt time.Time
	// ReplayOf is the message that this one takes the place of, and
	// PossibleDuplicate says that the provider may have acted on that one.
	ReplayOf          string
	PossibleDuplicate bool
}

// As gives the message an identity. Unlike others, a Send of it that failed may be
// repeated until it succeeds, and is not taken back on its own.
func As(id Identity) Option { return func(o *options) { o.identity = id } }

// problem says what is wrong with an identity, or is empty.
func (id Identity) problem(now time.Time) string {
	const name = "must be up to 64 letters, digits, - and _, the first of them a letter or a digit"
	switch {
	case id.ID != "" && !isID(id.ID):
		return "ID " + name
	case id.ReplayOf != "" && !isID(id.ReplayOf):
		return "ReplayOf " + name
	case !id.CreatedAt.IsZero() && (id.CreatedAt.UnixMilli() <= 0 || id.CreatedAt.After(now.Add(maxDelay))):
		return "CreatedAt must be after 1970 and at most a year from now"
	}
	return ""
}

// isID reports whether a message can be called so: ids are parts of Redis keys.
func isID(s string) bool {
	alphanumeric := func(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' }
	if len(s) > 64 || !alphanumeric(s[0]) {
		return false
	}
	for i := range len(s) {
		if c := s[i]; !alphanumeric(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

const (
	maxKeyLength      = 255
	maxCampaignLength = 128
	maxTraceLength    = 512 // what W3C asks everybody to pass on of a tracestate
	// maxDelay keeps a typing error in a year from keeping a record for ever.
	maxDelay = 366 * 24 * time.Hour
)

func newOptions(opts []Option, now time.Time) (options, error) {
	o := options{validity: DefaultValidity, lane: tasks.Interactive}
	for _, opt := range opts {
		opt(&o)
	}
	switch {
	case len(o.key) > maxKeyLength:
		return o, &OptionError{"idempotency key", fmt.Sprintf("is longer than %d bytes", maxKeyLength)}
	case o.validity <= 0 || o.validity > MaxValidity:
		return o, &OptionError{"validity", fmt.Sprintf("must be more than 0 and at most %s, not %s", MaxValidity, o.validity)}
	case !o.lane.Valid():
		return o, &OptionError{"lane", fmt.Sprintf("must be %s or %s, not %q", tasks.Interactive, tasks.Bulk, o.lane)}
	case o.maxAttempts < 0:
		return o, &OptionError{"max attempts", fmt.Sprintf("must not be negative, not %d", o.maxAttempts)}
	case o.identity.ID != "" && o.key != "":
		return o, &OptionError{"identity", "and an idempotency key exclude each other"}
	case o.identity.problem(now) != "":
		return o, &OptionError{"identity", o.identity.problem(now)}
	case o.at.After(now.Add(maxDelay)):
		return o, &OptionError{"time", "must be at most a year from now"}
	case len(o.campaign) > maxCampaignLength:
		return o, &OptionError{"campaign", fmt.Sprintf("is longer than %d bytes", maxCampaignLength)}
	case !utf8.ValidString(o.campaign) || strings.ContainsFunc(o.campaign, unicode.IsControl):
		// The payload's seal covers the campaign; JSON would change these.
		return o, &OptionError{"campaign", "must be UTF-8 without control characters"}
	}
	o.trace = traceContext(o.trace)
	if !o.at.IsZero() {
		// The queue keeps due times in whole seconds, rounded down: a second
		// more, or the message would go out early.
		o.at = o.at.Add(time.Second - time.Nanosecond).Truncate(time.Second)
	}
	return o, nil
}

// traceContext picks the trace context out of headers. What is malformed is left
// out as well: a code is worth more than its trace. There is no tracestate without
// a traceparent.
func traceContext(headers map[string]string) map[string]string {
	var out map[string]string
	for name, value := range headers {
		name = strings.ToLower(name)
		if name == "traceparent" && isTraceparent(value) || name == "tracestate" && len(value) <= maxTraceLength && utf8.ValidString(value) {
			if out == nil {
				out = map[string]string{}
			}
			out[name] = value
		}
	}
	if out["traceparent"] == "" {
		return nil
	}
	return out
}

// isTraceparent reports whether s is version, trace, parent and flags in small
// hexadecimal digits, and a later version's additions, if any, no more than those.
// It is readable in Redis, so a text of another kind must not pass for it.
func isTraceparent(s string) bool {
	const form = "00-00000000000000000000000000000000-0000000000000000-00"
	if len(s) < len(form) || len(s) > maxTraceLength || len(s) > len(form) && (s[:2] == "00" || s[len(form)] != '-') {
		return false
	}
	for i := range len(s) {
		hex := '0' <= s[i] && s[i] <= '9' || 'a' <= s[i] && s[i] <= 'f'
		if dash := i < len(form) && form[i] == '-'; dash != (s[i] == '-') && i < len(form) || !hex && s[i] != '-' {
			return false
		}
	}
	return true
}

// notAfter is the deadline of a message that is made now.
func (o options) notAfter(now time.Time) time.Time {
	if o.at.After(now) {
		return o.at.Add(o.validity)
	}
	return now.Add(o.validity)
}

// newItem makes the message for a request, ready for Redis. It fails with
// [providers.FieldErrors] when the request is not valid.
func (c *Client) newItem(r providers.Request, o options, now time.Time) (*item, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	body, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("%s request cannot be encoded as JSON", r.ProviderName())
	}
	id := o.identity
	if id.ID == "" {
		id.ID = tasks.NewID()
	}
	if !id.CreatedAt.IsZero() {
		now = id.CreatedAt
	}
	now = now.UTC().Truncate(time.Millisecond)
	it := &item{
		m: tasks.Message{
			ID: id.ID, Provider: r.ProviderName(), Lane: o.lane,
			Request: body, IdempotencyKey: o.key,
			CreatedAt: now, NotAfter: o.notAfter(now),
			MaxAttempts: o.maxAttempts, Campaign: o.campaign, ReplayOf: id.ReplayOf, Trace: o.trace,
		},
		recipient: r.MaskedRecipient(), who: c.keys.RecipientPrint(r.ProviderName(), r.Recipient()), at: o.at, duplicate: id.PossibleDuplicate, kept: o.identity.ID != "",
	}
	if o.key != "" {
		it.keys = c.idempotencyKeys(it.m.Provider, o.key)
		it.own = it.reservation(true).String()
	}
	return it, c.encode(it)
}
