package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/otpq/otpq/status"
)

// openTerminal returns a pseudo-terminal to write to, and all that was written.
func openTerminal(t *testing.T) (tty *os.File, screen *buffer) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("open a pseudo-terminal: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	screen = &buffer{}
	read := make(chan struct{})
	go func() {
		defer close(read)
		_, _ = io.Copy(screen, master) // ends with an error when the terminal is closed
	}()
	t.Cleanup(func() {
		tty.Close()
		<-read
		master.Close()
	})
	return tty, screen
}

func TestATerminalGetsColourUnlessItIsRefused(t *testing.T) {
	r := newRig(t)
	id := r.send()
	if err := r.store.Move(t.Context(), status.Move{ID: id, To: status.Expired, Provider: "unimedbh", Now: r.record(id).CreatedAt}); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  []string
		want bool
	}{
		"a terminal":      {nil, true},
		"NO_COLOR":        {[]string{"NO_COLOR=1"}, false},
		"an empty one":    {[]string{"NO_COLOR="}, true},
		"a dumb terminal": {[]string{"TERM=dumb"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			tty, screen := openTerminal(t)
			env := append([]string{"OTPQ_CONFIG=" + r.file}, c.env...)
			if code := run(t.Context(), []string{"status", id}, streams{in: tty, out: tty, err: tty}, env); code != exitDone {
				t.Fatalf("exit code = %d: %s", code, screen)
			}
			waitFor(t, "the table", func() bool { return strings.Contains(screen.String(), "not after") })
			if got := strings.Contains(screen.String(), "\x1b[31mexpired"); got != c.want {
				t.Errorf("colour = %v, want %v:\n%q", got, c.want, screen)
			}
		})
	}
	t.Run("JSON is indented and plain", func(t *testing.T) {
		tty, screen := openTerminal(t)
		if code := run(t.Context(), []string{"status", id, "--json", "--config", r.file}, streams{in: tty, out: tty, err: tty}, nil); code != exitDone {
			t.Fatalf("exit code = %d: %s", code, screen)
		}
		waitFor(t, "the record", func() bool { return strings.Contains(screen.String(), "}\r\n") })
		if got := screen.String(); !strings.Contains(got, "\n  \"id\": ") || strings.Contains(got, "\x1b") {
			t.Errorf("screen = %q, want indented JSON without colour", got)
		}
	})
}

func TestDevDrawsItsTableOverItself(t *testing.T) {
	tty, screen := openTerminal(t)
	if code := run(t.Context(), []string{"dev", "--once"}, streams{in: tty, out: tty, err: tty}, nil); code != exitDone {
		t.Fatalf("exit code = %d: %s", code, screen)
	}
	last := func() string {
		all := screen.String()
		return all[strings.LastIndex(all, "A\x1b[J")+1:]
	}
	waitFor(t, "the last table", func() bool { return strings.Count(last(), "\n") >= 10 })
	if n := strings.Count(screen.String(), "A\x1b[J"); n < 5 {
		t.Errorf("the table was drawn over %d times, want once a change", n)
	}
	for _, sm := range newSamples(nil, nil).list {
		if strings.Count(last(), sm.what) == 0 {
			t.Errorf("the last table lacks %q:\n%s", sm.what, last())
		}
	}
	if strings.Contains(last(), "…") || strings.Contains(last(), "queued") {
		t.Errorf("the last table has a sample that is not at its end:\n%s", last())
	}
}

func setSize(t *testing.T, tty *os.File, rows, columns uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: columns}); err != nil {
		t.Fatal(err)
	}
}
