package kinpos

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
)

const (
	sandboxPath    = "/api/Auth/1/1/GenerateCnfCodeNotUser"
	sandboxMaxBody = 1 << 20 // the page's largest example has 1.6 KiB

	// sandboxResultNS is where .NET puts a type of the namespace KinPOS.API.
	sandboxResultNS = "http://schemas.datacontract.org/2004/07/KinPOS.API"
)

// sandboxKind is the type column of the page.
type sandboxKind int

const (
	sandboxText sandboxKind = iota
	sandboxInteger
	sandboxAudit      // SFE.Auth.Core.Model.RequestAuditInfo
	sandboxDictionary // Dictionary of string [key] and string [value]
)

// sandboxMember is one row of the page's table of members.
type sandboxMember struct {
	name     string
	kind     sandboxKind
	pattern  string // as the page writes it
	min, max int    // in UTF-16 units, as .NET counts; zero is "none given"
}

// sandboxMembers follows the page's table, in its order.
var sandboxMembers = []sandboxMember{
	{name: "userTypeAltId", pattern: `[0-9a-fA-F\-]{32,36}`, max: 128},
	{name: "mobileNumber", pattern: `^[0-9]+$`, max: 50, min: 5},
	{name: "internationalPrefix", pattern: `^[0-9]+$`, max: 50, min: 5},
	{name: "emailAddress", pattern: `[\w._%+-]+@[\w.-]+\.[a-zA-Z]{2,4}`, max: 100},
	{name: "auditInfo", kind: sandboxAudit},
	{name: "recoveryId", kind: sandboxInteger},
	{name: "userRegistrationId", kind: sandboxInteger},
	{name: "applicationId"},
	{name: "applicationVersion", max: 100},
	{name: "applicationOS", max: 100},
	{name: "language", max: 5},
	{name: "deviceId", kind: sandboxInteger},
	{name: "deviceAltId", max: 128},
	{name: "ipAddress", pattern: `\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}`},
	{name: "latitude", max: 50},
	{name: "longitude", max: 50},
	{name: "additionalParameters", kind: sandboxDictionary},
}

// sandboxPatterns are the page's patterns as .NET applies them: to the whole
// value, with \w and \d that know every script, which Go's do not.
var sandboxPatterns = func() map[string]*regexp.Regexp {
	dotnet := strings.NewReplacer(`\w`, `\p{L}\p{Mn}\p{Nd}\p{Pc}`, `\d`, `\p{Nd}`)
	compiled := make(map[string]*regexp.Regexp)
	for _, m := range sandboxMembers {
		if m.pattern != "" {
			compiled[m.name] = regexp.MustCompile(`\A(?:` + dotnet.Replace(m.pattern) + `)\z`)
		}
	}
	return compiled
}()

// sandboxRequest is a request after either formatter has read it. A member
// that is absent or null is in none of the maps.
type sandboxRequest struct {
	text       map[string]string
	integer    map[string]int64
	audit      map[string]string
	dictionary map[string]string
}

func sandboxNewRequest() sandboxRequest {
	return sandboxRequest{map[string]string{}, map[string]int64{}, map[string]string{}, map[string]string{}}
}

// sandboxModelState is ASP.NET's account of an invalid request: what is wrong,
// by member. It quotes no value.
type sandboxModelState map[string][]string

func (m sandboxModelState) add(member, format string, args ...any) {
	key := "request"
	if member != "" {
		key += "." + member
	}
	m[key] = append(m[key], fmt.Sprintf(format, args...))
}

// Sandbox serves KinPOS's GenerateCnfCodeNotUser as its page describes it. It
// is written from the page alone and shares nothing with the client in this
// folder, so that a misreading of the page by one of them shows.
//
// JSON and XML are read as ASP.NET Web API, which the page comes from, reads
// them: in XML the namespaces must be the page's, and a member that comes out
// of the page's order is dropped without a word, as DataContractSerializer
// does. Every pattern and length of the page is checked, so the page's own
// samples ("sample string 1") are answered with 400.
//
// The page calls no member required. A request with neither mobileNumber nor
// emailAddress is refused all the same: it would confirm nothing.
//
// The reply is JSON unless Accept asks for XML. The page could not print its
// XML; the sandbox gives what the type's name and its JSON lead to. Errors are
// always JSON.
func Sandbox() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(sandboxPath, sandboxGenerate)
	return mux
}

func sandboxGenerate(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		sandboxRefuse(w, http.StatusMethodNotAllowed,
			fmt.Sprintf("The requested resource does not support http method '%s'.", r.Method), nil)
		return
	}
	var decode func([]byte, sandboxModelState) sandboxRequest
	switch media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media {
	case "application/json", "text/json":
		decode = sandboxDecodeJSON
	case "application/xml", "text/xml":
		decode = sandboxDecodeXML
	default:
		sandboxRefuse(w, http.StatusUnsupportedMediaType,
			"The request entity's media type is not supported for this resource.", nil)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, sandboxMaxBody))
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		sandboxRefuse(w, http.StatusRequestEntityTooLarge, "Maximum request length exceeded.", nil)
		return
	}
	wrong := sandboxModelState{}
	if err != nil {
		wrong.add("", "The body could not be read.")
	} else if request := decode(body, wrong); len(wrong["request"]) == 0 {
		// Of a body that can't be read as a whole, .NET has no members to check.
		sandboxValidate(request, wrong)
	}
	if len(wrong) > 0 {
		sandboxRefuse(w, http.StatusBadRequest, "The request is invalid.", wrong)
		return
	}
	sandboxAccept(w, r.Header.Values("Accept"))
}

