package providertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/secret"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/internal/strictjson"
	"github.com/otpq/otpq/providers/internal/vendorhttp"
)

// toy is a provider that keeps the contract until flaw breaks it.
type toy struct {
	client   *vendorhttp.Client
	settings providers.Settings
	flaw     func(ctx context.Context, t *toy, r toyRequest) (providers.Outcome, bool)
	classify func(vendorhttp.Reply) providers.Outcome
}

type toyRequest struct {
	To string `json:"to"`
}

func (toyRequest) ProviderName() string      { return "toy" }
func (r toyRequest) MaskedRecipient() string { return "***" }
func (r toyRequest) Recipient() string       { return r.To }
func (r toyRequest) Personal() []string {
	return slices.DeleteFunc([]string{r.To}, func(s string) bool { return s == "" })
}
func (r toyRequest) Validate() error {
	var errs providers.FieldErrors
	if r.To == "" {
		errs.Add("to", "is required")
	}
	return errs.OrNil()
}

func (t *toy) Send(ctx context.Context, r providers.Request) providers.Outcome {
	req, ok := r.(toyRequest)
	if !ok {
		return providers.Reject(providers.ReasonInvalidRequest, errors.New("want a toy request"))
	}
	if t.flaw != nil {
		if out, ok := t.flaw(ctx, t, req); ok {
			return out
		}
	}
	if err := req.Validate(); err != nil {
		return providers.Reject(providers.ReasonInvalidRequest, err)
	}
	return t.post(ctx, req)
}

func (t *toy) post(ctx context.Context, r toyRequest) providers.Outcome {
	body, _ := json.Marshal(r) // one string
	return t.client.Post(ctx, vendorhttp.Call{Path: "/send/" + r.To, Body: body, Personal: r.Personal(), Classify: t.classify})
}

func toyClassify(r vendorhttp.Reply) providers.Outcome {
	if r.Status == http.StatusOK {
		if reply, err := strictjson.Object(r.Body); err == nil && string(reply["ok"]) == "true" {
			return providers.AcceptedFor(0)
		}
	}
	return r.Undocumented()
}

