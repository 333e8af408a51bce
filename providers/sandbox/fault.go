package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/otpq/otpq/internal/secret"
)

// Duration is a [time.Duration] that is written "200ms" in JSON and on the
// command line.
type Duration time.Duration

// String writes the duration as [time.ParseDuration] reads it.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// Fault is how a provider misbehaves. The zero Fault is a provider that works.
//
// A request meets the faults in this order: hang, fail_next, rate_limit and
// rate_limited_rate, token and unauthorized_after, error_rate, garbage_rate;
// none of them lets the provider act. Then the provider acts, if the request is
// a good one, and then come cut_rate, cut_next and latency: a slow vendor acts whether
// its client still waits or not. Latency delays every reply, faults included.
type Fault struct {
	Latency           Duration    `json:"latency,omitzero"`
	Jitter            Duration    `json:"jitter,omitzero"`
	ErrorRate         float64     `json:"error_rate,omitzero"`
	ErrorStatus       int         `json:"error_status,omitzero"`
	ErrorBody         string      `json:"error_body,omitzero"`
	FailNext          int         `json:"fail_next,omitzero"`
	Hang              bool        `json:"hang,omitzero"`
	HangRate          float64     `json:"hang_rate,omitzero"`
	HangFor           Duration    `json:"hang_for,omitzero"`
	CutRate           float64     `json:"cut_rate,omitzero"`
	CutNext           int         `json:"cut_next,omitzero"`
	GarbageRate       float64     `json:"garbage_rate,omitzero"`
	Token             secret.Text `json:"token,omitzero"`
	UnauthorizedAfter int         `json:"unauthorized_after,omitzero"`
	RateLimit         int         `json:"rate_limit,omitzero"`
	RateLimitedRate   float64     `json:"rate_limited_rate,omitzero"`
	RetryAfter        Duration    `json:"retry_after,omitzero"`
}

const (
	defaultErrorStatus = http.StatusInternalServerError
	defaultHangFor     = 5 * time.Minute // longer than any client's timeout, shorter than a night
	defaultRetryAfter  = time.Second     // the rate limit's own period
	maxDelay           = time.Hour       // beyond it a typing error is likelier than a wish
)

// knob is one fault that can be set: on the command line, over HTTP, in the help.
type knob struct {
	name  string
	about string
	set   func(f *Fault, text string) error
}

// knobs are all of them, in the order of the help. It is the only list: both
// parsers and every message come from it.
var knobs = []knob{
	{"latency", "every reply takes this long", duration(func(f *Fault) *Duration { return &f.Latency })},
	{"jitter", "and up to this much longer", duration(func(f *Fault) *Duration { return &f.Jitter })},
	{"error_rate", "this share of requests gets error_status", rate(func(f *Fault) *float64 { return &f.ErrorRate })},
	{"error_status", "the status of error_rate and fail_next (500)", status(func(f *Fault) *int { return &f.ErrorStatus })},
	{"error_body", "the body that goes with it", func(f *Fault, text string) error { f.ErrorBody = text; return nil }},
	{"fail_next", "this many requests get error_status, then no more", count(func(f *Fault) *int { return &f.FailNext })},
	{"hang", "no request is answered", boolean(func(f *Fault) *bool { return &f.Hang })},
	{"hang_rate", "this share of requests is not answered", rate(func(f *Fault) *float64 { return &f.HangRate })},
	{"hang_for", "until the connection is closed (5m)", duration(func(f *Fault) *Duration { return &f.HangFor })},
	{"cut_rate", "this share is acted on and the connection closed with no reply", rate(func(f *Fault) *float64 { return &f.CutRate })},
	{"cut_next", "this many are acted on and the connection closed with no reply, then no more", count(func(f *Fault) *int { return &f.CutNext })},
	{"garbage_rate", "this share gets an HTML page with status 200", rate(func(f *Fault) *float64 { return &f.GarbageRate })},
	{"token", "requests with another bearer token get 401", token},
	{"unauthorized_after", "after this many good requests the rest get 401, until set again", count(func(f *Fault) *int { return &f.UnauthorizedAfter })},
	{"rate_limit", "requests beyond this many in a second get 429", count(func(f *Fault) *int { return &f.RateLimit })},
	{"rate_limited_rate", "this share of requests gets 429", rate(func(f *Fault) *float64 { return &f.RateLimitedRate })},
	{"retry_after", "the Retry-After of a 429 (1s) and of error_status (none), in whole seconds", duration(func(f *Fault) *Duration { return &f.RetryAfter })},
}

// FaultUsage lists the faults with what each does, one a line, for a help text.
func FaultUsage() string {
	var b strings.Builder
	for _, k := range knobs {
		fmt.Fprintf(&b, "%-18s  %s\n", k.name, k.about)
	}
	return b.String()
}

