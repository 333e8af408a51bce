package config

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/secret"
	"github.com/otpq/otpq/providers"
)

var update = flag.Bool("update", false, "write the *.want files")

// definitions are three providers that between them need everything.
func definitions() []providers.Definition {
	return []providers.Definition{
		{
			Name:               "medsenior",
			Environments:       map[string]string{"homologacao": "https://hml.example", "producao": "https://prod.example/"},
			DefaultEnvironment: "homologacao",
			NeedsToken:         true,
		},
		{
			Name:               "unimedbh",
			Environments:       map[string]string{"desenvolvimento": "https://d.example", "homologacao": "https://h.example", "producao": "https://p.example"},
			DefaultEnvironment: "homologacao",
		},
		{Name: "kinpos", Formats: []string{"json", "xml"}},
	}
}

func goodSecret() string {
	data := make([]byte, 32)
	for i := range data {
		data[i] = byte(i)
	}
	return base64.StdEncoding.EncodeToString(data)
}

func load(file string, env ...string) (Config, error) {
	return Load(Options{File: file, Environ: env, Definitions: definitions()})
}

// defaultProvider is what a provider that is not mentioned gets.
func defaultProvider() Provider {
	return Provider{
		Timeout:     10 * time.Second,
		Concurrency: Concurrency{Interactive: 64, Bulk: 16},
		Queues:      1,
		RateLimit:   RateLimit{Period: time.Second},
		Breaker:     Breaker{ConsecutiveFailures: 5, FailureRatio: 0.5, MinimumRequests: 20, OpenFor: 30 * time.Second},
		Retry:       Retry{MaxAttempts: 5, Initial: time.Second, Max: 30 * time.Second, OnAmbiguous: ResendOnce},
	}
}

func defaultConfig() Config {
	med, uni, kin := defaultProvider(), defaultProvider(), defaultProvider()
	med.Environment, uni.Environment, kin.Format = "homologacao", "homologacao", "json"
	return Config{
		Redis:     Redis{URL: "redis://127.0.0.1:6379/0"},
		Admin:     Admin{Listen: "127.0.0.1:9090"},
		Status:    Status{Retention: 72 * time.Hour, DeadRetention: 720 * time.Hour},
		Enqueue:   Enqueue{IdempotencyWindow: 24 * time.Hour},
		Campaigns: Campaigns{Retention: 168 * time.Hour},
		Tracing:   Tracing{SampleRatio: 1},
		Worker:    Worker{ShutdownTimeout: 30 * time.Second},
		Dashboard: Dashboard{Listen: "127.0.0.1:8080"},
		Log:       Log{Level: "info", Format: "auto"},
		Providers: map[string]Provider{"medsenior": med, "unimedbh": uni, "kinpos": kin},
	}
}

func TestDefaultsWithoutAnything(t *testing.T) {
	for _, file := range []string{"", "testdata/empty.yaml"} {
		got, err := load(file, "PATH=/bin", "OTPQ_TEST_REDIS=x", "OTPQ_REDIS_URL=")
		if err != nil {
			t.Fatalf("Load(%q) = %v", file, err)
		}
		if diff := cmp.Diff(defaultConfig(), got); diff != "" {
			t.Errorf("Load(%q) (-want +got):\n%s", file, diff)
		}
	}
}

