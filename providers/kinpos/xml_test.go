package kinpos

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// pageRequest is filled with the values of the page's samples, which break its
// own patterns: it is for the encodings only.
var pageRequest = Request{
	UserTypeAltID: "sample string 1", MobileNumber: "sample string 2", InternationalPrefix: "sample string 3",
	EmailAddress: "sample string 4",
	AuditInfo: &AuditInfo{
		IPAddress: "sample string 1", Latitude: "sample string 2", Longitude: "sample string 3", CountryCode: "sample string 4",
	},
	RecoveryID: new(int64(5)), UserRegistrationID: new(int64(6)), ApplicationID: "sample string 7",
	ApplicationVersion: "sample string 8", ApplicationOS: "sample string 9", Language: "sample string 10",
	DeviceID: new(int64(11)), DeviceAltID: "sample string 12", IPAddress: "sample string 13",
	Latitude: "sample string 14", Longitude: "sample string 15",
	AdditionalParameters: map[string]string{"sample string 3": "sample string 4", "sample string 1": "sample string 2"},
}

func page(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestJSONIsThePages(t *testing.T) {
	got, err := json.Marshal(pageRequest)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := json.Compact(&want, page(t, "page_request.json")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.String(), string(got)); diff != "" {
		t.Errorf("json.Marshal() (-page +got):\n%s", diff)
	}
}

// rawTokens splits XML into its tokens, prefixes and attributes as they are
// written, without the white space between elements.
func rawTokens(t *testing.T, data []byte) (tokens []xml.Token) {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(data))
	for {
		token, err := d.RawToken()
		if errors.Is(err, io.EOF) {
			return tokens
		}
		if err != nil {
			t.Fatalf("%v in %s", err, data)
		}
		if text, ok := token.(xml.CharData); ok && len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		tokens = append(tokens, xml.CopyToken(token))
	}
}

func TestXMLIsThePages(t *testing.T) {
	want, got := rawTokens(t, page(t, "page_request.xml")), rawTokens(t, encodeXML(pageRequest))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("encodeXML() (-page +got):\n%s", diff)
	}
}

func TestXMLOmitsWhatIsAbsent(t *testing.T) {
	const want = `<GenerateCnfCodeNotUserRequest xmlns:i="http://www.w3.org/2001/XMLSchema-instance"` +
		` xmlns="http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Requests">` +
		`<mobileNumber>59899000000</mobileNumber><recoveryId>0</recoveryId></GenerateCnfCodeNotUserRequest>`
	got := encodeXML(Request{MobileNumber: "59899000000", RecoveryID: new(int64), AdditionalParameters: map[string]string{}})
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("encodeXML() (-want +got):\n%s", diff)
	}
}

// requestOfXML reads a request back as any XML parser would.
func requestOfXML(t *testing.T, data []byte) Request {
	t.Helper()
	var doc struct {
		XMLName              xml.Name `xml:"http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Requests GenerateCnfCodeNotUserRequest"`
		AdditionalParameters *struct {
			Pairs []struct {
				Key   string `xml:"http://schemas.microsoft.com/2003/10/Serialization/Arrays Key"`
				Value string `xml:"http://schemas.microsoft.com/2003/10/Serialization/Arrays Value"`
			} `xml:"http://schemas.microsoft.com/2003/10/Serialization/Arrays KeyValueOfstringstring"`
		} `xml:"additionalParameters"`
		AuditInfo *struct {
			IPAddress   string `xml:"http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Model ipAddress"`
			Latitude    string `xml:"http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Model latitude"`
			Longitude   string `xml:"http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Model longitude"`
			CountryCode string `xml:"http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Model countryCode"`
		} `xml:"auditInfo"`
		UserTypeAltID       string `xml:"userTypeAltId"`
		MobileNumber        string `xml:"mobileNumber"`
		InternationalPrefix string `xml:"internationalPrefix"`
		EmailAddress        string `xml:"emailAddress"`
		RecoveryID          *int64 `xml:"recoveryId"`
		UserRegistrationID  *int64 `xml:"userRegistrationId"`
		ApplicationID       string `xml:"applicationId"`
		ApplicationVersion  string `xml:"applicationVersion"`
		ApplicationOS       string `xml:"applicationOS"`
		Language            string `xml:"language"`
		DeviceID            *int64 `xml:"deviceId"`
		DeviceAltID         string `xml:"deviceAltId"`
		IPAddress           string `xml:"ipAddress"`
		Latitude            string `xml:"latitude"`
		Longitude           string `xml:"longitude"`
	}
	if err := xml.Unmarshal(data, &doc); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
	r := Request{
		UserTypeAltID: doc.UserTypeAltID, MobileNumber: doc.MobileNumber, InternationalPrefix: doc.InternationalPrefix,
		EmailAddress: doc.EmailAddress, RecoveryID: doc.RecoveryID, UserRegistrationID: doc.UserRegistrationID,
		ApplicationID: doc.ApplicationID, ApplicationVersion: doc.ApplicationVersion, ApplicationOS: doc.ApplicationOS,
		Language: doc.Language, DeviceID: doc.DeviceID, DeviceAltID: doc.DeviceAltID, IPAddress: doc.IPAddress,
		Latitude: doc.Latitude, Longitude: doc.Longitude,
	}
	if a := doc.AuditInfo; a != nil {
		r.AuditInfo = &AuditInfo{a.IPAddress, a.Latitude, a.Longitude, a.CountryCode}
	}
	if doc.AdditionalParameters != nil {
		r.AdditionalParameters = map[string]string{}
		for _, pair := range doc.AdditionalParameters.Pairs {
			r.AdditionalParameters[pair.Key] = pair.Value
		}
	}
	return r
}

