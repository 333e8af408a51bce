package chaos

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/internal/audit"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/worker"
)

// campaignFile is a file of rows, and what each of them is.
type campaignFile struct {
	path       string
	rows       []fileRow // the first of them in line 2
	recipients map[string]bool
}

type fileRow struct {
	kind      string // waiting, duplicate or invalid
	recipient string
}

// recipientOf is who is meant by a username.
func recipientOf(username string) string { return strings.ToLower(strings.TrimSpace(username)) }

// writeCampaignFile writes a file in which some rows are wrong, and some name whom
// others have named.
func writeCampaignFile(t *testing.T, seed uint64, n int) campaignFile {
	t.Helper()
	f := campaignFile{path: filepath.Join(t.TempDir(), "people.csv"), recipients: map[string]bool{}}
	var text bytes.Buffer
	w := csv.NewWriter(&text)
	write := func(username, kind string) {
		if err := w.Write([]string{username, kind}); err != nil {
			t.Fatal(err)
		}
	}
	write("username", "type")
	r := random(seed, "file")
	var names []string
	for i := range n {
		name := fmt.Sprintf("%s%06d@example.com", recipients, i)
		switch dice := r.IntN(100); {
		case dice < 1:
			write("", "EMAIL")
			f.rows = append(f.rows, fileRow{kind: campaign.RowInvalid})
		case dice < 3:
			write(name, "")
			f.rows = append(f.rows, fileRow{campaign.RowInvalid, name})
		case dice < 10 && len(names) > 0:
			name = names[r.IntN(len(names))]
			f.rows = append(f.rows, fileRow{campaign.RowDuplicate, name})
			if dice < 5 {
				name = strings.ToUpper(name)
			}
			write(name, "EMAIL")
		default:
			write(name, "EMAIL")
			names, f.recipients[name] = append(names, name), true
			f.rows = append(f.rows, fileRow{campaign.RowWaiting, name})
		}
	}
	w.Flush()
	if err := errors.Join(w.Error(), os.WriteFile(f.path, text.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	return f
}

// counts are the file's, of a campaign that was just created.
func (f campaignFile) counts() campaign.Counts {
	n := campaign.Counts{Rows: int64(len(f.rows))}
	for _, row := range f.rows {
		switch row.kind {
		case campaign.RowInvalid:
			n.Invalid++
		case campaign.RowDuplicate:
			n.Duplicate++
		default:
			n.Waiting++
		}
	}
	return n
}

// campaignFindings are what is wrong with how a campaign ended.
type campaignFindings struct {
	count map[audit.Kind]int
	lines []string
}

// other is whatever is neither lost nor doubled.
const other audit.Kind = "other"

func (f *campaignFindings) add(kind audit.Kind, format string, args ...any) {
	f.count[kind]++
	if f.count[kind] <= 10 {
		f.lines = append(f.lines, string(kind)+": "+fmt.Sprintf(format, args...))
	}
}

// verdict compares the report, row by row, with the file, with the provider's own
// count and with the messages' records.
func (r *campaignRun) verdict(p *plant) {
	r.Helper()
	found := &campaignFindings{count: map[audit.Kind]int{}}
	report := r.report()
	ids := make([]string, 0, len(report))
	states := map[string]int64{}
	for _, row := range report {
		states[row.State]++
		if row.MessageID != "" {
			ids = append(ids, row.MessageID)
		}
	}
	records, err := audit.Records(r.Context(), r.rdb, ids)
	if err != nil {
		r.Fatal(err)
	}
	if len(report) != len(r.file.rows) {
		found.add(other, "the report has %d rows, the file %d", len(report), len(r.file.rows))
	}
	possible := 0
	for i, row := range report[:min(len(report), len(r.file.rows))] {
		if row.Line != i+2 {
			found.add(other, "row %d of the report is line %d", i, row.Line)
		}
		r.compare(found, row, r.file.rows[i], records[row.MessageID])
		if records[row.MessageID].PossibleDuplicate {
			possible++
		}
	}
	r.compareTotals(found, states)
	r.auditRedis(found)

	ambiguous := states[string(status.Unknown)]
	if most := int64(r.workerKills * campaignSlots); ambiguous > most {
		found.add(other, "%d are unknown: %d killed workers had no more than %d in their hands", ambiguous, r.workerKills, most)
	}
	starts := 0
	for _, w := range r.processes() {
		starts += w.starts
	}
	say(r.T, "%d rows in %s (%.0f rows/s); kills: %s, %d of workers; %d processes; %d fed; %d readings", len(r.file.rows), r.took.Round(100_000_000),
		float64(len(r.file.rows))/r.took.Seconds(), list(r.kills), r.workerKills, starts, len(r.feeders), r.readings)
	say(r.T, "%s: %d requests of %d recipients; ambiguous %d, possible duplicates %d", r.last.State, r.provider.total, len(r.provider.count), ambiguous, possible)
	say(r.T, "verdict: lost %d, silent doubles %d, other %d", found.count[audit.Lost], found.count[audit.SilentDouble], found.count[other])
	for _, line := range found.lines {
		say(r.T, "%s", line)
	}
	switch {
	case p != nil && found.count[p.ofCampaign] == 0:
		r.Errorf("the planted bug was not found: want %s among %v", p.ofCampaign, found.count)
	case p == nil && len(found.lines) > 0:
		r.Errorf("findings: %v", found.count)
	}
}

// report is what `otpq campaign report` says.
func (r *campaignRun) report() []campaign.ReportRow {
	r.Helper()
	out, err := r.otpq("campaign", "report", campaignID, "--json", "--reveal")
	if err != nil {
		r.Fatal(err)
	}
	var rows []campaign.ReportRow
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var row campaign.ReportRow
		if err := dec.Decode(&row); errors.Is(err, io.EOF) {
			return rows
		} else if err != nil {
			r.Fatal(err)
		}
		rows = append(rows, row)
	}
}

// compare holds one row of the report to its row in the file, to the provider's count
// and to its message's record.
func (r *campaignRun) compare(found *campaignFindings, row campaign.ReportRow, want fileRow, rec status.Record) {
	requests := r.provider.count[want.recipient]
	line := fmt.Sprintf("line %d, %s %s, %d requests", row.Line, row.State, row.Reason, requests)
	if want.kind != campaign.RowWaiting {
		if row.State != want.kind || row.MessageID != "" {
			found.add(other, "%s: want %s", line, want.kind)
		}
		if want.kind == campaign.RowInvalid && requests > 0 {
			found.add(other, "%s: it is wrong", line)
		}
		return
	}
	var request struct{ Username string }
	if err := json.Unmarshal(row.Request, &request); err != nil || recipientOf(request.Username) != want.recipient {
		found.add(other, "%s: the report has the request %s of another: %v", line, row.Request, err)
	}
	if requests > 1 {
		found.add(audit.SilentDouble, "%s", line)
	}
	switch {
	case row.State == string(status.Accepted) && requests > 0:
	case row.State == string(status.Unknown) && row.Reason == string(worker.ReasonWorkerLost):
		// Whoever was killed had it, and may have made the request or not.
	case requests == 0:
		found.add(audit.Lost, "%s", line)
	default:
		found.add(other, "%s: the provider accepted it", line)
	}
	if string(rec.State) != row.State || rec.Campaign != campaignID {
		found.add(other, "%s: its record says %q of campaign %q", line, rec.State, rec.Campaign)
	}
}

// compareTotals holds the counts that the status told last to the report and to the
// provider's.
func (r *campaignRun) compareTotals(found *campaignFindings, states map[string]int64) {
	n := r.last.Counts
	for state, count := range map[string]int64{
		campaign.RowInvalid: n.Invalid, campaign.RowDuplicate: n.Duplicate, campaign.RowWaiting: n.Waiting,
		string(status.Accepted): n.Accepted, string(status.Unknown): n.Unknown,
	} {
		if states[state] != count {
			found.add(other, "the report has %d %s, the status %d", states[state], state, count)
		}
	}
	if r.last.State != campaign.CompletedWithFailures || n.Accepted+n.Unknown+n.Invalid+n.Duplicate != n.Rows {
		found.add(other, "it ended %s with %+v", r.last.State, n)
	}
	for name := range r.provider.count {
		if !r.file.recipients[name] {
			found.add(other, "%s was sent a request", name)
		}
	}
	if r.provider.strange > 0 {
		found.add(other, "%d requests are not the page's", r.provider.strange)
	}
}

// auditRedis has the auditor look at what is left.
func (r *campaignRun) auditRedis(found *campaignFindings) {
	r.Helper()
	_, err := audit.Live(r.Context(), r.rdb, audit.Options{}, func(f audit.Finding) error {
		if !f.Note {
			found.add(other, "audit: %+v", f)
		}
		return nil
	})
	if err != nil {
		r.Fatal(err)
	}
}
