// Package vendorhttp is the one HTTP client of all providers. It makes exactly
// one POST per call, decides once what a missing or broken reply means, and
// keeps whatever the vendor says out of errors. It does not know any vendor: how
// a whole reply reads is each provider's classify.
package vendorhttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"github.com/rs/zerolog"

	"github.com/otpq/otpq/providers"
)

// maxReply bounds what is read of a reply: the largest documented one is under 1 KiB.
const maxReply = 64 << 10

// Client posts to one vendor. It is safe for concurrent use.
type Client struct {
	base  string
	via   transport
	token *tokenSource // nil when the vendor wants none
	log   zerolog.Logger
}

// Call is one request.
type Call struct {
	// Path is what follows the base URL, already escaped, with a leading slash.
	Path string
	// Header holds what the vendor's page asks for; the token is added here.
	Header map[string]string
	Body   []byte
	// Personal lists what names a person, to be kept out of the log.
	Personal []string
	// Classify says what a whole reply means, [Reply.Undocumented] where the
	// page says nothing. A 2xx reply that arrived cut off or too large never
	// gets there; another status gets there without its body.
	Classify func(Reply) providers.Outcome
}

// New makes the client of a provider, or says which setting cannot work.
func New(d providers.Definition, s providers.Settings) (*Client, error) {
	base, err := baseURL(s.BaseURL)
	if err != nil {
		return nil, fmt.Errorf("%s: base_url %w", d.Name, err)
	}
	token, err := newTokenSource(d.NeedsToken, s)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.Name, err)
	}
	return &Client{
		base:  strings.TrimRight(base.String(), "/"),
		via:   newTransport(base, http.ProxyFromEnvironment),
		token: token,
		log:   s.Log.With().Str("provider", d.Name).Logger(),
	}, nil
}

// baseURL checks where a vendor's paths start. Its errors do not repeat the URL,
// which may hold a password.
func baseURL(raw string) (*url.URL, error) {
	if raw == "" {
		return nil, errors.New("is missing: set it, or an environment that has one")
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("must start with https:// or http://")
	case u.Hostname() == "":
		return nil, errors.New("has no host")
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r > unicode.MaxASCII }):
		return nil, errors.New("must name its host in ASCII, in the xn-- form of the name")
	case u.User != nil:
		return nil, errors.New("must not hold a user or password")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(raw, "#"):
		return nil, errors.New("must end with the host or a path, without ? or #")
	}
	return u, nil
}

// Take returns r as the vendor's own Request, when it is one and is valid.
func Take[R providers.Request](r providers.Request) (R, error) {
	req, ok := r.(R)
	if !ok {
		return req, fmt.Errorf("want a %T, got a %T", req, r)
	}
	return req, req.Validate()
}

// Post makes one request and says what became of it.
func (c *Client) Post(ctx context.Context, call Call) providers.Outcome {
	token, err := c.token.current()
	if err != nil {
		return providers.Retry(providers.ReasonCredentials, 0, err)
	}
	reply, failure := c.exchange(ctx, call, token)
	if failure != nil {
		return *failure
	}
	c.logReply(reply, call.Personal, token)
	out := reply.judge(ctx, call.Classify)
	out.HTTPStatus = reply.Status
	if out.Reason == providers.ReasonCredentials && c.token.renewed(token) {
		out.Reason = providers.ReasonCredentialsRenewed
	}
	return out
}

// exchange makes the request and reads the reply. Without a reply it decides the
// hard case: a request that never left is safe to make again; of one that has begun
// to leave nobody knows.
func (c *Client) exchange(ctx context.Context, call Call, token string) (Reply, *providers.Outcome) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+call.Path, bytes.NewReader(call.Body))
	if err != nil {
		failure := providers.Retry(providers.ReasonConnection, 0, errors.New("the request's URL cannot be built"))
		return Reply{}, &failure
	}
	for name, value := range call.Header {
		req.Header.Set(name, value)
	}
	req.Header.Set("User-Agent", "otpq")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}

	resp, err := c.via.RoundTrip(req) // follows no redirect: that would be a second request, or none at all
	if err != nil {
		var failure providers.Outcome
		unsent := unsentError{}
		switch {
		case errors.As(err, &unsent):
			failure = providers.Retry(providers.ReasonConnection, 0, describe("no connection", unsent.error))
		case ctx.Err() != nil:
			failure = providers.Unknown(providers.ReasonTimeout, describe("no reply in time", ctx.Err()))
		default:
			failure = providers.Unknown(providers.ReasonConnectionLost, describe("no reply", err))
		}
		return Reply{}, &failure
	}
	defer resp.Body.Close()
	return c.read(resp), nil
}

func (c *Client) read(resp *http.Response) Reply {
	r := Reply{Status: resp.StatusCode, Header: resp.Header, usesToken: c.token != nil}
	if r.Status == http.StatusSwitchingProtocols {
		return r // its body is the bare connection, which has no end
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	switch {
	case err != nil:
		r.broken = err
	case len(body) > maxReply:
		r.tooLarge = true
	default:
		r.Body = body
	}
	return r
}

func (c *Client) logReply(r Reply, personal []string, token string) {
	e := c.log.Debug()
	if !e.Enabled() {
		return // redacting costs more than sending
	}
	text := "[not read whole]"
	if r.broken == nil && !r.tooLarge {
		text = redact(string(r.Body), personal, token)
	}
	e.Int("http_status", r.Status).Str("reply", text).Msg("vendor replied")
}
