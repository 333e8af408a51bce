package deploy_test

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/config"
	dash "github.com/otpq/otpq/internal/dashboard"
	"github.com/otpq/otpq/internal/secret"
	"github.com/otpq/otpq/providers/all"
)

// loadCompose reads the project's Compose file as `docker compose` does, with
// env for the caller's environment.
func loadCompose(ctx context.Context, env ...string) (*types.Project, error) {
	opts, err := cli.NewProjectOptions([]string{"../docker-compose.yml"}, cli.WithEnv(env))
	if err != nil {
		return nil, err
	}
	return opts.LoadProject(ctx)
}

func mustLoadCompose(t *testing.T, env ...string) *types.Project {
	t.Helper()
	p, err := loadCompose(t.Context(), env...)
	if err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return p
}

const (
	keys  = "OTPQ_KEYS=2026-11:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	users = "OTPQ_DASHBOARD_USERS=ana:$2a$12$abcdefghijklmnopqrstuuZ0123456789ABCDEFGHIJKLMNOPQRSTU"
)

func TestComposeRunsWhatItTakes(t *testing.T) {
	p := mustLoadCompose(t, keys, users)
	commands := map[string][]string{}
	for name, s := range p.Services {
		commands[name] = s.Command
	}
	want := map[string][]string{
		"redis": {"redis-server", "--appendonly", "yes", "--appendfsync", "everysec",
			"--maxmemory", "512mb", "--maxmemory-policy", "noeviction"},
		"sandbox":   {"sandbox", "--listen", "0.0.0.0:8089"},
		"worker":    {"worker"},
		"dashboard": {"dashboard", "--listen", "0.0.0.0:8080"},
		"prometheus": {"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus",
			"--storage.tsdb.retention.time=15d"},
		"grafana": nil,
	}
	if diff := cmp.Diff(want, commands); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

func TestComposeKeepsDataInVolumes(t *testing.T) {
	p := mustLoadCompose(t, keys, users)
	for service, folder := range map[string]string{"redis": "/data", "prometheus": "/prometheus", "grafana": "/var/lib/grafana"} {
		volumes := p.Services[service].Volumes
		i := slices.IndexFunc(volumes, func(v types.ServiceVolumeConfig) bool { return v.Target == folder })
		if i < 0 || volumes[i].Type != types.VolumeTypeVolume {
			t.Errorf("%s mounts %v, want a named volume on %s: without it the data dies with the container", service, volumes, folder)
			continue
		}
		if _, ok := p.Volumes[volumes[i].Source]; !ok {
			t.Errorf("volume %q is not declared", volumes[i].Source)
		}
	}
}

// A folder that is not there is made by Docker, empty and root's.
func TestComposeMountsWhatIsThere(t *testing.T) {
	p := mustLoadCompose(t, keys, users)
	mounts := 0
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeBind {
				continue
			}
			mounts++
			if _, err := os.Stat(v.Source); err != nil {
				t.Errorf("%s mounts what is not there: %v", name, err)
			}
			if !v.ReadOnly {
				t.Errorf("%s may write to %s", name, v.Source)
			}
		}
	}
	if mounts < 3 {
		t.Errorf("%d folders are mounted, want those of Prometheus and Grafana", mounts)
	}
}

// What `latest` is tomorrow nobody has tried.
func TestComposePinsItsImages(t *testing.T) {
	p := mustLoadCompose(t, keys, users)
	for name, s := range p.Services {
		if s.Build != nil {
			continue
		}
		if _, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "" || tag == "latest" {
			t.Errorf("%s runs the image %q, want a version", name, s.Image)
		}
	}
}

// Prometheus has to ask where the processes listen.
func TestComposePrometheusAsksWhereTheyListen(t *testing.T) {
	type file struct {
		Global        map[string]string
		RuleFiles     []string `yaml:"rule_files"`
		ScrapeConfigs []struct {
			JobName string `yaml:"job_name"`
			DNS     []struct {
				Names           []string
				Type            string
				Port            int
				RefreshInterval string `yaml:"refresh_interval"`
			} `yaml:"dns_sd_configs"`
		} `yaml:"scrape_configs"`
	}
	p := mustLoadCompose(t, keys, users)
	asked := map[string]string{}
	for _, job := range unmarshal[file](t, "prometheus/prometheus.yml").ScrapeConfigs {
		for _, sd := range job.DNS {
			for _, name := range sd.Names {
				if job.JobName != "otpq-"+name {
					t.Errorf("job %s asks %s; want otpq-%[2]s, the name that the alerts go by", job.JobName, name)
				}
				asked[name] = ":" + strconv.Itoa(sd.Port)
			}
		}
	}
	listen := map[string]string{"worker": serviceConfig(t, p, "worker").Admin.Listen, "dashboard": dashboardListens(t, p)}
	for name, address := range listen {
		if asked[name] == "" || !strings.HasSuffix(address, asked[name]) {
			t.Errorf("Prometheus asks %s on port %q, and it listens on %s", name, asked[name], address)
		}
	}
	if len(asked) != len(listen) {
		t.Errorf("Prometheus asks %v, want %v", asked, listen)
	}
}

