package sandbox_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/sandbox"
)

// servePages serves the real providers.
func servePages(t *testing.T) (*sandbox.Server, *httptest.Server) {
	t.Helper()
	apis := map[string]http.Handler{}
	for _, d := range all.All() {
		apis[d.Name] = d.Sandbox()
	}
	s := sandbox.New(sandbox.Options{Providers: apis})
	h := httptest.NewServer(s.Handler())
	t.Cleanup(h.Close)
	t.Cleanup(s.Close)
	return s, h
}

// The curl commands of the pages are in testdata/curl, to the letter. Only
// their hosts change on the way.
func TestThePagesCurlExamplesWork(t *testing.T) {
	files, err := filepath.Glob("testdata/curl/*.sh")
	if err != nil || len(files) != 3 {
		t.Fatalf("there are %d examples, want the pages' 3: %v", len(files), err)
	}
	s, h := servePages(t)
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".sh")
		provider, _, _ := strings.Cut(name, "_")
		t.Run(name, func(t *testing.T) {
			script, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r, err := parseCurl(string(script))
			if err != nil {
				t.Fatal(err)
			}
			r.URL.Scheme, r.URL.Host, r.Host = "http", h.Listener.Addr().String(), ""
			res, err := h.Client().Do(r.WithContext(t.Context()))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			var got map[string]any
			if err := json.NewDecoder(res.Body).Decode(&got); err != nil || res.StatusCode != http.StatusOK {
				t.Fatalf("status %d, body %v, %v", res.StatusCode, got, err)
			}
			want := map[string]map[string]any{
				"medsenior": {"data": map[string]any{"tempoExpiracaoCodigoValidacaoEmSegundos": 299.9998772}, "isSuccess": true},
				"unimedbh":  {"type": "EMAIL", "sended": true, "requestedAt": got["requestedAt"]}, // its form is tested beside it
			}[provider]
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("reply (-want +got):\n%s", diff)
			}
		})
	}
	for provider, want := range map[string]int{"medsenior": 2, "unimedbh": 1, "kinpos": 0} {
		if c, err := s.Counts(provider); err != nil || c.Acted != want || c.Received != want {
			t.Errorf("%s: %+v, %v, want %d received and acted", provider, c, err, want)
		}
	}
}

// The example announces more bytes than it has; see the provider's own test.
func TestUnimedBHsRawExampleWorksThroughTheSandbox(t *testing.T) {
	raw, err := os.ReadFile("../unimedbh/testdata/sandbox/raw_request.txt")
	if err != nil {
		t.Fatal(err)
	}
	s, h := servePages(t)
	c, err := net.Dial("tcp", h.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(string(raw), "\n\n")
	if _, err := io.WriteString(c, strings.ReplaceAll(head, "\n", "\r\n")+"\r\n\r\n"+body); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no reply: %v", err)
	}
	defer res.Body.Close()
	if got, err := s.Counts("unimedbh"); err != nil || got.Acted != 1 || res.StatusCode != http.StatusOK {
		t.Errorf("status %d, counts %+v, %v, want 200 and one acted", res.StatusCode, got, err)
	}
}

