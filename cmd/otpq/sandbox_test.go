package main

import (
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/otpq/otpq/providers/sandbox"
)

// listening starts a sandbox and returns its URL.
func listening(t *testing.T, args ...string) (*background, string) {
	t.Helper()
	b := start(t, nil, append([]string{"sandbox", "--listen", "127.0.0.1:0", "--json"}, args...)...)
	b.says(`"url"`)
	return b, decodeLines[map[string]string](t, b.out.String())[0]["url"]
}

// post sends body to a URL and returns the status.
func post(t *testing.T, url, body string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	reply, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	reply.Body.Close()
	return reply.StatusCode
}

func TestSandboxServesUntilItIsStopped(t *testing.T) {
	b, url := listening(t)
	if got := post(t, url+"/security/v1/otp/request", request); got != http.StatusOK {
		t.Errorf("status = %d, want 200", got)
	}
	if code := b.end(); code != exitDone {
		t.Errorf("exit code = %d, want %d", code, exitDone)
	}
	if conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://")); err == nil {
		conn.Close()
		t.Error("the port is open after the end")
	}
	b = start(t, nil, "sandbox", "--listen", "127.0.0.1:0")
	b.says("sandbox at http://127.0.0.1:")
	b.says("/_sandbox/")
}

func TestSandboxTakesFaultsByFlag(t *testing.T) {
	_, url := listening(t, "--fault", "unimedbh:fail_next=1,error_status=503", "--fault", "kinpos:error_rate=1", "--seed", "7")
	path := url + "/security/v1/otp/request"
	if first, second := post(t, path, request), post(t, path, request); first != 503 || second != 200 {
		t.Errorf("statuses = %d, %d, want 503, 200", first, second)
	}
	if got := post(t, url+"/api/Auth/1/1/GenerateCnfCodeNotUser", phone); got != 500 {
		t.Errorf("status = %d, want 500", got)
	}
}

func TestSandboxOnATakenPortFails(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for _, cmd := range []string{"sandbox", "dev"} {
		otpq(t, nil, "", cmd, "--listen", taken.Addr().String()).want(t, exitFailed, "--listen: ", "address already in use")
	}
}

func TestSandboxHelpListsTheFaults(t *testing.T) {
	res := otpq(t, nil, "", "sandbox", "--help").want(t, exitDone)
	for line := range strings.Lines(sandbox.FaultUsage()) {
		res.wantOut(t, strings.TrimSpace(line))
	}
}