func TestXMLCarriesEveryCharacterItCan(t *testing.T) {
	want := pageRequest
	want.ApplicationID = "<a href=\"x\">&amp;'\t\r\n]]>\u0085\u2028é😀</a>"
	want.AdditionalParameters = map[string]string{"<k>": "\r", "": " ", "z": ""}
	want.AuditInfo = &AuditInfo{}
	if diff := cmp.Diff(want, requestOfXML(t, encodeXML(want))); diff != "" {
		t.Errorf("a request comes back from XML as another (-want +got):\n%s", diff)
	}
}

func TestSaysDoneXML(t *testing.T) {
	const ns = ` xmlns="http://schemas.datacontract.org/2004/07/KinPOS.API" xmlns:i="http://www.w3.org/2001/XMLSchema-instance"`
	result := func(inner string) string { return "<GenericResultOfX" + ns + ">" + inner + "</GenericResultOfX>" }
	for body, want := range map[string]bool{
		result(`<encryptedData>x</encryptedData>`): true,
		"\ufeff<?xml version=\"1.0\" encoding=\"utf-8\"?>\n" + result("\n  <encryptedData>x</encryptedData>\n") + "\n": true,
		`<a:GenericResult xmlns:a="urn:a"><a:encryptedData>x</a:encryptedData></a:GenericResult>`:                      true,
		result(`<encryptedData i:nil="true"/><response><id>1</id></response>`):                                         true,
		result(`<response>text</response>`):                        true,
		result(`<other>x</other><response><a><b/></a></response>`): true,
		result(``):                 false,
		result(`<encryptedData/>`): false,
		result(`<encryptedData> </encryptedData>`):                                                          false,
		result(`<encryptedData i:nil="true">x</encryptedData>`):                                             false,
		result(`<response/>`):                                                                               false,
		result(`<response i:nil="1"><id>1</id></response>`):                                                 false,
		result(`<encryptedData><b>x</b></encryptedData>`):                                                   false,
		result(`<EncryptedData>x</EncryptedData>`):                                                          false,
		result(`<a><encryptedData>x</encryptedData></a>`):                                                   false,
		result(`<encryptedData>x</encryptedData>`) + `<b/>`:                                                 false,
		result(`<encryptedData>x</encryptedData>`) + `x`:                                                    false,
		`x` + result(`<encryptedData>x</encryptedData>`):                                                    false,
		result(`x<encryptedData>x</encryptedData>`):                                                         false,
		result(`<encryptedData>x</encryptedData>`)[:90]:                                                     false,
		result(`<encryptedData>x</encryptedData><encryptedData>y</encryptedData>`):                          false,
		result(strings.Repeat("<a>", 40) + strings.Repeat("</a>", 40) + `<encryptedData>x</encryptedData>`): false,
		`<html><body><encryptedData>x</encryptedData></body></html>`:                                        false,
		`<Error><encryptedData>x</encryptedData></Error>`:                                                   false,
		`<encryptedData>x</encryptedData>`:                                                                  false,
		`<!DOCTYPE r [<!ENTITY e "x">]>` + result(`<encryptedData>&e;</encryptedData>`):                     false,
		`<!DOCTYPE r>` + result(`<encryptedData>x</encryptedData>`):                                         false,
		result(`<encryptedData>&e;</encryptedData>`):                                                        false,
		`<?xml version="1.0" encoding="utf-16"?>` + result(`<encryptedData>x</encryptedData>`):              false,
		``: false,
	} {
		if got, err := saysDoneXML([]byte(body)); got != want || got && err != nil {
			t.Errorf("saysDoneXML(%s) = %v, %v, want %v", body, got, err, want)
		}
	}
}

func FuzzSaysDoneXML(f *testing.F) {
	f.Add([]byte(`<GenericResultOfX><encryptedData>x</encryptedData><response><a/></response></GenericResultOfX>`))
	f.Add([]byte(`<GenericResult><response i:nil="true"/></GenericResult> `))
	f.Fuzz(func(t *testing.T, body []byte) {
		done, err := saysDoneXML(body)
		if done && (err != nil || !bytes.Contains(body, []byte("GenericResult"))) {
			t.Errorf("saysDoneXML(%s) = %v, %v", body, done, err)
		}
	})
}