// dashboardListens is the address in the dashboard's command.
func dashboardListens(t *testing.T, p *types.Project) string {
	t.Helper()
	command := p.Services["dashboard"].Command
	i := slices.Index(command, "--listen")
	if i < 0 || i+1 >= len(command) {
		t.Fatalf("the dashboard's command %q says not where it listens", command)
	}
	return command[i+1]
}

func TestComposeDashboardAsksWhoIsThereAndShowsTheSameProviders(t *testing.T) {
	p := mustLoadCompose(t, keys, users)
	c, w := serviceConfig(t, p, "dashboard"), serviceConfig(t, p, "worker")
	auth := dash.Auth{Users: config.Items(c.Dashboard.Users.Reveal())}
	if err := dash.CheckListen(dashboardListens(t, p), auth); err != nil {
		t.Errorf("the dashboard would not start: %v", err)
	}
	if want := strings.TrimPrefix(users, "OTPQ_DASHBOARD_USERS="); len(auth.Users) != 1 || auth.Users[0] != want {
		t.Errorf("users = %q, want %q", auth.Users, want)
	}
	if len(c.Keys) > 0 || slices.Contains(p.Services["dashboard"].Command, "--write") {
		t.Error("the dashboard has a sealing key or may act; it only shows")
	}
	if c.Redis.URL.Reveal() != w.Redis.URL.Reveal() {
		t.Errorf("the dashboard looks at %s, and the worker works on %s", c.Redis.URL.Reveal(), w.Redis.URL.Reveal())
	}
	if diff := cmp.Diff(w.Providers, c.Providers, cmp.Comparer(func(a, b secret.Text) bool { return a.Reveal() == b.Reveal() })); diff != "" {
		t.Errorf("providers (-worker +dashboard):\n%s", diff)
	}
	// Asynqmon's metrics view asks the Prometheus that is here.
	u, err := url.Parse(c.Dashboard.Prometheus)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := p.Services[u.Hostname()]; !ok || u.Port() != "9090" {
		t.Errorf("the dashboard asks %s for metrics, want the service prometheus on 9090", u)
	}
	if got := p.Services["dashboard"].DependsOn["redis"].Condition; got != types.ServiceConditionHealthy {
		t.Errorf("dashboard waits for redis to be %q, want %q", got, types.ServiceConditionHealthy)
	}
}

