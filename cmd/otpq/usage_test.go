package main

import (
	"bytes"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/otpq/otpq/internal/redistest"
)

// commands are all there are, with arguments that each is complete with.
var commands = map[string][]string{
	"dev": nil, "worker": nil, "send": {"unimedbh", request}, "status": {"ID"}, "cancel": {"ID"},
	"dead list": nil, "dead show": {"ID"}, "dead replay": {"ID"}, "dead discard": {"ID"},
	"campaign create": {"ID", "-", "--provider", "unimedbh"}, "campaign start": {"ID"}, "campaign pause": {"ID"}, "campaign resume": {"ID"},
	"campaign cancel": {"ID"}, "campaign status": {"ID"}, "campaign list": nil, "campaign report": {"ID"}, "campaign retry-failed": {"ID"},
	"providers": nil, "audit": nil, "sandbox": nil, "check": nil, "probe": {"http://127.0.0.1:9/"}, "keygen": nil, "version": nil,
}

func TestEveryCommandHasHelpAndRefusesWhatItDoesNotKnow(t *testing.T) {
	for name, arguments := range commands {
		t.Run(name, func(t *testing.T) {
			words := strings.Fields(name)
			otpq(t, nil, "", append(words, "--help")...).want(t, exitDone).wantOut(t, "Usage:", "otpq "+name)
			otpq(t, nil, "", append([]string{"help"}, words...)...).want(t, exitDone).wantOut(t, "Usage:", "otpq "+name)
			r := otpq(t, nil, "", append(append(words, arguments...), "--bogus")...)
			r.want(t, exitUsage, "unknown flag: --bogus", "otpq "+name+" --help")
			if r.out != "" {
				t.Errorf("stdout = %q, want the error on stderr alone", r.out)
			}
			if name == "dead replay" || name == "dead discard" {
				return // they take any number of ids
			}
			otpq(t, nil, "", append(append(words, arguments...), "surplus")...).want(t, exitUsage, `"surplus"`)
			if len(arguments) > 0 {
				otpq(t, nil, "", words...).want(t, exitUsage, "needs ", "otpq "+name+" --help")
			}
		})
	}
}

func TestACommandThatThereIsNotIsAWrongUsage(t *testing.T) {
	for _, c := range []struct {
		args  string
		words []string
	}{
		{"nosuch", []string{`unknown command "nosuch"`, "otpq --help"}},
		{"stats", []string{`did you mean "status"?`}},
		{"help nosuch", []string{`there is no command "nosuch"`}},
		{"help dead nosuch", []string{"dead nosuch"}},
		{"--bogus", []string{"unknown flag: --bogus"}},
		{"dead", []string{"list, show, replay or discard"}},
		{"dead lst", []string{`unknown command "lst"`, `did you mean "list"?`}},
	} {
		r := otpq(t, nil, "", strings.Fields(c.args)...).want(t, exitUsage, c.words...)
		if r.out != "" || strings.Count(r.err, "\n") != 1 {
			t.Errorf("otpq %s: stdout %q, stderr %q; want one line on stderr", c.args, r.out, r.err)
		}
	}
}

func TestOtpqAloneShowsTheCommands(t *testing.T) {
	r := otpq(t, nil, "").want(t, exitDone)
	for name := range commands {
		r.wantOut(t, "  "+strings.Fields(name)[0])
	}
}

