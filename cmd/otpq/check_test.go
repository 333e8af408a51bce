package main

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/internal/secret"
)

// checkReport is what `otpq check --json` prints.
type checkReport struct {
	OK     bool      `json:"ok"`
	Checks []finding `json:"checks"`
}

func (c checkReport) find(name string) finding {
	for _, f := range c.Checks {
		if f.Name == name {
			return f
		}
	}
	return finding{}
}

func TestCheckOfAProperSetup(t *testing.T) {
	r := newRig(t, redistest.AOF())
	report := decode[checkReport](t, r.otpq("check", "--json").want(t, exitDone))
	got := map[string]string{}
	for _, f := range report.Checks {
		got[f.Name] = f.Status
	}
	want := map[string]string{}
	for _, name := range []string{
		"configuration", "keys", "redis", "clock", "redis version", "redis eviction", "redis persistence", "redis fsync",
		"timeout ladder", "medsenior", "unimedbh", "kinpos",
	} {
		want[name] = checkOK
	}
	if diff := cmp.Diff(want, got); diff != "" || !report.OK {
		t.Errorf("ok = %v, checks (-want +got):\n%s", report.OK, diff)
	}
	res := r.otpq("check").want(t, exitDone)
	res.wantOut(t, "always: what was accepted survives", `1; "k" seals`, r.url+" can be reached")
	if res.err != "" {
		t.Errorf("stderr = %q, want nothing", res.err)
	}
	if strings.Contains(res.out, r.key.Secret.Reveal()) || strings.Contains(res.out, "t0ken-of-the-test") {
		t.Errorf("check printed a secret:\n%s", res.out)
	}
}

func TestCheckTellsWhatToDo(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := "http://" + closed.Addr().String()
	closed.Close()
	for name, c := range map[string]struct {
		redis  []redistest.Option
		env    []string
		check  string
		status string
		says   string
		fix    string
	}{
		"a Redis that evicts": {
			redis: []redistest.Option{redistest.AOF(), redistest.Args("--maxmemory-policy", "allkeys-lru")},
			check: "redis eviction", status: checkFailure, says: "allkeys-lru", fix: "set maxmemory-policy noeviction",
		},
		"a Redis without AOF": {
			check: "redis persistence", status: checkWarning, says: "append-only file is off", fix: "set appendonly yes",
		},
		"a Redis that never syncs": {
			redis: []redistest.Option{redistest.AOF(), redistest.Args("--appendfsync", "no")},
			check: "redis fsync", status: checkWarning, says: "appendfsync is no", fix: "everysec or always",
		},
		"a Redis that is nearly full": {
			redis: []redistest.Option{redistest.AOF(), redistest.Args("--maxmemory", "1mb")},
			check: "redis memory", status: checkWarning, says: "% of maxmemory", fix: "raise maxmemory",
		},
		"a provider that cannot be reached": {
			env:   []string{"OTPQ_PROVIDERS_KINPOS_BASE_URL=" + nobody},
			check: "kinpos", status: checkFailure, says: nobody + " cannot be reached", fix: "providers.kinpos.base_url",
		},
		"a provider that cannot be reached over TLS": {
			env:   []string{"OTPQ_PROVIDERS_KINPOS_BASE_URL=" + strings.Replace(nobody, "http", "https", 1)},
			check: "kinpos", status: checkFailure, says: "cannot be reached", fix: "providers.kinpos.base_url",
		},
		"a timeout that does not fit": {
			env:   []string{"OTPQ_PROVIDERS_KINPOS_TIMEOUT=29s"},
			check: "timeout ladder", status: checkFailure, says: "providers.kinpos.timeout: 29s is too long", fix: "change the timeouts",
		},
		"a shutdown that is too short": {
			env:   []string{"OTPQ_WORKER_SHUTDOWN_TIMEOUT=5s"},
			check: "timeout ladder", status: checkFailure, says: "worker.shutdown_timeout: 5s is too short", fix: "change the timeouts",
		},
		"a collector that is dead": {
			env:   []string{"OTPQ_TRACING_ENDPOINT=" + nobody},
			check: "traces", status: checkWarning, says: nobody + " cannot be reached", fix: "tracing.endpoint",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, c.redis...)
			env := append([]string{"OTPQ_CONFIG=" + r.file}, c.env...)
			code := exitDone
			if c.status == checkFailure {
				code = exitFailed
			}
			report := decode[checkReport](t, otpq(t, env, "", "check", "--json").want(t, code))
			got := report.find(c.check)
			if got.Status != c.status || !strings.Contains(got.Message, c.says) || !strings.Contains(got.Fix, c.fix) {
				t.Errorf("check %s = %+v, want %s, %q and the fix %q", c.check, got, c.status, c.says, c.fix)
			}
			if report.OK != (code == exitDone) {
				t.Errorf("ok = %v with exit code %d", report.OK, code)
			}
			if c.check == "redis persistence" && report.find("redis fsync").Name != "" {
				t.Error("fsync is praised though nothing is written")
			}
			otpq(t, env, "", "check").want(t, code).wantOut(t, c.check, "→ ", c.fix)
		})
	}
}

