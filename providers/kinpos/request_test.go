package kinpos

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/providers"
)

// reachable is a valid request to which one field is added.
func reachable(change func(*Request)) Request {
	r := Request{MobileNumber: "59899000000"}
	change(&r)
	return r
}

func TestValidateFollowsThePagesTable(t *testing.T) {
	const (
		hex       = "must be 32 to 36 hexadecimal digits or hyphens"
		digits    = "must be digits only"
		email     = "must be an e-mail address whose last part has 2 to 4 letters"
		ip        = "must be an IPv4 address"
		five      = "must have at least 5 characters"
		controls  = "holds a control character, which XML cannot carry"
		longEmail = "must have at most 100 characters"
	)
	set := map[string]func(*Request, string){
		"userTypeAltId":         func(r *Request, v string) { r.UserTypeAltID = v },
		"mobileNumber":          func(r *Request, v string) { r.MobileNumber = v; r.EmailAddress = "a@b.co" },
		"internationalPrefix":   func(r *Request, v string) { r.InternationalPrefix = v },
		"emailAddress":          func(r *Request, v string) { r.EmailAddress = v },
		"applicationId":         func(r *Request, v string) { r.ApplicationID = v },
		"applicationVersion":    func(r *Request, v string) { r.ApplicationVersion = v },
		"applicationOS":         func(r *Request, v string) { r.ApplicationOS = v },
		"language":              func(r *Request, v string) { r.Language = v },
		"deviceAltId":           func(r *Request, v string) { r.DeviceAltID = v },
		"ipAddress":             func(r *Request, v string) { r.IPAddress = v },
		"latitude":              func(r *Request, v string) { r.Latitude = v },
		"longitude":             func(r *Request, v string) { r.Longitude = v },
		"auditInfo.ipAddress":   func(r *Request, v string) { r.AuditInfo = &AuditInfo{IPAddress: v} },
		"auditInfo.latitude":    func(r *Request, v string) { r.AuditInfo = &AuditInfo{Latitude: v} },
		"auditInfo.longitude":   func(r *Request, v string) { r.AuditInfo = &AuditInfo{Longitude: v} },
		"auditInfo.countryCode": func(r *Request, v string) { r.AuditInfo = &AuditInfo{CountryCode: v} },
		"additionalParameters":  func(r *Request, v string) { r.AdditionalParameters = map[string]string{v: v} },
	}
	n := strings.Repeat
	for _, c := range []struct {
		field, value string
		problems     []string
	}{
		{"userTypeAltId", "00000000-0000-0000-0000-000000000000", nil},
		{"userTypeAltId", n("aF", 16), nil},
		{"userTypeAltId", n("-", 32), nil},
		{"userTypeAltId", n("a", 31), []string{hex}},
		{"userTypeAltId", n("a", 37), []string{hex}},
		{"userTypeAltId", n("g", 32), []string{hex}},
		{"userTypeAltId", "{" + n("a", 32) + "}", []string{hex}},
		{"userTypeAltId", n("a", 129), []string{hex, "must have at most 128 characters"}},
		{"mobileNumber", "12345", nil},
		{"mobileNumber", n("1", 50), nil},
		{"mobileNumber", "1234", []string{five}},
		{"mobileNumber", n("1", 51), []string{"must have at most 50 characters"}},
		{"mobileNumber", "+59899000000", []string{digits}},
		{"mobileNumber", "59899000000\n", []string{digits}},
		{"mobileNumber", "٥٩٨٩٩", []string{digits}},
		{"mobileNumber", "a", []string{digits, five}},
		{"internationalPrefix", "00598", nil},
		{"internationalPrefix", "", nil},
		{"internationalPrefix", "598", []string{five}}, // what the page says, odd as it is
		{"internationalPrefix", "+0598", []string{digits}},
		{"internationalPrefix", n("0", 51), []string{"must have at most 50 characters"}},
		{"emailAddress", "a@b.co", nil},
		{"emailAddress", "José_1.%+-@münchen.example.com.br", nil},
		{"emailAddress", "a@b.info", nil},
		{"emailAddress", "a@b.museum", []string{email}},
		{"emailAddress", "a@b.c", []string{email}},
		{"emailAddress", "a@b", []string{email}},
		{"emailAddress", "a b@c.com", []string{email}},
		{"emailAddress", "Ana <a@b.co>", []string{email}},
		{"emailAddress", "a@b.co, c@d.co", []string{email}},
		{"emailAddress", "a@b.co\n", []string{email}},
		{"emailAddress", n("a", 93) + "@b.info", nil},
		{"emailAddress", n("a", 94) + "@b.info", []string{longEmail}},
		{"applicationId", n("x", 1000), nil}, // the page gives no limit
		{"applicationId", "a\x00", []string{controls}},
		{"applicationId", "a\tb\r\nc", nil}, // XML can carry these
		{"applicationVersion", n("é", 100), nil},
		{"applicationVersion", n("é", 101), []string{"must have at most 100 characters"}},
		{"applicationVersion", n("😀", 50), nil}, // two units each, as .NET counts
		{"applicationVersion", n("😀", 50) + "x", []string{"must have at most 100 characters"}},
		{"applicationVersion", "\x1b[0m", []string{controls}},
		{"applicationOS", "android", nil}, // the page asks for capitals in prose only
		{"applicationOS", n("X", 101), []string{"must have at most 100 characters"}},
		{"applicationOS", "\uffff", []string{controls}},
		{"language", "pt-BR", nil},
		{"language", "pt-BR1", []string{"must have at most 5 characters"}},
		{"language", "\x01", []string{controls}},
		{"deviceAltId", n("x", 128), nil},
		{"deviceAltId", n("x", 129), []string{"must have at most 128 characters"}},
		{"deviceAltId", "\ufffe", []string{controls}},
		{"ipAddress", "203.0.113.7", nil},
		{"ipAddress", "999.999.999.999", nil}, // the page's pattern takes it
		{"ipAddress", "٢٠٣.٠.١١٣.٧", nil},     // and .NET's \d takes these
		{"ipAddress", "203.0.113", []string{ip}},
		{"ipAddress", "1203.0.113.7", []string{ip}},
		{"ipAddress", "203.0.113.7:80", []string{ip}},
		{"ipAddress", "2001:db8::1", []string{ip}},
		{"latitude", n("1", 50), nil},
		{"latitude", n("1", 51), []string{"must have at most 50 characters"}},
		{"latitude", "\b", []string{controls}},
		{"longitude", "-56.1645", nil},
		{"longitude", n("1", 51), []string{"must have at most 50 characters"}},
		{"longitude", "\xff", []string{"is not valid UTF-8"}},
		{"auditInfo.ipAddress", "sample string 1", nil}, // no limits there
		{"auditInfo.ipAddress", "\x00", []string{controls}},
		{"auditInfo.latitude", n("1", 51), nil},
		{"auditInfo.latitude", "\x00", []string{controls}},
		{"auditInfo.longitude", n("1", 51), nil},
		{"auditInfo.longitude", "\x00", []string{controls}},
		{"auditInfo.countryCode", "UY", nil},
		{"auditInfo.countryCode", "\xff", []string{"is not valid UTF-8"}},
		{"additionalParameters", "", nil},
		{"additionalParameters", "<&>\"'", nil},
		{"additionalParameters", "\x00", []string{controls}},
		{"additionalParameters", "\xff", []string{"is not valid UTF-8"}},
	} {
		var want error
		var errs providers.FieldErrors
		for _, p := range c.problems {
			errs.Add(c.field, "%s", p)
		}
		want = errs.OrNil()
		r := reachable(func(r *Request) { set[c.field](r, c.value) })
		if diff := cmp.Diff(want, r.Validate()); diff != "" {
			t.Errorf("%s = %.60q: Validate() (-want +got):\n%s", c.field, c.value, diff)
		}
	}
}

