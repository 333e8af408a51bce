package kinpos

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const sandboxTestJSON = `{
  "userTypeAltId": "0f8fad5b-d9cb-469f-a165-70867728950e",
  "mobileNumber": "59171234567",
  "internationalPrefix": "00591",
  "emailAddress": "ana.perez@example.com",
  "auditInfo": {"ipAddress": "203.0.113.7", "latitude": "-16.5", "longitude": "-68.15", "countryCode": "BO"},
  "recoveryId": 5,
  "userRegistrationId": 6,
  "applicationId": "app",
  "applicationVersion": "1.0",
  "applicationOS": "ANDROID",
  "language": "es",
  "deviceId": 11,
  "deviceAltId": "d",
  "ipAddress": "203.0.113.7",
  "latitude": "-16.5",
  "longitude": "-68.15",
  "additionalParameters": {"a": "b"}
}`

// sandboxTestXML wraps members as the page does.
func sandboxTestXML(members string) string {
	return `<GenerateCnfCodeNotUserRequest xmlns:i="http://www.w3.org/2001/XMLSchema-instance"` +
		` xmlns="http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Requests">` + members + `</GenerateCnfCodeNotUserRequest>`
}

func sandboxDo(method, contentType, accept, body string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/api/Auth/1/1/GenerateCnfCodeNotUser", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	Sandbox().ServeHTTP(w, r)
	return w
}

