package unimedbh

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"
)

const (
	sandboxPath    = "/security/v1/otp/request"
	sandboxMaxBody = 1 << 20 // the page's largest example has 61 bytes

	// sandboxUnknown starts the usernames that the sandbox does not know: they
	// get the page's 404. Every other username is known.
	sandboxUnknown = "desconhecido"

	// The page's two error messages, word for word.
	sandboxInvalid  = "Por favor, informe os dados relacionados ao usuário que deseja autenticar."
	sandboxNotFound = "Nenhuma sessão encontrada com os dados informados."

	// The page's two ways to write a time. It names a zone only in the first;
	// the sandbox writes both in UTC.
	sandboxRequestedAt = "2006-01-02T15:04:05.000-0700"
	sandboxDate        = "02/01/2006 15:04:05"
)

type sandboxSuccess struct {
	Type        string `json:"type"`
	Sended      bool   `json:"sended"`
	RequestedAt string `json:"requestedAt"`
}

type sandboxError struct {
	Date    string   `json:"date"`
	Message string   `json:"message"`
	Details []string `json:"details"`
}

// Sandbox serves Unimed BH's "Solicitar Senha Única (OTP)" as its page
// describes it. It is written from the page alone and shares nothing with the
// client in this folder, so that a misreading of the page by one of them shows.
//
// A username that starts with "desconhecido" is answered with the page's 404.
// Whatever else is wrong with a request, its content type included, is the
// page's 400: the page knows no other refusal. The page lists no types, so any
// that is not empty is taken and echoed.
func Sandbox() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(sandboxPath, sandboxRequest)
	return mux
}

func sandboxRequest(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		sandboxRefuse(w, http.StatusMethodNotAllowed, "Método não suportado.")
		return
	}
	// The page's HTTP example announces 61 bytes and, as printed, has 54 (it
	// had CRLF and wider indentation once). The JSON is whole all the same, so
	// the reply must not wait for the rest: read no further than the object's
	// end, and let the server answer with the body unread. Writers that can't
	// (a recorder, HTTP/2) need no leave for it.
	_ = http.NewResponseController(w).EnableFullDuplex()
	username, kind, err := sandboxRead(http.MaxBytesReader(w, r.Body, sandboxMaxBody))
	media, _, mediaErr := mime.ParseMediaType(r.Header.Get("Content-Type"))
	tooBig := new(http.MaxBytesError)
	switch {
	case errors.As(err, &tooBig):
		sandboxRefuse(w, http.StatusRequestEntityTooLarge, "Corpo da requisição muito grande.")
	case err != nil, mediaErr != nil, media != "application/json", username == "", kind == "":
		sandboxRefuse(w, http.StatusBadRequest, sandboxInvalid)
	case strings.HasPrefix(username, sandboxUnknown):
		sandboxRefuse(w, http.StatusNotFound, sandboxNotFound)
	default:
		sandboxReply(w, http.StatusOK, sandboxSuccess{
			Type: kind, Sended: true, RequestedAt: time.Now().UTC().Format(sandboxRequestedAt),
		})
	}
}

// sandboxRead reads the body's two fields, empty when they are absent or null.
func sandboxRead(body io.Reader) (username, kind string, err error) {
	d := json.NewDecoder(body)
	// A map and not a struct: encoding/json would take "Type" for "type".
	var fields map[string]json.RawMessage
	if err := d.Decode(&fields); err != nil {
		return "", "", err
	}
	// What came along with the object must be white space.
	rest, err := io.ReadAll(d.Buffered())
	if err != nil || strings.TrimSpace(string(rest)) != "" {
		return "", "", errors.New("something follows the JSON object")
	}
	for name, into := range map[string]*string{"username": &username, "type": &kind} {
		raw, present := fields[name]
		if !present {
			continue
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return "", "", err
		}
	}
	return username, kind, nil
}

func sandboxRefuse(w http.ResponseWriter, status int, message string) {
	sandboxReply(w, status, sandboxError{
		Date: time.Now().UTC().Format(sandboxDate), Message: message, Details: []string{},
	})
}

func sandboxReply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails only when the client has left
}
