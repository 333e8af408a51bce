package kinpos

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strconv"
	"strings"
)

// The namespaces of the page's XML sample.
const (
	instanceNS = "http://www.w3.org/2001/XMLSchema-instance"
	requestNS  = "http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Requests"
	modelNS    = "http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Model"
	arraysNS   = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
)

// encodeXML writes r as the page's XML sample has it: the members in the sample's
// order, which DataContractSerializer insists on (base type first, then by
// alphabet: it drops a late member without a word), and with its prefixes, which
// encoding/xml's Marshal cannot be told.
func encodeXML(r Request) []byte {
	var w xmlWriter
	w.raw(`<GenerateCnfCodeNotUserRequest xmlns:i="` + instanceNS + `" xmlns="` + requestNS + `">`)
	if len(r.AdditionalParameters) > 0 {
		w.raw(`<additionalParameters xmlns:d2p1="` + arraysNS + `">`)
		for _, key := range sortedKeys(r.AdditionalParameters) {
			w.raw("<d2p1:KeyValueOfstringstring>")
			w.element("d2p1:Key", key)
			w.element("d2p1:Value", r.AdditionalParameters[key])
			w.raw("</d2p1:KeyValueOfstringstring>")
		}
		w.raw("</additionalParameters>")
	}
	w.text("applicationId", r.ApplicationID)
	w.text("applicationOS", r.ApplicationOS)
	w.text("applicationVersion", r.ApplicationVersion)
	w.text("deviceAltId", r.DeviceAltID)
	w.integer("deviceId", r.DeviceID)
	w.text("ipAddress", r.IPAddress)
	w.text("language", r.Language)
	w.text("latitude", r.Latitude)
	w.text("longitude", r.Longitude)
	if a := r.AuditInfo; a != nil {
		w.raw(`<auditInfo xmlns:d2p1="` + modelNS + `">`)
		w.text("d2p1:countryCode", a.CountryCode)
		w.text("d2p1:ipAddress", a.IPAddress)
		w.text("d2p1:latitude", a.Latitude)
		w.text("d2p1:longitude", a.Longitude)
		w.raw("</auditInfo>")
	}
	w.text("emailAddress", r.EmailAddress)
	w.text("internationalPrefix", r.InternationalPrefix)
	w.text("mobileNumber", r.MobileNumber)
	w.integer("recoveryId", r.RecoveryID)
	w.integer("userRegistrationId", r.UserRegistrationID)
	w.text("userTypeAltId", r.UserTypeAltID)
	w.raw("</GenerateCnfCodeNotUserRequest>")
	return w.b.Bytes()
}

type xmlWriter struct{ b bytes.Buffer }

func (w *xmlWriter) raw(s string) { w.b.WriteString(s) }

// text writes an element unless it is empty.
func (w *xmlWriter) text(name, value string) {
	if value != "" {
		w.element(name, value)
	}
}

func (w *xmlWriter) integer(name string, value *int64) {
	if value != nil {
		w.element(name, strconv.FormatInt(*value, 10))
	}
}

func (w *xmlWriter) element(name, value string) {
	w.raw("<" + name + ">")
	_ = xml.EscapeText(&w.b, []byte(value)) // a buffer takes everything
	w.raw("</" + name + ">")
}

// deepestXML bounds the nesting of a reply: a result is three levels deep.
const deepestXML = 32

var errNotResult = errors.New("not a GenericResult")

// saysDoneXML reports whether a reply is a GenericResult with something in it: a
// member encryptedData with text, or a member response with any content. The page
// could not print its XML reply, so namespaces and the rest of the root's name,
// which .NET makes up, are not looked at.
func saysDoneXML(body []byte) (bool, error) {
	d := xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))))
	var (
		path   []string
		seen   = map[string]bool{}
		closed bool // the root has ended
		done   bool
		null   bool // the current member is i:nil
	)
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) && closed {
			return done, nil
		}
		if err != nil {
			return false, errNotResult
		}
		switch t := t.(type) {
		case xml.Directive: // a document type, which no result has
			return false, errNotResult
		case xml.StartElement:
			path = append(path, t.Name.Local)
			switch {
			case closed, len(path) > deepestXML,
				len(path) == 1 && !strings.HasPrefix(t.Name.Local, "GenericResult"),
				len(path) == 2 && seen[t.Name.Local],
				len(path) == 3 && path[1] == "encryptedData":
				return false, errNotResult
			case len(path) == 2:
				seen[t.Name.Local] = true
				null = isNil(t)
			case len(path) > 2 && path[1] == "response":
				done = done || !null
			}
		case xml.EndElement:
			path = path[:len(path)-1]
			closed = len(path) == 0
		case xml.CharData:
			if len(bytes.TrimSpace(t)) == 0 {
				continue
			}
			switch {
			case len(path) < 2:
				return false, errNotResult
			case path[1] == "encryptedData", path[1] == "response":
				done = done || !null
			}
		}
	}
}

func isNil(e xml.StartElement) bool {
	for _, a := range e.Attr {
		if a.Name.Local == "nil" && (a.Value == "true" || a.Value == "1") {
			return true
		}
	}
	return false
}