func TestEveryProvidersPathIsItsOwn(t *testing.T) {
	s, h := servePages(t)
	for _, c := range []struct{ provider, path string }{
		{"medsenior", "/api/v2/beneficiario/12345678901/codigo-confirmacao/enviar"},
		{"unimedbh", "/security/v1/otp/request"},
		{"kinpos", "/api/Auth/1/1/GenerateCnfCodeNotUser"},
	} {
		// A wrong method belongs to the provider too: faults must reach it.
		res, err := http.Get(h.URL + c.path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		got, err := s.Counts(c.provider)
		if err != nil || got.Received != 1 || res.StatusCode != http.StatusMethodNotAllowed || res.Header.Get("Allow") != "POST" {
			t.Errorf("GET %s = %d, %s received %d, %v", c.path, res.StatusCode, c.provider, got.Received, err)
		}
	}
}

// Clients and sandboxes read the pages independently of each other. What a
// client calls valid its sandbox must accept, in every format: where it does
// not, one of the two has misread the page.
func TestClientsAndSandboxesReadThePagesAlike(t *testing.T) {
	bodies := map[string][]string{
		"medsenior": {
			`{"emailId":"x","cpf":"00000000000","primeiroAcesso":true}`,
			`{"emailId":"","celularId":"ç/&\u003c","cpf":"12345678901","primeiroAcesso":false}`,
		},
		"unimedbh": {
			`{"username":"teste@gmail.com","type":"EMAIL"}`,
			`{"username":"+55 31 99999-0000 ç<&>\u2028","type":"SMS"}`,
		},
		"kinpos": {
			`{"mobileNumber":"12345"}`,
			`{"emailAddress":"josé_+%-.a@ejemplo-1.com.bo"}`,
			`{"mobileNumber":"12345","additionalParameters":{}}`,
			`{"mobileNumber":"12345","additionalParameters":{"":"","b <&>":" x ","a":"ñ\r\n\t"}}`,
			`{"mobileNumber":"12345","auditInfo":{}}`,
			`{"mobileNumber":"12345","auditInfo":{"countryCode":"BO","longitude":"<"},"recoveryId":0,"deviceId":9007199254740993}`,
			`{"mobileNumber":"12345","language":"","latitude":"]]>","userTypeAltId":"--------------------------------"}`,
		},
	}
	s, h := servePages(t)
	for _, d := range all.All() {
		requests := []providers.Request{d.Example}
		for _, body := range bodies[d.Name] {
			r, err := d.Decode([]byte(body))
			if err == nil {
				err = r.Validate()
			}
			if err != nil {
				t.Errorf("%s: %s: %v", d.Name, body, err)
				continue
			}
			requests = append(requests, r)
		}
		formats := d.Formats
		if len(formats) == 0 {
			formats = []string{""}
		}
		for _, format := range formats {
			settings := providers.Settings{BaseURL: h.URL, Format: format}
			if d.NeedsToken {
				settings.Token = "x"
			}
			p, err := d.New(settings)
			if err != nil {
				t.Fatal(err)
			}
			for i, r := range requests {
				if o := p.Send(t.Context(), r); o.Kind != providers.Accepted {
					t.Errorf("%s %s: request %d is %s %s: %v", d.Name, format, i, o.Kind, o.Reason, o.Err)
				}
			}
		}
		want := len(requests) * len(formats)
		if c, err := s.Counts(d.Name); err != nil || c.Acted != want {
			t.Errorf("%s: acted on %d, %v, want %d", d.Name, c.Acted, err, want)
		}
	}
}

// parseCurl reads the curl commands of the pages: a URL, -X, -H, -d and their
// long forms, in single quotes or bare, lines joined by a backslash.
func parseCurl(script string) (*http.Request, error) {
	words, err := shellWords(script)
	if err != nil {
		return nil, err
	}
	if len(words) == 0 || words[0] != "curl" {
		return nil, fmt.Errorf("no curl command: %q", words)
	}
	var method, url, data string
	header := http.Header{}
	for i := 1; i < len(words); i++ {
		switch word := words[i]; word {
		case "--location": // follows redirects, as Go's client does
		case "-X", "-H", "--header", "-d", "--data-raw":
			i++
			if i == len(words) {
				return nil, fmt.Errorf("%s lacks its value", word)
			}
			switch {
			case word == "-X":
				method = words[i]
			case strings.HasPrefix(strings.TrimLeft(word, "-"), "d"):
				data = words[i]
			default:
				k, v, _ := strings.Cut(words[i], ": ")
				header.Set(k, v)
			}
		default:
			if strings.HasPrefix(word, "-") || url != "" {
				return nil, fmt.Errorf("this parser does not know %q", word)
			}
			url = word
		}
	}
	if method == "" {
		method = http.MethodPost // as curl does when there is data
	}
	r, err := http.NewRequest(method, url, strings.NewReader(data))
	if err != nil {
		return nil, err
	}
	r.Header = header
	return r, nil
}

// shellWords splits a command as a shell does, as far as the pages need it.
func shellWords(s string) (words []string, err error) {
	s = strings.ReplaceAll(s, "\\\n", " ")
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if s[0] != '\'' {
			end := strings.IndexAny(s+" ", " \n'")
			words, s = append(words, s[:end]), s[min(end, len(s)):]
			continue
		}
		word, rest, closed := strings.Cut(s[1:], "'")
		if !closed {
			return nil, fmt.Errorf("a quote is not closed before %.20q", s)
		}
		words, s = append(words, word), rest
	}
	return words, nil
}
