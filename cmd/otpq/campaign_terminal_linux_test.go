package main

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/otpq/otpq/enqueue/campaign"
)

// openKeyboard returns a pseudo-terminal to read from, and what types into it.
func openKeyboard(t *testing.T) (tty, keys *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("open a pseudo-terminal: %v", err)
	}
	t.Cleanup(func() { keys.Close() })
	if err := unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	return tty, keys
}

func TestATerminalShowsABarThatIsDrawnOverItself(t *testing.T) {
	r := newRig(t)
	r.create("november", peopleFile(t, 120), "--rate", "30")
	r.worker(r.file)
	tty, screen := openTerminal(t)
	code := run(t.Context(), []string{"campaign", "start", "november", "--config", r.file}, streams{in: tty, out: tty, err: tty}, nil)
	if code != exitDone {
		t.Fatalf("exit code = %d: %s", code, screen)
	}
	waitFor(t, "the end", func() bool { return strings.Contains(screen.String(), "120 accepted, 0 failed") })
	got := screen.String()
	if n := strings.Count(got, "A\x1b[J"); n < 2 {
		t.Errorf("the bar was drawn over %d times, want about two a second:\n%q", n, got)
	}
	last := got[strings.LastIndex(got, "A\x1b[J"):]
	for _, want := range []string{"100.0 %  120 of 120", "accepted 120  failed 0  expired 0  in the queue 0  waiting 0", "\x1b[32m", "completed"} {
		if !strings.Contains(last, want) {
			t.Errorf("the last bar is %q, want %q in it", last, want)
		}
	}
	if !strings.Contains(got, "/s") || !strings.Contains(got, "░") || strings.Contains(got, person) {
		t.Errorf("screen = %q, want a rate, an open bar and no person", got)
	}

	table, seen := openTerminal(t)
	if code := run(t.Context(), []string{"campaign", "report", "november", "--config", r.file}, streams{in: table, out: table, err: table}, nil); code != exitDone {
		t.Fatalf("exit code = %d: %s", code, seen)
	}
	waitFor(t, "the report", func() bool { return strings.Contains(seen.String(), "120 rows") })
	if !strings.Contains(seen.String(), "message id") || strings.Contains(seen.String(), person) || strings.Contains(seen.String(), "line,") {
		t.Errorf("report = %q, want a table without persons", seen)
	}
}

func TestCancelAsksOnATerminal(t *testing.T) {
	r := newRig(t)
	r.create("november", peopleFile(t, 12))
	env := []string{"OTPQ_CONFIG=" + r.file}
	for _, c := range []struct {
		typed string
		flags []string
		code  int
		state campaign.State
	}{
		{"\n", nil, exitFailed, campaign.Created},
		{"no\n", nil, exitFailed, campaign.Created},
		{"Y\n", nil, exitDone, campaign.Canceled},
		{"", []string{"--yes"}, exitDone, campaign.Canceled},
	} {
		tty, keys := openKeyboard(t)
		if _, err := keys.WriteString(c.typed); err != nil {
			t.Fatal(err)
		}
		var out, errs buffer
		code := run(t.Context(), append([]string{"campaign", "cancel", "november"}, c.flags...), streams{in: tty, out: &out, err: &errs}, env)
		if code != c.code {
			t.Errorf("%q: exit code = %d, want %d: %s", c.typed, code, c.code, &errs)
		}
		if asked := strings.Contains(errs.String(), "Cancel campaign november for good? Of its rows 12 would not be sent"); asked != (c.flags == nil) {
			t.Errorf("%q: stderr = %q", c.typed, &errs)
		}
		if got := r.campaign("november").State; got != c.state {
			t.Errorf("%q: the campaign is %s, want %s", c.typed, got, c.state)
		}
	}
}
