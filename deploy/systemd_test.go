package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/otpq/otpq/internal/config"
	"github.com/otpq/otpq/providers/all"
)

const unitFile = "systemd/otpq-worker.service"

// readUnit reads a unit: the values of each setting, by "Section.Name".
func readUnit(t *testing.T) map[string][]string {
	t.Helper()
	out, section := map[string][]string{}, ""
	for line := range strings.Lines(read(t, unitFile)) {
		line = strings.TrimSpace(line)
		switch name, value, ok := strings.Cut(line, "="); {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			section = strings.Trim(line, "[]")
		case !ok || section == "" || strings.TrimSpace(name) != name:
			t.Fatalf("%s: %q is no setting", unitFile, line)
		default:
			out[section+"."+name] = append(out[section+"."+name], value)
		}
	}
	return out
}

func one(t *testing.T, unit map[string][]string, setting string) string {
	t.Helper()
	if len(unit[setting]) != 1 {
		t.Fatalf("%s is set %d times, want once", setting, len(unit[setting]))
	}
	return unit[setting][0]
}

func TestTheUnitStartsAWorkerAndLetsItFinish(t *testing.T) {
	t.Parallel()
	unit := readUnit(t)
	words := strings.Fields(one(t, unit, "Service.ExecStart"))
	words[0] = filepath.Base(words[0])
	if words[1] != "worker" || commandExists(t, words) != nil {
		t.Errorf("ExecStart runs %q, which the binary does not know", words)
	}
	defaults, err := config.Load(config.Options{Definitions: all.All()})
	if err != nil {
		t.Fatal(err)
	}
	stop, err := time.ParseDuration(one(t, unit, "Service.TimeoutStopSec"))
	const around = 20 * time.Second // as in docker-compose.yml
	if atLeast := defaults.Worker.ShutdownTimeout + around; err != nil || stop < atLeast {
		t.Errorf("TimeoutStopSec = %v, %v, want at least %s", stop, err, atLeast)
	}
	if one(t, unit, "Service.KillSignal") != "SIGTERM" || one(t, unit, "Service.Restart") != "always" {
		t.Error("want SIGTERM to end it, and a restart whatever ended it")
	}
	// The collector has to hold back before the kernel kills.
	var soft, hard int
	for _, e := range unit["Service.Environment"] {
		if value, ok := strings.CutPrefix(e, "GOMEMLIMIT="); ok {
			soft, _ = strconv.Atoi(strings.TrimSuffix(value, "MiB"))
		}
	}
	hard, _ = strconv.Atoi(strings.TrimSuffix(one(t, unit, "Service.MemoryMax"), "M"))
	if soft == 0 || hard == 0 || soft > hard*95/100 {
		t.Errorf("GOMEMLIMIT = %d MiB and MemoryMax = %d MiB, want the first a little below the second", soft, hard)
	}
}

func TestTheUnitHasNothingOfTheMachine(t *testing.T) {
	t.Parallel()
	unit := readUnit(t)
	for setting, want := range map[string]string{
		"DynamicUser": "yes", "NoNewPrivileges": "yes", "CapabilityBoundingSet": "", "AmbientCapabilities": "",
		"ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes", "ProtectProc": "invisible",
		"ProtectKernelTunables": "yes", "ProtectKernelModules": "yes", "ProtectControlGroups": "yes", "RestrictNamespaces": "yes",
		"RestrictSUIDSGID": "yes", "LockPersonality": "yes", "MemoryDenyWriteExecute": "yes", "UMask": "0077",
	} {
		if got := one(t, unit, "Service."+setting); got != want {
			t.Errorf("%s=%s, want %s", setting, got, want)
		}
	}
	for _, e := range unit["Service.Environment"] {
		if strings.HasPrefix(e, "OTPQ_") {
			t.Errorf("Environment=%s: everybody can read it; use a credential or an EnvironmentFile", e)
		}
	}
}

// When a process began is counted from the machine's start, which is in /proc/stat. Without
// it alerts that go by that metric are silent, and nobody hears of it.
func TestTheUnitLeavesTheWorkerWhatItsMetricsAreReadFrom(t *testing.T) {
	t.Parallel()
	if !strings.Contains(read(t, "prometheus/alerts.yml"), "process_start_time_seconds") {
		t.Fatal("no alert goes by when a process began: this test is of no use")
	}
	if subset := readUnit(t)["Service.ProcSubset"]; slices.Contains(subset, "pid") {
		t.Errorf("ProcSubset=%s hides /proc/stat: no process_start_time_seconds", subset)
	}
}

// Systemd's own word, where it is installed; what it would refuse beyond a setting's
// form the tests above do not see.
func TestSystemdTakesTheUnit(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		readUnit(t) // its form, at least
		t.Log("no systemd here: the unit's form alone was checked")
		return
	}
	file := filepath.Join(t.TempDir(), filepath.Base(unitFile))
	text := strings.ReplaceAll(read(t, unitFile), "/usr/local/bin/otpq", otpqBinary(t))
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"verify", file},
		{"security", "--offline=yes", "--threshold=15", file}, // 1.5 of 10; a unit without any hardening has 9.6
	} {
		out, err := exec.CommandContext(t.Context(), analyze, args...).CombinedOutput()
		if args[0] == "security" && strings.Contains(string(out), "unrecognized option") { // before version 250
			continue
		}
		if err != nil || args[0] == "verify" && strings.Contains(string(out), "otpq-worker.service:") {
			t.Errorf("systemd-analyze %s: %v\n%s", args[0], err, out)
		}
	}
}
