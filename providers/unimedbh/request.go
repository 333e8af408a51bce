package unimedbh

import (
	"strings"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/internal/mask"
	"github.com/otpq/otpq/providers/internal/strictjson"
)

// The page gives no limits. These keep out what cannot be meant.
const (
	maxUsername = 254 // the longest e-mail address
	maxType     = 64
)

// Request asks for a one-time password to confirm a user's identity.
type Request struct {
	// Username is the user: an e-mail address on the page, and whatever else
	// the vendor knows users by.
	Username string `json:"username"`
	// Type is the kind of confirmation. The page shows EMAIL and lists no others,
	// so it is not restricted.
	Type string `json:"type"`
}

// Decode reads the page's JSON.
func Decode(data []byte) (providers.Request, error) {
	return strictjson.Request[Request](data)
}

// ProviderName implements [providers.Request].
func (r Request) ProviderName() string { return Name }

// Validate implements [providers.Request].
func (r Request) Validate() error {
	var errs providers.FieldErrors
	check(&errs, "username", r.Username, maxUsername)
	check(&errs, "type", r.Type, maxType)
	return errs.OrNil()
}

func check(errs *providers.FieldErrors, field, value string, longest int) {
	if value == "" {
		errs.Add(field, "is required")
	}
	errs.CheckText(field, value, longest)
}

// MaskedRecipient implements [providers.Request].
func (r Request) MaskedRecipient() string { return mask.Username(r.Username) }

// Recipient implements [providers.Request]. Nobody has an address that differs from
// another's in its capitals alone.
func (r Request) Recipient() string { return strings.ToLower(strings.TrimSpace(r.Username)) }

// recipients reads a username.
func recipients(text string) []string {
	if who := (Request{Username: text}).Recipient(); who != "" {
		return []string{who}
	}
	return nil
}

// Personal implements [providers.Request].
func (r Request) Personal() []string {
	if r.Username == "" {
		return nil
	}
	return []string{r.Username}
}
