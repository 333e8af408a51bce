package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/status"
)

// peopleFile is a CSV file of as many people, whom no command may name unasked. More
// lines follow them.
func peopleFile(t *testing.T, n int, more ...string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("email,type\n")
	for i := range n {
		fmt.Fprintf(&b, "pessoa%d.%s,EMAIL\n", i, person)
	}
	for _, line := range more {
		b.WriteString(line + "\n")
	}
	file := filepath.Join(t.TempDir(), "people.csv")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// create makes a campaign of a file with the column email.
func (r *rig) create(id, file string, flags ...string) {
	r.t.Helper()
	r.otpq(append([]string{"campaign", "create", id, file, "--provider", "unimedbh", "--map", "username=email"}, flags...)...).want(r.t, exitDone)
}

// campaign is what `otpq campaign status --json` prints.
func (r *rig) campaign(id string) campaign.Campaign {
	r.t.Helper()
	return decode[campaign.Campaign](r.t, r.otpq("campaign", "status", id, "--json").want(r.t, exitDone))
}

// startCommand runs a command of campaigns in the background.
func (r *rig) startCommand(args ...string) *background {
	r.t.Helper()
	return start(r.t, []string{"OTPQ_CONFIG=" + r.file}, append([]string{"campaign"}, args...)...)
}

// sum is what counts other than the rows add up to.
func sum(n campaign.Counts) int64 {
	p := progressOf(n)
	return n.Invalid + n.Duplicate + n.Waiting + p.inQueue + p.ended
}

func csvRows(t *testing.T, text string) [][]string {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(text)).ReadAll()
	if err != nil {
		t.Fatalf("%v:\n%s", err, text)
	}
	return rows
}

func TestACampaignFromItsFileToItsRetry(t *testing.T) {
	r := newRig(t)
	file := peopleFile(t, 20, "desconhecido."+person+",EMAIL", "pessoa3."+person+",EMAIL", ",EMAIL")
	created := r.otpq("campaign", "create", "november", file, "--provider", "unimedbh", "--map", "username=email").want(t, exitDone,
		"next: `otpq campaign start november`")
	if want := "november created: 23 rows, 1 invalid, 1 duplicate, 21 waiting\n"; created.out != want {
		t.Errorf("create prints %q, want %q", created.out, want)
	}
	// The same again adds nothing; other rows are another campaign.
	r.otpq("campaign", "create", "november", file, "--provider", "unimedbh", "--map", "username=email").want(t, exitDone, "was made before")
	r.otpq("campaign", "create", "november", peopleFile(t, 1), "--provider", "unimedbh", "--map", "username=email").want(t, exitFailed,
		"november", "choose another name", "otpq campaign status november")
	r.otpq("campaign", "status", "november").want(t, exitDone).wantOut(t, "created", "people.csv", "23: 1 invalid, 1 duplicate")

	if err := r.sandbox.SetFault("unimedbh", sandbox.Fault{FailNext: 2, ErrorStatus: 503}); err != nil {
		t.Fatal(err)
	}
	env := []string{"OTPQ_CONFIG=" + r.file, "OTPQ_PROVIDERS_UNIMEDBH_RETRY_MAX_ATTEMPTS=1"}
	start(t, env, "worker").says("worker started")
	ended := r.otpq("campaign", "start", "november").want(t, exitDone,
		"running", "of 21", ", invalid 1", "3 failed: `otpq campaign report november --state failed`",
		"1 invalid, and not sent: `otpq campaign report november --state invalid`", "otpq campaign retry-failed november")
	if want := "november completed with failures: 18 accepted, 3 failed, 0 canceled, 1 invalid, 1 duplicate\n"; ended.out != want {
		t.Errorf("start prints %q, want %q", ended.out, want)
	}
	got := r.campaign("november")
	if got.State != campaign.CompletedWithFailures || got.Counts.Exhausted != 2 || got.Counts.Rejected != 1 || sum(got.Counts) != 23 {
		t.Errorf("status = %+v, want 2 exhausted and 1 rejected of 23 rows", got)
	}
	r.otpq("campaign", "start", "november").want(t, exitFailed, "completed_with_failures", "otpq campaign report november")

	report := csvRows(t, r.otpq("campaign", "report", "november").want(t, exitDone, "23 rows").out)
	if diff := cmp.Diff([]string{"line", "recipient", "state", "reason", "message_id", "replay_of"}, report[0]); diff != "" || len(report) != 24 {
		t.Errorf("the report has %d lines, its header (-want +got):\n%s", len(report), diff)
	}
	failed := csvRows(t, r.otpq("campaign", "report", "november", "--state", "failed").want(t, exitDone, "3 rows").out)[1:]
	if len(failed) != 3 {
		t.Errorf("report --state failed has %d rows, want 3", len(failed))
	}

	r.otpq("campaign", "retry-failed", "november", "--state", "canceled").want(t, exitFailed, "nothing to retry", "--state")
	retried := r.otpq("campaign", "retry-failed", "november", "--start", "--json").want(t, exitDone)
	again := decode[campaign.Campaign](t, retried)
	if again.ID != "november.2" || again.State != campaign.Completed || again.Counts.Accepted != 2 || again.RetryOf != "november" {
		t.Errorf("retry-failed = %+v, want november.2 completed with 2 accepted", again)
	}
	old := map[string]bool{}
	for _, row := range failed {
		old[row[4]] = true
	}
	for _, row := range decodeLines[campaign.ReportRow](t, r.otpq("campaign", "report", "november.2", "--json").want(t, exitDone).out) {
		if !old[row.ReplayOf] || row.State != string(status.Accepted) {
			t.Errorf("row = %+v, want one that is accepted and replaces a failed one", row)
		}
	}
	listed := decode[[]campaign.Campaign](t, r.otpq("campaign", "list", "--json").want(t, exitDone))
	if len(listed) != 2 || listed[0].ID != "november.2" || listed[1].RetriedAs != "november.2" {
		t.Errorf("list = %+v, want the retry and then the campaign", listed)
	}
	r.otpq("campaign", "list").want(t, exitDone).wantOut(t, "november.2", "completed_with_failures")
}