func TestEveryKeyOfAFileIsRead(t *testing.T) {
	want := defaultConfig()
	want.Redis.URL = "redis://otpq:hunter2@127.0.0.1:6379/1"
	want.Keys = []Key{
		{ID: "2026-11", Secret: secret.Text(goodSecret())},
		{ID: "2025-04", Secret: secret.Text(strings.TrimRight(goodSecret(), "=")), SecretFile: "testdata/key.secret"},
	}
	want.Admin.Listen = ""
	want.Status = Status{Retention: time.Hour, DeadRetention: 48 * time.Hour}
	want.Enqueue.IdempotencyWindow = 90 * time.Minute
	want.Campaigns.Retention = 240 * time.Hour
	want.Tracing = Tracing{Endpoint: "http://collector.example:4318", SampleRatio: 0.25}
	want.Worker.ShutdownTimeout = 45 * time.Second
	want.Dashboard = Dashboard{
		Listen: "10.1.2.3:8443", Users: "ana:$2y$10$hunter2\nrui:$2y$10$hunter2",
		TrustedHeader: "X-Forwarded-User", TrustedProxies: "10.1.2.0/24\nfd00::/8", Prometheus: "http://prometheus:9090",
	}
	want.Log = Log{Level: "debug", Format: "json"}
	med, uni, kin := want.Providers["medsenior"], want.Providers["unimedbh"], want.Providers["kinpos"]
	med.Environment, med.Token, med.Timeout = "producao", "hunter2", 5*time.Second
	med.Concurrency = Concurrency{Interactive: 100, Bulk: 50}
	med.Queues = 6
	med.RateLimit = RateLimit{Limit: 50, Period: 10 * time.Second}
	med.Breaker = Breaker{ConsecutiveFailures: 3, FailureRatio: 0.25, MinimumRequests: 10, OpenFor: time.Minute}
	med.Retry = Retry{MaxAttempts: 2, Initial: 2 * time.Second, Max: 4 * time.Second, OnAmbiguous: Stop}
	uni.Concurrency = med.Concurrency
	uni.Breaker = med.Breaker
	uni.Breaker.OpenFor = 5 * time.Second
	kin.BaseURL, kin.Format = "https://kinpos.example/api/", "xml"
	want.Providers = map[string]Provider{"medsenior": med, "unimedbh": uni, "kinpos": kin}

	for how, o := range map[string]Options{
		"by flag":     {File: "testdata/full.yaml", Environ: []string{"OTPQ_CONFIG=testdata/not_yaml.yaml"}},
		"by variable": {Environ: []string{"OTPQ_CONFIG=testdata/full.yaml"}},
	} {
		o.Definitions = definitions()
		got, err := Load(o)
		if err != nil {
			t.Fatalf("%s: Load() = %v", how, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: Load() (-want +got):\n%s", how, diff)
		}
	}
}

// TestFaultyFiles compares what is said about each faulty file with the .want
// beside it. No message may hold what the files use for a secret.
func TestFaultyFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d files, %v", len(files), err)
	}
	for _, file := range files {
		if name := filepath.Base(file); name == "full.yaml" || name == "empty.yaml" {
			continue
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			_, err := load(file)
			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("Load() = %v, want an *Error", err)
			}
			got, golden := err.Error()+"\n", strings.TrimSuffix(file, ".yaml")+".want"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("Load() (-want +got):\n%s", diff)
			}
			for _, leak := range []string{"hunter2", "aHVudGVyMg", goodSecret()[:12]} {
				if strings.Contains(got, leak) {
					t.Errorf("the error holds a secret:\n%s", got)
				}
			}
		})
	}
}

func TestAHeaderThatAnyRequestHasNamesNobody(t *testing.T) {
	for header, ok := range map[string]bool{
		"X-Forwarded-User": true, "x-forwarded-email": true, "Remote-User": true, "X-Auth-Request-Preferred-Username": true,
		"Cf-Access-Authenticated-User-Email": true, "X-Goog-Authenticated-User-Email": true, "X-Token-Sub": true, "Proxy-User": true,
		"Host": false, "authorization": false, "COOKIE": false, "User-Agent": false, "Referer": false, "Origin": false, "Connection": false,
		"Accept": false, "Accept-Language": false, "Content-Type": false, "Sec-Fetch-Site": false, "If-None-Match": false, "Upgrade-Insecure-Requests": false,
		"X-Forwarded-For": false, "x-real-ip": false, "Via": false, "Traceparent": false, "X-Request-ID": false,
	} {
		_, err := load("", "OTPQ_DASHBOARD_TRUSTED_PROXIES=10.1.2.0/24", "OTPQ_DASHBOARD_TRUSTED_HEADER="+header)
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "such as X-Forwarded-User") {
			t.Errorf("trusted_header %s: %v, want ok %v, or what to write instead", header, err, ok)
		}
	}
}

