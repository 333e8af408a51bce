// Package unimedbh asks Unimed-BH's security API for a one-time password
// ("Solicitar Senha Única (OTP)"). It does not verify the password.
package unimedbh

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/internal/strictjson"
	"github.com/otpq/otpq/providers/internal/vendorhttp"
)

// Name is the provider's name in configuration, queues and metrics.
const Name = "unimedbh"

// requestedAtLayout is RFC 3339 but for its zone, which has no colon.
const requestedAtLayout = "2006-01-02T15:04:05.999999999-0700"

// Definition describes the provider.
func Definition() providers.Definition {
	return providers.Definition{
		Name: Name,
		Environments: map[string]string{
			"desenvolvimento": "https://apidsv.unimedbh.io",
			"homologacao":     "https://apihml.unimedbh.io",
			"producao":        "https://api.unimedbh.io",
		},
		DefaultEnvironment: "homologacao",
		Example:            Request{Username: "teste@gmail.com", Type: "EMAIL"},
		Decode:             Decode,
		New:                New,
		Lookup:             providers.Lookup{Hint: "user name, such as an e-mail address", Recipients: recipients},
		Sandbox:            Sandbox,
	}
}

type provider struct {
	client *vendorhttp.Client
	log    zerolog.Logger
}

// New makes the provider.
func New(s providers.Settings) (providers.Provider, error) {
	if s.Format != "" {
		return nil, errors.New(Name + ": takes JSON only: remove format")
	}
	client, err := vendorhttp.New(Definition(), s)
	if err != nil {
		return nil, err
	}
	return &provider{client: client, log: s.Log.With().Str("provider", Name).Logger()}, nil
}

// Send implements [providers.Provider]. r is a [Request].
func (p *provider) Send(ctx context.Context, r providers.Request) providers.Outcome {
	req, err := vendorhttp.Take[Request](r)
	if err != nil {
		return providers.Reject(providers.ReasonInvalidRequest, err)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return providers.Reject(providers.ReasonInvalidRequest, errors.New("the request cannot be encoded"))
	}
	return p.client.Post(ctx, vendorhttp.Call{
		Path:     "/security/v1/otp/request",
		Header:   map[string]string{"Content-Type": "application/json"},
		Body:     body,
		Personal: req.Personal(),
		Classify: p.classify,
	})
}

// classify follows the page's "Respostas da requisição".
func (p *provider) classify(r vendorhttp.Reply) providers.Outcome {
	switch r.Status {
	case http.StatusOK:
		return p.classifyOK(r)
	case http.StatusBadRequest: // dados inválidos
		if isRefusal(r.Body) {
			return r.Refused(providers.ReasonInvalidRequest)
		}
	case http.StatusNotFound: // dados não encontrados
		if isRefusal(r.Body) {
			return r.Refused(providers.ReasonRecipientUnknown)
		}
	}
	return r.Undocumented()
}

func (p *provider) classifyOK(r vendorhttp.Reply) providers.Outcome {
	reply, err := strictjson.Object(r.Body)
	if err != nil {
		return r.Undocumented()
	}
	switch string(reply["sended"]) {
	case "true":
		if e := p.log.Debug(); e.Enabled() {
			if at, ok := requestedAt(reply["requestedAt"]); ok {
				e.Time("requested_at", at).Msg("vendor took the request")
			}
		}
		return providers.AcceptedFor(0)
	case "false":
		return providers.Retry(providers.ReasonNotSent, 0, errors.New("the vendor answered sended: false"))
	}
	return r.Undocumented()
}

// isRefusal reports whether body is the JSON in which the vendor refuses. A 404
// with any other body speaks of a wrong base URL, not of a person, and a 400 with
// any other comes from a gateway: neither may reject a message.
func isRefusal(body []byte) bool {
	reply, err := strictjson.Object(body)
	if err != nil {
		return false
	}
	var (
		date, message *string
		details       []json.RawMessage
	)
	return json.Unmarshal(reply["date"], &date) == nil && date != nil &&
		json.Unmarshal(reply["message"], &message) == nil && message != nil &&
		json.Unmarshal(reply["details"], &details) == nil
}

// requestedAt reads when the vendor says it was asked. It is for the log: a reply
// that says it in another way is no less a success.
func requestedAt(raw json.RawMessage) (time.Time, bool) {
	var text string
	if json.Unmarshal(raw, &text) != nil {
		return time.Time{}, false
	}
	at, err := time.Parse(requestedAtLayout, text)
	return at, err == nil
}
