package unimedbh

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/internal/vendorhttp"
	"github.com/otpq/otpq/providers/providertest"
)

func TestContract(t *testing.T) {
	providertest.Run(t, providertest.Harness{Definition: Definition()})
}

const refusal = `{"date":"11/11/2025 16:29:32","message":"m","details":[]}`

func TestClassify(t *testing.T) {
	p := &provider{log: zerolog.Nop()}
	for _, c := range []struct {
		status int
		body   string
		kind   providers.Kind
		reason providers.Reason
	}{
		{200, `{"sended":true}`, providers.Accepted, ""},
		{200, `{"sended":false}`, providers.RetryLater, providers.ReasonNotSent},
		{200, `{"sended":"true"}`, providers.Ambiguous, providers.ReasonUnclassified},
		{200, `{"sended":null}`, providers.Ambiguous, providers.ReasonUnclassified},
		{200, `{"Sended":true}`, providers.Ambiguous, providers.ReasonUnclassified},
		{200, `{"sent":true}`, providers.Ambiguous, providers.ReasonUnclassified},
		{200, `{"sended":true,"sended":true}`, providers.Ambiguous, providers.ReasonUnclassified},
		{200, refusal, providers.Ambiguous, providers.ReasonUnclassified},
		{400, refusal, providers.Rejected, providers.ReasonInvalidRequest},
		{404, refusal, providers.Rejected, providers.ReasonRecipientUnknown},
		{404, `{"date":"11/11/2025 16:29:32","message":"","details":["x",{"y":1}]}`, providers.Rejected, providers.ReasonRecipientUnknown},
		{404, `{"date":null,"message":"m","details":[]}`, providers.RetryLater, providers.ReasonUnexpectedStatus},
		{404, `{"date":"d","details":[]}`, providers.RetryLater, providers.ReasonUnexpectedStatus},
		{404, `{"date":"d","message":"m"}`, providers.RetryLater, providers.ReasonUnexpectedStatus},
		{404, `{"date":"d","message":"m","details":{}}`, providers.RetryLater, providers.ReasonUnexpectedStatus},
		{404, ``, providers.RetryLater, providers.ReasonUnexpectedStatus},
		{400, `<html>`, providers.RetryLater, providers.ReasonUnexpectedStatus},
		{500, refusal, providers.RetryLater, providers.ReasonProviderError},
	} {
		got := p.classify(vendorhttp.Reply{Status: c.status, Body: []byte(c.body)})
		if got.Kind != c.kind || got.Reason != c.reason {
			t.Errorf("classify(%d %s) = %v %q, want %v %q", c.status, c.body, got.Kind, got.Reason, c.kind, c.reason)
		}
	}
}

func TestRequestedAt(t *testing.T) {
	want := time.Date(2025, 11, 11, 18, 40, 15, 71e6, time.UTC)
	for raw, ok := range map[string]bool{
		`"2025-11-11T18:40:15.071+0000"`:  true,
		`"2025-11-11T15:40:15.071-0300"`:  true,
		`"2025-11-11T18:40:15.071Z"`:      false,
		`"2025-11-11T18:40:15.071+00:00"`: false,
		`"11/11/2025 16:29:32"`:           false,
		`1762886415`:                      false,
		`null`:                            false,
		``:                                false,
	} {
		got, gotOK := requestedAt([]byte(raw))
		if gotOK != ok || ok && !got.Equal(want) {
			t.Errorf("requestedAt(%s) = %v, %v, want %v, %v", raw, got, gotOK, want, ok)
		}
	}
}

func TestWhenTheVendorWasAskedIsLogged(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"type":"EMAIL","sended":true,"requestedAt":"2025-11-11T18:40:15.071+0000"}`))
	}))
	defer srv.Close()
	var log bytes.Buffer
	p, err := New(providers.Settings{BaseURL: srv.URL, Log: zerolog.New(&log)})
	if err != nil {
		t.Fatal(err)
	}
	p.Send(t.Context(), Definition().Example)
	if got, want := log.String(), `"requested_at":"2025-11-11T18:40:15Z"`; !strings.Contains(got, want) {
		t.Errorf("the log is %s, want %s in it", got, want)
	}
}

func FuzzClassify(f *testing.F) {
	p := &provider{log: zerolog.Nop()}
	f.Add(200, []byte(`{"type":"EMAIL","sended":true,"requestedAt":"2025-11-11T18:40:15.071+0000"}`))
	f.Add(404, []byte(refusal))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		out := p.classify(vendorhttp.Reply{Status: status, Body: body})
		if out.Kind == providers.Accepted && status != 200 || out.Kind == providers.Rejected && status != 400 && status != 404 {
			t.Errorf("classify(%d %s) = %v", status, body, out.Kind)
		}
	})
}

func FuzzRequestedAt(f *testing.F) {
	f.Add([]byte(`"2025-11-11T18:40:15.071+0000"`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if at, ok := requestedAt(raw); ok != !at.IsZero() && !strings.Contains(string(raw), "0001-01-01") {
			t.Errorf("requestedAt(%s) = %v, %v", raw, at, ok)
		}
	})
}
