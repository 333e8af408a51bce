package unimedbh

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The page's body, and the same as its Java example writes it.
const (
	sandboxTestBody    = "{\n  \"username\": \"teste@gmail.com\",\n  \"type\": \"EMAIL\"\n}"
	sandboxTestCompact = `{"username": "teste@gmail.com","type": "EMAIL"}`
)

func sandboxDo(t *testing.T, method, path, contentType, body string) (int, http.Header, map[string]any) {
	t.Helper()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	Sandbox().ServeHTTP(w, r)
	var got map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil && w.Code != http.StatusNotFound {
		t.Fatalf("body %q: %v", w.Body, err)
	}
	return w.Code, w.Header(), got
}

func TestSandboxAnswersAsThePageSays(t *testing.T) {
	const plain = "application/json"
	for _, c := range []struct {
		name, body, contentType string
		status                  int
		message                 string
	}{
		{name: "the page's request is accepted", body: sandboxTestBody, status: 200},
		{name: "the Java example's is accepted", body: sandboxTestCompact, status: 200},
		{name: "the C# example's content type is accepted", body: sandboxTestCompact, contentType: "application/json; charset=utf-8", status: 200},
		{name: "a final newline is no matter", body: sandboxTestBody + "\r\n", status: 200},
		{name: "fields the page does not have are ignored", body: `{"username":"a","type":"b","x":[1]}`, status: 200},
		{name: "no username", body: `{"type":"EMAIL"}`, status: 400},
		{name: "an empty username", body: `{"username":"","type":"EMAIL"}`, status: 400},
		{name: "a null username", body: `{"username":null,"type":"EMAIL"}`, status: 400},
		{name: "a username that is a number", body: `{"username":1,"type":"EMAIL"}`, status: 400},
		{name: "a field in another case is another field", body: `{"Username":"a","type":"EMAIL"}`, status: 400},
		{name: "no type", body: `{"username":"a"}`, status: 400},
		{name: "an empty type", body: `{"username":"a","type":""}`, status: 400},
		{name: "an empty object", body: `{}`, status: 400},
		{name: "no body", body: ``, status: 400},
		{name: "a body cut off", body: sandboxTestBody[:40], status: 400},
		{name: "something after the JSON", body: sandboxTestBody + "x", status: 400},
		{name: "a body that is no object", body: `["teste@gmail.com"]`, status: 400},
		{name: "a form's content type", body: sandboxTestBody, contentType: "application/x-www-form-urlencoded", status: 400},
		{name: "a username nobody has", body: `{"username":"desconhecido@gmail.com","type":"EMAIL"}`, status: 404,
			message: "Nenhuma sessão encontrada com os dados informados."},
		{name: "a username nobody has, but no type", body: `{"username":"desconhecido"}`, status: 400},
		{name: "a body past the bound", body: `{"username":"` + strings.Repeat("x", sandboxMaxBody) + `","type":"EMAIL"}`, status: 413,
			message: "Corpo da requisição muito grande."},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.contentType == "" {
				c.contentType = plain
			}
			status, header, got := sandboxDo(t, http.MethodPost, sandboxPath, c.contentType, c.body)
			if status != c.status {
				t.Fatalf("status = %d, want %d; body %v", status, c.status, got)
			}
			if ct := header.Get("Content-Type"); ct != "application/json; charset=utf-8" {
				t.Errorf("Content-Type = %q", ct)
			}
			if c.status == 200 {
				return
			}
			if c.message == "" {
				c.message = "Por favor, informe os dados relacionados ao usuário que deseja autenticar."
			}
			date, _ := got["date"].(string)
			if !regexp.MustCompile(`^\d\d/\d\d/\d{4} \d\d:\d\d:\d\d$`).MatchString(date) {
				t.Errorf("date = %q, want it as on the page", date)
			}
			want := map[string]any{"date": date, "message": c.message, "details": []any{}}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("body (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSandboxSuccessEchoesTheTypeAndTellsTheTime(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	_, _, got := sandboxDo(t, http.MethodPost, sandboxPath, "application/json", `{"username": "teste@gmail.com","type": "TYPE"}`)
	at, _ := got["requestedAt"].(string)
	if diff := cmp.Diff(map[string]any{"type": "TYPE", "sended": true, "requestedAt": at}, got); diff != "" {
		t.Errorf("body (-want +got):\n%s", diff)
	}
	if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+0000$`).MatchString(at) {
		t.Errorf("requestedAt = %q, want it as on the page", at)
	}
	when, err := time.Parse("2006-01-02T15:04:05.000-0700", at)
	if err != nil || when.Before(before) || when.After(time.Now()) {
		t.Errorf("requestedAt = %q (%v), want now", at, err)
	}
}

func TestSandboxRefusesOtherMethodsAndPaths(t *testing.T) {
	if status, _, _ := sandboxDo(t, http.MethodGet, sandboxPath, "", ""); status != http.StatusMethodNotAllowed {
		t.Errorf("GET = %d, want 405", status)
	}
	if status, _, _ := sandboxDo(t, http.MethodPost, "/security/v2/otp/request", "", ""); status != http.StatusNotFound {
		t.Errorf("another path = %d, want 404", status)
	}
}

// The page's HTTP example announces 61 bytes and prints 54: what the server
// waits for never comes. It must answer all the same.
func TestSandboxAnswersThePagesRawRequest(t *testing.T) {
	raw, err := os.ReadFile("testdata/sandbox/raw_request.txt")
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(raw), "\n\n")
	if body != sandboxTestBody {
		t.Fatalf("the example's body is %q, want the page's", body)
	}
	indented := strings.ReplaceAll(strings.ReplaceAll(body, "  ", "    "), "\n", "\r\n")
	for name, body := range map[string]string{
		"as printed":                            body,
		"indented by four, with CRLF: 61 bytes": indented,
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(Sandbox())
			defer s.Close()
			c, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			// The newlines of a head are CRLF, whatever a page prints.
			if _, err := io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"+body); err != nil {
				t.Fatal(err)
			}
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatalf("no reply: %v", err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK {
				t.Errorf("status = %d, want 200", res.StatusCode)
			}
		})
	}
	if len(indented) != 61 {
		t.Errorf("the indented body has %d bytes, want the example's 61", len(indented))
	}
}