// ParseFault reads a provider and its fault as written on a command line:
// "medsenior:latency=200ms,error_rate=0.1". "hang" alone means hang=true. An
// error_body given here can't hold a comma. Everything wrong is told at once.
func ParseFault(s string) (provider string, f Fault, err error) {
	provider, list, _ := strings.Cut(s, ":")
	provider, list = strings.TrimSpace(provider), strings.TrimSpace(list)
	if provider == "" || list == "" {
		return "", Fault{}, errors.New("a fault is written PROVIDER:NAME=VALUE,… such as medsenior:latency=200ms,error_rate=0.1")
	}
	var problems []error
	values := make(map[string]string)
	for part := range strings.SplitSeq(list, ",") {
		name, value, given := strings.Cut(part, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !given && name == "hang" {
			value = "true"
		}
		if _, twice := values[name]; twice {
			problems = append(problems, fmt.Errorf("%.40q is given twice", name))
		}
		values[name] = value
	}
	problems = append(problems, f.assign(values)...)
	if err := errors.Join(problems...); err != nil {
		return "", Fault{}, err
	}
	return provider, f, nil
}

// UnmarshalJSON replaces the fault with that of a JSON object. Unknown names
// and values that can't be are told all at once, and then nothing is changed.
func (f *Fault) UnmarshalJSON(data []byte) error {
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(data, &raw); err != nil || raw == nil {
		return errors.New(`a fault must be a JSON object such as {"latency":"200ms","error_rate":0.1}`)
	}
	values := make(map[string]string, len(raw))
	for name, v := range raw {
		// Numbers and booleans are read by the same code as those of a flag.
		values[name] = string(v)
		if v[0] == '"' {
			var text string
			if err := json.Unmarshal(v, &text); err != nil {
				return err
			}
			values[name] = text
		}
	}
	var next Fault
	if err := errors.Join(next.assign(values)...); err != nil {
		return err
	}
	*f = next
	return nil
}

// assign sets the named values and returns what is wrong, in order of name.
func (f *Fault) assign(values map[string]string) (problems []error) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		i := slices.IndexFunc(knobs, func(k knob) bool { return k.name == name })
		if i < 0 {
			problems = append(problems, fmt.Errorf("unknown fault %.40q; the faults are %s", name, knobNames()))
			continue
		}
		if err := knobs[i].set(f, values[name]); err != nil {
			problems = append(problems, fmt.Errorf("%s must be %w", name, err))
		}
	}
	return problems
}

// Validate reports whether a Fault made in Go has values that can be. Those
// from [ParseFault] and JSON have.
func (f Fault) Validate() error {
	f.Token = "" // any will do, and it would marshal redacted
	text, err := json.Marshal(f)
	if err != nil { // NaN and the infinities
		return errors.New("a rate must be a number from 0 to 1")
	}
	return new(Fault).UnmarshalJSON(text)
}

func knobNames() string {
	names := make([]string, len(knobs))
	for i, k := range knobs {
		names[i] = k.name
	}
	return strings.Join(names, ", ")
}

// The setters' errors complete the sentence "NAME must be …" and never quote
// the value, which may be a token in the wrong place.

func duration(field func(*Fault) *Duration) func(*Fault, string) error {
	return func(f *Fault, text string) error {
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 || d > maxDelay {
			return fmt.Errorf("a duration from 0s to %s, such as 200ms", maxDelay)
		}
		*field(f) = Duration(d)
		return nil
	}
}

func rate(field func(*Fault) *float64) func(*Fault, string) error {
	return func(f *Fault, text string) error {
		r, err := strconv.ParseFloat(text, 64)
		if err != nil || !(r >= 0 && r <= 1) { // false for NaN too
			return errors.New("a number from 0 to 1")
		}
		*field(f) = r
		return nil
	}
}

func count(field func(*Fault) *int) func(*Fault, string) error {
	return func(f *Fault, text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return errors.New("a whole number, 0 or more")
		}
		*field(f) = n
		return nil
	}
}

func status(field func(*Fault) *int) func(*Fault, string) error {
	return func(f *Fault, text string) error {
		n, err := strconv.Atoi(text)
		if err != nil || n < 300 || n > 599 {
			return errors.New("a status from 300 to 599")
		}
		*field(f) = n
		return nil
	}
}

func boolean(field func(*Fault) *bool) func(*Fault, string) error {
	return func(f *Fault, text string) error {
		if text != "true" && text != "false" {
			return errors.New("true or false")
		}
		*field(f) = text == "true"
		return nil
	}
}

func token(f *Fault, text string) error {
	if text == "" || text == secret.Redacted {
		return errors.New("the token itself: what is read back is redacted")
	}
	f.Token = secret.Text(text)
	return nil
}
