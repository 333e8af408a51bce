package providertest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/otpq/otpq/providers"
)

func statuses(k *kit) error {
	credentials := providers.ReasonUnexpectedStatus
	if k.Definition.NeedsToken {
		credentials = providers.ReasonCredentials
	}
	var errs []error
	for _, c := range []struct {
		status int
		kind   providers.Kind
		reason providers.Reason
	}{
		{401, providers.RetryLater, credentials},
		{403, providers.RetryLater, credentials},
		{404, providers.RetryLater, providers.ReasonUnexpectedStatus},
		{405, providers.RetryLater, providers.ReasonUnexpectedStatus},
		{413, providers.RetryLater, providers.ReasonUnexpectedStatus},
		{429, providers.RetryLater, providers.ReasonRateLimited},
		{500, providers.RetryLater, providers.ReasonProviderError},
		{501, providers.Ambiguous, providers.ReasonUnexpectedStatus},
		{502, providers.Ambiguous, providers.ReasonUnexpectedStatus},
		{503, providers.RetryLater, providers.ReasonUnavailable},
		{504, providers.Ambiguous, providers.ReasonUnexpectedStatus},
		{599, providers.Ambiguous, providers.ReasonUnexpectedStatus},
		{400, providers.RetryLater, providers.ReasonUnexpectedStatus}, // as a page for people, from a gateway
		{101, providers.Ambiguous, providers.ReasonUnexpectedStatus},
		{304, providers.Ambiguous, providers.ReasonRedirect},
		{999, providers.Ambiguous, providers.ReasonUnexpectedStatus},
	} {
		line := fmt.Sprintf("%d %s", c.status, http.StatusText(c.status))
		page := "<html><body><h1>" + line + "</h1></body></html>"
		if c.status < 200 || c.status == 304 {
			page = "" // these have no body
		}
		out, err := k.reply(answer(line, "text/html", page))
		err = errors.Join(err, expect(out, c.kind, c.reason))
		if err == nil && out.HTTPStatus != c.status {
			err = fmt.Errorf("HTTPStatus = %d", out.HTTPStatus)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("status %d: %w", c.status, err))
		}
	}
	// A body that breaks off takes nothing from a status that speaks for itself.
	out, err := k.reply([]byte("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 99\r\n\r\n{"))
	return errors.Join(append(errs, err, expect(out, providers.RetryLater, providers.ReasonProviderError))...)
}

