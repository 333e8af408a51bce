package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func TestSendPrintsTheIDAlone(t *testing.T) {
	r := newRig(t)
	res := r.otpq("send", "unimedbh", request).want(t, exitDone)
	if res.err != "" || strings.Count(res.out, "\n") != 1 {
		t.Errorf("stdout %q, stderr %q; want one line with the id", res.out, res.err)
	}
	if got := r.record(strings.TrimSpace(res.out)); got.State != status.Queued || got.Lane != tasks.Interactive {
		t.Errorf("record = %+v, want queued in the interactive lane", got)
	}
}

func TestSendTakesTheRequestFromAFileOrAPipe(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "request.json")
	if err := os.WriteFile(file, []byte(request+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"OTPQ_CONFIG=" + r.file}
	for name, res := range map[string]result{
		"file": otpq(t, env, "", "send", "unimedbh", "@"+file),
		"pipe": otpq(t, env, request+"\n", "send", "unimedbh", "-"),
	} {
		id := strings.TrimSpace(res.want(t, exitDone).out)
		if got := r.record(id).Recipient; got == "" {
			t.Errorf("%s: the record has no recipient", name)
		}
	}
	otpq(t, env, "", "send", "unimedbh", "@"+file+".missing").want(t, exitUsage, "read the request: "+file+".missing: no such file")
	otpq(t, env, strings.Repeat(" ", maxRequest+1), "send", "unimedbh", "-").want(t, exitUsage, "longer than")
}

func TestAnInvalidRequestNamesEveryField(t *testing.T) {
	for _, c := range []struct {
		args  []string
		words []string
	}{
		{[]string{"medsenior", `{"cpf":"123","colour":"red"}`}, []string{"colour", "emailId", "celularId", "cpf must be 11 digits", "primeiroAcesso"}},
		{[]string{"unimedbh", `{}`}, []string{"username is required", "type is required"}},
		{[]string{"kinpos", `{"mobileNumber":"+55","language":"portuguese"}`}, []string{"mobileNumber", "language"}},
		{[]string{"unimedbh", "not JSON"}, []string{"not valid JSON"}},
		{[]string{"unimedbh", "-"}, []string{"there is no request in standard input: nothing came"}},
		{[]string{"unimedbh", "@/dev/null"}, []string{"there is no request in /dev/null"}},
		{[]string{"unimedbh", "@."}, []string{". is a folder"}},
		{[]string{"unimedbh", "@"}, []string{"read the request"}},
		{[]string{"nosuch", "{}"}, []string{`no provider "nosuch"; the providers are`, "medsenior", "unimedbh", "kinpos"}},
	} {
		res := otpq(t, nil, "", append([]string{"send"}, c.args...)...).want(t, exitUsage, c.words...)
		if res.out != "" {
			t.Errorf("stdout = %q, want nothing", res.out)
		}
	}
}

func TestAWrongOptionIsNamedByItsFlag(t *testing.T) {
	r := newRig(t)
	for flag, value := range map[string]string{
		"--key": strings.Repeat("k", 256), "--valid-for": "-1s", "--lane": "fast", "--max-attempts": "-1", "--at": "2999-01-01",
	} {
		r.otpq("send", "unimedbh", request, flag+"="+value).want(t, exitUsage, "otpq: "+flag+" ")
	}
	r.otpq("send", "unimedbh", request, "--valid-for=169h").want(t, exitUsage, "--valid-for", "at most 168h0m0s")
	// An empty variable in a script would send a second code.
	r.otpq("send", "unimedbh", request, "--key=").want(t, exitUsage, "--key must not be empty")
	if n := r.rdb.DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("%d keys in Redis, want none", n)
	}
}