func TestACodeMustGoSomewhere(t *testing.T) {
	want := providers.FieldErrors{
		{Field: "mobileNumber", Problem: "is required unless emailAddress is given"},
		{Field: "emailAddress", Problem: "is required unless mobileNumber is given"},
	}
	if diff := cmp.Diff(error(want), Request{ApplicationID: "a", InternationalPrefix: "00598"}.Validate()); diff != "" {
		t.Errorf("Validate() (-want +got):\n%s", diff)
	}
	if err := (Request{EmailAddress: "a@b.co"}).Validate(); err != nil {
		t.Errorf("Validate() with an address alone = %v", err)
	}
	if err := (Request{MobileNumber: "59899000000"}).Validate(); err != nil {
		t.Errorf("Validate() with a phone alone = %v", err)
	}
}

func TestDecodeNamesEveryWrongType(t *testing.T) {
	const in = `{
		"userTypeAltId": 1, "mobileNumber": 59899000000, "internationalPrefix": [], "emailAddress": {},
		"auditInfo": {"ipAddress": 1, "latitude": -34.9, "longitude": true, "countryCode": [], "ip": ""},
		"recoveryId": "5", "userRegistrationId": 6.5, "applicationId": 7, "applicationVersion": 8, "applicationOS": 9,
		"language": false, "deviceId": true, "deviceAltId": 12, "ipAddress": 13, "latitude": 14, "longitude": 15,
		"additionalParameters": {"a": 1}, "IPAddress": "x"}`
	const text, number = "must be a string", "must be a whole number of at most 64 bits"
	want := providers.FieldErrors{
		{Field: "userTypeAltId", Problem: text},
		{Field: "mobileNumber", Problem: text},
		{Field: "internationalPrefix", Problem: text},
		{Field: "emailAddress", Problem: text},
		{Field: "auditInfo.ipAddress", Problem: text},
		{Field: "auditInfo.latitude", Problem: text},
		{Field: "auditInfo.longitude", Problem: text},
		{Field: "auditInfo.countryCode", Problem: text},
		{Field: "auditInfo.ip", Problem: "is not a field of kinpos"},
		{Field: "recoveryId", Problem: number},
		{Field: "userRegistrationId", Problem: number},
		{Field: "applicationId", Problem: text},
		{Field: "applicationVersion", Problem: text},
		{Field: "applicationOS", Problem: text},
		{Field: "language", Problem: text},
		{Field: "deviceId", Problem: number},
		{Field: "deviceAltId", Problem: text},
		{Field: "ipAddress", Problem: text},
		{Field: "latitude", Problem: text},
		{Field: "longitude", Problem: text},
		{Field: "additionalParameters.a", Problem: text},
		{Field: "IPAddress", Problem: "is not a field of kinpos; did you mean ipAddress?"},
	}
	_, err := Decode([]byte(in))
	var got providers.FieldErrors
	if !errors.As(err, &got) {
		t.Fatalf("Decode() = %v, want errors by field", err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Decode() (-want +got):\n%s", diff)
	}
}

func TestMaskedRecipientAndPersonal(t *testing.T) {
	r := Request{
		MobileNumber: "59899000042", EmailAddress: "teste@example.com", DeviceAltID: "alt", IPAddress: "203.0.113.7",
		Latitude: "-34.9", Longitude: "-56.1", AuditInfo: &AuditInfo{IPAddress: "203.0.113.8", Latitude: "-35", Longitude: "-57", CountryCode: "UY"},
		AdditionalParameters: map[string]string{"b": "two", "a": "one", "c": ""}, RecoveryID: new(int64(5)), DeviceID: new(int64(70001)),
		ApplicationID: "app", Language: "es",
	}
	want := []string{
		"59899000042", "teste@example.com", "alt", "203.0.113.7", "-34.9", "-56.1",
		"203.0.113.8", "-35", "-57", "one", "two", "70001",
	}
	if diff := cmp.Diff(want, r.Personal()); diff != "" {
		t.Errorf("Personal() (-want +got):\n%s", diff)
	}
	for want, r := range map[string]Request{
		"*********42, t***@***.com": r,
		"***45":                     {MobileNumber: "12345"},
		"t***@***.com":              {EmailAddress: "teste@example.com"},
		"":                          {},
	} {
		if got := r.MaskedRecipient(); got != want {
			t.Errorf("MaskedRecipient() = %q, want %q", got, want)
		}
	}
}

func TestRecipientIsThePhoneOrElseTheAddress(t *testing.T) {
	for _, c := range []struct {
		r    Request
		want string
	}{
		{Request{MobileNumber: "99000042", InternationalPrefix: "00598"}, "00598 99000042"},
		{Request{MobileNumber: "99000042", InternationalPrefix: "00598", EmailAddress: "teste@example.com", Language: "es"}, "00598 99000042"},
		{Request{MobileNumber: "99000042"}, " 99000042"},
		{Request{MobileNumber: "99000042", InternationalPrefix: "00055"}, "00055 99000042"}, // somebody in another country
		{Request{EmailAddress: "teste@example.com"}, "teste@example.com"},
		{Request{EmailAddress: "Teste@Example.COM", InternationalPrefix: "00598"}, "teste@example.com"},
	} {
		if got := c.r.Recipient(); got != c.want {
			t.Errorf("Recipient() of %+v = %q, want %q", c.r, got, c.want)
		}
	}
}

func TestRecipientsReadsAPhoneOrAnAddress(t *testing.T) {
	for _, c := range []struct {
		text string
		r    Request
	}{
		{"00598 99000042", Request{MobileNumber: "99000042", InternationalPrefix: "00598"}},
		{"+00598 (99) 000-042", Request{MobileNumber: "99000042", InternationalPrefix: "00598"}},
		{"0059899000042", Request{MobileNumber: "99000042", InternationalPrefix: "00598"}},
		{"0059899000042", Request{MobileNumber: "000042", InternationalPrefix: "0059899"}},
		{"99000042", Request{MobileNumber: "99000042"}},
		{" 99000 ", Request{MobileNumber: "99000"}},
		{" Teste@Example.com", Request{EmailAddress: "teste@EXAMPLE.com"}},
	} {
		if got := recipients(c.text); !slices.Contains(got, c.r.Recipient()) {
			t.Errorf("recipients(%q) = %q, want %q among them", c.text, got, c.r.Recipient())
		}
	}
	for _, text := range []string{"", " ", "teste", "9900", "99000x42", strings.Repeat("9", 101), "٩٩٠٠٠٠٤٢"} {
		if got := recipients(text); got != nil {
			t.Errorf("recipients(%.20q) = %.100q, want nobody", text, got)
		}
	}
	if slices.Contains(recipients("0059899000042"), (Request{MobileNumber: "99000043", InternationalPrefix: "00598"}).Recipient()) {
		t.Error("another number is found")
	}
}

func FuzzDecode(f *testing.F) {
	example, err := json.Marshal(Definition().Example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(example)
	f.Add([]byte(`{"emailAddress":"a@b.co","auditInfo":{},"deviceId":-1,"additionalParameters":{"":"\ufffd"}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(again)
		if err != nil {
			t.Fatalf("Decode(%s) = %v, which it had taken as %s", again, err, data)
		}
		last, err := json.Marshal(back)
		if err != nil || string(last) != string(again) {
			t.Errorf("%s comes back as %s, %v", again, last, err)
		}
		if got := requestOfXML(t, encodeXML(r.(Request))); !cmp.Equal(got, onWire(r.(Request))) {
			t.Errorf("%s is another request in XML (-want +got):\n%s", again, cmp.Diff(onWire(r.(Request)), got))
		}
	})
}

// onWire is r as a reader of what was sent sees it: without empty dictionaries.
func onWire(r Request) Request {
	if len(r.AdditionalParameters) == 0 {
		r.AdditionalParameters = nil
	}
	return r
}
