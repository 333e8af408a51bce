package main

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestAProbeTellsWhetherAProcessIsWell(t *testing.T) {
	r := newRig(t)
	worker := r.worker(r.writeConfig("admin: {listen: 127.0.0.1:0}")).admin()
	dashboard, _ := r.dashboard(nil)
	for _, at := range []string{worker + "/healthz", worker + "/readyz", dashboard + "/readyz"} {
		otpq(t, []string{"HTTP_PROXY=http://127.0.0.1:1"}, "", "probe", at).want(t, exitDone).wantOut(t, `"status":"ok"`)
	}
	ill := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the janitor stands still", http.StatusServiceUnavailable)
	}))
	otpq(t, nil, "", "probe", ill.URL).want(t, exitFailed, "answers 503: the janitor stands still")
	ill.Close()
	otpq(t, nil, "", "probe", ill.URL).want(t, exitFailed, "no answer from http://127.0.0.1:")
	for _, wrong := range []string{"127.0.0.1:9090", "/healthz", "ftp://127.0.0.1/", "http://"} {
		otpq(t, nil, "", "probe", wrong).want(t, exitUsage, "URL must be such as")
	}
}
