package report

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// method is what the page says of all suites.
const method = `Every peer does the same job for a message: one POST to the provider and one status write. Each runs in processes of its own, with
a Redis of its own that starts empty, in turns (all peers, then all peers again). The provider is one Go HTTP server in its own process;
it notes when each message arrives, on the clock that all processes share, and answers as Unimed-BH's page says. After each run every
message must have arrived exactly once, have a status that says so and have left its queue; a run where one has not is no run.

| peer | set-up |
|---|---|
| otpq | the ` + "`otpq worker`" + ` binary as it ships (compiled with a profile, garbage collected at GOGC=400; the Go peers have Go's defaults): sealed messages, claims and full status records, breaker, metrics, log at info into a file, all three providers on; no rate limit |
| otpq limited | the same with a shared rate limit that is too high to bind |
| asynq | asynq alone, its defaults; the handler writes one HSET |
| asynq tuned | four servers in one process, a quarter of the slots each, polling every 5 ms |
| BullMQ | one Node.js process, undici as HTTP client, completed jobs removed, one HSET |
| JetStream | file storage, a work queue, each acknowledgement confirmed (double ack), one HSET; the server embedded in a process of its own |
| River | its defaults, on PostgreSQL with its defaults; the status is a row |
| River tuned | FetchCooldown 1 ms, FetchPollInterval 100 ms, 40 connections |
| direct + status, direct | no queue: as many goroutines as there are slots post, and write one HSET or nothing |

Redis has its append-only file on, fsync every second; PostgreSQL commits synchronously; JetStream syncs its files every two minutes.
CPU is that of all threads of a process. Figures are medians of the runs, the lowest and the highest behind them. Runs in which
somebody else used more than a fifth of a core are left out where two others remain. Ratios are taken within each round.
Trust the ratios and the CPU a message; the rates are those of this one machine, which all processes share.
`

// pageMode is that of any file in a repository.
const pageMode = 0o644

// Write writes a page of all results, suite by suite in order, and its plot
// beside it.
func (r Results) Write(file string, order []string) error {
	var suites []*Suite
	for _, name := range order {
		if s := r.Suites[name]; s != nil && len(s.rows()) > 0 {
			suites = append(suites, s)
		}
	}
	plot := strings.TrimSuffix(file, filepath.Ext(file)) + ".svg"
	if err := os.WriteFile(plot, []byte(drawAll(suites)), pageMode); err != nil {
		return err
	}
	return os.WriteFile(file, []byte(r.page(suites, filepath.Base(plot))), pageMode)
}

func (r Results) page(suites []*Suite, plot string) string {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\nWritten by `make bench`; do not edit it by hand. `make bench SUITE=drain ROUNDS=1 N=2000` runs a part.\n\n")
	fmt.Fprintf(&b, "![Drain, pick-up and enqueue of otpq and its peers](%s)\n\n", plot)
	b.WriteString("## Against its goals\n\n")
	goals := [][]string{append([]string{"suite"}, goalHeader...)}
	for _, s := range suites {
		for _, row := range s.goalRows() {
			goals = append(goals, append([]string{s.Title}, row...))
		}
	}
	markdownTable(&b, goals)
	b.WriteString("## How it was measured\n\n" + method + "\n")
	fmt.Fprintf(&b, "Machine: %s, %d cores, %s of memory, %s.\n\n", r.Machine.CPU, r.Machine.Cores, r.Machine.Memory, r.Machine.System)
	b.WriteString("Versions: " + strings.Join(r.Machine.Versions, "; ") + ".\n\n")
	for _, s := range suites {
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", s.Title, s.About)
		fmt.Fprintf(&b, "`SUITE=%s`, N = %s, measured %s with %s.\n\n", s.Name, group(fmt.Sprint(s.Messages)), s.At.Format(time.DateOnly), s.Build)
		markdownTable(&b, append([][]string{s.header()}, s.rows()...))
		for _, f := range s.Failures() {
			fmt.Fprintf(&b, "Failed and left out: %s.\n\n", f)
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}
