package main

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/otpq/otpq/tasks"
)

func TestReadyzSaysWhichIsWrong(t *testing.T) {
	ring, err := tasks.NewKeyring(tasks.Key{ID: "k", Secret: tasks.GenerateSecret()})
	if err != nil {
		t.Fatal(err)
	}
	fine := func() error { return nil }
	broken := func() error { return errors.New("token_file: is empty") }
	all := func() readiness {
		return readiness{
			redis: func(context.Context) error { return nil }, keys: ring, loops: fine,
			providers: map[string]func() error{"a": fine, "b": fine}, off: []offProvider{{"c", "needs a token"}},
		}
	}
	for name, c := range map[string]struct {
		change func(*readiness)
		wrong  []string // checks
		says   string
	}{
		"nothing":           {func(*readiness) {}, nil, ""},
		"Redis":             {func(r *readiness) { r.redis = func(context.Context) error { return errors.New("refused") } }, []string{"redis"}, "redis does not answer: refused"},
		"no keys":           {func(r *readiness) { r.keys = nil }, []string{"keys"}, "keys"},
		"a stopped loop":    {func(r *readiness) { r.loops = func() error { return errors.New("the worker's heartbeat stands") } }, []string{"loops"}, "heartbeat"},
		"one provider of 2": {func(r *readiness) { r.providers["a"] = broken }, nil, ""},
		"all providers":     {func(r *readiness) { r.providers["a"], r.providers["b"] = broken, broken }, []string{"providers"}, "no provider can be used"},
		"several": {func(r *readiness) {
			r.redis = func(context.Context) error { return errors.New("refused") }
			r.providers = nil
		}, []string{"redis", "providers"}, "redis does not answer: refused; no provider can be used"},
	} {
		t.Run(name, func(t *testing.T) {
			r := all()
			c.change(&r)
			answer := httptest.NewRecorder()
			r.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
			var report readyReport
			if err := json.Unmarshal(answer.Body.Bytes(), &report); err != nil {
				t.Fatal(err)
			}
			code, state := http.StatusOK, "ok"
			if c.wrong != nil {
				code, state = http.StatusServiceUnavailable, "failing"
			}
			if answer.Code != code || report.Status != state || !strings.Contains(report.Error, c.says) || (c.says == "") != (report.Error == "") {
				t.Errorf("/readyz = %d %s, want %d and %q", answer.Code, answer.Body, code, c.says)
			}
			var wrong []string
			for check, says := range report.Checks {
				if says != "ok" {
					wrong = append(wrong, check)
				}
			}
			if diff := cmp.Diff(c.wrong, wrong, cmpopts.SortSlices(strings.Compare), cmpopts.EquateEmpty()); diff != "" || len(report.Checks) != 4 {
				t.Errorf("checks = %v (-want +wrong):\n%s", report.Checks, diff)
			}
			if report.Providers["c"] != "off: needs a token" {
				t.Errorf("providers = %v, want c off, and why", report.Providers)
			}
		})
	}
}

// A token file is a secret that somebody mounts, and takes away.
func TestAWorkerWithoutATokenFileIsNotReady(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("t0ken-of-the-test\n")
	config := writeFile(t, `
redis: {url: "`+r.redis.URL()+`"}
keys: [{id: "`+r.key.ID+`", secret: "`+r.key.Secret.Reveal()+`"}]
admin: {listen: 127.0.0.1:0}
providers:
  medsenior: {base_url: "`+r.url+`", token_file: "`+file+`"}
  unimedbh: {base_url: "`+r.url+`"}
`)
	url := r.worker(config).admin() + "/readyz"
	ready := func() (readyReport, int) {
		code, body := get(t, url)
		var report readyReport
		if err := json.Unmarshal([]byte(body), &report); err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if strings.Contains(body, "t0ken") {
			t.Errorf("/readyz shows the token: %s", body)
		}
		return report, code
	}
	waitFor(t, "/readyz", func() bool { _, code := ready(); return code == http.StatusOK })
	write(" \n")
	report, code := ready()
	if code != http.StatusOK || report.Providers["medsenior"] != "token_file: is empty" || report.Providers["unimedbh"] != "ok" ||
		!strings.HasPrefix(report.Providers["kinpos"], "off: needs a base URL") {
		t.Errorf("/readyz = %d %+v, want medsenior without a token and unimedbh there", code, report)
	}
}