func TestTheReportIsAFileOnlyItsOwnerCanRead(t *testing.T) {
	r := newRig(t)
	r.create("november", peopleFile(t, 3, "x"))
	file := filepath.Join(t.TempDir(), "report.jsonl")
	r.otpq("campaign", "report", "november", "--output", file, "--reveal").want(t, exitDone, "4 rows in "+file)
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the report: %v, %v; want mode 0600", info, err)
	}
	whole, err := os.ReadFile(file)
	if err != nil || strings.Count(string(whole), "\n") != 4 || !strings.Contains(string(whole), person) {
		t.Errorf("the report is %s, %v; want 4 lines with their requests", whole, err)
	}
	r.otpq("campaign", "report", "november", "--output", file).want(t, exitUsage, "is there already", "--force")
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, whole) {
		t.Errorf("the report was changed: %v", err)
	}
	r.otpq("campaign", "report", "november", "--output", file, "--force", "--state", "waiting").want(t, exitDone, "3 rows")
	masked, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(masked), person) || strings.Count(string(masked), "\n") != 3 {
		t.Errorf("the report is %s, %v; want 3 lines, masked", masked, err)
	}
	r.otpq("campaign", "report", "november", "--output", filepath.Join(file, "x")).want(t, exitUsage, "cannot be written")
	r.otpq("campaign", "report", "nosuch", "--output", file+".2").want(t, exitFailed, "nosuch", "otpq campaign list")
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), "*")); err != nil || len(left) != 1 {
		t.Errorf("files = %v, %v; want the one report", left, err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); err != nil || len(left) != 0 {
		t.Errorf("files = %v, %v; want nothing left behind", left, err)
	}
}