func TestAWrongFlagValueIsAWrongUsage(t *testing.T) {
	for _, c := range []struct{ args, words string }{
		{"send unimedbh " + request + " --valid-for soon", `--valid-for must be a duration, such as 90s, 5m or 2h, not "soon"; see`},
		{"send unimedbh " + request + " --max-attempts many", `--max-attempts must be a whole number, such as 5, not "many"; see`},
		{"send unimedbh " + request + " --wait=perhaps", `--wait must be true or false, not "perhaps"; see`},
		{"send unimedbh " + request + " --at 2020-01-01", "--at must not be in the past: leave it out"},
		{"send unimedbh " + request + " --at 2020-01-01T00:00:00Z", "--at must not be in the past: leave it out"},
		{"send unimedbh " + request + " --at=", "--at must not be empty"},
		{"send unimedbh " + request + " --at someday", "--at must be a duration such as"},
		{"send unimedbh " + request + " --at -5m", "--at must not be negative"},
		{"dead list --state accepted", "--state must be rejected, exhausted or unknown"},
		{"dead list --provider nosuch", `no provider "nosuch"; the providers are`},
		{"dead list --since someday", "--since must be"},
		{"dead list --until -1h", "--until must not be negative"},
		{"dead list --limit -1", "--limit must not be negative"},
		{"dead replay ID --rate 0", "--rate must be more than 0"},
		{"dead replay ID --rate NaN", "--rate must be more than 0"},
		{"dead replay ID --valid-for 0s", "--valid-for must be more than 0"},
		{"dead replay ID --valid-for 1000h", "--valid-for must be more than 0 and at most"},
		{"dead replay ID --lane fast", "--lane must be interactive or bulk"},
		{"dead replay ID --all", "not both"},
		{"dead discard ID --provider kinpos", "not both"},
		{"dead replay", "--all"},
		{"dead discard", "--all"},
		{"dead discard --dry-run", "--all"},
		{"dead replay --provider nosuch", `no provider "nosuch"`},
		{"audit --grace 0s", "--grace must be more than 0"},
		{"audit --slack -1s", "--slack must be more than 0"},
		{"audit --rate -1", "--rate must not be negative"},
		{"audit --told x", "--told and --seen go together"},
		{"audit --seen x", "--told and --seen go together"},
		{"sandbox --fault nosuch:hang", "nosuch"},
		{"sandbox --fault medsenior:latency=soon", "latency must be a duration"},
		{"sandbox --fault medsenior", "PROVIDER:NAME=VALUE"},
		{"sandbox --listen here", "--listen must be host:port"},
		{"sandbox --listen 127.0.0.1:65536", "--listen must end with a port between 0 and 65535"},
		{"sandbox --seed x", "--seed must be a whole number, such as 5"},
		{"dev --redis http://127.0.0.1", "--redis"},
		{"dev --listen here", "--listen must be host:port"},
		{"keygen --id a/b", "--id"},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := otpq(t, nil, "", strings.Fields(c.args)...).want(t, exitUsage, c.words)
			if r.out != "" && !strings.HasPrefix(c.args, "dev") {
				t.Errorf("stdout = %q, want nothing", r.out)
			}
		})
	}
}

func TestAnArgumentThatIsEmptyIsAWrongUsage(t *testing.T) {
	for _, words := range []string{"status", "cancel", "dead show", "campaign status", "campaign start", "campaign report"} {
		otpq(t, nil, "", append(strings.Fields(words), "")...).want(t, exitUsage, "ID must not be empty: is a variable not set?")
	}
	otpq(t, nil, "", "send", "unimedbh", "").want(t, exitUsage, "REQUEST must not be empty")
}

func TestAWrongConfigurationNamesAllThatIsWrong(t *testing.T) {
	file := writeFile(t, "redis: {ur: x}\nproviders:\n  kinpos: {timeout: 10}\n")
	for name, arguments := range commands {
		switch name {
		case "sandbox", "keygen", "version", "check", "probe":
			continue // they read none, or say it in their own way
		}
		args := append(append(strings.Fields(name), arguments...), "--config", file)
		t.Run(name, func(t *testing.T) {
			otpq(t, nil, "", args...).want(t, exitFailed, "configuration: 2 problems", file+":1: redis.ur", file+":3: providers.kinpos.timeout")
		})
	}
	otpq(t, nil, "", "status", "x", "--config", file+".missing").want(t, exitFailed, "cannot be read", file+".missing")
	otpq(t, []string{"OTPQ_CONFIG=" + file}, "", "status", "x").want(t, exitFailed, file+":1")
	otpq(t, []string{"OTPQ_REDIS_ULR=x"}, "", "status", "x").want(t, exitFailed, "OTPQ_REDIS_ULR", "OTPQ_REDIS_URL")
}

func TestAMissingKeyNamesKeygen(t *testing.T) {
	for _, args := range [][]string{
		{"send", "unimedbh", request}, {"worker"}, {"dead", "replay", "ID"}, {"campaign", "start", "ID"},
	} {
		otpq(t, nil, "", args...).want(t, exitFailed, "otpq keygen")
	}
}

