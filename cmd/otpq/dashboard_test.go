package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/otpq/otpq/status"
)

const goodPassword = "correct horse battery"

var (
	dashboardURL  = regexp.MustCompile(`dashboard +(?:at )?(http://\S+)`)
	dashboardArgs = []string{"dashboard", "--listen", "127.0.0.1:0"}
)

// dashboard starts a dashboard and returns where it is.
func (r *rig) dashboard(env []string, flags ...string) (url string, b *background) {
	r.t.Helper()
	b = start(r.t, append(env, "OTPQ_CONFIG="+r.file), append(dashboardArgs, flags...)...)
	b.says("dashboard at ")
	return dashboardURL.FindStringSubmatch(b.out.String())[1], b
}

// userLine is a user as the configuration has it, with a hash that costs a test
// little; the command's own are for those who guess.
func userLine(t *testing.T, name string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(goodPassword), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return name + ":" + string(hash)
}

// fetch asks the dashboard, as a user when one is given.
func fetch(t *testing.T, method, at string, form url.Values, user string) (code int, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, at, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if user != "" {
		req.SetBasicAuth(user, goodPassword)
	}
	res, err := (&http.Client{Timeout: 30 * time.Second}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), person) {
		t.Errorf("%s names a person:\n%s", at, text)
	}
	return res.StatusCode, string(text)
}

func TestTheDashboardShowsAndChangesNothing(t *testing.T) {
	r := newRig(t)
	waiting := r.send()
	dead := r.dead("unimedbh", request, status.Rejected, "invalid_request", time.Now())
	at, b := r.dashboard(nil)
	for path, words := range map[string]string{
		"/": "unimedbh", "/deliveries/message?id=" + waiting: "it is the next one", "/deliveries/dead": dead, "/asynqmon/": "Asynq",
		"/asynqmon/api/queues/otpq:unimedbh:interactive/pending_tasks": "sealed with key k", "/healthz": "ok", "/metrics": "otpq_build_info",
	} {
		if code, body := fetch(t, http.MethodGet, at+path, nil, ""); code != http.StatusOK || !strings.Contains(body, words) {
			t.Errorf("%s = %d, want %q:\n%.2000s", path, code, words, body)
		}
	}
	if code, _ := fetch(t, http.MethodPost, at+"/deliveries/act", url.Values{"do": {"replay"}, "id": {dead}}, ""); code != http.StatusMethodNotAllowed {
		t.Errorf("replay in a dashboard without --write = %d, want 405", code)
	}
	if code := b.end(); code != exitDone {
		t.Errorf("exit code = %d, want %d\n%s", code, exitDone, b.err)
	}
}

func TestWhoSignsInMayReplayWhereWriteIsOn(t *testing.T) {
	r := newRig(t)
	line := userLine(t, "ana")
	dead := r.dead("unimedbh", request, status.Exhausted, "timeout", time.Now())
	at, b := r.dashboard([]string{"OTPQ_DASHBOARD_USERS=" + line, "OTPQ_LOG_FORMAT=json"}, "--write")
	form := url.Values{"do": {"replay"}, "id": {dead}}
	if code, _ := fetch(t, http.MethodPost, at+"/deliveries/act", form, ""); code != http.StatusUnauthorized {
		t.Errorf("replay by nobody = %d, want 401", code)
	}
	if code, _ := fetch(t, http.MethodPost, at+"/deliveries/act", form, "rui"); code != http.StatusUnauthorized {
		t.Errorf("replay by a stranger = %d, want 401", code)
	}
	if code, body := fetch(t, http.MethodPost, at+"/deliveries/act", form, "ana"); code != http.StatusOK || !strings.Contains(body, "Replay of") {
		t.Errorf("replay = %d:\n%.2000s", code, body)
	}
	if r.record(dead).ReplayedAs == "" {
		t.Error("the dead letter was not replayed")
	}
	b.end()
	log := b.err.String()
	if !strings.Contains(log, `"user":"ana","action":"replay","message":"`+dead) || strings.Contains(log, "battery") || strings.Contains(log, "rui") {
		t.Errorf("the log does not say who did what, or says too much:\n%s", log)
	}
}

