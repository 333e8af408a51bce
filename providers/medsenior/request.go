package medsenior

import (
	"strings"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/internal/mask"
	"github.com/otpq/otpq/providers/internal/strictjson"
)

// maxID bounds the ids of contacts. The page's are UUIDs of 36 characters, but it
// does not say that they must be.
const maxID = 128

// Request asks for a confirmation code for one contact of a beneficiary. At
// least one of EmailID and CelularID is set; an empty one counts as absent.
type Request struct {
	// EmailID is the contact's id when it is an e-mail address.
	EmailID string `json:"emailId,omitempty"`
	// CelularID is the contact's id when it is a mobile phone.
	CelularID string `json:"celularId,omitempty"`
	// CPF is the beneficiary's: eleven digits. Check digits are left to the
	// vendor, whose own example has wrong ones.
	CPF string `json:"cpf"`
	// PrimeiroAcesso is the flag that the vendor's "validar beneficiário" gave.
	// It is required, so that "not set" is told apart from false: write
	// new(false) or new(true).
	PrimeiroAcesso *bool `json:"primeiroAcesso"`
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
	if r.EmailID == "" && r.CelularID == "" {
		errs.Add("emailId", "is required unless celularId is given")
		errs.Add("celularId", "is required unless emailId is given")
	}
	errs.CheckText("emailId", r.EmailID, maxID)
	errs.CheckText("celularId", r.CelularID, maxID)
	switch {
	case r.CPF == "":
		errs.Add("cpf", "is required")
	case !isCPF(r.CPF):
		errs.Add("cpf", "must be 11 digits, without dots or hyphen")
	}
	if r.PrimeiroAcesso == nil {
		errs.Add("primeiroAcesso", "is required: true or false")
	}
	return errs.OrNil()
}

func isCPF(text string) bool { return len(text) == 11 && strings.Trim(text, "0123456789") == "" }

// MaskedRecipient implements [providers.Request].
func (r Request) MaskedRecipient() string { return mask.Digits(r.CPF) }

// Recipient implements [providers.Request]: the beneficiary, by whichever contact.
func (r Request) Recipient() string { return r.CPF }

// recipients reads a CPF as people write it.
func recipients(text string) []string {
	cpf := strings.NewReplacer(".", "", "-", "", " ", "").Replace(strings.TrimSpace(text))
	if !isCPF(cpf) {
		return nil
	}
	return []string{Request{CPF: cpf}.Recipient()}
}

// Personal implements [providers.Request].
func (r Request) Personal() []string {
	var values []string
	for _, v := range []string{r.CPF, r.EmailID, r.CelularID} {
		if v != "" {
			values = append(values, v)
		}
	}
	return values
}
