package medsenior

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	sandboxTestPath = "/api/v2/beneficiario/12345678901/codigo-confirmacao/enviar"
	sandboxTestBody = `{"emailId":"bed1066b-d8b5-47bc-a67f-2fd70a3c442d","cpf":"12345678901","primeiroAcesso":false}`
)

// sandboxTestCase is a good request but for what it names.
type sandboxTestCase struct {
	name   string
	method string
	path   string
	body   string
	header map[string]string // "" removes
	status int
}

func (c sandboxTestCase) do(t *testing.T) (*http.Response, string) {
	t.Helper()
	or := func(s, otherwise string) string {
		if s == "" {
			return otherwise
		}
		return s
	}
	r := httptest.NewRequest(or(c.method, http.MethodPost), or(c.path, sandboxTestPath),
		strings.NewReader(or(c.body, sandboxTestBody)))
	r.Header.Set("Authorization", "Bearer TOKEN_GERADO_NA_AUTENTICACAO")
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Accept", "application/json")
	for k, v := range c.header {
		r.Header.Set(k, v)
		if v == "" {
			r.Header.Del(k)
		}
	}
	w := httptest.NewRecorder()
	Sandbox().ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	return w.Result(), string(body)
}

func TestSandboxAnswersAsThePageSays(t *testing.T) {
	for _, c := range []sandboxTestCase{
		{name: "the page's request is accepted", status: 200},
		{name: "both contacts are accepted, as in the page's JSON", body: `{
"emailId": "bed1066b-d8b5-47bc-a67f-2fd70a3c442d",
"celularId": "1163cc70-cdf5-4cbb-95d7-9ae7457046fc",
"cpf": "12345678901",
"primeiroAcesso": false
}`, status: 200},
		{name: "a first access is accepted", body: `{"celularId":"x","cpf":"12345678901","primeiroAcesso":true}`, status: 200},
		{name: "fields the page does not have are ignored", body: `{"celularId":"x","cpf":"12345678901","primeiroAcesso":true,"x":1}`, status: 200},
		{name: "the page's placeholder stands for the body's CPF", path: "/api/v2/beneficiario/{{cpfBeneficiario}}/codigo-confirmacao/enviar", status: 200},
		{name: "so does the placeholder percent-encoded", path: "/api/v2/beneficiario/%7B%7BcpfBeneficiario%7D%7D/codigo-confirmacao/enviar", status: 200},
		{name: "the placeholder does not stand in for a missing CPF", path: "/api/v2/beneficiario/{{cpfBeneficiario}}/codigo-confirmacao/enviar",
			body: `{"celularId":"x","primeiroAcesso":true}`, status: 400},
		{name: "no Accept lets the reply be JSON", header: map[string]string{"Accept": ""}, status: 200},
		{name: "curl's Accept lets the reply be JSON", header: map[string]string{"Accept": "*/*"}, status: 200},
		{name: "the scheme may be in any case", header: map[string]string{"Authorization": "bearer x"}, status: 200},
		{name: "a content type may have parameters", header: map[string]string{"Content-Type": "application/json; charset=utf-8"}, status: 200},

		{name: "no token", header: map[string]string{"Authorization": ""}, status: 401},
		{name: "an empty token", header: map[string]string{"Authorization": "Bearer  "}, status: 401},
		{name: "another scheme", header: map[string]string{"Authorization": "Basic eDp5"}, status: 401},
		{name: "no token and a wrong body is unauthorized first", header: map[string]string{"Authorization": ""}, body: `{}`, status: 401},

		{name: "another CPF in the path", path: "/api/v2/beneficiario/10987654321/codigo-confirmacao/enviar", status: 400},
		{name: "another placeholder in the path", path: "/api/v2/beneficiario/{{cpf}}/codigo-confirmacao/enviar", status: 400},
		{name: "no CPF", body: `{"emailId":"x","primeiroAcesso":false}`, status: 400},
		{name: "a null CPF", body: `{"emailId":"x","cpf":null,"primeiroAcesso":false}`, status: 400},
		{name: "a CPF that is a number", body: `{"emailId":"x","cpf":12345678901,"primeiroAcesso":false}`, status: 400},
		{name: "a CPF of ten digits", path: "/api/v2/beneficiario/1234567890/codigo-confirmacao/enviar",
			body: `{"emailId":"x","cpf":"1234567890","primeiroAcesso":false}`, status: 400},
		{name: "a field in another case is another field", body: `{"emailId":"x","CPF":"12345678901","primeiroAcesso":false}`, status: 400},
		{name: "no contact", body: `{"cpf":"12345678901","primeiroAcesso":false}`, status: 400},
		{name: "an empty contact", body: `{"emailId":"","cpf":"12345678901","primeiroAcesso":false}`, status: 400},
		{name: "a contact that is a number", body: `{"celularId":5,"emailId":"x","cpf":"12345678901","primeiroAcesso":false}`, status: 400},
		{name: "no primeiroAcesso", body: `{"emailId":"x","cpf":"12345678901"}`, status: 400},
		{name: "a primeiroAcesso that is a string", body: `{"emailId":"x","cpf":"12345678901","primeiroAcesso":"false"}`, status: 400},
		{name: "a body that is no JSON", body: `emailId=x`, status: 400},
		{name: "something after the JSON", body: sandboxTestBody + "{}", status: 400},
		{name: "a body that is null", body: `null`, status: 400},
		{name: "a form's content type", header: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}, status: 400},
		{name: "no content type", header: map[string]string{"Content-Type": ""}, status: 400},
		{name: "an Accept that excludes JSON", header: map[string]string{"Accept": "text/html"}, status: 400},

		{name: "another method", method: http.MethodPut, status: 405},
		{name: "another path", path: "/api/v2/beneficiario/12345678901/codigo-confirmacao", status: 404},
		{name: "a body past the bound", body: sandboxTestBody + strings.Repeat(" ", sandboxMaxBody), status: 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			res, body := c.do(t)
			if res.StatusCode != c.status {
				t.Errorf("status = %d, want %d; body %s", res.StatusCode, c.status, body)
			}
			if strings.Contains(body, "12345678901") {
				t.Errorf("the reply names the person: %s", body)
			}
			if c.status == 200 || c.status == 404 {
				return
			}
			var got struct {
				IsSuccess *bool
				Errors    []string
			}
			if err := json.Unmarshal([]byte(body), &got); err != nil || got.IsSuccess == nil || *got.IsSuccess || len(got.Errors) == 0 {
				t.Errorf("error body = %s, want isSuccess false and errors", body)
			}
		})
	}
}

func TestSandboxSucceedsWithThePagesReply(t *testing.T) {
	res, body := sandboxTestCase{}.do(t)
	const want = `{"data":{"tempoExpiracaoCodigoValidacaoEmSegundos":299.9998772},"isSuccess":true}` + "\n"
	if diff := cmp.Diff(want, body); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if got, want := res.Header.Get("Content-Type"), "application/json; charset=utf-8"; got != want {
		t.Errorf("Content-Type = %q, want %q", got, want)
	}
}