func retryAfter(k *kit) error {
	date := time.Now().Add(40 * time.Second).UTC().Format(http.TimeFormat)
	var errs []error
	for _, c := range []struct {
		value           string
		atLeast, atMost time.Duration
	}{
		{"30", 30 * time.Second, 30 * time.Second},
		{date, 30 * time.Second, 40 * time.Second},
		{"-5", 0, 0},
		{"soon", 0, 0},
		{"Mon, 02 Jan 2006 15:04:05 GMT", 0, 0},
		{"99999999999999999999", time.Minute, 24 * time.Hour},
	} {
		for _, status := range []string{"429 Too Many Requests", "503 Service Unavailable"} {
			out, err := k.reply(answer(status, "application/json", "{}", "Retry-After: "+c.value))
			if out.Kind != providers.RetryLater || out.RetryAfter < c.atLeast || out.RetryAfter > c.atMost {
				err = errors.Join(err, fmt.Errorf("%s with Retry-After: %s: Send() = %v after %v, want retry_later after %v to %v",
					status, c.value, out.Kind, out.RetryAfter, c.atLeast, c.atMost))
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// echo lets the vendor repeat all it was sent, in the ways vendors write text,
// under every status that has its own path through a provider.
func echo(k *kit) error {
	said := append(k.Definition.Example.Personal(), token)
	var text strings.Builder
	for _, s := range said {
		asJSON, err := json.Marshal(s)
		if err != nil {
			return err
		}
		escaped := strings.ReplaceAll(string(asJSON), "@", `\u0040`)
		fmt.Fprintf(&text, "%s %s %s %s %s ", s, strings.ToUpper(s), url.QueryEscape(s), asJSON, escaped)
	}
	var errs []error
	for _, status := range []string{
		"200 OK", "400 Bad Request", "401 Unauthorized", "404 Not Found", "422 Unprocessable Entity", "500 Internal Server Error",
	} {
		v, err := startVendor(func(c net.Conn, r recorded) bool {
			message, err := json.Marshal(r.String() + text.String())
			if err != nil {
				return false
			}
			body := fmt.Appendf(nil, `{"date":%s,"message":%s,"details":[],"type":%s}`, message, message, message)
			_, _ = c.Write(answer(status, "application/json", string(body), "X-Echo: "+said[0], "Location: /"+said[0]))
			return false
		})
		if err != nil {
			return err
		}
		_, err = k.send(context.Background(), v.url)
		v.close()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", status, err))
		}
	}
	return errors.Join(errs...)
}

// stranger is a request of no provider.
type stranger struct{}

func (stranger) ProviderName() string    { return "stranger" }
func (stranger) Validate() error         { return nil }
func (stranger) MaskedRecipient() string { return "" }
func (stranger) Recipient() string       { return "" }
func (stranger) Personal() []string      { return nil }

func unfit(k *kit) error {
	v, err := startVendor(always(k.accepted))
	if err != nil {
		return err
	}
	defer v.close()
	var errs []error
	zero, _ := k.Definition.Decode([]byte("{}"))
	if zero != nil {
		errs = append(errs, errors.New("Decode({}) takes a request that asks for nothing"))
	}
	for _, r := range []providers.Request{nil, stranger{}, zeroOf(k.Definition.Example)} {
		out, err := k.sendRequest(context.Background(), v.url, r)
		errs = append(errs, err, expect(out, providers.Rejected, providers.ReasonInvalidRequest))
		if out.Err == nil {
			errs = append(errs, fmt.Errorf("a rejected %T comes without an error", r))
		}
	}
	return errors.Join(append(errs, v.expectRequests(0))...)
}

func definition(k *kit) error {
	d := k.Definition
	var errs []error
	miss := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	miss(d.Name != "" && d.Sandbox != nil && d.Decode != nil && d.Example != nil, "Name, Sandbox, Decode or Example is missing")
	if len(d.Environments) > 0 {
		miss(d.Environments[d.DefaultEnvironment] != "", "the default environment %q has no URL", d.DefaultEnvironment)
	}
	for name, base := range d.Environments {
		u, err := url.Parse(base)
		miss(err == nil && u.Scheme == "https" && u.Host != "" && u.Path == "", "environment %s: %q is not https and a host", name, base)
	}
	e := d.Example
	miss(e.ProviderName() == d.Name, "ProviderName() = %q, want %q", e.ProviderName(), d.Name)
	miss(e.Validate() == nil, "the example is invalid: %v", e.Validate())
	miss(len(e.Personal()) > 0, "Personal() is empty")
	masked := e.MaskedRecipient()
	miss(masked != "", "MaskedRecipient() is empty")
	for _, value := range e.Personal() {
		miss(!strings.Contains(masked, value), "MaskedRecipient() = %q holds a whole value", masked)
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	back, err := d.Decode(data)
	if err != nil {
		return fmt.Errorf("the example's own JSON: Decode() = %w", err)
	}
	again, err := json.Marshal(back)
	miss(err == nil && bytes.Equal(data, again), "the example comes back as %s, want %s", again, data)

	unknown := bytes.Replace(data, []byte("{"), []byte(`{"zzz":1,`), 1)
	_, err = d.Decode(unknown)
	var fields providers.FieldErrors
	miss(errors.As(err, &fields) && len(fields) == 1 && fields[0].Field == "zzz", "an unknown field: Decode() = %v", err)
	return errors.Join(errs...)
}
