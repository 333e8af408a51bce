package kinpos

import (
	"path/filepath"
	"testing"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/internal/vendorhttp"
	"github.com/otpq/otpq/providers/providertest"
)

func TestContract(t *testing.T) {
	for _, format := range Definition().Formats {
		t.Run(format, func(t *testing.T) {
			providertest.Run(t, providertest.Harness{
				Definition: Definition(),
				Format:     format,
				Exchanges:  filepath.Join("testdata", "exchanges", format),
			})
		})
	}
}

func TestClassifyNeedsAResult(t *testing.T) {
	for body, want := range map[string]providers.Kind{
		`{"encryptedData":"x"}`:                    providers.Accepted,
		`{"encryptedData":"","response":{}}`:       providers.Accepted,
		`{"response":{"id":1}}`:                    providers.Accepted,
		`{"encryptedData":""}`:                     providers.Ambiguous,
		`{"encryptedData":null,"response":null}`:   providers.Ambiguous,
		`{"encryptedData":1}`:                      providers.Ambiguous,
		`{"encryptedData":"x","response":[]}`:      providers.Ambiguous,
		`{"encryptedData":["x"]}`:                  providers.Ambiguous,
		`{"response":"x"}`:                         providers.Ambiguous,
		`{"response":true}`:                        providers.Ambiguous,
		`{"EncryptedData":"x"}`:                    providers.Ambiguous,
		`{"encryptedData":"","encryptedData":"x"}`: providers.Ambiguous,
		`{"Message":"An error has occurred."}`:     providers.Ambiguous,
	} {
		for _, p := range []*provider{{}, {xml: true}} {
			if got := p.classify(vendorhttp.Reply{Status: 200, Body: []byte(body)}); got.Kind != want {
				t.Errorf("classify(200 %s) = %v with xml %v, want %v", body, got.Kind, p.xml, want)
			}
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(200, []byte(`{"encryptedData":"sample string 1"}`))
	f.Add(400, []byte(`{"Message":"The request is invalid."}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		for _, p := range []*provider{{}, {xml: true}} {
			out := p.classify(vendorhttp.Reply{Status: status, Body: body})
			if out.Kind == providers.Accepted && status != 200 || out.Kind == providers.Rejected && status != 400 && status != 422 {
				t.Errorf("classify(%d %s) = %v with xml %v", status, body, out.Kind, p.xml)
			}
		}
	})
}
