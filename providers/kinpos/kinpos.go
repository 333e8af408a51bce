// Package kinpos asks KinPOS's authentication API for a confirmation code before
// registration (GenerateCnfCodeNotUser), in JSON or in XML. It does not check the
// code and does not decrypt what the API returns.
package kinpos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/internal/strictjson"
	"github.com/otpq/otpq/providers/internal/vendorhttp"
)

// Name is the provider's name in configuration, queues and metrics.
const Name = "kinpos"

// The body formats that the page shows.
const (
	formatJSON = "json"
	formatXML  = "xml"
)

// Definition describes the provider. The page names no host.
func Definition() providers.Definition {
	return providers.Definition{
		Name:    Name,
		Formats: []string{formatJSON, formatXML},
		// The page's values ("sample string 1") break its own patterns. These
		// keep them and belong to nobody.
		Example: Request{
			UserTypeAltID:       "00000000-0000-0000-0000-000000000000",
			MobileNumber:        "59899000000",
			InternationalPrefix: "00598",
			EmailAddress:        "teste@example.com",
			ApplicationOS:       "ANDROID",
			Language:            "es",
		},
		Decode:  Decode,
		New:     New,
		Lookup:  providers.Lookup{Hint: "international prefix and mobile number; the e-mail address where there is no number", Recipients: recipients},
		Sandbox: Sandbox,
	}
}

type provider struct {
	client *vendorhttp.Client
	xml    bool
}

// New makes the provider.
func New(s providers.Settings) (providers.Provider, error) {
	if s.Format != "" && s.Format != formatJSON && s.Format != formatXML {
		return nil, fmt.Errorf("%s: format %q is neither %s nor %s", Name, s.Format, formatJSON, formatXML)
	}
	client, err := vendorhttp.New(Definition(), s)
	if err != nil {
		return nil, err
	}
	return &provider{client: client, xml: s.Format == formatXML}, nil
}

// Send implements [providers.Provider]. r is a [Request].
func (p *provider) Send(ctx context.Context, r providers.Request) providers.Outcome {
	req, err := vendorhttp.Take[Request](r)
	if err != nil {
		return providers.Reject(providers.ReasonInvalidRequest, err)
	}
	call := vendorhttp.Call{
		Path:     "/api/Auth/1/1/GenerateCnfCodeNotUser",
		Personal: req.Personal(),
		Classify: p.classify,
	}
	media := "application/json"
	if p.xml {
		media = "application/xml"
		call.Body = encodeXML(req)
	} else {
		body, err := json.Marshal(req)
		if err != nil {
			return providers.Reject(providers.ReasonInvalidRequest, errors.New("the request cannot be encoded"))
		}
		call.Body = body
	}
	call.Header = map[string]string{"Accept": media, "Content-Type": media}
	return p.client.Post(ctx, call)
}

// classify follows the page's "Información del Response". The page documents no
// errors; 400 and 422 are what ASP.NET, which it comes from, says of a request
// that breaks the page's table.
func (p *provider) classify(r vendorhttp.Reply) providers.Outcome {
	switch r.Status {
	case http.StatusOK:
		done, err := saysDone(r.Body)
		if err != nil && p.xml {
			done, err = saysDoneXML(r.Body)
		}
		if err == nil && done {
			return providers.AcceptedFor(0)
		}
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		if !r.IsHTML() {
			return r.Refused(providers.ReasonInvalidRequest)
		}
	}
	return r.Undocumented()
}

// saysDone reports whether a reply is a GenericResult with something in it.
func saysDone(body []byte) (bool, error) {
	result, err := strictjson.Object(body)
	if err != nil {
		return false, err
	}
	var (
		encrypted string
		response  map[string]json.RawMessage
	)
	if raw, ok := result["encryptedData"]; ok && json.Unmarshal(raw, &encrypted) != nil {
		return false, errNotResult
	}
	if raw, ok := result["response"]; ok && json.Unmarshal(raw, &response) != nil {
		return false, errNotResult
	}
	return encrypted != "" || response != nil, nil
}