func TestAFileThatCannotBeRead(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large.yaml")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	latin := filepath.Join(t.TempDir(), "latin.yaml")
	if err := os.WriteFile(latin, []byte("# conex\xe3o\nredis:\n  url: redis://h\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		latin:                   "configuration: " + latin + ": the configuration file is not UTF-8 text: save it as UTF-8",
		"testdata/nowhere.yaml": "configuration: testdata/nowhere.yaml: the configuration file cannot be read: no such file or directory",
		"testdata":              "configuration: testdata: the configuration file cannot be read: is a directory",
		large:                   "configuration: " + large + ": the configuration file cannot be read: it is larger than 64 KiB",
	} {
		if _, err := load(file); err == nil || err.Error() != want {
			t.Errorf("Load(%q) = %v, want %s", file, err, want)
		}
	}
}

func TestVariablesWinOverTheFile(t *testing.T) {
	got, err := load("testdata/full.yaml",
		"OTPQ_REDIS_URL=redis://other:1/2",
		"OTPQ_LOG_LEVEL=error", "OTPQ_LOG_LEVEL=warn",
		"OTPQ_LOG_FORMAT=",
		"OTPQ_PROVIDERS_MEDSENIOR_BASE_URL=http://127.0.0.1:1",
		"OTPQ_PROVIDERS_MEDSENIOR_CONCURRENCY_INTERACTIVE=7",
		"OTPQ_PROVIDERS_UNIMEDBH_RETRY_ON_AMBIGUOUS=stop",
		"OTPQ_PROVIDERS_KINPOS_BREAKER_FAILURE_RATIO=1",
		"OTPQ_STATUS_DEAD_RETENTION=100h",
		"OTPQ_KEYS_1_ID=renamed", "OTPQ_KEYS_2_ID=third", "OTPQ_KEYS_2_SECRET_FILE=testdata/key.secret",
	)
	if err != nil {
		t.Fatalf("Load() = %v", err)
	}
	want, err := load("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	want.Redis.URL, want.Log.Level, want.Status.DeadRetention = "redis://other:1/2", "warn", 100*time.Hour
	med, uni, kin := want.Providers["medsenior"], want.Providers["unimedbh"], want.Providers["kinpos"]
	med.BaseURL, med.Concurrency.Interactive = "http://127.0.0.1:1", 7
	uni.Retry.OnAmbiguous, kin.Breaker.FailureRatio = Stop, 1
	want.Providers = map[string]Provider{"medsenior": med, "unimedbh": uni, "kinpos": kin}
	want.Keys[1].ID = "renamed"
	want.Keys = append(want.Keys, Key{ID: "third", Secret: want.Keys[1].Secret, SecretFile: "testdata/key.secret"})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Load() (-want +got):\n%s", diff)
	}
}

func TestKeysFromOneVariable(t *testing.T) {
	s := goodSecret()
	want := []Key{{ID: "2026-11", Secret: secret.Text(s)}, {ID: "b", Secret: secret.Text(s)}}
	for name, text := range map[string]string{
		"pairs":      "2026-11:" + s + ", b:" + s,
		"JSON":       `[{"id":"2026-11","secret":"` + s + `"},{"id":"b","secret":"` + s + `"}]`,
		"YAML":       "- id: 2026-11\n  secret: " + s + "\n- {id: b, secret: " + s + "}",
		"JSON lines": "[\n{\"id\": \"2026-11\", \"secret\": \"" + s + "\"},\n{\"id\": \"b\", \"secret\": \"" + s + "\"}\n]\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := load("testdata/full.yaml", "OTPQ_KEYS="+text)
			if err != nil {
				t.Fatalf("Load() = %v", err)
			}
			if diff := cmp.Diff(want, got.Keys); diff != "" {
				t.Errorf("keys (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFaultyVariablesAreNamed(t *testing.T) {
	tests := map[string]struct{ env, want string }{
		"a misspelt name":           {"OTPQ_REDIS_ULR=hunter2", "OTPQ_REDIS_ULR: is no setting; did you mean OTPQ_REDIS_URL?"},
		"a misspelt provider":       {"OTPQ_PROVIDERS_KINPO_TIMEOUT=1s", "OTPQ_PROVIDERS_KINPO_TIMEOUT: is no setting; did you mean OTPQ_PROVIDERS_KINPOS_TIMEOUT?"},
		"a name like no other":      {"OTPQ_X=hunter2", "OTPQ_X: is no setting of otpq; the names follow the keys of the file, such as OTPQ_REDIS_URL"},
		"a section is no setting":   {"OTPQ_PROVIDERS_KINPOS=hunter2", "OTPQ_PROVIDERS_KINPOS: is no setting"},
		"a wrong number":            {"OTPQ_PROVIDERS_KINPOS_CONCURRENCY_BULK=hunter2", "OTPQ_PROVIDERS_KINPOS_CONCURRENCY_BULK: providers.kinpos.concurrency.bulk: is not a whole number: write one of at least 1 and at most 2000"},
		"a wrong duration":          {"OTPQ_STATUS_RETENTION=hunter2", "OTPQ_STATUS_RETENTION: status.retention: is not a duration"},
		"a wrong Redis":             {"OTPQ_REDIS_URL=hunter2", "OTPQ_REDIS_URL: redis.url: redis URL: it has no scheme"},
		"a wrong secret":            {"OTPQ_KEYS=a:hunter2", "OTPQ_KEYS: keys[0].secret: is not base64 of 32 bytes"},
		"a wrong list":              {"OTPQ_KEYS=hunter2", "OTPQ_KEYS: keys: must be id:secret,id:secret or a list"},
		"a broken list":             {`OTPQ_KEYS=[{"id": "hunter2`, "OTPQ_KEYS:1: is not valid YAML"},
		"a list of the wrong thing": {`OTPQ_KEYS=["hunter2"]`, "OTPQ_KEYS:1: keys[0]: must be a mapping of id, secret, secret_file, not text"},
		"a gap among keys":          {"OTPQ_KEYS_1_ID=a", "OTPQ_KEYS_1_ID: keys: leaves a gap"},
		"a key's unknown part":      {"OTPQ_KEYS_0_SECRETS=hunter2", "OTPQ_KEYS_0_SECRETS: is no setting; a key has id, secret, secret_file"},
		"a key with an id only":     {"OTPQ_KEYS_0_ID=a", "OTPQ_KEYS_0_ID: keys[0].secret: is missing"},
		"our own odd port":          {"OTPQ_ADMIN_PORT=9090", "OTPQ_ADMIN_PORT: is no setting"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := load("", tt.env)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("Load(%s) = %v, want %q in it", tt.env, err, tt.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Load() tells the value: %v", err)
			}
		})
	}
}

func TestLimitsThemselvesAreAllowed(t *testing.T) {
	c, err := load("",
		"OTPQ_PROVIDERS_KINPOS_TIMEOUT=1ms", "OTPQ_PROVIDERS_KINPOS_CONCURRENCY_BULK=1",
		"OTPQ_PROVIDERS_KINPOS_CONCURRENCY_INTERACTIVE=2000", "OTPQ_PROVIDERS_KINPOS_BREAKER_FAILURE_RATIO=1",
		"OTPQ_PROVIDERS_KINPOS_RETRY_INITIAL=30s", "OTPQ_STATUS_RETENTION=1s", "OTPQ_ADMIN_LISTEN=:0")
	if err != nil {
		t.Fatalf("Load() = %v", err)
	}
	if got := c.Providers["kinpos"]; got.Timeout != time.Millisecond || got.Concurrency.Interactive != 2000 {
		t.Errorf("kinpos = %+v, want the values that were set", got)
	}
}

func TestKubernetesServiceVariablesAreNotOurs(t *testing.T) {
	_, err := load("",
		"OTPQ_SERVICE_HOST=10.0.0.1", "OTPQ_SERVICE_PORT=9090", "OTPQ_SERVICE_PORT_METRICS=9090",
		"OTPQ_PORT=tcp://10.0.0.1:9090", "OTPQ_PORT_9090_TCP=tcp://10.0.0.1:9090",
		"OTPQ_PORT_9090_TCP_PROTO=tcp", "OTPQ_PORT_9090_TCP_PORT=9090", "OTPQ_PORT_9090_TCP_ADDR=10.0.0.1",
		"OTPQ_WORKER_SERVICE_HOST=10.0.0.2", "OTPQ_WORKER_PORT=tcp://10.0.0.2:1", "OTPQ_WORKER_PORT_1_TCP_ADDR=10.0.0.2")
	if err != nil {
		t.Errorf("Load() = %v, want no error for a Service named otpq", err)
	}
}

func TestProblemsOfFileAndVariablesComeTogether(t *testing.T) {
	_, err := load("testdata/unknown_key.yaml", "OTPQ_REDIS_ULR=x", "OTPQ_REDIS_URL=y", "OTPQ_PROVIDERS_UNIMEDBH_TOKEN=z")
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("Load() = %v", err)
	}
	var sources []string
	for _, p := range e.Problems {
		sources = append(sources, strings.Split(p.Source, ":")[0])
	}
	for _, want := range []string{"testdata/unknown_key.yaml", "OTPQ_REDIS_ULR", "OTPQ_REDIS_URL", "OTPQ_PROVIDERS_UNIMEDBH_TOKEN"} {
		if !slices.Contains(sources, want) {
			t.Errorf("sources = %v, want %s among them", sources, want)
		}
	}
}

func TestOffReasonAndURL(t *testing.T) {
	defs := definitions()
	tests := map[string]struct {
		d         providers.Definition
		p         Provider
		url, want string
	}{
		"no token":                 {defs[0], Provider{}, "https://hml.example", "needs a token: set providers.medsenior.token or providers.medsenior.token_file, or OTPQ_PROVIDERS_MEDSENIOR_TOKEN"},
		"a token":                  {defs[0], Provider{Token: "t", Environment: "producao"}, "https://prod.example", ""},
		"a token file":             {defs[0], Provider{TokenFile: "f"}, "https://hml.example", ""},
		"base_url beats the rest":  {defs[1], Provider{Environment: "producao", BaseURL: "http://x/y//"}, "http://x/y", ""},
		"nothing is needed":        {defs[1], Provider{}, "https://h.example", ""},
		"the page names no host":   {defs[2], Provider{}, "", "needs a base URL: set providers.kinpos.base_url or OTPQ_PROVIDERS_KINPOS_BASE_URL"},
		"a base URL where no host": {defs[2], Provider{BaseURL: "http://x"}, "http://x", ""},
		"both are missing": {
			providers.Definition{Name: "a-b", NeedsToken: true}, Provider{}, "",
			"needs a base URL: set providers.a-b.base_url or OTPQ_PROVIDERS_A_B_BASE_URL; needs a token: set providers.a-b.token or providers.a-b.token_file, or OTPQ_PROVIDERS_A_B_TOKEN",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if got := tt.p.URL(tt.d); got != tt.url {
				t.Errorf("URL() = %q, want %q", got, tt.url)
			}
			if got := tt.p.OffReason(tt.d); got != tt.want {
				t.Errorf("OffReason() = %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAConfigPrintsWithoutSecrets(t *testing.T) {
	c, err := load("testdata/full.yaml")
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("%v", c), fmt.Sprintf("%+v", c), fmt.Sprintf("%#v", c), fmt.Sprintf("%+v", &c), string(asJSON)} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, goodSecret()[:12]) {
			t.Errorf("a secret is printed: %s", text)
		}
	}
}

func TestReferenceListsEverySettingOnce(t *testing.T) {
	fields := Reference()
	paths, envs := map[string]Field{}, map[string]bool{}
	for _, f := range fields {
		if f.Doc == "" || f.Type == "" {
			t.Errorf("%s has no doc or type", f.Path)
		}
		if envs[f.Env] {
			t.Errorf("two settings are called %s", f.Env)
		}
		paths[f.Path], envs[f.Env] = f, true
	}
	want := []Field{
		{Path: "keys[N].secret_file", Env: "OTPQ_KEYS_N_SECRET_FILE", Type: "text", Doc: paths["keys[N].secret_file"].Doc},
		{Path: "log.format", Env: "OTPQ_LOG_FORMAT", Type: "text", Default: "auto", Valid: "auto, json, console", Doc: paths["log.format"].Doc},
		{Path: "dashboard.trusted_proxies", Env: "OTPQ_DASHBOARD_TRUSTED_PROXIES", Type: "list", Doc: paths["dashboard.trusted_proxies"].Doc},
		{Path: "providers.NAME.token", Env: "OTPQ_PROVIDERS_NAME_TOKEN", Type: "secret", Doc: "Bearer token."},
		{
			Path: "providers.NAME.breaker.failure_ratio", Env: "OTPQ_PROVIDERS_NAME_BREAKER_FAILURE_RATIO", Type: "number",
			Default: "0.5", Valid: "more than 0 and at most 1", Doc: paths["providers.NAME.breaker.failure_ratio"].Doc,
		},
	}
	for _, w := range want {
		if diff := cmp.Diff(w, paths[w.Path]); diff != "" {
			t.Errorf("Reference() has (-want +got):\n%s", diff)
		}
	}
	if got := countLeaves(reflect.TypeFor[Config]()); len(fields) != got {
		t.Errorf("Reference() lists %d settings, the structs have %d", len(fields), got)
	}
}

// countLeaves counts the values of a configuration type.
func countLeaves(t reflect.Type) int {
	switch t.Kind() {
	case reflect.Struct:
		n := 0
		for i := range t.NumField() {
			n += countLeaves(t.Field(i).Type)
		}
		return n
	case reflect.Map, reflect.Slice:
		return countLeaves(t.Elem())
	}
	return 1
}

func TestDeepNestingNeitherHangsNorCrashes(t *testing.T) {
	for _, unit := range []string{"[", "{a: ", "- ", "a:\n "} {
		l := newLoader(definitions())
		l.readYAML([]byte(strings.Repeat(unit, 2000)), "deep.yaml", "")
		if len(l.problems) == 0 {
			t.Errorf("%q over and over is accepted", unit)
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"kitten", "sitting", 3}, {"url", "ulr", 2}, {"same", "same", 0}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

// FuzzYAML feeds the reader any text: it must neither panic nor hang, and what
// it accepts must keep to the limits.
func FuzzYAML(f *testing.F) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Add([]byte("a: &a [*a]\n<<: *a"))
	f.Add([]byte("keys: &k [*k, {<<: *k}]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLoader(definitions())
		l.readYAML(data, "fuzz.yaml", t.TempDir())
		l.checkAll()
		if len(l.problems) > 0 {
			if text := (&Error{Problems: l.problems}).Error(); len(strings.Split(text, "\n")) > len(l.problems)+1 {
				t.Errorf("a problem spreads over lines: %q", text)
			}
			return
		}
		for name, p := range l.result().Providers {
			if p.Timeout <= 0 || p.Concurrency.Bulk < 1 || !(p.Breaker.FailureRatio > 0 && p.Breaker.FailureRatio <= 1) {
				t.Errorf("provider %s was accepted as %+v", name, p)
			}
		}
	})
}

// FuzzKeyVariable feeds the other parser of outside text.
func FuzzKeyVariable(f *testing.F) {
	f.Add("a:" + goodSecret())
	f.Add(`[{"id":"a","secret":"` + goodSecret() + `"}]`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := load("", "OTPQ_KEYS="+text)
		for _, k := range c.Keys {
			if err == nil && (!keyID.MatchString(k.ID) || checkSecret(k.Secret) != "") {
				t.Errorf("accepted key %q", k.ID)
			}
		}
	})
}