// sandboxValidate checks lengths and patterns, with the words of .NET's
// attributes. As there, an empty value meets every pattern, but no minimum.
func sandboxValidate(r sandboxRequest, wrong sandboxModelState) {
	for _, m := range sandboxMembers {
		value, present := r.text[m.name]
		if !present {
			continue
		}
		length := len(utf16.Encode([]rune(value)))
		if value != "" && m.pattern != "" && !sandboxPatterns[m.name].MatchString(value) {
			wrong.add(m.name, "The field %s must match the regular expression '%s'.", m.name, m.pattern)
		}
		if m.max > 0 && length > m.max {
			wrong.add(m.name, "The field %s must be a string or array type with a maximum length of '%d'.", m.name, m.max)
		}
		if length < m.min {
			wrong.add(m.name, "The field %s must be a string or array type with a minimum length of '%d'.", m.name, m.min)
		}
	}
	if r.text["mobileNumber"] == "" && r.text["emailAddress"] == "" {
		wrong.add("", "The mobileNumber or the emailAddress to confirm is required.")
	}
}

// sandboxDecodeJSON reads a JSON request. Members it does not know are ignored,
// as Json.NET does; a member of another type is an error, where Json.NET would
// turn some numbers into strings and back.
func sandboxDecodeJSON(body []byte, wrong sandboxModelState) sandboxRequest {
	r := sandboxNewRequest()
	// A map and not a struct: encoding/json would take "Language" for "language".
	var members map[string]json.RawMessage
	if json.Unmarshal(body, &members) != nil || members == nil {
		wrong.add("", "The body must be one JSON object.")
		return r
	}
	for _, m := range sandboxMembers {
		raw, present := members[m.name]
		if !present || string(raw) == "null" {
			continue
		}
		switch m.kind {
		case sandboxText:
			sandboxTake(r.text, m.name, raw, wrong)
		case sandboxInteger:
			sandboxTake(r.integer, m.name, raw, wrong)
		case sandboxAudit:
			sandboxTakeAll(r.audit, m.name, raw, wrong)
		case sandboxDictionary:
			sandboxTakeAll(r.dictionary, m.name, raw, wrong)
		}
	}
	return r
}

func sandboxTake[T any](into map[string]T, name string, raw json.RawMessage, wrong sandboxModelState) {
	var v T
	if json.Unmarshal(raw, &v) != nil {
		wrong.add(name, "Error converting value to type '%T'.", v)
		return
	}
	into[name] = v
}

// sandboxTakeAll reads an object of strings; null is "no value".
func sandboxTakeAll(into map[string]string, name string, raw json.RawMessage, wrong sandboxModelState) {
	var values map[string]*string
	if json.Unmarshal(raw, &values) != nil {
		wrong.add(name, "The value must be an object of strings.")
		return
	}
	for key, v := range values {
		if v != nil {
			into[key] = *v
		}
	}
}

// sandboxAccept answers with the page's sample reply.
func sandboxAccept(w http.ResponseWriter, accept []string) {
	media := sandboxNegotiate(accept)
	if strings.HasSuffix(media, "/json") {
		sandboxReply(w, http.StatusOK, media, []byte(`{"encryptedData":"sample string 1"}`))
		return
	}
	reply, err := xml.Marshal(struct {
		XMLName       xml.Name
		EncryptedData string `xml:"encryptedData"`
	}{xml.Name{Space: sandboxResultNS, Local: "GenericResultOfGenerateCnfCodeNotUserResponse"}, "sample string 1"})
	if err != nil {
		panic(err) // a constant
	}
	sandboxReply(w, http.StatusOK, media, reply)
}

// sandboxNegotiate picks the reply's media type: the one of highest quality
// that the page lists, the first on a tie, application/json when none is asked for.
func sandboxNegotiate(accept []string) string {
	best, bestQ := "application/json", 0.0
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		media, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		q := 1.0
		if v, ok := params["q"]; ok {
			if q, err = strconv.ParseFloat(v, 64); err != nil {
				continue
			}
		}
		switch media {
		case "*/*", "application/*":
			media = "application/json"
		case "text/*":
			media = "text/json"
		case "application/json", "text/json", "application/xml", "text/xml":
		default:
			continue
		}
		if q > bestQ {
			best, bestQ = media, q
		}
	}
	return best
}

func sandboxRefuse(w http.ResponseWriter, status int, message string, wrong sandboxModelState) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // the patterns in the messages stay readable
	_ = e.Encode(struct {
		Message    string
		ModelState sandboxModelState `json:",omitempty"`
	}{message, wrong}) // strings only: cannot fail
	sandboxReply(w, status, "application/json", b.Bytes())
}

func sandboxReply(w http.ResponseWriter, status int, media string, body []byte) {
	w.Header().Set("Content-Type", media+"; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(body) // fails only when the client has left
}