func TestSendOptions(t *testing.T) {
	r := newRig(t)
	at := time.Now().Add(time.Hour)
	id := r.send("--lane", "bulk", "--valid-for", "90s", "--at", at.Format(time.RFC3339), "--max-attempts", "2")
	got := r.record(id)
	if got.Lane != tasks.Bulk || got.NotAfter.Sub(at.Truncate(time.Second)) != 90*time.Second {
		t.Errorf("record = %+v, want bulk and not after 90 s from %v", got, at)
	}
	// A time of this very second is in whole seconds, and so a little ago.
	r.send("--at", time.Now().Format(time.RFC3339))
	if left := time.Until(r.record(r.send()).NotAfter); left > 5*time.Minute || left < 4*time.Minute {
		t.Errorf("a message lives %v without --valid-for, want 5m", left)
	}
	if left := time.Until(r.record(r.send("--at", "10m")).NotAfter); left < 14*time.Minute || left > 15*time.Minute+time.Second {
		t.Errorf("a message for in 10 minutes lives %v, want 15m", left)
	}
}

func TestTheSameKeyPrintsTheFirstID(t *testing.T) {
	r := newRig(t)
	first := r.send("--key", "order 17")
	if again := r.send("--key", "order 17"); again != first {
		t.Errorf("id = %s, want %s", again, first)
	}
	if other := r.send("--key", "order 18"); other == first {
		t.Error("another key printed the same id")
	}
	type receipt struct {
		ID       string    `json:"id"`
		State    string    `json:"state"`
		NotAfter time.Time `json:"not_after"`
		Repeated bool      `json:"repeated"`
	}
	got := decode[receipt](t, r.otpq("send", "unimedbh", request, "--key", "order 17", "--json"))
	want := receipt{first, "queued", r.record(first).NotAfter, true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("receipt (-want +got):\n%s", diff)
	}
}

func TestWaitFollowsAMessageToItsEnd(t *testing.T) {
	r := newRig(t)
	r.worker(r.file)

	res := r.otpq("send", "unimedbh", request, "--wait").want(t, exitDone, "accepted")
	id := strings.TrimSpace(res.out)
	if got := r.record(id); got.State != status.Accepted || len(got.Attempts) != 1 || got.Attempts[0].HTTPStatus != 200 {
		t.Errorf("record = %+v, want accepted at the first attempt", got)
	}
	res = r.otpq("send", "unimedbh", `{"username":"desconhecido@example.com","type":"EMAIL"}`, "--wait")
	res.want(t, exitFailed, "rejected (recipient_unknown)")

	res = r.otpq("send", "unimedbh", request, "--wait", "--json").want(t, exitDone)
	if got := decode[map[string]any](t, res); got["state"] != "accepted" || got["id"] == "" || res.err != "" {
		t.Errorf("--wait --json printed %v and %q, want the id and accepted alone", got, res.err)
	}
	// Every provider, with what its page documents.
	r.otpq("send", "medsenior", `{"emailId":"e","cpf":"12345678901","primeiroAcesso":false}`, "--wait").want(t, exitDone, "accepted")
	r.otpq("send", "kinpos", `{"mobileNumber":"59899000000"}`, "--wait").want(t, exitDone, "accepted")

	// For long enough to be seen.
	fault := sandbox.Fault{FailNext: 1, ErrorStatus: 503, RetryAfter: sandbox.Duration(3 * time.Second)}
	if err := r.sandbox.SetFault("unimedbh", fault); err != nil {
		t.Fatal(err)
	}
	r.otpq("send", "unimedbh", request, "--wait").want(t, exitDone, "deferred (provider_unavailable), next attempt at", "accepted, 2 attempts")
}

func TestAnInterruptedWaitStillPrintsTheID(t *testing.T) {
	r := newRig(t)
	for _, flags := range [][]string{nil, {"--json"}} {
		b := start(t, []string{"OTPQ_CONFIG=" + r.file}, slices.Concat([]string{"send", "unimedbh", request, "--wait"}, flags)...)
		waitFor(t, "the message", func() bool { return r.rdb.LLen(t.Context(), "asynq:{otpq:unimedbh:interactive}:pending").Val() == 1 })
		id := strings.TrimPrefix(r.rdb.Keys(t.Context(), "otpq:msg:*").Val()[0], "otpq:msg:")
		if code := b.end(); code != exitFailed {
			t.Errorf("exit code = %d, want %d", code, exitFailed)
		}
		if !strings.Contains(b.out.String(), id) || !strings.Contains(b.err.String(), "interrupted") {
			t.Errorf("stdout %q, stderr %q; want the id and \"interrupted\"", b.out, b.err)
		}
		r.rdb.FlushAll(t.Context())
	}
}
