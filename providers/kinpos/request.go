package kinpos

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/internal/mask"
	"github.com/otpq/otpq/providers/internal/strictjson"
)

// Request asks for a confirmation code before registration: the page's
// GenerateCnfCodeNotUserRequest, in its order. Absent members are not sent, and
// an empty string is an absent one. The page calls no member required; at least
// one of MobileNumber and EmailAddress is, or the code would go nowhere.
type Request struct {
	UserTypeAltID        string            `json:"userTypeAltId,omitempty"`
	MobileNumber         string            `json:"mobileNumber,omitempty"`
	InternationalPrefix  string            `json:"internationalPrefix,omitempty"`
	EmailAddress         string            `json:"emailAddress,omitempty"`
	AuditInfo            *AuditInfo        `json:"auditInfo,omitempty"`
	RecoveryID           *int64            `json:"recoveryId,omitempty"`
	UserRegistrationID   *int64            `json:"userRegistrationId,omitempty"`
	ApplicationID        string            `json:"applicationId,omitempty"`
	ApplicationVersion   string            `json:"applicationVersion,omitempty"`
	ApplicationOS        string            `json:"applicationOS,omitempty"`
	Language             string            `json:"language,omitempty"`
	DeviceID             *int64            `json:"deviceId,omitempty"`
	DeviceAltID          string            `json:"deviceAltId,omitempty"`
	IPAddress            string            `json:"ipAddress,omitempty"`
	Latitude             string            `json:"latitude,omitempty"`
	Longitude            string            `json:"longitude,omitempty"`
	AdditionalParameters map[string]string `json:"additionalParameters,omitempty"`
}

// AuditInfo says where the request comes from: the page's RequestAuditInfo. The
// page gives its members no limits.
type AuditInfo struct {
	IPAddress   string `json:"ipAddress,omitempty"`
	Latitude    string `json:"latitude,omitempty"`
	Longitude   string `json:"longitude,omitempty"`
	CountryCode string `json:"countryCode,omitempty"`
}

// Decode reads the page's JSON.
func Decode(data []byte) (providers.Request, error) {
	return strictjson.Request[Request](data)
}

// ProviderName implements [providers.Request].
func (r Request) ProviderName() string { return Name }

// The page's patterns as .NET's RegularExpression attribute applies them: to the
// whole value, anchored or not, with \w and \d of every script, which Go's are not.
var (
	userTypePattern = regexp.MustCompile(`\A[0-9a-fA-F\-]{32,36}\z`)
	digitsPattern   = regexp.MustCompile(`\A[0-9]+\z`)
	emailPattern    = regexp.MustCompile(`\A[\p{L}\p{Mn}\p{Nd}\p{Pc}._%+-]+@[\p{L}\p{Mn}\p{Nd}\p{Pc}.-]+\.[a-zA-Z]{2,4}\z`)
	ipPattern       = regexp.MustCompile(`\A\p{Nd}{1,3}\.\p{Nd}{1,3}\.\p{Nd}{1,3}\.\p{Nd}{1,3}\z`)
)

// minPhonePart is how many digits the page wants of a prefix, and of a number.
const minPhonePart = 5

// Validate implements [providers.Request]. It enforces what the page's table
// says, internationalPrefix's minimum of 5 included, and nothing else of the
// page's prose.
func (r Request) Validate() error {
	var errs providers.FieldErrors
	for _, m := range []struct {
		field, value string
		pattern      *regexp.Regexp
		shape        string // what the pattern asks for, in words
		min, max     int
	}{
		{"userTypeAltId", r.UserTypeAltID, userTypePattern, "32 to 36 hexadecimal digits or hyphens", 0, 128},
		{"mobileNumber", r.MobileNumber, digitsPattern, "digits only", minPhonePart, 50},
		{"internationalPrefix", r.InternationalPrefix, digitsPattern, "digits only", minPhonePart, 50},
		{"emailAddress", r.EmailAddress, emailPattern, "an e-mail address whose last part has 2 to 4 letters", 0, 100},
		{"applicationId", r.ApplicationID, nil, "", 0, 0},
		{"applicationVersion", r.ApplicationVersion, nil, "", 0, 100},
		{"applicationOS", r.ApplicationOS, nil, "", 0, 100},
		{"language", r.Language, nil, "", 0, 5},
		{"deviceAltId", r.DeviceAltID, nil, "", 0, 128},
		{"ipAddress", r.IPAddress, ipPattern, "an IPv4 address", 0, 0},
		{"latitude", r.Latitude, nil, "", 0, 50},
		{"longitude", r.Longitude, nil, "", 0, 50},
	} {
		if m.value == "" || !checkText(&errs, m.field, m.value) {
			continue
		}
		if m.pattern != nil && !m.pattern.MatchString(m.value) {
			errs.Add(m.field, "must be %s", m.shape)
		}
		if n := utf16Len(m.value); n < m.min {
			errs.Add(m.field, "must have at least %d characters", m.min)
		} else if m.max > 0 && n > m.max {
			errs.Add(m.field, "must have at most %d characters", m.max)
		}
	}
	if a := r.AuditInfo; a != nil {
		checkText(&errs, "auditInfo.ipAddress", a.IPAddress)
		checkText(&errs, "auditInfo.latitude", a.Latitude)
		checkText(&errs, "auditInfo.longitude", a.Longitude)
		checkText(&errs, "auditInfo.countryCode", a.CountryCode)
	}
	for _, key := range sortedKeys(r.AdditionalParameters) {
		// Neither key nor value is repeated: both are the caller's own.
		if !checkText(&errs, "additionalParameters", key) ||
			!checkText(&errs, "additionalParameters", r.AdditionalParameters[key]) {
			break
		}
	}
	if r.MobileNumber == "" && r.EmailAddress == "" {
		errs.Add("mobileNumber", "is required unless emailAddress is given")
		errs.Add("emailAddress", "is required unless mobileNumber is given")
	}
	return errs.OrNil()
}