func TestCheckTellsEveryBadRowAndNeedsNoRedis(t *testing.T) {
	t.Chdir(t.TempDir()) // the file's default place
	nowhere := []string{"OTPQ_REDIS_URL=redis://127.0.0.1:1/0"}
	args := []string{"campaign", "create", "november", "-", "--provider", "unimedbh", "--check"}
	wrong := "username,type\na@example.org,EMAIL\n,EMAIL\nb@example.org,\n" + person + "\n"
	r := otpq(t, nowhere, wrong, args...).want(t, exitFailed, "november.bad-rows.csv", "nothing was created", "duplicates were not looked for")
	if want := "4 rows: 1 right, 3 wrong\n"; r.out != want {
		t.Errorf("stdout = %q, want %q", r.out, want)
	}
	text, err := os.ReadFile("november.bad-rows.csv")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "example") {
		t.Errorf("the file names people:\n%s", text)
	}
	var places []string
	for _, row := range csvRows(t, string(text)) {
		places = append(places, row[0]+" "+row[1])
	}
	if diff := cmp.Diff([]string{"line field", "3 username", "4 type"}, places[:3]); diff != "" || !strings.HasPrefix(places[3], "5 ") {
		t.Errorf("bad rows %q (-want +got):\n%s", places, diff)
	}
	got := decode[checkedRows](t, otpq(t, nowhere, wrong, append(args, "--json", "--bad-rows", "other.csv")...).want(t, exitFailed))
	if diff := cmp.Diff(checkedRows{Rows: 4, Valid: 1, Invalid: 3, BadRows: "other.csv"}, got); diff != "" {
		t.Errorf("JSON (-want +got):\n%s", diff)
	}

	// Mended: the old file must not go on telling what is wrong.
	right := "username,type\na@example.org,EMAIL\n"
	otpq(t, nowhere, right, args...).want(t, exitDone, "leave out --check").wantOut(t, "1 row: 1 right, 0 wrong")
	if text, err := os.ReadFile("november.bad-rows.csv"); err != nil || string(text) != "line,field,problem\n" {
		t.Errorf("the file of bad rows is %q, %v; want no row in it", text, err)
	}
	otpq(t, nowhere, right, "campaign", "create", "december", "-", "--provider", "unimedbh", "--check").want(t, exitDone)
	if _, err := os.Stat("december.bad-rows.csv"); !os.IsNotExist(err) {
		t.Errorf("stat of the other file: %v, want none where nothing is wrong", err)
	}
	otpq(t, nowhere, "username,type\n", args...).want(t, exitFailed, "there are no rows")
	if err := os.WriteFile("in.csv", []byte(right), 0o600); err != nil {
		t.Fatal(err)
	}
	otpq(t, nowhere, "", "campaign", "create", "november", "in.csv", "--provider", "unimedbh", "--check", "--bad-rows", "in.csv").want(t, exitUsage,
		"must not be the file that is read")
}

func TestBadRowsOfACampaignAreSkippedUnlessItIsStrict(t *testing.T) {
	r := newRig(t)
	file := peopleFile(t, 2, ",EMAIL")
	args := []string{"campaign", "create", "november", file, "--provider", "unimedbh", "--map", "username=email"}
	r.otpq(append(args, "--strict")...).want(t, exitFailed, "nothing was created", "line 4", "username")
	if list := decode[[]campaign.Campaign](t, r.otpq("campaign", "list", "--json").want(t, exitDone)); len(list) != 0 {
		t.Fatalf("list = %+v, want none", list)
	}
	bad := filepath.Join(t.TempDir(), "bad.csv")
	made := decode[campaign.Campaign](t, r.otpq(append(args, "--bad-rows", bad, "--rate", "7", "--valid-for", "3m", "--quiet-hours", "21:00-08:00",
		"--time-zone", "America/Sao_Paulo", "--json")...).want(t, exitDone, bad))
	want := campaign.Settings{
		ID: "november", Provider: "unimedbh", Rate: 7, ValidFor: campaign.Duration(180e9), PauseAbove: 0.2,
		QuietHours: campaign.QuietHours{From: "21:00", To: "08:00", Zone: "America/Sao_Paulo"},
	}
	if diff := cmp.Diff(want, made.Settings); diff != "" || made.Counts.Invalid != 1 || made.State != campaign.Created {
		t.Errorf("create = %+v, settings (-want +got):\n%s", made, diff)
	}
	if text, err := os.ReadFile(bad); err != nil || !strings.Contains(string(text), "\n4,username,") {
		t.Errorf("the bad rows are %q, %v; want line 4", text, err)
	}
}