// A hash has dollar signs, which mean variables in most of Compose's files.
func TestComposeTakesAUserFromDotEnvInQuotes(t *testing.T) {
	file := filepath.Join(t.TempDir(), ".env")
	name, value, _ := strings.Cut(users, "=")
	if err := os.WriteFile(file, []byte(name+"='"+value+"'\n"+keys+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	opts, err := cli.NewProjectOptions([]string{"../docker-compose.yml"}, cli.WithEnvFiles(file), cli.WithDotEnv)
	if err != nil {
		t.Fatal(err)
	}
	p, err := opts.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if got := serviceConfig(t, p, "dashboard").Dashboard.Users.Reveal(); got != value {
		t.Errorf("users = %q, want %q", got, value)
	}
}

// The image has no shell and no curl: otpq asks itself, where the process listens.
func TestComposeChecksThatTheProcessesAreWell(t *testing.T) {
	p := mustLoadCompose(t, keys, users)
	for name, listen := range map[string]string{"worker": serviceConfig(t, p, "worker").Admin.Listen, "dashboard": dashboardListens(t, p)} {
		check := p.Services[name].HealthCheck
		if check == nil || check.Disable || len(check.Test) != 4 || check.Test[0] != "CMD" || check.Test[1] != "/otpq" {
			t.Errorf("%s has the health check %v, want CMD /otpq probe URL", name, check)
			continue
		}
		if err := commandExists(t, append([]string{"otpq"}, check.Test[2:3]...)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		u, err := url.Parse(check.Test[3])
		if err != nil || u.Host != strings.Replace(listen, "0.0.0.0", "127.0.0.1", 1) || u.Path != "/healthz" && u.Path != "/readyz" {
			t.Errorf("%s is asked %s, and it listens on %s", name, check.Test[3], listen)
		}
	}
}

func TestComposeWorkerWaitsForAHealthyRedis(t *testing.T) {
	p := mustLoadCompose(t, keys, users)
	check := p.Services["redis"].HealthCheck
	if check == nil || check.Disable || !strings.Contains(strings.Join(check.Test, " "), "PONG") {
		t.Errorf("redis has the health check %v, want one that waits for PONG: a loading Redis answers too", check)
	}
	if got := p.Services["worker"].DependsOn["redis"].Condition; got != types.ServiceConditionHealthy {
		t.Errorf("worker waits for redis to be %q, want %q", got, types.ServiceConditionHealthy)
	}
}

// serviceConfig is what a service makes of the variables that Compose gives it.
func serviceConfig(t *testing.T, p *types.Project, service string) config.Config {
	t.Helper()
	c, err := config.Load(config.Options{
		Environ:     p.Services[service].Environment.ToMapping().Values(),
		Definitions: all.All(),
	})
	if err != nil {
		t.Fatalf("%s would not start: %v", service, err)
	}
	return c
}

func TestComposeWorkerIsConfiguredByVariables(t *testing.T) {
	for name, tc := range map[string]struct {
		env   []string
		token string
	}{
		"the sandbox takes any token":        {[]string{keys, users}, "sandbox"},
		"a token in the environment is used": {[]string{keys, users, "OTPQ_PROVIDERS_MEDSENIOR_TOKEN=real"}, "real"},
	} {
		t.Run(name, func(t *testing.T) {
			c := serviceConfig(t, mustLoadCompose(t, tc.env...), "worker")
			got := map[string]string{"redis": c.Redis.URL.Reveal(), "admin": c.Admin.Listen, "token": c.Providers["medsenior"].Token.Reveal()}
			want := map[string]string{"redis": "redis://redis:6379/0", "admin": "0.0.0.0:9090", "token": tc.token}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("configuration (-want +got):\n%s", diff)
			}
			if len(c.Keys) != 1 || c.Keys[0].ID != "2026-11" {
				t.Errorf("keys = %v, want the one from the environment", c.Keys)
			}
			for _, d := range all.All() {
				provider := c.Providers[d.Name]
				if off := provider.OffReason(d); off != "" {
					t.Errorf("%s is off: %s", d.Name, off)
				}
				if provider.BaseURL != "http://sandbox:8089" {
					t.Errorf("%s is called at %q, want the sandbox: trying otpq out must reach nobody", d.Name, provider.URL(d))
				}
			}
		})
	}
}

func TestComposeWithoutASecretSaysHowToMakeOne(t *testing.T) {
	for name, c := range map[string]struct{ env, words []string }{
		"no key":       {[]string{users}, []string{"OTPQ_KEYS", "otpq keygen", ".env"}},
		"an empty key": {[]string{users, "OTPQ_KEYS="}, []string{"OTPQ_KEYS", "otpq keygen", ".env"}},
		"no user":      {[]string{keys}, []string{"OTPQ_DASHBOARD_USERS", "otpq dashboard hash", ".env", "quotes"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := loadCompose(t.Context(), c.env...)
			if err == nil {
				t.Fatal("the file loads, want an error")
			}
			for _, want := range c.words {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestComposeLocksItsContainersDown(t *testing.T) {
	p := mustLoadCompose(t, keys, users)
	for name, s := range p.Services {
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may gain privileges", name)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s publishes port %s to the network, want 127.0.0.1 only", name, port.Published)
			}
		}
		if s.Build == nil {
			continue // the rest is about our own image
		}
		if !numberedAndNotRoot(s.User) {
			t.Errorf("%s runs as user %q, want a number that is not 0", name, s.User)
		}
		if !s.ReadOnly {
			t.Errorf("%s may write to its file system", name)
		}
		if !slices.Contains(s.CapDrop, "ALL") {
			t.Errorf("%s drops the capabilities %q, want ALL", name, s.CapDrop)
		}
		if _, err := os.Stat("../" + s.Build.Dockerfile); err != nil {
			t.Errorf("%s is built from a missing file: %v", name, err)
		}
	}
}

// Docker kills what has not ended by then, and a request that a kill cuts off
// may have sent a code that nobody wrote down.
func TestComposeGivesTheWorkerTimeToFinish(t *testing.T) {
	p := mustLoadCompose(t, keys, users)
	// asynq first waits for handlers, then ends loops that may be inside a
	// call to Redis; it took 18 s more with a Redis that hung.
	const around = 20 * time.Second
	atLeast := serviceConfig(t, p, "worker").Worker.ShutdownTimeout + around
	got := p.Services["worker"].StopGracePeriod
	if got == nil || time.Duration(*got) < atLeast {
		t.Errorf("stop_grace_period = %v, want at least %v", got, atLeast)
	}
}