func toyDefinition(change func(*toy)) providers.Definition {
	d := providers.Definition{
		Name:       "toy",
		NeedsToken: true,
		Example:    toyRequest{To: "5531999990042"},
		Decode:     strictjson.Request[toyRequest],
		Lookup: providers.Lookup{Hint: "number", Recipients: func(text string) []string {
			return slices.DeleteFunc([]string{strings.TrimSpace(text)}, func(to string) bool { return to == "" })
		}},
		Sandbox: func() http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"ok":true}`) })
		},
	}
	d.New = func(s providers.Settings) (providers.Provider, error) {
		if s.Format != "" {
			return nil, errors.New("toy: no format")
		}
		client, err := vendorhttp.New(d, s)
		t := &toy{client: client, settings: s, classify: toyClassify}
		if change != nil {
			change(t)
		}
		return t, err
	}
	return d
}

var toyAccepted = answer("200 OK", "application/json", `{"ok":true}`)

// broken runs rules against a provider and returns the names of those it breaks.
func broken(t *testing.T, d providers.Definition, rules []rule) []string {
	t.Helper()
	quiet(t)
	var names []string
	for _, r := range rules {
		k := &kit{Harness: Harness{Definition: d}, accepted: toyAccepted, dir: t.TempDir(), soon: time.Second}
		if err := r.check(k); err != nil {
			t.Logf("%s: %.300v", r.name, err)
			names = append(names, r.name)
		}
	}
	return names
}

func TestASoundProviderKeepsEveryRule(t *testing.T) {
	if got := broken(t, toyDefinition(nil), rules); len(got) > 0 {
		t.Errorf("broken rules: %q", got)
	}
}

// naive is a client as it is often written.
func naive(ctx context.Context, t *toy, r toyRequest) (providers.Outcome, bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.settings.BaseURL+"/send/"+r.To, strings.NewReader(r.To))
	if err != nil {
		return providers.Retry(providers.ReasonConnection, 0, err), true
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return providers.Retry(providers.ReasonConnection, 0, err), true
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return providers.Retry(providers.ReasonConnection, 0, err), true
	}
	t.settings.Log.Debug().Bytes("reply", body).Msg("")
	if resp.StatusCode == http.StatusOK {
		return providers.AcceptedFor(0), true
	}
	return providers.Outcome{Kind: providers.Rejected, Reason: providers.ReasonInvalidRequest, HTTPStatus: resp.StatusCode, Err: fmt.Errorf("%s", body)}, true
}

// withTransport is a client that reads every reply to its end, over connections of
// net/http's own.
func withTransport(transport *http.Transport) func(context.Context, *toy, toyRequest) (providers.Outcome, bool) {
	return func(ctx context.Context, t *toy, r toyRequest) (providers.Outcome, bool) {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.settings.BaseURL+"/send", strings.NewReader("x"))
		if err != nil {
			return providers.Retry(providers.ReasonConnection, 0, err), true
		}
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return providers.Unknown(providers.ReasonConnectionLost, errors.New("lost")), true
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return providers.Unknown(providers.ReasonConnectionLost, errors.New("lost")), true
		}
		return t.classify(vendorhttp.Reply{Status: resp.StatusCode, Header: resp.Header, Body: body}), true
	}
}

func TestEachFlawBreaksItsRule(t *testing.T) {
	for name, c := range map[string]struct {
		flaw   func(*toy)
		broken []string
	}{
		"a naive client": {
			func(t *toy) { t.flaw = naive },
			[]string{
				"a refused connection is a retry, since nothing left", // its error holds the URL
				"a reply that is lost is ambiguous",
				"a reply that is no HTTP is ambiguous",
				"a connection cut while the request leaves is ambiguous",
				"a reply whose length is wrong means what arrived of it",
				"a vendor that says nothing more yields to the context",
				"a reply that drips yields to the context",
				"what does not say success is never accepted",
				"a redirect is never followed, nor a loop of them",
				"a status that the page does not list has one meaning",
				"Retry-After is obeyed as seconds and as a date",
				"a vendor that echoes the request leaks nothing",
				"an unfit request is rejected without a request",
				"refused credentials are not the message's fault",
				"a token file is read again when it changes",
			},
		},
		"a client that tries again": {
			func(t *toy) {
				t.flaw = func(ctx context.Context, t *toy, r toyRequest) (providers.Outcome, bool) {
					out := t.post(ctx, r)
					if out.Kind == providers.RetryLater {
						out = t.post(ctx, r)
					}
					return out, true
				}
			},
			[]string{
				"an unfit request is rejected without a request",
				"a status that the page does not list has one meaning",
				"refused credentials are not the message's fault",
			},
		},
		"a client that is deaf to its context": {
			func(t *toy) {
				t.flaw = func(ctx context.Context, t *toy, r toyRequest) (providers.Outcome, bool) {
					return t.post(context.WithoutCancel(ctx), r), true
				}
			},
			[]string{
				"a TLS handshake that fails is a retry, since nothing left",
				"a vendor that says nothing more yields to the context",
				"a reply that drips yields to the context",
				"a reply that comes too late answers nobody",
				"a context that has ended makes no request",
			},
		},
		"a client that takes any 2xx": {
			func(t *toy) {
				t.classify = func(r vendorhttp.Reply) providers.Outcome {
					if r.Status/100 == 2 {
						return providers.AcceptedFor(0)
					}
					return r.Undocumented()
				}
			},
			[]string{"what does not say success is never accepted", "a success with another 2xx status is not accepted"},
		},
		"a client of net/http's own connections": {
			func(t *toy) { t.flaw = withTransport(&http.Transport{}) },
			[]string{"what a reply leaves behind answers nobody"},
		},
		"a client that follows redirects": {
			func(t *toy) {
				t.flaw = func(ctx context.Context, t *toy, r toyRequest) (providers.Outcome, bool) {
					out := t.post(ctx, r)
					for out.Reason == providers.ReasonRedirect && out.Kind == providers.RetryLater {
						if out = t.post(ctx, r); ctx.Err() != nil {
							break
						}
					}
					return out, true
				}
			},
			[]string{"a redirect is never followed, nor a loop of them"},
		},
		"a client that takes no connection for a lost one": {
			func(t *toy) {
				t.flaw = func(ctx context.Context, t *toy, r toyRequest) (providers.Outcome, bool) {
					out := t.post(ctx, r)
					if out.Reason == providers.ReasonConnection {
						out.Kind, out.Reason = providers.Ambiguous, providers.ReasonConnectionLost
					}
					return out, true
				}
			},
			[]string{"a refused connection is a retry, since nothing left", "a TLS handshake that fails is a retry, since nothing left"},
		},
		"a client that takes a lost connection for none": {
			func(t *toy) {
				t.flaw = func(ctx context.Context, t *toy, r toyRequest) (providers.Outcome, bool) {
					out := t.post(ctx, r)
					if out.Reason == providers.ReasonConnectionLost {
						out.Kind, out.Reason = providers.RetryLater, providers.ReasonConnection
					}
					return out, true
				}
			},
			[]string{
				"a connection cut while the request leaves is ambiguous",
				"a reply that is lost is ambiguous",
				"a reply that is no HTTP is ambiguous",
				"a reply whose length is wrong means what arrived of it",
				"a reply without end is bounded and not accepted",
			},
		},
		"a client that reads all there is": {
			func(t *toy) { t.flaw = withTransport(&http.Transport{DisableKeepAlives: true}) },
			[]string{"a reply without end is bounded and not accepted"},
		},
		"a client that doubles every request": {
			func(t *toy) {
				t.flaw = func(ctx context.Context, t *toy, r toyRequest) (providers.Outcome, bool) {
					if r.To == "" {
						return providers.Outcome{}, false
					}
					t.post(ctx, r)
					return providers.Outcome{}, false
				}
			},
			[]string{"twenty sends at once make twenty requests", "a connection that dies idle costs no second request"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			tried := slices.DeleteFunc(slices.Clone(rules), func(r rule) bool { return !slices.Contains(c.broken, r.name) })
			// Some flaws are races, which are lost now and then only.
			for range 20 {
				got := broken(t, toyDefinition(c.flaw), tried)
				tried = slices.DeleteFunc(tried, func(r rule) bool { return slices.Contains(got, r.name) })
				if len(tried) == 0 {
					break
				}
			}
			for _, r := range tried {
				t.Errorf("%s does not break the rule %q", name, r.name)
			}
		})
	}
}

func TestDefinitionsAreLookedThrough(t *testing.T) {
	for name, change := range map[string]func(*providers.Definition){
		"no name":    func(d *providers.Definition) { d.Name = "" },
		"no sandbox": func(d *providers.Definition) { d.Sandbox = nil },
		"a host without TLS": func(d *providers.Definition) {
			d.Environments, d.DefaultEnvironment = map[string]string{"a": "http://a"}, "a"
		},
		"no default":         func(d *providers.Definition) { d.Environments = map[string]string{"a": "https://a"} },
		"an invalid example": func(d *providers.Definition) { d.Example = toyRequest{} },
		"a decoder that loses": func(d *providers.Definition) {
			d.Decode = func([]byte) (providers.Request, error) { return toyRequest{}, nil }
		},
	} {
		d := toyDefinition(nil)
		change(&d)
		if definition(&kit{Harness: Harness{Definition: d}}) == nil {
			t.Errorf("%s: the rule finds nothing", name)
		}
	}
}

// knownAs is a toy's request with another way to tell whom it is for.
type knownAs struct {
	toyRequest
	recipient func(to string) string
}

func (r knownAs) Recipient() string { return r.recipient(r.To) }

func TestRecipientsAreLookedThrough(t *testing.T) {
	calls := 0
	for name, c := range map[string]struct {
		recipient func(to string) string
		decode    func(data []byte) error // fails first
		lookup    *providers.Lookup
		want      string
	}{
		"sound":                  {recipient: strings.ToLower},
		"empty":                  {recipient: func(string) string { return "" }, want: "of the example is empty"},
		"blank":                  {recipient: func(string) string { return " " }, want: "of the example is empty"},
		"the same for everybody": {recipient: func(string) string { return "somebody" }, want: "the same for another person"},
		"another one each time":  {recipient: func(to string) string { calls++; return fmt.Sprint(to, calls) }, want: "not the same each time"},
		"shown by an error": {
			recipient: func(to string) string { return to },
			decode: func(data []byte) error {
				if bytes.Contains(data, []byte("u0001")) {
					return fmt.Errorf("cannot send to %s", data)
				}
				return nil
			},
			want: "shows Recipient()",
		},
		"empty for what is valid": {
			recipient: func(to string) string {
				if len(to) > 1000 {
					return ""
				}
				return to
			},
			want: "empty for what is valid",
		},
		"not to be looked up": {recipient: strings.ToLower, lookup: &providers.Lookup{Hint: "number"}, want: "Lookup is not whole"},
		"looked up without a word": {
			recipient: strings.ToLower, want: "Lookup is not whole",
			lookup: &providers.Lookup{Recipients: func(text string) []string { return strings.Fields(text) }},
		},
		"looked up as it is": {
			recipient: strings.ToLower, want: "with spaces around it",
			lookup: &providers.Lookup{Hint: "number", Recipients: func(text string) []string {
				return slices.DeleteFunc([]string{text}, func(s string) bool { return s == " " })
			}},
		},
		"found for nothing": {
			recipient: strings.ToLower, want: "somebody for nothing",
			lookup: &providers.Lookup{Hint: "number", Recipients: func(text string) []string { return []string{strings.TrimSpace(text)} }},
		},
	} {
		d := toyDefinition(nil)
		d.Example = knownAs{toyRequest{To: "5531999990042"}, c.recipient}
		if c.lookup != nil {
			d.Lookup = *c.lookup
		}
		decode := d.Decode
		d.Decode = func(data []byte) (providers.Request, error) {
			if c.decode != nil {
				if err := c.decode(data); err != nil {
					return nil, err
				}
			}
			r, err := decode(data)
			if err != nil {
				return nil, err
			}
			return knownAs{r.(toyRequest), c.recipient}, nil
		}
		err := recipient(&kit{Harness: Harness{Definition: d}})
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: the rule says %v, want %q", name, err, c.want)
		}
	}
}

const toyExchange = `What the vendor says when all is well.
-- outcome --
accepted
-- response --
HTTP/1.1 200 OK
Content-Type: application/json

{"ok": true}
`

func TestExchangesArePlayedAndUpdated(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ok.txt")
	if err := os.WriteFile(path, []byte(toyExchange), 0o600); err != nil {
		t.Fatal(err)
	}
	k := &kit{Harness: Harness{Definition: toyDefinition(nil)}, soon: 5 * time.Second}
	play := func(update bool) error {
		t.Helper()
		xs, err := readExchanges(dir)
		if err != nil {
			t.Fatal(err)
		}
		return k.exchange(xs[0], update)
	}
	if err := play(false); err == nil || !strings.Contains(err.Error(), "-update") {
		t.Errorf("an exchange without its request: %v, want a word on -update", err)
	}
	if err := play(true); err != nil {
		t.Errorf("updating an exchange: %v", err)
	}
	if err := play(false); err != nil {
		t.Errorf("an exchange that was updated: %v", err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const request = "-- request --\nPOST /send/5531999990042\nAuthorization: Bearer TOKEN\nContent-Length: 22\nUser-Agent: otpq\n\n{\"to\":\"5531999990042\"}\n"
	if diff := cmp.Diff(toyExchange+request, string(data)); diff != "" {
		t.Errorf("the updated file (-want +got):\n%s", diff)
	}
	// A reply that means something else, and a request that is another one.
	for old, new := range map[string]string{`{"ok": true}`: `{"ok": false}`, "otpq": "curl"} {
		if err := os.WriteFile(path, bytes.Replace(data, []byte(old), []byte(new), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		if play(false) == nil {
			t.Errorf("an exchange with %s for %s is taken", new, old)
		}
	}
}

func TestExchangesThatSayNothingAreRefused(t *testing.T) {
	for name, change := range map[string][2]string{
		"no words":           {"What the vendor says when all is well.\n", ""},
		"no outcome":         {"-- outcome --\naccepted\n", ""},
		"an unknown kind":    {"accepted", "sent"},
		"an empty outcome":   {"accepted", ""},
		"no reason":          {"accepted", "rejected"},
		"a bad duration":     {"accepted", "accepted soon"},
		"too many words":     {"accepted", "retry_later rate_limited 30s more"},
		"no response":        {"-- response --", "-- request --"},
		"no status line":     {"HTTP/1.1 200 OK", "200 OK"},
		"no status":          {"HTTP/1.1 200 OK", "HTTP/1.1 "},
		"an unknown section": {"-- response --", "-- reply --"},
	} {
		in := strings.Replace(toyExchange, change[0], change[1], 1)
		if _, err := parseExchange([]byte(in)); err == nil {
			t.Errorf("%s: parseExchange() takes it:\n%s", name, in)
		}
	}
	if _, err := readExchanges(t.TempDir()); err == nil {
		t.Error("readExchanges() of an empty folder is no error")
	}
}

func TestParseOutcome(t *testing.T) {
	for line, want := range map[string]providers.Outcome{
		"accepted":                     {Kind: providers.Accepted},
		"accepted 5m":                  {Kind: providers.Accepted, ExpiresIn: 5 * time.Minute},
		"retry_later rate_limited 30s": {Kind: providers.RetryLater, Reason: providers.ReasonRateLimited, RetryAfter: 30 * time.Second},
		"ambiguous timeout":            {Kind: providers.Ambiguous, Reason: providers.ReasonTimeout},
		"rejected invalid_request":     {Kind: providers.Rejected, Reason: providers.ReasonInvalidRequest},
	} {
		got, err := parseOutcome(line)
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("parseOutcome(%q) = %v (-want +got):\n%s", line, err, diff)
		}
	}
}

func TestLeaksAreFound(t *testing.T) {
	r := toyRequest{To: "Maria"}
	clean := providers.Outcome{Kind: providers.Rejected, Err: errors.New("x")}
	if err := leaks(r, clean, new(logs)); err != nil {
		t.Errorf("leaks() of nothing = %v", err)
	}
	log := new(logs)
	fmt.Fprint(log, "MARIA")
	known := knownAs{toyRequest{To: "Maria"}, func(string) string { return "who-17" }}
	for name, err := range map[string]error{
		"a recipient":   leaks(known, providers.Outcome{Err: errors.New("for who-17")}, new(logs)),
		"an error":      leaks(r, providers.Outcome{Err: fmt.Errorf("for %w", errors.New("maria"))}, new(logs)),
		"a reference":   leaks(r, providers.Outcome{Reference: "maria-1"}, new(logs)),
		"a log line":    leaks(r, clean, log),
		"the token":     leaks(nil, providers.Outcome{Err: errors.New(token)}, new(logs)),
		"a bare secret": leaks(nil, providers.Outcome{Reference: secret.Text(token).Reveal()}, new(logs)),
	} {
		if err == nil {
			t.Errorf("%s: leaks() finds nothing", name)
		}
	}
}