func TestNothingIsCreatedWhereEveryRowIsWrong(t *testing.T) {
	r := newRig(t)
	file := filepath.Join(t.TempDir(), "people.csv")
	if err := os.WriteFile(file, []byte("username,type\n,EMAIL\n,EMAIL\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := filepath.Join(t.TempDir(), "bad.csv")
	args := []string{"campaign", "create", "november", file, "--provider", "unimedbh"}
	res := r.otpq(append(args, "--bad-rows", bad, "--start")...).want(t, exitFailed,
		"nothing was created, because nobody would be sent to: all 2 rows are wrong; line 2 is wrong: username is required", "--bad-rows FILE", bad)
	if res.out != "" {
		t.Errorf("stdout = %q, want nothing", res.out)
	}
	if text, err := os.ReadFile(bad); err != nil || strings.Count(string(text), "\n") != 3 {
		t.Errorf("the bad rows are %q, %v; want both", text, err)
	}
	r.otpq("campaign", "status", "november").want(t, exitFailed, "no such campaign")
	// The name is free.
	if err := os.WriteFile(file, []byte("username,type\n,EMAIL\na@example.org,EMAIL\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.otpq(args...).want(t, exitDone).wantOut(t, "november created: 2 rows, 1 invalid, 0 duplicate, 1 waiting")
}

func TestBadRowsThatCannotBeWrittenAreSaidWithWhatWasDoneBefore(t *testing.T) {
	r := newRig(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	in, typed := io.Pipe()
	var out, errs bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		ended <- run(t.Context(), []string{"campaign", "create", "november", "-", "--provider", "unimedbh", "--start", "--bad-rows", pipe},
			streams{in, &out, &errs}, []string{"OTPQ_CONFIG=" + r.file})
	}()
	if _, err := io.WriteString(typed, "username,type\na@example.org,EMAIL\n"); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(pipe) // waits for who writes to it
	if err != nil {
		t.Fatal(err)
	}
	reader.Close() // and goes away, as a disk gets full
	if _, err := io.WriteString(typed, ",EMAIL\n"); err != nil {
		t.Fatal(err)
	}
	typed.Close()
	const want = "campaign november was created, and is not started: write the bad rows: "
	if code := <-ended; code != exitFailed || !strings.Contains(errs.String(), want) {
		t.Errorf("it ends with %d and %q, want %d and %q", code, &errs, exitFailed, want)
	}
	if got := r.campaign("november"); got.State != campaign.Created {
		t.Errorf("it is %s, want it created", got.State)
	}
}

func TestAFileThatIsStillBeingWrittenIsNotTaken(t *testing.T) {
	r := newRig(t)
	file := peopleFile(t, 3)
	o := createChoice{rows: rowsChoice{file: file}}
	def, ok := all.ByName("unimedbh")
	mapping, err := rows.ParseMapping([]string{"username=email"})
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	o.def, o.rows.mapping = def, mapping
	in, err := (&app{}).openFile(t.Context(), &o, true)
	if err != nil {
		t.Fatal(err)
	}
	defer in.close()
	more, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	// What is there is read at once: more comes behind what is read together.
	if _, err := fmt.Fprint(more, strings.Repeat("b@"+person+",EMAIL\n", 20_000)); err != nil {
		t.Fatal(err)
	}
	if err := more.Close(); err != nil {
		t.Fatal(err)
	}
	var last error
	for _, last = range in.source.Rows {
		continue
	}
	if last == nil || !strings.Contains(last.Error(), "people.csv was changed while it was read") {
		t.Errorf("the rows end with %v, want them refused", last)
	}
	// One that stays as it is is taken.
	r.create("november", file)
}

func TestCtrlCEndsWhatWaitsForInput(t *testing.T) {
	r := newRig(t)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"campaign", "create", "november", "-", "--provider", "unimedbh"},
		{"campaign", "create", "november", "-", "--provider", "unimedbh", "--check", "--bad-rows", pipe + ".csv"},
		{"campaign", "create", "november", pipe, "--provider", "unimedbh"},
		{"send", "unimedbh", "-"},
		{"send", "unimedbh", "@" + pipe},
	} {
		in, typed := io.Pipe()
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan int, 1)
		var out, errs bytes.Buffer
		go func() { ended <- run(ctx, args, streams{in, &out, &errs}, []string{"OTPQ_CONFIG=" + r.file}) }()
		if slices.Contains(args, "-") { // it reads, and nothing more comes
			if _, err := typed.Write([]byte("\n")); err != nil {
				t.Fatal(err)
			}
		}
		stop()
		select {
		case code := <-ended:
			if code != exitFailed || !strings.Contains(errs.String(), "interrupted: nothing ") {
				t.Errorf("otpq %q ended with %d: %s", args, code, &errs)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("otpq %q does not end", args)
		}
	}
}

// stopping is a writer whose first bytes stop what writes them.
type stopping struct {
	bytes.Buffer
	stop func()
}

// Write implements [io.Writer].
func (s *stopping) Write(p []byte) (int, error) {
	s.stop()
	return s.Buffer.Write(p)
}

func TestAReportThatIsInterruptedSaysSo(t *testing.T) {
	r := newRig(t)
	r.create("november", peopleFile(t, 500))
	ctx, stop := context.WithCancel(t.Context())
	out, errs := stopping{stop: stop}, bytes.Buffer{}
	code := run(ctx, []string{"campaign", "report", "november", "--json"}, streams{strings.NewReader(""), &out, &errs}, []string{"OTPQ_CONFIG=" + r.file})
	if want := "otpq: interrupted before the report's end\n"; code != exitFailed || errs.String() != want {
		t.Errorf("it ends with %d and %q, want %d and %q", code, &errs, exitFailed, want)
	}
}

func TestACampaignIsPausedAndResumedFromElsewhere(t *testing.T) {
	r := newRig(t)
	r.create("november", peopleFile(t, 300), "--rate", "50", "--window", "10")
	r.worker(r.file)
	first := r.startCommand("start", "november")
	first.says("running")
	waitFor(t, "some to be accepted", func() bool { return r.campaign("november").Counts.Accepted > 5 })

	// A second one only looks on.
	second := r.startCommand("start", "november")
	second.says("this only shows it")
	if code := second.end(); code != exitFailed {
		t.Errorf("exit code = %d, want %d", code, exitFailed)
	}
	second.says("the campaign goes on without this")

	r.otpq("campaign", "pause", "november").want(t, exitDone).wantOut(t, "november paused: ", "of 300 done")
	first.says("by an operator")
	waitFor(t, "the queue to drain", func() bool { c := r.campaign("november").Counts; return progressOf(c).inQueue == 0 })
	paused := r.campaign("november").Counts
	if paused.Waiting == 0 || sum(paused) != 300 {
		t.Fatalf("counts = %+v, want some that wait", paused)
	}
	r.otpq("campaign", "resume", "november").want(t, exitDone).wantOut(t, "november running: ")
	waitFor(t, "it to go on", func() bool { return r.campaign("november").Counts.Accepted > paused.Accepted })

	r.otpq("campaign", "cancel", "november").want(t, exitDone).wantOut(t, "november canceled: ")
	if code := first.wait(); code != exitFailed {
		t.Errorf("exit code = %d, want %d of a canceled campaign\n%s", code, exitFailed, first.err)
	}
	first.says("november canceled: ")
	end := r.campaign("november")
	if end.State != campaign.Canceled || end.Counts.Canceled == 0 || sum(end.Counts) != 300 || progressOf(end.Counts).inQueue != 0 {
		t.Errorf("status = %+v, want the rest canceled and nothing in the queue", end)
	}
	if strings.Contains(first.out.String()+first.err.String()+second.err.String(), person) {
		t.Error("a person is named")
	}
	for _, do := range []string{"pause", "resume", "start"} {
		r.otpq("campaign", do, "november").want(t, exitFailed, "canceled", "otpq campaign report november", "otpq campaign retry-failed november --state canceled")
	}
	r.otpq("campaign", "cancel", "november").want(t, exitDone) // again is no fault
}

func TestCtrlCPausesWhatIsFedFromHere(t *testing.T) {
	r := newRig(t)
	r.create("november", peopleFile(t, 200), "--rate", "50")
	r.worker(r.file)
	first := r.startCommand("start", "november")
	waitFor(t, "some to be accepted", func() bool { return r.campaign("november").Counts.Accepted > 5 })
	if code := first.end(); code != exitFailed {
		t.Errorf("exit code = %d, want %d", code, exitFailed)
	}
	first.says("interrupted: the campaign is paused")
	first.says("otpq campaign start november")
	got := r.campaign("november")
	if got.State != campaign.Paused || got.Reason != campaign.ReasonOperator || got.Feeder != "" || got.Counts.Waiting == 0 {
		t.Fatalf("status = %+v, want it paused with some that wait", got)
	}
	r.otpq("campaign", "status", "november").want(t, exitDone).wantOut(t, "paused: by an operator; `otpq campaign resume november`")

	// It goes on in a worker, and one who looks on sees it end.
	r.otpq("campaign", "start", "november", "--detach").want(t, exitDone, "otpq campaign status november --watch").wantOut(t, "november running: a worker feeds it")
	watched := r.otpq("campaign", "status", "november", "--watch").want(t, exitDone).wantOut(t, "november running", "200 of 200", "accepted 200")
	if strings.Contains(watched.out, "\r") {
		t.Errorf("stdout = %q, want plain lines", watched.out)
	}
	if counts, err := r.sandbox.Counts("unimedbh"); err != nil || counts.Received != 200 {
		t.Errorf("the provider saw %+v, %v; want each once", counts, err)
	}
}

func TestAWorkerFeedsWhatIsDetached(t *testing.T) {
	r := newRig(t)
	r.create("first", peopleFile(t, 30), "--start", "--detach")
	r.otpq("campaign", "status", "first").want(t, exitDone).wantOut(t, "running", "it waits for a worker")
	r.otpq("campaign", "resume", "first").want(t, exitDone, "no worker is running")
	w := r.worker(r.file)
	states := decodeLines[campaign.Campaign](t, r.otpq("campaign", "status", "first", "--watch", "--json").want(t, exitDone).out)
	for _, c := range states {
		if sum(c.Counts) != 30 {
			t.Errorf("counts = %+v, want them to add up to 30", c.Counts)
		}
	}
	if last := states[len(states)-1]; last.State != campaign.Completed || last.Counts.Accepted != 30 || !last.Detached {
		t.Errorf("last = %+v, want it completed", last)
	}
	if code := w.end(); code != exitDone {
		t.Errorf("the worker ended with %d:\n%s", code, w.err)
	}
	if strings.Contains(w.err.String(), person) || strings.Contains(w.err.String(), `"level":"error"`) {
		t.Errorf("the log names a person or has an error:\n%s", w.err)
	}
}

func TestDevFeedsCampaigns(t *testing.T) {
	b := start(t, nil, "dev")
	b.says("Still running")
	_, after, _ := strings.Cut(b.out.String(), "OTPQ_CONFIG=")
	env := []string{"OTPQ_CONFIG=" + strings.TrimSpace(strings.SplitN(after, "\n", 2)[0])}
	otpq(t, env, "", "campaign", "create", "november", peopleFile(t, 20), "--provider", "unimedbh", "--map", "username=email", "--start", "--detach").want(t, exitDone)
	otpq(t, env, "", "campaign", "status", "november", "--watch").want(t, exitDone).wantOut(t, "accepted 20")
}

func TestAnOutageIsSentAgainToWhomItHit(t *testing.T) {
	r := newRig(t)
	if err := r.sandbox.SetFault("unimedbh", sandbox.Fault{ErrorRate: 1, ErrorStatus: 503}); err != nil {
		t.Fatal(err)
	}
	env := []string{"OTPQ_CONFIG=" + r.file, "OTPQ_PROVIDERS_UNIMEDBH_RETRY_MAX_ATTEMPTS=1", "OTPQ_PROVIDERS_UNIMEDBH_BREAKER_CONSECUTIVE_FAILURES=100"}
	start(t, env, "worker").says("worker started")
	lost := r.send()
	waitFor(t, "the message to be exhausted", func() bool { return r.record(lost).State == status.Exhausted })
	if err := r.sandbox.SetFault("unimedbh", sandbox.Fault{}); err != nil {
		t.Fatal(err)
	}
	args := []string{"campaign", "create", "outage", "--from-status", "--provider", "unimedbh"}
	r.otpq(append(args, "--since", "1h", "--state", "rejected")...).want(t, exitFailed, "there are no rows in what ended rejected since ", "nothing was created")
	r.otpq(append(args, "--since", "1h", "--start")...).want(t, exitDone).wantOut(t, "outage completed: 1 accepted")
	reported := decodeLines[campaign.ReportRow](t, r.otpq("campaign", "report", "outage", "--format", "jsonl").want(t, exitDone, "1 row\n").out)
	if len(reported) != 1 || reported[0].ReplayOf != lost || reported[0].State != string(status.Accepted) {
		t.Errorf("report = %+v, want the lost message's row, accepted", reported)
	}
	if again := r.otpq("campaign", "start", "outage").want(t, exitFailed, "outage is completed", "otpq campaign report outage"); strings.Contains(again.err, "retry") {
		t.Errorf("stderr = %q: there is nothing to retry", again.err)
	}
}

func TestEachWrongUseOfACampaignSaysWhatToDo(t *testing.T) {
	file := peopleFile(t, 1)
	create := func(rest string) string { return "campaign create x " + rest }
	for _, c := range []struct{ args, words string }{
		{"campaign", "say which: create, start"},
		{"campaign lst", `did you mean "list"?`},
		{create(file), "--provider kinpos|medsenior|unimedbh"},
		{create(file + " --provider nosuch"), "the providers are"},
		{create("--provider unimedbh"), "a FILE, - for standard input, or --from-status"},
		{create(file + " --provider unimedbh --from-status --since 1h"), "not both"},
		{create("--provider unimedbh --from-status"), "--from-status needs --since"},
		{create("--provider unimedbh --from-status --since soon"), "--since must be a duration"},
		{create("--provider unimedbh --from-status --since 1h --until 2h"), "--until is before --since"},
		{create("--provider unimedbh --from-status --since 1h --state accepted"), "--state takes any of rejected, exhausted, unknown, expired"},
		{create("--provider unimedbh --from-status --since 1h --map a=b"), "are for files"},
		{create(file + " --provider unimedbh --since 1h"), "go with --from-status"},
		{create(file + " --provider unimedbh --map user=email"), "no field of unimedbh; its fields are username, type"},
		{create(file + " --provider unimedbh --map username"), "FIELD=COLUMN"},
		{create(file + " --provider unimedbh --map username=mail --check"), "names a column that the header does not have"},
		{create(file + " --provider unimedbh --format xml"), "--format must be csv or jsonl"},
		{create(file + " --provider unimedbh --detach"), "--detach goes with --start"},
		{create(file + " --provider unimedbh --check --start"), "--check creates nothing"},
		{create(file + " --provider unimedbh --rate 0"), "--rate must be more than 0"},
		{create(file + " --provider unimedbh --rate NaN"), "--rate must be more than 0"},
		{create(file + " --provider unimedbh --window -1"), "--window must be more than 0"},
		{create(file + " --provider unimedbh --valid-for 0s"), "--valid-for must be more than 0"},
		{create(file + " --provider unimedbh --pause-above 20"), "--pause-above must be more than 0 and at most 1"},
		{create(file + " --provider unimedbh --quiet-hours 21:00-08:00"), "need a --time-zone"},
		{create(file + " --provider unimedbh --quiet-hours 9pm-8am --time-zone UTC"), "such as 21:00-08:00"},
		{create(file + " --provider unimedbh --quiet-hours 8:00-8:00 --time-zone UTC"), "--quiet-hours begin when they end"},
		{create(file + " --provider unimedbh --quiet-hours 21:00-08:00 --time-zone Brasil"), "such as America/Sao_Paulo"},
		{create(file + " --provider unimedbh --time-zone UTC"), "--time-zone goes with --quiet-hours"},
		{"campaign create a.b " + file + " --provider unimedbh", "a campaign's ID has"},
		{"campaign create ../x " + file + " --provider unimedbh --check", "a campaign's ID has"},
		{"campaign report x --format xml", "--format must be csv or jsonl"},
		{"campaign report x --format csv --json", "exclude each other"},
		{"campaign report x --state nosuch", "--state takes any of waiting, invalid, duplicate"},
		{"campaign report x --force", "--force goes with --output"},
		{"campaign retry-failed x --detach", "--detach goes with --start"},
		{"campaign retry-failed x --state accepted", "--state takes any of"},
		{create(file + " --provider unimedbh --rate abc"), `--rate must be a number, such as 10 or 0.5, not "abc"; see`},
		{create(file + " --provider unimedbh --window 1e3"), `--window must be a whole number, such as 5, not "1e3"; see`},
		{create(file + " --provider unimedbh --window 9999999999999999999"), "--window must be a whole number, such as 5, and not as large, not "},
		{create(file + " --provider unimedbh --valid-for 5"), `--valid-for must be a duration, such as 90s, 5m or 2h, not "5"; see`},
		{create(file + " --provider unimedbh --strict=maybe"), `--strict must be true or false, not "maybe"; see`},
		{create(file + " --provider unimedbh --check --bad-rows="), "--bad-rows must not be empty: leave it out, or is a variable not set?"},
		{create("--provider unimedbh --from-status --since 2999-01-01"), "--since is in the future"},
		{"campaign report x --output=", "--output must not be empty"},
		{"campaign retry-failed x --state=", "--state must not be empty"},
		// What other arguments mend, whether or not a file had to be looked into for it.
		{create("nosuch.csv --provider unimedbh --check"), "the rows cannot be read: nosuch.csv: no such file"},
		{create(filepath.Dir(file) + " --provider unimedbh --check"), " is a folder"},
		{create(file + " --provider unimedbh --check"), `column "email" is not a field of unimedbh`},
		{create(file + " --provider medsenior --check"), "no column of the first row is called as a field of medsenior"},
		{create(file + " --provider medsenior --check"), "as in --map emailId=1; see"},
		{create(file + " --provider unimedbh --map username=email --check --bad-rows " + filepath.Dir(file)), " is a folder: name a file"},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := otpq(t, nil, "", strings.Fields(c.args)...).want(t, exitUsage, c.words)
			if r.out != "" {
				t.Errorf("stdout = %q, want nothing", r.out)
			}
		})
	}
}