func TestCheckOfACollectorThatAnswers(t *testing.T) {
	r := newRig(t)
	env := []string{"OTPQ_CONFIG=" + r.file, "OTPQ_TRACING_ENDPOINT=" + r.url}
	report := decode[checkReport](t, otpq(t, env, "", "check", "--json").want(t, exitDone))
	if got := report.find("traces"); got.Status != checkOK || got.Message != r.url+" can be reached" {
		t.Errorf("traces = %+v, want that it can be reached", got)
	}
}

// Only what leaves the machine can be read on the way.
func TestCheckWarnsOfWhatIsNotEncrypted(t *testing.T) {
	for url, want := range map[string]string{
		"redis://127.0.0.1:6379/0": "", "redis://localhost": "", "redis://[::1]:6379": "", "rediss://redis.example:6379": "",
		"unix:///run/redis.sock": "", "redis-cluster://127.0.0.1:7000,127.0.0.1:7001": "", "rediss-sentinel://a,b/mymaster": "",
		"redis://:s3cret@redis.example:6379/0":           "use rediss://",
		"redis://:s3cret@10.0.0.7?dial_timeout=3s":       "use rediss://",
		"redis-cluster://127.0.0.1:7000,10.0.0.7:7000":   "use rediss-cluster://",
		"redis-sentinel://u:s3cret@a:26379,b/mymaster/1": "use rediss-sentinel://",
	} {
		var r report
		r.redisEncryption(config.Config{Redis: config.Redis{URL: secret.Text(url)}})
		if want == "" && len(r.Findings) == 0 {
			continue
		}
		if want == "" || len(r.Findings) != 1 || r.Findings[0].Status != checkWarning || !strings.HasPrefix(r.Findings[0].Fix, want) ||
			strings.Contains(r.Findings[0].Message, "s3cret") {
			t.Errorf("%s: %+v, want the fix %q", url, r.Findings, want)
		}
	}
	for base, want := range map[string]bool{
		"http://127.0.0.1:8089": false, "http://localhost": false, "http://[::1]:80/x": false, "https://api.example": false,
		"http://api.example": true, "http://10.0.0.7:8089/x": true,
	} {
		var r report
		r.providerEncryption("kinpos", base)
		if got := len(r.Findings) == 1; got != want || got && (r.Findings[0].Status != checkWarning || !strings.Contains(r.Findings[0].Fix, "providers.kinpos.base_url")) {
			t.Errorf("%s: %+v, want a warning: %v", base, r.Findings, want)
		}
	}
	// And the command asks both.
	r := newRig(t)
	env := []string{"OTPQ_CONFIG=" + r.file, "OTPQ_PROVIDERS_KINPOS_BASE_URL=http://192.0.2.1:9", "OTPQ_REDIS_URL=redis://192.0.2.1:9/0?dial_timeout=10ms"}
	report := decode[checkReport](t, otpqProcess(t, env, "check", "--json").want(t, exitFailed))
	for _, name := range []string{"redis encryption", "kinpos encryption"} {
		if report.find(name).Status != checkWarning {
			t.Errorf("%s = %+v, want a warning", name, report.find(name))
		}
	}
}