func TestUsersComeFromAFileToo(t *testing.T) {
	r := newRig(t)
	line := userLine(t, "ana")
	at, _ := r.dashboard([]string{"OTPQ_DASHBOARD_USERS_FILE=" + writeFile(t, "# operators\n\n"+line)})
	for user, want := range map[string]int{"": 401, "ana": 200, "rui": 401} {
		if code, _ := fetch(t, http.MethodGet, at+"/deliveries", nil, user); code != want {
			t.Errorf("%q gets %d, want %d", user, code, want)
		}
	}
}

func TestADashboardThatAnybodyCouldReachIsRefused(t *testing.T) {
	r := newRig(t)
	for _, address := range []string{"0.0.0.0:0", ":0", "[::]:0"} {
		r.otpq("dashboard", "--listen", address).want(t, exitFailed, "can be reached from other machines", "otpq dashboard hash", "127.0.0.1")
	}
	otpq(t, []string{"OTPQ_CONFIG=" + r.file, "OTPQ_DASHBOARD_USERS=ana:hunter2"}, "", "dashboard").want(t, exitFailed, "user 1: must be NAME:BCRYPT")
	otpq(t, []string{"OTPQ_CONFIG=" + r.file, "OTPQ_DASHBOARD_USERS_FILE=/nonexistent"}, "", "dashboard").want(t, exitFailed, "dashboard.users_file")
	r.otpq("dashboard", "--listen", "8080").want(t, exitUsage, "--listen must be host:port")
	// Whoever may act needs what seals.
	otpq(t, []string{"OTPQ_REDIS_URL=" + r.redis.URL()}, "", "dashboard", "--write", "--listen", "127.0.0.1:0").want(t, exitFailed, "no sealing key")
}

func TestAPasswordIsReadFromStdinAndNeverPrinted(t *testing.T) {
	res := otpq(t, nil, goodPassword+"\r\n", "dashboard", "hash", "ana", "--json").want(t, exitDone)
	var user map[string]string
	if err := json.Unmarshal([]byte(res.out), &user); err != nil || user["name"] != "ana" || !strings.HasPrefix(user["hash"], "$2a$12$") {
		t.Errorf("hash --json = %q", res.out)
	}
	if err := bcrypt.CompareHashAndPassword([]byte(user["hash"]), []byte(goodPassword)); err != nil {
		t.Errorf("the hash is of another password than the line without its end: %v", err)
	}
	for stdin, want := range map[string]string{"short": "at least 12 characters", "": "at least 12", strings.Repeat("x", 100): "at most 72 bytes"} {
		if res := otpq(t, nil, stdin, "dashboard", "hash", "ana").want(t, exitUsage, want); stdin != "" && strings.Contains(res.err, stdin) {
			t.Errorf("the password is printed: %s", res.err)
		}
	}
	otpq(t, nil, goodPassword, "dashboard", "hash", "a b").want(t, exitUsage, "a user's name")
	otpq(t, nil, goodPassword, "dashboard", "hash").want(t, exitUsage, "needs NAME")
}

func TestDevServesTheDashboard(t *testing.T) {
	b := start(t, nil, "dev")
	b.says("Still running; Ctrl-C ends it.")
	at := dashboardURL.FindStringSubmatch(b.out.String())[1]
	_, page := fetch(t, http.MethodGet, at+"/deliveries/dead", nil, "")
	dead := regexp.MustCompile(`name="id" value="([^"]+)"`).FindStringSubmatch(page)
	if dead == nil {
		t.Fatalf("no dead letter can be chosen:\n%s", page)
	}
	if code, body := fetch(t, http.MethodGet, at+"/asynqmon/api/queues", nil, ""); code != http.StatusOK || !strings.Contains(body, "otpq:kinpos:bulk") {
		t.Errorf("queues = %d %s", code, body)
	}
	if code, body := fetch(t, http.MethodPost, at+"/deliveries/act", url.Values{"do": {"replay"}, "id": {dead[1]}}, ""); code != http.StatusOK || !strings.Contains(body, "Replay of") {
		t.Errorf("replay = %d:\n%.2000s", code, body)
	}
	if code := b.end(); code != exitDone {
		t.Errorf("exit code = %d", code)
	}
	otpq(t, nil, "", "dev", "--once", "--dashboard", "0.0.0.0:0").want(t, exitFailed, "can be reached from other machines")
}