// checkText refuses what XML 1.0 cannot carry. It holds for JSON too: what may be
// sent must not depend on a setting of the worker.
func checkText(errs *providers.FieldErrors, field, value string) bool {
	if !utf8.ValidString(value) {
		errs.Add(field, "is not valid UTF-8")
		return false
	}
	for _, c := range value {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0xFFFE || c == 0xFFFF {
			errs.Add(field, "holds a control character, which XML cannot carry")
			return false
		}
	}
	return true
}

// utf16Len counts as .NET does: an emoji is two characters.
func utf16Len(s string) int {
	n := 0
	for _, c := range s {
		n++
		if c > 0xFFFF {
			n++
		}
	}
	return n
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// MaskedRecipient implements [providers.Request].
func (r Request) MaskedRecipient() string {
	var parts []string
	if r.MobileNumber != "" {
		parts = append(parts, mask.Digits(r.MobileNumber))
	}
	if r.EmailAddress != "" {
		parts = append(parts, mask.Email(r.EmailAddress))
	}
	return strings.Join(parts, ", ")
}

// Recipient implements [providers.Request]: the phone, or else the address.
func (r Request) Recipient() string {
	if r.MobileNumber != "" {
		return r.InternationalPrefix + " " + r.MobileNumber
	}
	return strings.ToLower(r.EmailAddress)
}

// maxPhone is how many digits a prefix and a number have together at most.
const maxPhone = 100

// recipients reads an address, or a phone: a prefix and a number however they are set
// apart, or a number alone. Where one ends and the other begins only the request knew,
// so every way to tell them apart that the page allows is one.
func recipients(text string) []string {
	text = strings.TrimSpace(text)
	if strings.Contains(text, "@") {
		return []string{Request{EmailAddress: text}.Recipient()}
	}
	phone := strings.NewReplacer("+", "", "-", "", "(", "", ")", "", ".", "", " ", "").Replace(text)
	if len(phone) < minPhonePart || len(phone) > maxPhone || !digitsPattern.MatchString(phone) {
		return nil
	}
	out := []string{Request{MobileNumber: phone}.Recipient()}
	for n := minPhonePart; n <= len(phone)-minPhonePart; n++ {
		out = append(out, Request{InternationalPrefix: phone[:n], MobileNumber: phone[n:]}.Recipient())
	}
	return out
}

// Personal implements [providers.Request]. Whose phone, where and from which
// device is personal; which application and in which language is not.
func (r Request) Personal() []string {
	values := []string{r.MobileNumber, r.EmailAddress, r.DeviceAltID, r.IPAddress, r.Latitude, r.Longitude}
	if a := r.AuditInfo; a != nil {
		values = append(values, a.IPAddress, a.Latitude, a.Longitude)
	}
	for _, key := range sortedKeys(r.AdditionalParameters) {
		values = append(values, r.AdditionalParameters[key])
	}
	for _, id := range []*int64{r.RecoveryID, r.UserRegistrationID, r.DeviceID} {
		// A shorter number names nobody, and is in every timestamp.
		if id != nil && (*id > 999 || *id < -999) {
			values = append(values, strconv.FormatInt(*id, 10))
		}
	}
	return slices.DeleteFunc(values, func(v string) bool { return v == "" })
}
