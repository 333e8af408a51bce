package main

import (
	"strings"
	"testing"
	"time"

	"github.com/otpq/otpq/tasks"
)

func TestKeygenPrintsALineForTheConfiguration(t *testing.T) {
	res := otpq(t, nil, "", "keygen").want(t, exitDone, "keys:", "OTPQ_KEYS='"+time.Now().Format("2006-01-"), ":SECRET'")
	if strings.Count(res.out, "\n") != 1 || strings.Contains(res.err, "secret:") {
		t.Errorf("stdout %q, stderr %q; want one line on stdout, and the secret nowhere else", res.out, res.err)
	}
	r := newRig(t)
	file := writeFile(t, "redis: {url: "+r.redis.URL()+"}\nkeys:\n  "+res.out)
	otpq(t, nil, "", "send", "unimedbh", request, "--config", file).want(t, exitDone)
	other := otpq(t, nil, "", "keygen")
	if idOf, otherID := strings.Split(res.out, `"`)[1], strings.Split(other.out, `"`)[1]; idOf == otherID || other.out == res.out {
		t.Errorf("two keys have one name: %s", idOf)
	}
}

func TestKeygenJSONIsAKey(t *testing.T) {
	res := otpq(t, nil, "", "keygen", "--json", "--id", "prod-1").want(t, exitDone)
	key := decode[struct {
		ID     string       `json:"id"`
		Secret tasks.Secret `json:"secret"`
	}](t, res)
	if _, err := tasks.NewKeyring(tasks.Key{ID: key.ID, Secret: key.Secret}); err != nil || key.ID != "prod-1" {
		t.Errorf("key = %s: %v, want a good one called prod-1", key.ID, err)
	}
	if res.err != "" {
		t.Errorf("stderr = %q, want nothing beside the JSON", res.err)
	}
	r := newRig(t)
	env := []string{"OTPQ_REDIS_URL=" + r.redis.URL(), "OTPQ_KEYS=" + key.ID + ":" + key.Secret.Reveal()}
	otpq(t, env, "", "send", "unimedbh", request).want(t, exitDone)
}

func TestVersion(t *testing.T) {
	otpq(t, nil, "", "version").want(t, exitDone).wantOut(t, "otpq ", "go1.")
	otpq(t, nil, "", "--version").want(t, exitDone).wantOut(t, "otpq version ")
	got := decode[map[string]string](t, otpq(t, nil, "", "version", "--json").want(t, exitDone))
	if got["version"] == "" || !strings.HasPrefix(got["go"], "go1.") {
		t.Errorf("version --json = %v", got)
	}
	buildVersion = "v1.2.3"
	defer func() { buildVersion = "" }()
	otpq(t, nil, "", "version").wantOut(t, "otpq v1.2.3 ")
}
