package chaos

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/otpq/otpq/internal/audit"
	"github.com/otpq/otpq/status"
)

// document is what `otpq audit --json` prints.
type document struct {
	Findings []audit.Finding `json:"findings"`
	Totals   audit.Totals    `json:"totals"`
}

// verdict runs the auditor as an operator would, and judges.
func (r *run) verdict(p *plant) {
	r.Helper()
	told, apps := r.app.heard()
	seen, did := r.vendor.requests()
	doc := r.audit(told, seen)
	for _, f := range r.findings {
		doc.Findings = append(doc.Findings, f)
		if !f.Note {
			doc.Totals.Findings[f.Kind]++
		}
	}
	starts := 0
	for _, w := range r.workers {
		starts += w.starts
	}
	r.say("troubles: %s", list(r.did))
	r.say("%d starts of %d workers, %d audits meanwhile", starts, workers, r.audits)
	r.say("apps: %s", list(apps))
	r.say("provider: %d requests: %s", len(seen), list(did))
	states := map[string]int{}
	for state, n := range doc.Totals.States {
		states[string(state)] = n
	}
	r.say("records: %s", list(states))
	r.say("outcomes: %s", list(r.outcomes(told)))
	counts := doc.Totals.Findings
	stuck := counts[audit.Stranded] + counts[audit.Overdue] + counts[audit.StaleClaim]
	r.say("verdict: lost %d, stuck %d, silent doubles %d, late %d, other findings %d", counts[audit.Lost], stuck, counts[audit.SilentDouble],
		counts[audit.Late], doc.Totals.Found()-counts[audit.Lost]-stuck-counts[audit.SilentDouble]-counts[audit.Late])
	r.show(doc.Findings)
	if p == nil {
		r.logs()
	}
	r.nobodyIsNamed()
	switch {
	case p != nil && counts[p.found] == 0:
		r.Errorf("the planted bug was not found: want %s among %v", p.found, counts)
	case p == nil && doc.Totals.Found() > 0:
		r.Errorf("findings: %v; seed %d", counts, r.seed)
	case p == nil && doc.Totals.States[status.Accepted] < len(promised(told))/4:
		r.Errorf("only %d of %d messages were accepted: too little went right to show anything", doc.Totals.States[status.Accepted], len(promised(told)))
	}
}

// promised are the messages that the app was told are queued.
func promised(told []audit.Told) map[string]bool {
	out := map[string]bool{}
	for _, t := range told {
		if !t.Failed {
			out[t.ID] = true
		}
	}
	return out
}

// outcomes counts how attempts ended, and the messages that may have been doubled.
func (r *run) outcomes(told []audit.Told) map[string]int {
	r.Helper()
	records, err := audit.Records(r.Context(), r.rdb, slices.Collect(maps.Keys(promised(told))))
	if err != nil {
		r.Fatal(err)
	}
	out := map[string]int{}
	for _, rec := range records {
		for _, a := range rec.Attempts {
			out[strings.TrimSpace(a.Outcome+" "+a.Reason)]++
		}
		if rec.PossibleDuplicate {
			out["marked as possible duplicates"]++
		}
	}
	return out
}

// audit runs `otpq audit` on what there is.
func (r *run) audit(told []audit.Told, seen []audit.Seen) document {
	r.Helper()
	dir := r.TempDir()
	toldFile, seenFile := filepath.Join(dir, "told"), filepath.Join(dir, "seen")
	writeLines(r.T, toldFile, told)
	writeLines(r.T, seenFile, seen)
	cmd := exec.CommandContext(r.Context(), r.binary, "audit", "--config", r.config, "--json",
		"--grace", grace.String(), "--slack", slack.String(), "--told", toldFile, "--seen", seenFile)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		r.Fatal(err)
	}
	var doc document
	if err := json.Unmarshal(out, &doc); err != nil {
		r.Fatalf("otpq audit: %v\n%s%s", err, out, stderr.String())
	}
	if failed := cmd.ProcessState.ExitCode() != 0; failed != (doc.Totals.Found() > 0) {
		r.Errorf("otpq audit ended with %d and %d findings", cmd.ProcessState.ExitCode(), doc.Totals.Found())
	}
	return doc
}

func writeLines[V any](t *testing.T, file string, values []V) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	enc := json.NewEncoder(f)
	for _, v := range values {
		if err := enc.Encode(v); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// show prints some findings of each kind, with the record and what the workers
// said of it.
func (r *run) show(findings []audit.Finding) {
	r.Helper()
	const each = 3
	shown := map[audit.Kind]int{}
	for _, f := range findings {
		if f.Note || shown[f.Kind] >= each {
			continue
		}
		shown[f.Kind]++
		r.say("%s %s: %s", f.Kind, f.ID, f.What)
		if records, err := audit.Records(r.Context(), r.rdb, []string{f.ID}); err == nil {
			line, _ := json.Marshal(records[f.ID]) // of plain values
			r.say("  %s", line)
		}
		for _, w := range r.workers {
			fmt.Fprint(r.Output(), w.about(f.ID))
		}
	}
}

// list writes counts, the largest first.
func list(counts map[string]int) string {
	names := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		if d := counts[b] - counts[a]; d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%d %s", counts[name], name)
	}
	return strings.Join(names, ", ")
}

// logs fails for what no trouble excuses.
func (r *run) logs() {
	r.Helper()
	for _, w := range r.workers {
		eachLine(r.T, w.log, func(line []byte) {
			for _, word := range []string{"panic", "DATA RACE", "fatal error"} {
				if bytes.Contains(line, []byte(word)) {
					r.Errorf("%s logged: %s", w.name, line)
				}
			}
		})
	}
}

// nobodyIsNamed looks for the recipients in all that was ever written to Redis,
// and in the workers' logs.
func (r *run) nobodyIsNamed() {
	r.Helper()
	dir, err := r.rdb.ConfigGet(r.Context(), "dir").Result()
	if err != nil {
		r.Fatal(err)
	}
	var files []string
	err = filepath.WalkDir(dir["dir"], func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
	if !slices.ContainsFunc(files, func(f string) bool { return strings.Contains(f, "appendonly") }) {
		r.Errorf("Redis has written %q, want an append-only file", files)
	}
	for _, w := range r.workers {
		files = append(files, w.log)
	}
	for _, file := range files {
		named := 0
		eachLine(r.T, file, func(line []byte) {
			if bytes.Contains(line, []byte(recipients)) {
				named++
			}
		})
		if named > 0 {
			r.Errorf("%s names recipients in %d lines", file, named)
		}
	}
}

// eachLine calls visit with each line of the file. A line of more than a megabyte
// is a failure.
func eachLine(t *testing.T, file string, visit func([]byte)) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		visit(lines.Bytes())
	}
	if lines.Err() != nil {
		t.Errorf("%s: %v", file, lines.Err())
	}
}
