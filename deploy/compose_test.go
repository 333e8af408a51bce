package deploy_test

import (
	"context"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/config"
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

const keys = "OTPQ_KEYS=2026-11:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func TestComposeRunsWhatItTakes(t *testing.T) {
	p := mustLoadCompose(t, keys)
	commands := map[string][]string{}
	for name, s := range p.Services {
		commands[name] = s.Command
	}
	want := map[string][]string{
		"redis": {"redis-server", "--appendonly", "yes", "--appendfsync", "everysec",
			"--maxmemory", "512mb", "--maxmemory-policy", "noeviction"},
		"sandbox": {"sandbox", "--listen", "0.0.0.0:8089"},
		"worker":  {"worker"},
		"prometheus": {"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus",
			"--storage.tsdb.retention.time=15d"},
		"grafana": nil,
	}
	if diff := cmp.Diff(want, commands); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
}

func TestComposeKeepsDataInVolumes(t *testing.T) {
	p := mustLoadCompose(t, keys)
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
	p := mustLoadCompose(t, keys)
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
	p := mustLoadCompose(t, keys)
	for name, s := range p.Services {
		if s.Build != nil {
			continue
		}
		if _, tag, ok := strings.Cut(s.Image, ":"); !ok || tag == "" || tag == "latest" {
			t.Errorf("%s runs the image %q, want a version", name, s.Image)
		}
	}
}

// Prometheus has to ask where the worker listens.
func TestComposePrometheusAsksTheWorkersPort(t *testing.T) {
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
	p := mustLoadCompose(t, keys)
	_, port, err := net.SplitHostPort(workerConfig(t, p).Admin.Listen)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, job := range unmarshal[file](t, "prometheus/prometheus.yml").ScrapeConfigs {
		for _, sd := range job.DNS {
			for _, name := range sd.Names {
				asked++
				if _, ok := p.Services[name]; !ok {
					t.Errorf("job %s asks %q, which is no service", job.JobName, name)
				}
				if strconv.Itoa(sd.Port) != port {
					t.Errorf("job %s asks port %d, and the worker listens on %s", job.JobName, sd.Port, port)
				}
			}
		}
	}
	if asked == 0 {
		t.Error("Prometheus asks nobody")
	}
}

func TestComposeWorkerWaitsForAHealthyRedis(t *testing.T) {
	p := mustLoadCompose(t, keys)
	check := p.Services["redis"].HealthCheck
	if check == nil || check.Disable || !strings.Contains(strings.Join(check.Test, " "), "PONG") {
		t.Errorf("redis has the health check %v, want one that waits for PONG: a loading Redis answers too", check)
	}
	if got := p.Services["worker"].DependsOn["redis"].Condition; got != types.ServiceConditionHealthy {
		t.Errorf("worker waits for redis to be %q, want %q", got, types.ServiceConditionHealthy)
	}
}

// workerConfig is what the worker makes of the variables that Compose gives it.
func workerConfig(t *testing.T, p *types.Project) config.Config {
	t.Helper()
	c, err := config.Load(config.Options{
		Environ:     p.Services["worker"].Environment.ToMapping().Values(),
		Definitions: all.All(),
	})
	if err != nil {
		t.Fatalf("the worker would not start: %v", err)
	}
	return c
}

func TestComposeWorkerIsConfiguredByVariables(t *testing.T) {
	for name, tc := range map[string]struct {
		env   []string
		token string
	}{
		"the sandbox takes any token":        {[]string{keys}, "sandbox"},
		"a token in the environment is used": {[]string{keys, "OTPQ_PROVIDERS_MEDSENIOR_TOKEN=real"}, "real"},
	} {
		t.Run(name, func(t *testing.T) {
			c := workerConfig(t, mustLoadCompose(t, tc.env...))
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

func TestComposeWithoutAKeySaysHowToMakeOne(t *testing.T) {
	for name, env := range map[string][]string{"no key": nil, "an empty key": {"OTPQ_KEYS="}} {
		t.Run(name, func(t *testing.T) {
			_, err := loadCompose(t.Context(), env...)
			if err == nil {
				t.Fatal("the file loads, want an error")
			}
			for _, want := range []string{"OTPQ_KEYS", "otpq keygen", ".env"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q, want %q in it", err, want)
				}
			}
		})
	}
}

func TestComposeLocksItsContainersDown(t *testing.T) {
	p := mustLoadCompose(t, keys)
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
	p := mustLoadCompose(t, keys)
	// asynq first waits for handlers, then ends loops that may be inside a
	// call to Redis; it took 18 s more with a Redis that hung.
	const around = 20 * time.Second
	atLeast := workerConfig(t, p).Worker.ShutdownTimeout + around
	got := p.Services["worker"].StopGracePeriod
	if got == nil || time.Duration(*got) < atLeast {
		t.Errorf("stop_grace_period = %v, want at least %v", got, atLeast)
	}
}
