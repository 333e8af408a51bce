// Package medsenior asks MedSênior's integration API to send a confirmation code
// ("Enviar código confirmação") to a contact of a beneficiary. It does not get
// the contacts, the first-access flag or the token: other endpoints do.
package medsenior

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"net/http"
	"net/url"
	"time"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/internal/strictjson"
	"github.com/otpq/otpq/providers/internal/vendorhttp"
)

// Name is the provider's name in configuration, queues and metrics.
const Name = "medsenior"

// longestValidity bounds what the vendor may say of a code's life. Its page says
// five minutes; more than a day is a mistake, and is taken as "not said".
const longestValidity = 24 * time.Hour

// Definition describes the provider.
func Definition() providers.Definition {
	return providers.Definition{
		Name: Name,
		Environments: map[string]string{
			"homologacao": "https://integracao.hml.cloud.medsenior.com.br",
			"producao":    "https://integracao.medsenior.com.br",
		},
		DefaultEnvironment: "homologacao",
		NeedsToken:         true,
		Example: Request{
			EmailID:        "bed1066b-d8b5-47bc-a67f-2fd70a3c442d",
			CelularID:      "1163cc70-cdf5-4cbb-95d7-9ae7457046fc",
			CPF:            "12345678901",
			PrimeiroAcesso: new(false),
		},
		Decode:  Decode,
		New:     New,
		Lookup:  providers.Lookup{Hint: "CPF, with or without dots and hyphen", Recipients: recipients},
		Sandbox: Sandbox,
	}
}

type provider struct {
	client *vendorhttp.Client
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
	return &provider{client: client}, nil
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
		Path: "/api/v2/beneficiario/" + url.PathEscape(req.CPF) + "/codigo-confirmacao/enviar",
		Header: map[string]string{
			"Accept":       "application/json",
			"Content-Type": "application/json",
		},
		Body:     body,
		Personal: req.Personal(),
		Classify: classify,
	})
}

// classify follows the page's "Resposta de Sucesso" and "Códigos de Erro".
func classify(r vendorhttp.Reply) providers.Outcome {
	switch r.Status {
	case http.StatusOK:
		return classifyOK(r)
	case http.StatusBadRequest: // parâmetros inválidos ou ausentes
		if !r.IsHTML() {
			return r.Refused(providers.ReasonInvalidRequest)
		}
	}
	// 401 and 500 mean on the page what they mean everywhere.
	return r.Undocumented()
}

func classifyOK(r vendorhttp.Reply) providers.Outcome {
	reply, err := strictjson.Object(r.Body)
	if err != nil {
		return r.Undocumented()
	}
	switch string(reply["isSuccess"]) {
	case "true":
		return providers.AcceptedFor(validity(reply["data"]))
	case "false":
		return providers.Retry(providers.ReasonNotSent, 0, errors.New("the vendor answered isSuccess: false"))
	}
	return r.Undocumented()
}

// validity reads how long the code lives; zero when the reply does not say. A
// success is a success without it.
func validity(data json.RawMessage) time.Duration {
	fields, err := strictjson.Object(data)
	if err != nil {
		return 0
	}
	var seconds float64
	if json.Unmarshal(fields["tempoExpiracaoCodigoValidacaoEmSegundos"], &seconds) != nil ||
		seconds < 0 || seconds > longestValidity.Seconds() {
		return 0
	}
	return time.Duration(math.Round(seconds * float64(time.Second)))
}