func TestARedisThatIsDownIsNamed(t *testing.T) {
	r := newRig(t)
	r.redis.Stop()
	file := writeFile(t, "username,type\na@example.org,EMAIL\n")
	env := []string{"OTPQ_CONFIG=" + r.file}
	for _, args := range [][]string{
		{"send", "unimedbh", request}, {"status", "ID"}, {"status", "ID", "--watch"}, {"cancel", "ID"}, {"providers"}, {"audit"},
		{"dead", "list"}, {"dead", "show", "ID"}, {"dead", "replay", "--all"}, {"dead", "discard", "--all"},
		{"campaign", "create", "x", file, "--provider", "unimedbh"}, {"campaign", "start", "x"}, {"campaign", "start", "x", "--detach"},
		{"campaign", "pause", "x"}, {"campaign", "status", "x"}, {"campaign", "status", "x", "--watch"}, {"campaign", "list"},
		{"campaign", "report", "x"}, {"campaign", "cancel", "x"}, {"campaign", "retry-failed", "x"},
	} {
		t.Run(fmt.Sprint(args), func(t *testing.T) {
			res := otpqProcess(t, env, args...).want(t, exitFailed, r.redis.Addr(), "is Redis running there?", "otpq check")
			if res.out != "" || strings.Count(res.err, "\n") != 1 {
				t.Errorf("stdout %q, stderr %q; want one line on stderr", res.out, res.err)
			}
		})
	}
	otpqProcess(t, env, "dev", "--redis", r.redis.URL()).want(t, exitFailed, "--redis", r.redis.Addr(), "does not answer")
}

func TestFlagsMayStandAnywhereAfterTheSubcommand(t *testing.T) {
	r := newRig(t)
	for _, args := range [][]string{
		{"send", "--json", "unimedbh", request, "--config", r.file},
		{"send", "unimedbh", "--json", "--config=" + r.file, request},
		{"send", "--config", r.file, "unimedbh", request, "--json"},
		{"send", "--config", r.file, "--json", "--", "unimedbh", request},
	} {
		receipt := decode[map[string]any](t, otpq(t, nil, "", args...).want(t, exitDone))
		if receipt["id"] == "" || receipt["state"] != "queued" {
			t.Errorf("otpq %q = %v, want an id and the state queued", args, receipt)
		}
	}
	otpq(t, nil, "", "dead", "list", "--config", r.file, "--provider", "kinpos", "--json").want(t, exitDone)
	otpq(t, nil, "", "dead", "--json", "list", "--config", r.file).want(t, exitDone)
	// The flag outranks the variable.
	otpq(t, []string{"OTPQ_CONFIG=/nonexistent"}, "", "providers", "--config", r.file).want(t, exitDone)
}

// fullDisk is an output that takes nothing.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

func TestWhatCannotBePrintedFails(t *testing.T) {
	r := newRig(t)
	for _, args := range [][]string{
		{"--version"}, {"--help"}, {"keygen"}, {"providers"}, {"providers", "--json"}, {"campaign", "list", "--json"},
		{"send", "unimedbh", request},
	} {
		var errs bytes.Buffer
		code := run(t.Context(), args, streams{in: strings.NewReader(""), out: fullDisk{}, err: &errs}, []string{"OTPQ_CONFIG=" + r.file})
		if code != exitFailed || !strings.Contains(errs.String(), "no space left on device") {
			t.Errorf("otpq %q ended with %d and said %q", args, code, &errs)
		}
	}
}

func TestARedisThatRefusesUsSaysWhatToDo(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Password("right"))
	if err := server.Client().Do(t.Context(), "acl", "setuser", "narrow", "on", ">right", "~*", "+ping", "+hello", "+client").Err(); err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{
		"":              "redis.url (OTPQ_REDIS_URL)",
		":wrong@":       "redis.url (OTPQ_REDIS_URL)",
		"narrow:right@": "deploy/redis/otpq.acl",
	} {
		env := []string{"OTPQ_REDIS_URL=redis://" + user + server.Addr()}
		for _, args := range [][]string{{"status", "0199a1b2-0000-7000-8000-000000000000"}, {"campaign", "list"}, {"dead", "list"}} {
			res := otpq(t, env, "", args...).want(t, exitFailed, want)
			if strings.Contains(res.err, "wrong") || strings.Contains(res.err, ":right") {
				t.Errorf("otpq %q shows the password: %s", args, res.err)
			}
		}
	}
}
