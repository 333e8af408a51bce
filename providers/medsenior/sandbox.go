package medsenior

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"
)

const (
	sandboxPath = "/api/v2/beneficiario/{cpf}/codigo-confirmacao/enviar"

	// sandboxPlaceholder stands in the path of the page's own curl examples.
	// Sent as it is, it means "the CPF of the body", so that the examples work
	// as they are printed (curl itself sends such a path only with --globoff).
	sandboxPlaceholder = "{{cpfBeneficiario}}"

	sandboxMaxBody = 1 << 20 // the page's largest example has 160 bytes
)

// sandboxCPF is the CPF as every example on the page writes it. Check digits
// are not looked at: the page's own 12345678901 has wrong ones.
var sandboxCPF = regexp.MustCompile(`^[0-9]{11}$`)

// Sandbox serves MedSênior's "Enviar código confirmação" as its page describes
// it. It is written from the page alone and shares nothing with the client in
// this folder, so that a misreading of the page by one of them shows.
//
// Any bearer token will do, but there must be one. The page gives the errors'
// status and no body; theirs follow the envelope of the success. What the page
// says nothing about (a wrong content type, unreadable JSON) is the page's 400.
// The documented 500 is had with the sandbox's faults.
func Sandbox() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc(sandboxPath, sandboxSend)
	return mux
}

func sandboxSend(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		sandboxRefuse(w, http.StatusMethodNotAllowed, "Método não suportado.")
		return
	}
	if !sandboxHasToken(r.Header.Get("Authorization")) {
		w.Header().Set("WWW-Authenticate", "Bearer")
		sandboxRefuse(w, http.StatusUnauthorized, "Falha na autenticação do token.")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, sandboxMaxBody))
	if tooBig := new(http.MaxBytesError); errors.As(err, &tooBig) {
		sandboxRefuse(w, http.StatusRequestEntityTooLarge, "Corpo da requisição muito grande.")
		return
	}
	if problems := sandboxCheck(r, body); err != nil || len(problems) > 0 {
		sandboxRefuse(w, http.StatusBadRequest, append([]string{"Parâmetros inválidos ou ausentes."}, problems...)...)
		return
	}
	// The page's own reply, to the last digit.
	sandboxReply(w, http.StatusOK, json.RawMessage(
		`{"data":{"tempoExpiracaoCodigoValidacaoEmSegundos":299.9998772},"isSuccess":true}`))
}

// sandboxHasToken reports whether an Authorization header is
// "Bearer SOMETHING", the scheme in any case.
func sandboxHasToken(authorization string) bool {
	scheme, token, _ := strings.Cut(authorization, " ")
	return strings.EqualFold(scheme, "bearer") && strings.TrimSpace(token) != ""
}

// sandboxCheck lists what is wrong with a request. It quotes no value: a reply
// may end in somebody's log.
func sandboxCheck(r *http.Request, body []byte) (problems []string) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		problems = append(problems, "content-type deve ser application/json")
	}
	if !sandboxAcceptsJSON(r.Header.Values("Accept")) {
		problems = append(problems, "accept deve admitir application/json")
	}
	// A map and not a struct: encoding/json would take "CPF" for "cpf".
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return append(problems, "o corpo deve ser um objeto JSON")
	}
	emailID, emailOK := sandboxField[string](fields, "emailId")
	celularID, celularOK := sandboxField[string](fields, "celularId")
	cpf, cpfOK := sandboxField[string](fields, "cpf")
	first, firstOK := sandboxField[bool](fields, "primeiroAcesso")
	for _, c := range []struct {
		wrong   bool
		problem string
	}{
		{!emailOK, "emailId deve ser string"},
		{!celularOK, "celularId deve ser string"},
		{emailID == nil && celularID == nil, "emailId ou celularId é obrigatório"},
		{emailID != nil && *emailID == "", "emailId não pode ser vazio"},
		{celularID != nil && *celularID == "", "celularId não pode ser vazio"},
		{!cpfOK, "cpf deve ser string"},
		{cpfOK && cpf == nil, "cpf é obrigatório"},
		{cpf != nil && !sandboxCPF.MatchString(*cpf), "cpf deve ter 11 dígitos"},
		{!firstOK, "primeiroAcesso deve ser booleano"},
		{firstOK && first == nil, "primeiroAcesso é obrigatório"},
	} {
		if c.wrong {
			problems = append(problems, c.problem)
		}
	}
	// PathValue is decoded: %7B%7B…%7D%7D is the placeholder too.
	if path := r.PathValue("cpf"); cpf != nil && path != sandboxPlaceholder && path != *cpf {
		problems = append(problems, "cpf do endereço difere do cpf do corpo")
	}
	return problems
}

// sandboxField reads one field: nil when it is absent or null, not ok when it
// is of another type.
func sandboxField[T any](fields map[string]json.RawMessage, name string) (v *T, ok bool) {
	raw, present := fields[name]
	if !present {
		return nil, true
	}
	err := json.Unmarshal(raw, &v)
	if err != nil {
		return nil, false
	}
	return v, true
}

// sandboxAcceptsJSON reports whether Accept headers let the reply be JSON; no
// header lets it be anything.
func sandboxAcceptsJSON(accept []string) bool {
	if len(accept) == 0 {
		return true
	}
	for part := range strings.SplitSeq(strings.Join(accept, ","), ",") {
		switch media, _, _ := mime.ParseMediaType(part); media {
		case "application/json", "application/*", "*/*":
			return true
		}
	}
	return false
}

func sandboxRefuse(w http.ResponseWriter, status int, problems ...string) {
	sandboxReply(w, status, map[string]any{"isSuccess": false, "errors": problems})
}

func sandboxReply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // fails only when the client has left
}
