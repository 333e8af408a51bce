// Package providers says what a provider is: something that is handed one
// request for a code and reports what became of it. It is not where any
// provider is written (one folder each, below) nor where retries are decided
// (the worker's work).
package providers

import (
	"context"
	"net/http"

	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/secret"
)

// Provider hands one request to one vendor.
//
// Send makes at most one request and reports what became of it. It is safe for
// concurrent use, returns soon after ctx ends, and never retries on its own:
// retries belong to the worker, which alone knows the message's deadline.
type Provider interface {
	Send(ctx context.Context, r Request) Outcome
}

// Request is one vendor's request for a code, as that vendor's page documents
// it. Its JSON form is the page's own body. Implementations are plain structs,
// one a provider folder, named Request.
type Request interface {
	// ProviderName is the name of the provider the request is for.
	ProviderName() string
	// Validate reports everything that is wrong with the request at once, as
	// [FieldErrors]; nil when the vendor's page allows it.
	Validate() error
	// MaskedRecipient tells whom the code is for in a form that a person who
	// knows the recipient recognises and nobody else can use. Safe to store.
	MaskedRecipient() string
	// Recipient tells whom the code is for: the same text for the same person,
	// however it is written. It names that person, so it is hashed with a key
	// before it is kept or compared anywhere else. Never empty for what is valid.
	Recipient() string
	// Personal lists the values that name a person, for redaction and for
	// tests that look for them where they must not be.
	Personal() []string
}

// Definition is all that the rest of otpq knows of a provider. Each folder
// exports one; package all lists them.
type Definition struct {
	// Name is the provider's name in configuration, queues and metrics.
	Name string
	// Environments maps the environments on the vendor's page to their base
	// URLs. Empty when the page gives no host: base_url is required then.
	Environments map[string]string
	// DefaultEnvironment is used when the configuration names none.
	DefaultEnvironment string
	// NeedsToken is true when the vendor wants a bearer token.
	NeedsToken bool
	// Formats lists the body formats the vendor takes, the default first.
	// Empty when there is nothing to choose.
	Formats []string
	// Example is the page's own example request, made valid where the page's
	// sample is not: samples, smoke tests and `otpq dev` use it.
	Example Request
	// Decode reads the vendor's documented JSON. Unknown fields, wrong types
	// and missing fields are reported together as [FieldErrors].
	Decode func(data []byte) (Request, error)
	// New makes the provider. It fails when a setting cannot work.
	New func(s Settings) (Provider, error)
	// Lookup is how an operator finds somebody's messages.
	Lookup Lookup
	// Sandbox serves the vendor's API locally as its page describes it,
	// validations and documented errors included.
	Sandbox func() http.Handler
}

// Lookup turns what a person writes into recipients.
type Lookup struct {
	// Hint says in a few words what to write.
	Hint string
	// Recipients returns the [Request] Recipient of the requests for whom text means:
	// several where it can be read in several ways, none when it is nobody's.
	Recipients func(text string) []string
}

// Settings is what a provider is made from.
type Settings struct {
	// BaseURL is where the vendor's paths start: scheme, host and, behind a
	// proxy, a path.
	BaseURL string
	// Token is the bearer token; TokenFile names a file that holds it, read
	// again when it changes and after a 401. At most one of them is set.
	Token     secret.Text
	TokenFile string
	// Format is one of the Definition's Formats; empty means the first.
	Format string
	// Log takes what the vendor answered, redacted, at debug level.
	Log zerolog.Logger
}