// sandboxWrong returns the members that a 400 names, sorted; none for a 200.
func sandboxWrong(t *testing.T, w *httptest.ResponseRecorder) []string {
	t.Helper()
	if w.Code == http.StatusOK {
		return []string{}
	}
	var got struct {
		Message    string
		ModelState map[string][]string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || w.Code != http.StatusBadRequest || got.Message != "The request is invalid." {
		t.Fatalf("status %d, body %s, want ASP.NET's 400", w.Code, w.Body)
	}
	names := make([]string, 0, len(got.ModelState))
	for name := range got.ModelState {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func sandboxTestPage(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile("testdata/sandbox/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSandboxReadsThePagesSamplesAlike(t *testing.T) {
	wrong := sandboxModelState{}
	fromJSON := sandboxDecodeJSON([]byte(sandboxTestPage(t, "page.json")), wrong)
	fromXML := sandboxDecodeXML([]byte(sandboxTestPage(t, "page.xml")), wrong)
	if len(wrong) > 0 {
		t.Fatalf("the page's samples can't be read: %v", wrong)
	}
	if diff := cmp.Diff(fromJSON, fromXML, cmp.AllowUnexported(sandboxRequest{})); diff != "" {
		t.Errorf("the page's two samples differ (-json +xml):\n%s", diff)
	}
	if got, want := len(fromXML.text)+len(fromXML.integer)+2, len(sandboxMembers); got != want {
		t.Errorf("%d members were read, want all %d", got, want)
	}
	if len(fromXML.audit) != 4 || len(fromXML.dictionary) != 2 {
		t.Errorf("auditInfo %v and additionalParameters %v, want all of them", fromXML.audit, fromXML.dictionary)
	}
}

// The samples' "sample string 1" breaks the page's own patterns and lengths.
func TestSandboxRefusesThePagesSamplesForTheirValues(t *testing.T) {
	want := []string{
		"request.emailAddress", "request.internationalPrefix", "request.ipAddress",
		"request.language", "request.mobileNumber", "request.userTypeAltId",
	}
	for contentType, file := range map[string]string{
		"application/json": "page.json", "text/json": "page.json",
		"application/xml": "page.xml", "text/xml; charset=utf-8": "page.xml",
	} {
		if diff := cmp.Diff(want, sandboxWrong(t, sandboxDo(http.MethodPost, contentType, "", sandboxTestPage(t, file)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", contentType, diff)
		}
	}
}

func TestSandboxChecksEveryRuleOfThePage(t *testing.T) {
	x := func(n int) string { return strings.Repeat("x", n) }
	d := func(n int) string { return strings.Repeat("1", n) }
	for _, c := range []struct {
		name   string
		member string
		value  any
		ok     bool
	}{
		{"32 hexadecimal digits", "userTypeAltId", strings.Repeat("aF", 16), true},
		{"31 are too few", "userTypeAltId", strings.Repeat("a", 31), false},
		{"37 are too many", "userTypeAltId", strings.Repeat("a", 37), false},
		{"not hexadecimal", "userTypeAltId", strings.Repeat("g", 32), false},
		{"five digits", "mobileNumber", d(5), true},
		{"four digits", "mobileNumber", d(4), false},
		{"fifty digits", "mobileNumber", d(50), true},
		{"fifty-one digits", "mobileNumber", d(51), false},
		{"a plus sign", "mobileNumber", "+59171234567", false},
		{"a newline after the digits", "mobileNumber", "59171234567\n", false},
		{"an empty number", "mobileNumber", "", false},
		{"a number that is a number", "mobileNumber", 59171234567, false},
		{"a prefix of three digits", "internationalPrefix", "591", false},
		{"a prefix of five", "internationalPrefix", "00591", true},
		{"an address", "emailAddress", "a.b+c%d@e-f.example.com", true},
		{"an address in another script", "emailAddress", "josé@ejemplo.com", true},
		{"a top level of five letters", "emailAddress", "a@example.store", false},
		{"no top level", "emailAddress", "a@example", false},
		{"something around the address", "emailAddress", "<a@example.com>", false},
		{"an address of 101 characters", "emailAddress", x(89) + "@example.com", false},
		{"an address of 100", "emailAddress", x(88) + "@example.com", true},
		{"a version of 101", "applicationVersion", x(101), false},
		{"a version of 100 that takes 200 bytes", "applicationVersion", strings.Repeat("é", 100), true},
		{"characters outside the BMP count twice", "language", "𝔢𝔰𝔢", false},
		{"a system of 101", "applicationOS", x(101), false},
		{"a language of six", "language", "es-BOL", false},
		{"a language of five", "language", "es-BO", true},
		{"a device of 129", "deviceAltId", x(129), false},
		{"an address of IPv4", "ipAddress", "203.0.113.7", true},
		{"an address in the digits of another script", "ipAddress", "٢٠٣.٠.١١٣.٧", true},
		{"an address of IPv6", "ipAddress", "2001:db8::1", false},
		{"a latitude of 51", "latitude", x(51), false},
		{"a longitude of 51", "longitude", x(51), false},
		{"an application of any length", "applicationId", x(1000), true},
		{"an id that is no integer", "recoveryId", 1.5, false},
		{"an id in quotes", "userRegistrationId", "6", false},
		{"an id past 32 bits", "deviceId", 1 << 40, true},
		{"audit info that is a string", "auditInfo", "x", false},
		{"no audit info", "auditInfo", nil, true},
		{"a parameter that is a number", "additionalParameters", map[string]any{"a": 1}, false},
		{"a parameter that is null", "additionalParameters", map[string]any{"a": nil}, true},
		{"a member that the page does not have", "otro", 1, true},
	} {
		t.Run(c.member+": "+c.name, func(t *testing.T) {
			var request map[string]any
			if err := json.Unmarshal([]byte(sandboxTestJSON), &request); err != nil {
				t.Fatal(err)
			}
			request[c.member] = c.value
			body, err := json.Marshal(request)
			if err != nil {
				t.Fatal(err)
			}
			want := []string{}
			if !c.ok {
				want = append(want, "request."+c.member)
			}
			if diff := cmp.Diff(want, sandboxWrong(t, sandboxDo(http.MethodPost, "application/json", "", string(body)))); diff != "" {
				t.Errorf("wrong members (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSandboxWantsSomebodyToSendTo(t *testing.T) {
	for body, want := range map[string][]string{
		`{}`:                            {"request"},
		`{"emailAddress":""}`:           {"request"},
		`{"mobileNumber":null}`:         {"request"},
		`{"mobileNumber":"12345"}`:      {},
		`{"emailAddress":"a@b.co"}`:     {},
		`{"EmailAddress":"a@b.co"}`:     {"request"},
		`null`:                          {"request"},
		``:                              {"request"},
		`{"emailAddress":"a@b.co"}x`:    {"request"},
		`[{"emailAddress":"a@b.co"}]`:   {"request"},
		`<emailAddress></emailAddress>`: {"request"},
	} {
		if diff := cmp.Diff(want, sandboxWrong(t, sandboxDo(http.MethodPost, "application/json", "", body))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
	}
}

func TestSandboxReadsXMLAsDataContractSerializerDoes(t *testing.T) {
	const arrays = ` xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays"`
	for _, c := range []struct {
		name, body string
		want       []string
	}{
		{"one member", sandboxTestXML(`<mobileNumber>12345</mobileNumber>`), nil},
		{"a declaration and a byte order mark", "\ufeff" + `<?xml version="1.0" encoding="utf-8"?>` + sandboxTestXML(`<mobileNumber>12345</mobileNumber>`), nil},
		{"a comment, a CDATA section and a reference", sandboxTestXML(`<!-- x --><mobileNumber><![CDATA[123]]>&#52;5</mobileNumber>`), nil},
		{"prefixes other than the page's", `<q:GenerateCnfCodeNotUserRequest xmlns:q="http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Requests">` +
			`<q:mobileNumber>12345</q:mobileNumber></q:GenerateCnfCodeNotUserRequest>`, nil},
		{"members in order", sandboxTestXML(`<language>es</language><emailAddress>a@b.co</emailAddress><mobileNumber>12345</mobileNumber>`), nil},
		{"a member of the base type after the type's own is dropped", sandboxTestXML(`<mobileNumber>12345</mobileNumber><language>much too long</language>`), nil},
		{"the order of the JSON sample loses the e-mail", sandboxTestXML(`<userTypeAltId>x</userTypeAltId><emailAddress>a@b.co</emailAddress>`),
			[]string{"request", "request.userTypeAltId"}},
		{"a member that comes twice counts once", sandboxTestXML(`<mobileNumber>12345</mobileNumber><mobileNumber>x</mobileNumber>`), nil},
		{"an unknown member is skipped, with what it holds", sandboxTestXML(`<aaa><mobileNumber>x</mobileNumber></aaa><mobileNumber>12345</mobileNumber>`), nil},
		{"a member in no namespace is dropped", sandboxTestXML(`<mobileNumber xmlns="">12345</mobileNumber>`), []string{"request"}},
		{"a member that is nil is absent", sandboxTestXML(`<emailAddress>a@b.co</emailAddress><mobileNumber i:nil="true"/>`), nil},
		{"an empty member is an empty string", sandboxTestXML(`<emailAddress>a@b.co</emailAddress><mobileNumber/>`), []string{"request.mobileNumber"}},
		{"white space belongs to a string", sandboxTestXML(`<mobileNumber> 12345</mobileNumber>`), []string{"request.mobileNumber"}},
		{"and not to an integer", sandboxTestXML(`<deviceId> 11 </deviceId><mobileNumber>12345</mobileNumber>`), nil},
		{"an integer that is none", sandboxTestXML(`<deviceId>x</deviceId><mobileNumber>12345</mobileNumber>`), []string{"request"}},
		{"an element where text is", sandboxTestXML(`<mobileNumber>12345<b/></mobileNumber>`), []string{"request"}},
		{"text where elements are", sandboxTestXML(`x<mobileNumber>12345</mobileNumber>`), []string{"request"}},
		{"a pair with no value", sandboxTestXML(`<additionalParameters` + arrays + `><a:KeyValueOfstringstring><a:Key>k</a:Key></a:KeyValueOfstringstring></additionalParameters><mobileNumber>12345</mobileNumber>`), []string{"request"}},
		{"a pair out of order", sandboxTestXML(`<additionalParameters` + arrays + `><a:KeyValueOfstringstring><a:Value>v</a:Value><a:Key>k</a:Key></a:KeyValueOfstringstring></additionalParameters><mobileNumber>12345</mobileNumber>`), []string{"request"}},
		{"a key that comes twice", sandboxTestXML(`<additionalParameters` + arrays + `>` +
			strings.Repeat(`<a:KeyValueOfstringstring><a:Key>k</a:Key><a:Value>v</a:Value></a:KeyValueOfstringstring>`, 2) +
			`</additionalParameters><mobileNumber>12345</mobileNumber>`), []string{"request"}},
		{"a pair in the wrong namespace is dropped", sandboxTestXML(`<additionalParameters><KeyValueOfstringstring/></additionalParameters><mobileNumber>12345</mobileNumber>`), nil},
		{"another root", `<Request/>`, []string{"request"}},
		{"the root in no namespace", `<GenerateCnfCodeNotUserRequest><mobileNumber>12345</mobileNumber></GenerateCnfCodeNotUserRequest>`, []string{"request"}},
		{"no document", ``, []string{"request"}},
		{"a document cut off", sandboxTestXML(`<mobileNumber>12345</mobileNumber>`)[:210], []string{"request"}},
		{"a second root", sandboxTestXML(`<mobileNumber>12345</mobileNumber>`) + `<x/>`, []string{"request"}},
		{"a document type", `<!DOCTYPE x>` + sandboxTestXML(`<mobileNumber>12345</mobileNumber>`), []string{"request"}},
		{"another encoding", `<?xml version="1.0" encoding="iso-8859-1"?>` + sandboxTestXML(`<mobileNumber>12345</mobileNumber>`), []string{"request"}},
		{"JSON", sandboxTestJSON, []string{"request"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.want == nil {
				c.want = []string{}
			}
			w := sandboxDo(http.MethodPost, "application/xml", "", c.body)
			if diff := cmp.Diff(c.want, sandboxWrong(t, w)); diff != "" {
				t.Errorf("wrong members (-want +got):\n%s\nbody %s", diff, w.Body)
			}
		})
	}
}

func TestSandboxAnswersInTheFormatThatAcceptAsksFor(t *testing.T) {
	const inJSON = `{"encryptedData":"sample string 1"}`
	const inXML = `<GenericResultOfGenerateCnfCodeNotUserResponse xmlns="http://schemas.datacontract.org/2004/07/KinPOS.API">` +
		`<encryptedData>sample string 1</encryptedData></GenericResultOfGenerateCnfCodeNotUserResponse>`
	for accept, want := range map[string][2]string{
		"":                                     {"application/json", inJSON},
		"*/*":                                  {"application/json", inJSON},
		"application/json":                     {"application/json", inJSON},
		"text/json":                            {"text/json", inJSON},
		"application/xml":                      {"application/xml", inXML},
		"text/xml":                             {"text/xml", inXML},
		"text/html, text/xml;q=0.5, */*;q=0.1": {"text/xml", inXML},
		"application/xml;q=0.5, text/json":     {"text/json", inJSON},
		"application/xml;q=0":                  {"application/json", inJSON},
		"image/png":                            {"application/json", inJSON},
	} {
		w := sandboxDo(http.MethodPost, "application/json", accept, sandboxTestJSON)
		got := [2]string{strings.TrimSuffix(w.Header().Get("Content-Type"), "; charset=utf-8"), w.Body.String()}
		if diff := cmp.Diff(want, got); diff != "" || w.Code != http.StatusOK {
			t.Errorf("Accept %q: status %d (-want +got):\n%s", accept, w.Code, diff)
		}
	}
}

func TestSandboxRefusesWhatItDoesNotServe(t *testing.T) {
	for name, c := range map[string]struct {
		w    *httptest.ResponseRecorder
		want int
	}{
		"another content type":  {sandboxDo(http.MethodPost, "text/plain", "", sandboxTestJSON), 415},
		"no content type":       {sandboxDo(http.MethodPost, "", "", sandboxTestJSON), 415},
		"another method":        {sandboxDo(http.MethodGet, "application/json", "", ""), 405},
		"a body past the bound": {sandboxDo(http.MethodPost, "application/json", "", sandboxTestJSON+strings.Repeat(" ", sandboxMaxBody)), 413},
	} {
		if c.w.Code != c.want || !strings.HasPrefix(c.w.Body.String(), `{"Message":`) {
			t.Errorf("%s: status %d, body %s, want ASP.NET's %d", name, c.w.Code, c.w.Body, c.want)
		}
	}
}

func TestSandboxErrorsNameNobody(t *testing.T) {
	for contentType, body := range map[string]string{
		"application/json": strings.NewReplacer("59171234567", "59171234567x", "example.com", "example.c").Replace(sandboxTestJSON),
		"application/xml":  sandboxTestXML(`<emailAddress>ana.perez</emailAddress><mobileNumber>+59171234567</mobileNumber>`),
	} {
		w := sandboxDo(http.MethodPost, contentType, "", body)
		if w.Code != http.StatusBadRequest || strings.Contains(w.Body.String(), "59171234567") || strings.Contains(w.Body.String(), "ana.perez") {
			t.Errorf("%s: status %d, body %s", contentType, w.Code, w.Body)
		}
	}
}

func FuzzSandboxXML(f *testing.F) {
	f.Add(sandboxTestXML(`<mobileNumber>12345</mobileNumber>`))
	f.Add(sandboxTestXML(`<additionalParameters xmlns:a="http://schemas.microsoft.com/2003/10/Serialization/Arrays">` +
		`<a:KeyValueOfstringstring><a:Key>k</a:Key><a:Value>v</a:Value></a:KeyValueOfstringstring></additionalParameters>`))
	f.Add(sandboxTestXML(`<auditInfo xmlns:m="http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Model"><m:latitude>1</m:latitude></auditInfo><deviceId i:nil="1"/>`))
	f.Add("<a")
	f.Fuzz(func(t *testing.T, body string) {
		wrong := sandboxModelState{}
		r := sandboxDecodeXML([]byte(body), wrong)
		sandboxValidate(r, wrong)
		for _, m := range sandboxMembers {
			_, isText := r.text[m.name]
			_, isInteger := r.integer[m.name]
			if isText && m.kind != sandboxText || isInteger && m.kind != sandboxInteger {
				t.Errorf("%s was read as another type", m.name)
			}
		}
		if len(wrong) == 0 && r.text["mobileNumber"] == "" && r.text["emailAddress"] == "" {
			t.Error("a request for nobody was accepted")
		}
	})
}
