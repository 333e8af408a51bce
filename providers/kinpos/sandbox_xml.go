package kinpos

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"slices"
	"strconv"
	"strings"
)

// The namespaces of the page's XML example.
const (
	sandboxRequestNS  = "http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Requests"
	sandboxModelNS    = "http://schemas.datacontract.org/2004/07/SFE.Auth.Core.Model"
	sandboxArraysNS   = "http://schemas.microsoft.com/2003/10/Serialization/Arrays"
	sandboxInstanceNS = "http://www.w3.org/2001/XMLSchema-instance"
)

// The orders in which DataContractSerializer reads members: those of the base
// type first, then those of the type itself, each by alphabet. They are the
// orders of the page's XML example.
var (
	sandboxRequestOrder = []string{
		"additionalParameters", "applicationId", "applicationOS", "applicationVersion", "deviceAltId",
		"deviceId", "ipAddress", "language", "latitude", "longitude",
		"auditInfo", "emailAddress", "internationalPrefix", "mobileNumber", "recoveryId",
		"userRegistrationId", "userTypeAltId",
	}
	sandboxAuditOrder = []string{"countryCode", "ipAddress", "latitude", "longitude"}
	sandboxPairOrder  = []string{"Key", "Value"}
)

// sandboxXMLError is what the reply says of XML that can't be read. It quotes
// nothing of it.
type sandboxXMLError string

const (
	sandboxBadXML     sandboxXMLError = "The body must be one well-formed XML element in UTF-8, with no document type."
	sandboxBadRoot    sandboxXMLError = "Expecting element 'GenerateCnfCodeNotUserRequest' from namespace '" + sandboxRequestNS + "'."
	sandboxBadContent sandboxXMLError = "Text was found where elements are expected, or elements where text is."
	sandboxBadInteger sandboxXMLError = "The value is not an integer."
	sandboxBadPair    sandboxXMLError = "KeyValueOfstringstring needs a Key, then a Value, and no Key twice."
)

// Error returns the sentence itself.
func (e sandboxXMLError) Error() string { return string(e) }

// sandboxDecodeXML reads an XML request as .NET's DataContractSerializer does.
func sandboxDecodeXML(body []byte, wrong sandboxModelState) sandboxRequest {
	r := sandboxNewRequest()
	x := sandboxXML{xml.NewDecoder(bytes.NewReader(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))))}
	if err := x.document(&r); err != nil {
		wrong.add("", "%s", err)
	}
	return r
}

// sandboxXML reads elements in the way of DataContractSerializer.
type sandboxXML struct{ d *xml.Decoder }

func (x sandboxXML) document(r *sandboxRequest) error {
	root, found, err := x.next()
	if err != nil {
		return err
	}
	if !found || root.Name != (xml.Name{Space: sandboxRequestNS, Local: "GenerateCnfCodeNotUserRequest"}) {
		return sandboxBadRoot
	}
	err = x.members(sandboxRequestNS, sandboxRequestOrder, func(name string) error { return x.member(r, name) })
	if err != nil {
		return err
	}
	if _, found, err := x.next(); err != nil || found {
		return sandboxBadXML
	}
	return nil
}

// member reads the member of that name into r.
func (x sandboxXML) member(r *sandboxRequest, name string) (err error) {
	m := sandboxMembers[slices.IndexFunc(sandboxMembers, func(m sandboxMember) bool { return m.name == name })]
	switch m.kind {
	case sandboxText:
		r.text[name], err = x.text()
	case sandboxInteger:
		var text string
		if text, err = x.text(); err != nil {
			return err
		}
		if r.integer[name], err = strconv.ParseInt(strings.TrimSpace(text), 10, 64); err != nil {
			return sandboxBadInteger
		}
	case sandboxAudit:
		err = x.members(sandboxModelNS, sandboxAuditOrder, func(name string) (err error) {
			r.audit[name], err = x.text()
			return err
		})
	case sandboxDictionary:
		err = x.pairs(r.dictionary)
	}
	return err
}

// members reads the content of an element, up to its end, and calls read at
// the start of each member. Like DataContractSerializer it only looks ahead:
// what comes after a later member, comes twice or is in another namespace is
// skipped without a word. So is a member that is nil.
func (x sandboxXML) members(namespace string, order []string, read func(name string) error) error {
	rest := order
	for {
		e, found, err := x.next()
		if err != nil || !found {
			return err
		}
		i := slices.Index(rest, e.Name.Local)
		if e.Name.Space != namespace || i < 0 {
			if err := x.skip(); err != nil {
				return err
			}
			continue
		}
		rest = rest[i+1:]
		if sandboxIsNil(e) {
			err = x.skip()
		} else {
			err = read(e.Name.Local)
		}
		if err != nil {
			return err
		}
	}
}

// pairs reads the content of a dictionary. Unlike other members, Key and Value
// are required of each pair.
func (x sandboxXML) pairs(into map[string]string) error {
	for {
		e, found, err := x.next()
		if err != nil || !found {
			return err
		}
		if e.Name != (xml.Name{Space: sandboxArraysNS, Local: "KeyValueOfstringstring"}) {
			if err := x.skip(); err != nil {
				return err
			}
			continue
		}
		pair := map[string]string{}
		err = x.members(sandboxArraysNS, sandboxPairOrder, func(name string) (err error) {
			pair[name], err = x.text()
			return err
		})
		if err != nil {
			return err
		}
		if _, twice := into[pair["Key"]]; twice || len(pair) != len(sandboxPairOrder) {
			return sandboxBadPair
		}
		into[pair["Key"]] = pair["Value"]
	}
}

// next moves to the next element inside the current one; found is false at the
// current one's end, and at the end of the document.
func (x sandboxXML) next() (e xml.StartElement, found bool, err error) {
	for {
		t, err := x.d.Token()
		if errors.Is(err, io.EOF) {
			return e, false, nil
		}
		if err != nil {
			return e, false, sandboxBadXML
		}
		switch t := t.(type) {
		case xml.StartElement:
			return t, true, nil
		case xml.EndElement:
			return e, false, nil
		case xml.CharData:
			if len(bytes.TrimSpace(t)) > 0 {
				return e, false, sandboxBadContent
			}
		case xml.Directive: // a DTD, which .NET prohibits
			return e, false, sandboxBadXML
		}
	}
}

// text reads the content of an element that holds nothing else.
func (x sandboxXML) text() (string, error) {
	var b strings.Builder
	for {
		t, err := x.d.Token()
		if err != nil {
			return "", sandboxBadXML
		}
		switch t := t.(type) {
		case xml.CharData:
			b.Write(t)
		case xml.EndElement:
			return b.String(), nil
		case xml.StartElement, xml.Directive:
			return "", sandboxBadContent
		}
	}
}

func (x sandboxXML) skip() error {
	if x.d.Skip() != nil {
		return sandboxBadXML
	}
	return nil
}

func sandboxIsNil(e xml.StartElement) bool {
	return slices.ContainsFunc(e.Attr, func(a xml.Attr) bool {
		return a.Name == xml.Name{Space: sandboxInstanceNS, Local: "nil"} && (a.Value == "true" || a.Value == "1")
	})
}
