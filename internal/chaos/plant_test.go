package chaos

import (
	"encoding/json"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/otpq/otpq/internal/audit"
)

// plant is a bug put into the worker on purpose, to see that the run finds it.
type plant struct {
	file    string
	changes []change
	// What the run has to find, among others: of the apps' messages, and of a
	// campaign's rows. Empty is that it does not show there.
	found, ofCampaign audit.Kind
}

type change struct{ old, new string }

var plants = map[string]plant{
	"ledger": { // requests are made without asking for the right to
		file: "worker/claim.go",
		changes: []change{{
			"c, err := p.store.Claim(ctx, claim)",
			"c, err := status.Claimed{Result: status.ClaimedNow, Attempt: 1}, error(nil)",
		}},
		found:      audit.SilentDouble,
		ofCampaign: audit.SilentDouble,
	},
	"ack": { // asynq's acknowledgements fail as they do without our hook
		file:    "worker/worker.go",
		changes: []change{{"cfg.Redis.AddHook(w.hook)", ""}},
		found:   audit.Overdue,
	},
	"deadline": { // requests are made however late
		file: "worker/pipeline.go",
		changes: []change{
			{"if p.now().Before(a.message.NotAfter) {", "if true {"},
			{"left := min(p.cfg.Timeout, a.message.NotAfter.Sub(a.sentAt))", "left := p.cfg.Timeout"},
		},
		found: audit.Late,
	},
	"checkpoint": { // a feeder goes on behind what another had taken and not queued
		file: "enqueue/campaign/feeder.go",
		changes: []change{{
			"if f.m.fed == f.m.reserved || f.m.State == Canceled {",
			"if true {",
		}},
		ofCampaign: audit.Lost,
	},
	"requeue": { // what another feeder may have queued is queued under other ids
		file: "enqueue/campaign/feeder.go",
		changes: []change{{
			"left = append(left, r)",
			"r.id = uuid.NewString(); left = append(left, r)",
		}},
		ofCampaign: audit.SilentDouble,
	},
}

// root is the repository's.
const root = "../.."

// apply returns the changed file.
func (p plant) apply(t *testing.T) string {
	t.Helper()
	source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(p.file)))
	if err != nil {
		t.Fatal(err)
	}
	text := string(source)
	for _, c := range p.changes {
		if n := strings.Count(text, c.old); n != 1 {
			t.Errorf("%s has %q %d times, want once: adapt the plant to the code", p.file, c.old, n)
		}
		text = strings.Replace(text, c.old, c.new, 1)
	}
	return text
}

// overlay writes what `go build -overlay` wants, and returns its path.
func (p plant) overlay(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	original, err := filepath.Abs(filepath.Join(root, filepath.FromSlash(p.file)))
	if err != nil {
		t.Fatal(err)
	}
	changed, overlay := filepath.Join(dir, "changed.go"), filepath.Join(dir, "overlay.json")
	paths, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{changed: []byte(p.apply(t)), overlay: paths} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return overlay
}

// A plant that no longer fits the code shows nothing.
func TestThePlantsFitTheCode(t *testing.T) {
	for name, p := range plants {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command("go", "build", "-buildvcs=false", "-overlay", p.overlay(t), "./"+path.Dir(p.file))
			cmd.Dir = root
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("with the plant: %v\n%s", err, out)
			}
		})
	}
}