func TestCheckOfAReplica(t *testing.T) {
	master := redistest.Start(t)
	host, port, err := net.SplitHostPort(master.Addr())
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, redistest.AOF(), redistest.Args("--replicaof", host, port))
	report := decode[checkReport](t, r.otpq("check", "--json").want(t, exitFailed))
	if got := report.find("redis role"); got.Status != checkFailure || !strings.Contains(got.Message, "slave") || !strings.Contains(got.Fix, "master") {
		t.Errorf("redis role = %+v, want a failure", got)
	}
}

func TestCheckWithoutARedis(t *testing.T) {
	r := newRig(t)
	r.redis.Stop()
	res := otpqProcess(t, []string{"OTPQ_CONFIG=" + r.file}, "check", "--json").want(t, exitFailed)
	got := decode[checkReport](t, res).find("redis")
	if got.Status != checkFailure || !strings.Contains(got.Message, r.redis.Addr()+"/0 does not answer") || !strings.Contains(got.Fix, "start it") {
		t.Errorf("redis = %+v, want a failure that says where", got)
	}
	if decode[checkReport](t, res).find("kinpos").Status != checkOK {
		t.Error("the providers are not looked at when Redis is down")
	}
	if res.err != "" {
		t.Errorf("stderr = %q, want nothing beside the JSON", res.err)
	}
}

func TestCheckWithNothingConfigured(t *testing.T) {
	r := newRig(t)
	env := []string{"OTPQ_REDIS_URL=" + r.redis.URL(), "OTPQ_PROVIDERS_UNIMEDBH_BASE_URL=" + r.url}
	report := decode[checkReport](t, otpq(t, env, "", "check", "--json").want(t, exitFailed))
	if got := report.find("keys"); got.Status != checkFailure || !strings.Contains(got.Fix, "otpq keygen") || strings.Contains(got.Message, "keygen") {
		t.Errorf("keys = %+v, want a failure that names `otpq keygen` once", got)
	}
	for _, off := range []string{"medsenior", "kinpos"} {
		if got := report.find(off); got.Status != checkWarning || !strings.Contains(got.Fix, "providers."+off) {
			t.Errorf("%s = %+v, want a warning that it is off, with the setting", off, got)
		}
	}
}

func TestCheckOfAWrongConfiguration(t *testing.T) {
	file := writeFile(t, "redis: {ur: x}\nnosuch: 1\n")
	report := decode[checkReport](t, otpq(t, nil, "", "check", "--config", file, "--json").want(t, exitFailed))
	if len(report.Checks) != 2 || report.OK || report.Checks[0].Name != "configuration" || !strings.Contains(report.Checks[1].Message, file+":2") {
		t.Errorf("report = %+v, want both problems with their lines", report)
	}
}

func TestRedisVersions(t *testing.T) {
	for version, want := range map[string]bool{
		"6.2.0": true, "6.2": true, "7.0.15": true, "10.0.0": true, "6.0.20": false, "5.9.9": false, "": false, "nonsense": false, "7": true,
	} {
		if got := atLeast(version, 6, 2); got != want {
			t.Errorf("atLeast(%q, 6, 2) = %v, want %v", version, got, want)
		}
		var r report
		r.redisInfo(map[string]string{"redis_version": version, "maxmemory_policy": "noeviction"})
		if r.failed() == want {
			t.Errorf("redisInfo of version %q = %+v", version, r.Findings)
		}
	}
}

func TestClocksThatDiffer(t *testing.T) {
	for skew, want := range map[time.Duration]string{
		0: checkOK, time.Second: checkOK, 2 * time.Second: checkWarning, -2 * time.Second: checkWarning,
		6 * time.Second: checkFailure, -6 * time.Second: checkFailure,
	} {
		t.Run(fmt.Sprint(skew), func(t *testing.T) {
			var r report
			r.clock(skew, time.Millisecond)
			if got := r.Findings[0]; got.Status != want || (got.Fix == "") != (want == checkOK) {
				t.Errorf("clock(%v) = %+v, want %s", skew, got, want)
			}
		})
	}
}