func TestACampaignThatThereIsNotIsNamed(t *testing.T) {
	r := newRig(t)
	for _, do := range []string{"start", "pause", "resume", "cancel", "status", "report", "retry-failed"} {
		r.otpq("campaign", do, "nosuch").want(t, exitFailed, "nosuch: no such campaign", "otpq campaign list")
	}
	r.otpq("campaign", "status", "nosuch", "--watch").want(t, exitFailed, "no such campaign")
	if got := r.otpq("campaign", "list", "--json").want(t, exitDone).out; got != "[]\n" {
		t.Errorf("list = %q, want []", got)
	}
	r.otpq("campaign", "list").want(t, exitDone, "otpq campaign create --help")
}

func TestAFileIsThereWholeOrNotAtAll(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	f, err := createFile(path, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("mine"), 0o644); err != nil { // somebody was faster
		t.Fatal(err)
	}
	if err := f.commit(); err == nil || !strings.Contains(err.Error(), "is there already") {
		t.Errorf("commit() = %v, want it to leave the other's file", err)
	}
	if f, err = createFile(path, true); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("new"); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "mine" {
		t.Errorf("before commit() the file is %q, %v", text, err)
	}
	if err := f.commit(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != fs.FileMode(0o600) || info.Size() != 3 {
		t.Errorf("after commit(): %v, %v; want the new file, mode 0600", info, err)
	}
}

func TestWhatIsNoFileIsWrittenToAndStaysWhatItIs(t *testing.T) {
	dir := t.TempDir()
	pipe, link, target := filepath.Join(dir, "pipe"), filepath.Join(dir, "link"), filepath.Join(dir, "target")
	if err := errors.Join(syscall.Mkfifo(pipe, 0o600), os.WriteFile(target, []byte("old"), 0o600), os.Symlink(target, link)); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that nobody waits for anybody
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	for _, end := range []func(*newFile) error{(*newFile).commit, func(f *newFile) error { f.abandon(); return nil }} {
		f, err := createFile(pipe, false)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, 3)
		if _, err := f.WriteString("new"); err != nil {
			t.Fatal(err)
		}
		if _, err := reader.Read(got); err != nil || string(got) != "new" {
			t.Errorf("the pipe has %q, %v", got, err)
		}
		if err := end(f); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(pipe); err != nil || info.Mode().Type() != fs.ModeNamedPipe {
			t.Fatalf("the pipe is %v, %v now", info, err)
		}
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	if _, err := createFile(loop, true); err == nil || !strings.Contains(err.Error(), loop+" cannot be written") {
		t.Errorf("createFile() of a link to itself = %v", err)
	}
	f, err := createFile(link, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("new"); err != nil {
		t.Fatal(err)
	}
	if err := f.commit(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(link)
	if text, readErr := os.ReadFile(target); err != nil || readErr != nil || info.Mode().Type() != fs.ModeSymlink || string(text) != "new" {
		t.Errorf("the link is %v, %v, and leads to %q, %v; want it to lead to what is new", info, err, text, readErr)
	}
}

func TestWhyACampaignDoesNotFeedIsSaid(t *testing.T) {
	until := time.Now().AddDate(0, 0, 2)
	at := " on " + until.Local().Format("2006-01-02 at 15:04:05")
	for _, c := range []struct{ reason, want string }{
		{"", ""},
		{campaign.ReasonOperator, "by an operator; `otpq campaign resume november` goes on"},
		{campaign.ReasonQuietHours, "quiet hours; goes on by itself" + at},
		{campaign.ReasonFailures, "too many fail; goes on by itself" + at},
		// It is looked at every two seconds, and may be open for hours.
		{campaign.ReasonBreakerOpen, "the provider is down: its breaker is open; goes on by itself when it closes"},
	} {
		if got := whyNot(campaign.Campaign{Settings: campaign.Settings{ID: "november"}, Reason: c.reason, Until: until}); got != c.want {
			t.Errorf("whyNot(%q) = %q, want %q", c.reason, got, c.want)
		}
	}
}

func TestProgressIsReadAsPeopleSayIt(t *testing.T) {
	c := campaign.Campaign{State: campaign.Running, RatePerSecond: 1240, Counts: campaign.Counts{
		Rows: 1_200_000, Invalid: 100_000, Duplicate: 100_000, Waiting: 400_000, Queued: 10, Sending: 20, Deferred: 30,
		Accepted: 599_940 - 40, Rejected: 10, Exhausted: 10, Unknown: 10, Expired: 10,
	}}
	p := progressOf(c.Counts)
	if p.total != 1_000_000 || p.ended != 599_940 || p.failed != 40 || p.inQueue != 60 || sum(c.Counts) != c.Counts.Rows {
		t.Errorf("progressOf() = %+v", p)
	}
	if got := p.pace(c); got != "1,240/s, 5m20s left" {
		t.Errorf("pace() = %q", got)
	}
	for seconds, want := range map[time.Duration]string{59: "59s", 61: "1m0s", 3725: "1h2m", 7200: "2h0m"} {
		if got := roughly(seconds * time.Second); got != want {
			t.Errorf("roughly(%d s) = %q, want %q", seconds, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %q, want %q", n, got, want)
		}
	}
	c.RatePerSecond = 0
	if got := progressOf(c.Counts).pace(c); got != "" {
		t.Errorf("pace() = %q, want nothing where nothing moves", got)
	}
}
