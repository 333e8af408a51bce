package medsenior

import (
	"fmt"
	"testing"
	"time"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/internal/vendorhttp"
	"github.com/otpq/otpq/providers/providertest"
)

func TestContract(t *testing.T) {
	providertest.Run(t, providertest.Harness{Definition: Definition()})
}

func TestClassifyNeedsThePagesSuccess(t *testing.T) {
	for body, want := range map[string]providers.Kind{
		`{"isSuccess":true}`:                              providers.Accepted,
		`{"isSuccess":false}`:                             providers.RetryLater,
		`{"isSuccess":"true"}`:                            providers.Ambiguous,
		`{"isSuccess":1}`:                                 providers.Ambiguous,
		`{"isSuccess":null}`:                              providers.Ambiguous,
		`{"IsSuccess":true}`:                              providers.Ambiguous,
		`{"issuccess":true}`:                              providers.Ambiguous,
		`{"isSuccess":false,"isSuccess":true}`:            providers.Ambiguous,
		`{"data":{"isSuccess":true}}`:                     providers.Ambiguous,
		`{"isSuccess":true}{"isSuccess":false}`:           providers.Ambiguous,
		`{"isSuccess":true,"errors":["not on the page"]}`: providers.Accepted,
		"\ufeff" + `{"isSuccess":true}`:                   providers.Accepted,
	} {
		if got := classify(vendorhttp.Reply{Status: 200, Body: []byte(body)}); got.Kind != want {
			t.Errorf("classify(200 %s) = %v, want %v", body, got.Kind, want)
		}
	}
}

func TestValidity(t *testing.T) {
	for seconds, want := range map[string]time.Duration{
		"299.9998772": 299_999_877_200 * time.Nanosecond,
		"300":         5 * time.Minute,
		"3e2":         5 * time.Minute,
		"0":           0,
		"86400":       24 * time.Hour,
		"86401":       0,
		"1e308":       0,
		"1e309":       0, // more than a float64 holds
		"-1":          0,
		`"300"`:       0,
		"null":        0,
		"[300]":       0,
	} {
		body := fmt.Sprintf(`{"tempoExpiracaoCodigoValidacaoEmSegundos":%s}`, seconds)
		if got := validity([]byte(body)); got != want {
			t.Errorf("validity(%s) = %v, want %v", body, got, want)
		}
	}
	for _, data := range []string{"", "null", "[]", "{}", `{"TempoExpiracaoCodigoValidacaoEmSegundos":300}`} {
		if got := validity([]byte(data)); got != 0 {
			t.Errorf("validity(%q) = %v, want 0", data, got)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(200, []byte(`{"data":{"tempoExpiracaoCodigoValidacaoEmSegundos":299.9998772},"isSuccess":true}`))
	f.Add(200, []byte(`{"isSuccess":false}`))
	f.Add(400, []byte(`<html>`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		out := classify(vendorhttp.Reply{Status: status, Body: body})
		if out.Kind == providers.Accepted && status != 200 || out.Kind == providers.Rejected && status != 400 {
			t.Errorf("classify(%d %s) = %v", status, body, out.Kind)
		}
		if out.ExpiresIn < 0 || out.ExpiresIn > longestValidity {
			t.Errorf("classify(%d %s).ExpiresIn = %v", status, body, out.ExpiresIn)
		}
	})
}
