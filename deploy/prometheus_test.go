package deploy_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/otpq/otpq/internal/metrics"
)

// promtoolEnv names the promtool to run; without it PATH is searched.
const promtoolEnv = "OTPQ_TEST_PROMTOOL"

// promtool runs Prometheus's own checker in a folder.
func promtool(t *testing.T, dir string, args ...string) (output string, err error) {
	t.Helper()
	binary := os.Getenv(promtoolEnv)
	if binary == "" {
		var missing error
		if binary, missing = exec.LookPath("promtool"); missing != nil {
			t.Fatalf("these tests need promtool: %v; run them with `make test`, which fetches it", missing)
		}
	}
	cmd := exec.CommandContext(t.Context(), binary, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestPrometheusTakesItsConfigurationAndRules(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"check", "config", "prometheus.yml"},
		{"check", "rules", "alerts.yml"},
		{"test", "rules", "alerts_test.yml"},
	} {
		if out, err := promtool(t, "prometheus", args...); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// alert is a rule of alerts.yml.
type alert struct {
	Alert, Expr, For    string
	Labels, Annotations map[string]string
}

// unmarshal reads a YAML file in which every key must be known.
func unmarshal[V any](t *testing.T, file string) V {
	t.Helper()
	var v V
	if err := yaml.UnmarshalWithOptions([]byte(read(t, file)), &v, yaml.Strict()); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return v
}

func alerts(t *testing.T) []alert {
	t.Helper()
	type file struct {
		Groups []struct {
			Name  string
			Rules []alert
		}
	}
	var out []alert
	for _, g := range unmarshal[file](t, "prometheus/alerts.yml").Groups {
		out = append(out, g.Rules...)
	}
	if len(out) < 10 {
		t.Fatalf("%d alerts were read", len(out))
	}
	return out
}

// An alert that nobody has seen fire, or stay silent, may do neither.
func TestEveryAlertIsTestedBothWays(t *testing.T) {
	t.Parallel()
	type file struct {
		RuleFiles          []string `yaml:"rule_files"`
		EvaluationInterval string   `yaml:"evaluation_interval"`
		Tests              []struct {
			Name, Interval string
			InputSeries    []struct{ Series, Values string } `yaml:"input_series"`
			AlertRuleTest  []struct {
				EvalTime  string `yaml:"eval_time"`
				Alertname string
				ExpAlerts []any `yaml:"exp_alerts"`
			} `yaml:"alert_rule_test"`
		}
	}
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range unmarshal[file](t, "prometheus/alerts_test.yml").Tests {
		for _, c := range test.AlertRuleTest {
			if len(c.ExpAlerts) > 0 {
				fires[c.Alertname] = true
			} else {
				silent[c.Alertname] = true
			}
		}
	}
	for _, a := range alerts(t) {
		if !fires[a.Alert] || !silent[a.Alert] {
			t.Errorf("%s: a test in which it fires: %v, and one in which it does not: %v; want both", a.Alert, fires[a.Alert], silent[a.Alert])
		}
	}
}

// section returns a runbook's part under a heading.
func section(runbook, heading string) (string, bool) {
	_, rest, ok := strings.Cut(runbook, "\n## "+heading+"\n")
	text, _, _ := strings.Cut(rest, "\n## ")
	return text, ok
}

func TestEveryAlertSaysHowBadItIsAndWhatToDo(t *testing.T) {
	t.Parallel()
	runbook := read(t, "../docs/runbook.md")
	const address = "https://github.com/otpq/otpq/blob/main/docs/runbook.md#"
	var named []string
	for _, a := range alerts(t) {
		named = append(named, a.Alert)
		if s := a.Labels["severity"]; s != "critical" && s != "warning" && s != "info" {
			t.Errorf("%s has the severity %q, want critical, warning or info", a.Alert, s)
		}
		if a.Annotations["summary"] == "" {
			t.Errorf("%s has no summary", a.Alert)
		}
		if url := a.Annotations["runbook_url"]; url != address+strings.ToLower(a.Alert) {
			t.Errorf("%s points at %q, want its own section", a.Alert, url)
		}
		text, ok := section(runbook, a.Alert)
		if !ok {
			t.Errorf("docs/runbook.md has no section %s", a.Alert)
		}
		for _, part := range []string{"**Means.**", "**Look.**", "**Do.**", "**Over**"} {
			if !strings.Contains(text, part) {
				t.Errorf("docs/runbook.md, %s, lacks the part %s", a.Alert, part)
			}
		}
	}
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(runbook, -1) {
		if !slices.Contains(named, m[1]) {
			t.Errorf("docs/runbook.md tells of %s, which is no alert", m[1])
		}
	}
	for _, m := range regexp.MustCompile(`\]\(#(\w+)\)`).FindAllStringSubmatch(runbook, -1) {
		if !slices.ContainsFunc(named, func(n string) bool { return strings.ToLower(n) == m[1] }) {
			t.Errorf("docs/runbook.md points at #%s, which is not there", m[1])
		}
	}
}

// metricName is a metric of otpq's or asynq's, in an expression or in prose.
var metricName = regexp.MustCompile(`\b(otpq|asynq)_[a-z_]+\b`)

// foreign are the metrics from elsewhere that may be used.
var foreign = regexp.MustCompile(`\b(up|process_start_time_seconds|process_[a-z_]+|go_[a-z_]+)\b`)

// unknownMetrics lists the metrics in a text that neither workers nor dashboards serve.
func unknownMetrics(text string) []string {
	known := metrics.Names(metrics.WorkerProcess, metrics.DashboardProcess)
	seen := map[string]bool{}
	for _, name := range metricName.FindAllString(text, -1) {
		base := name
		for _, suffix := range []string{"_bucket", "_sum", "_count"} {
			if cut, ok := strings.CutSuffix(name, suffix); ok && known[cut] == "histogram" {
				base = cut
			}
		}
		if known[base] == "" {
			seen[name] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

func TestAlertsAndRunbookNameMetricsThatThereAre(t *testing.T) {
	t.Parallel()
	for _, a := range alerts(t) {
		if !metricName.MatchString(a.Expr) && !foreign.MatchString(a.Expr) {
			t.Errorf("%s asks for no metric: %s", a.Alert, a.Expr)
		}
	}
	for _, file := range []string{"prometheus/alerts.yml", "prometheus/alerts_test.yml", "../docs/runbook.md"} {
		if unknown := unknownMetrics(read(t, file)); len(unknown) > 0 {
			t.Errorf("%s names %q, which no worker serves", file, unknown)
		}
	}
}

var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// otpqBinary builds the command, as the image has it but for the profile, once.
func otpqBinary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "otpq-deploy-"); built.err != nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-pgo=off", "-o", built.dir, "../cmd/otpq")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			built.err = fmt.Errorf("go build: %w\n%s", err, out)
		}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return filepath.Join(built.dir, "otpq")
}

// A command with a wrong name or flag is found out at three in the morning.
func TestTheCommandsOfTheRunbookExist(t *testing.T) {
	t.Parallel()
	commands := map[string]bool{}
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(read(t, "../docs/runbook.md"), -1) {
		for line := range strings.Lines(block[1]) {
			line, _, _ = strings.Cut(line, "#")
			commands[strings.TrimSpace(line)] = true
		}
	}
	if len(commands) < 5 {
		t.Fatalf("%d commands were found", len(commands))
	}
	for command := range commands {
		if err := commandExists(t, strings.Fields(command)); err != nil {
			t.Errorf("`%s`: %v", command, err)
		}
	}
}

func TestACommandThatDoesNotExistIsFoundOut(t *testing.T) {
	t.Parallel()
	for _, words := range [][]string{
		{"otpq", "providerz"}, {"otpq", "dead", "lisst"}, {"otpq", "dead", "list", "--from", "1h"}, {"redis-cli", "ping"},
	} {
		if commandExists(t, words) == nil {
			t.Errorf("%q passes for a command of otpq", words)
		}
	}
}

// commandExists asks the binary for help: it complains of a flag that is not there, and
// shows another command's usage for a subcommand that is not.
func commandExists(t *testing.T, words []string) error {
	t.Helper()
	if words[0] != "otpq" {
		return fmt.Errorf("is no command of otpq's")
	}
	out, err := exec.CommandContext(t.Context(), otpqBinary(t), append(words[1:], "--help")...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	path := []string{"otpq"}
	for _, w := range words[1:] {
		if strings.HasPrefix(w, "-") || w == strings.ToUpper(w) { // a flag, or what the reader fills in
			break
		}
		path = append(path, w)
	}
	if usage := "\n  " + strings.Join(path, " ") + " "; !strings.Contains(string(out), usage) {
		return fmt.Errorf("the binary shows no usage of %q:\n%s", strings.Join(path, " "), out)
	}
	return nil
}
