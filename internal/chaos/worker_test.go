package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// build makes the otpq binary, with the plant in it when there is one, and
// returns its path.
func build(t *testing.T, p *plant) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "otpq")
	args := []string{"build", "-buildvcs=false", "-trimpath", "-o", binary}
	if p != nil {
		args = append(args, "-overlay", p.overlay(t))
	}
	cgo := "CGO_ENABLED=0" // as `make build` does, whose results are kept
	if *chaosRace {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.Command("go", append(args, "github.com/otpq/otpq/cmd/otpq")...)
	cmd.Env = append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(cmd.Args[1:], " "), err, out)
	}
	return binary
}

// process is one `otpq worker`, or another command, started again whenever it ends.
type process struct {
	t      *testing.T
	name   string
	binary string
	args   []string
	config string
	log    string
	guard  *guard
	// mayEnd reports whether it is done when it ends like this, and not to be started
	// again. Nil is never.
	mayEnd func(error) bool

	mu      sync.Mutex
	cmd     *exec.Cmd     // nil while it is down
	exited  chan struct{} // of cmd
	stopped bool
	asked   bool // to end: by a signal of ours
	pause   time.Duration
	over    bool
	ended   bool // as it may
	starts  int
	done    sync.WaitGroup
}

// startWorker runs a worker until the test ends.
func startWorker(t *testing.T, name, binary, config string, g *guard) *process {
	t.Helper()
	w := &process{t: t, name: name, binary: binary, args: []string{"worker"}, guard: g}
	w.run(config)
	return w
}

// run starts the process, and starts it again, until the test ends.
func (w *process) run(config string) {
	w.t.Helper()
	dir := w.t.TempDir()
	w.config, w.log = filepath.Join(dir, "otpq.yaml"), filepath.Join(dir, "log")
	if err := os.WriteFile(w.config, []byte(config), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := w.start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(w.end)
}

// start runs the process. It is called with mu held, or before anybody knows w.
func (w *process) start() error {
	log, err := os.OpenFile(w.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the child writes to a copy of its own
	cmd := exec.Command(w.binary, append(w.args, "--config", w.config)...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	w.guard.watch(cmd.Process.Pid)
	exited := make(chan struct{})
	w.cmd, w.exited, w.asked, w.stopped = cmd, exited, false, false
	w.starts++
	w.done.Go(func() {
		err := cmd.Wait()
		w.guard.unwatch(cmd.Process.Pid)
		close(exited)
		w.again(err)
	})
	return nil
}

// again starts the next process after a while, unless the run is over. One that
// ended without being asked to is a failure.
func (w *process) again(err error) {
	w.mu.Lock()
	w.cmd = nil
	w.ended = w.mayEnd != nil && w.mayEnd(err)
	over, asked, pause := w.over || w.ended, w.asked, w.pause
	w.mu.Unlock()
	if over {
		return
	}
	if !asked {
		w.t.Errorf("%s ended by itself: %v\n%s", w.name, err, w.tail())
	}
	<-time.After(pause)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over {
		return
	}
	if err := w.start(); err != nil {
		w.t.Errorf("start %s again: %v", w.name, err)
	}
}

// upset begins a trouble.
func (w *process) upset(kind string, lasts time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cmd == nil {
		return // it is still down from the last one
	}
	switch kind {
	case "killed":
		w.asked, w.pause = true, lasts
		_ = w.cmd.Process.Kill()
	case "terminated": // it finishes what is in flight, and another follows
		w.asked, w.pause = true, lasts
		_ = w.cmd.Process.Signal(syscall.SIGTERM)
	case "stopped":
		w.stopped = true
		_ = w.cmd.Process.Signal(syscall.SIGSTOP)
	}
}

// mend ends it, as far as it does not end by itself.
func (w *process) mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cmd != nil && w.stopped {
		w.stopped = false
		_ = w.cmd.Process.Signal(syscall.SIGCONT)
	}
}

// alive reports whether the process runs.
func (w *process) alive() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.cmd != nil && !w.asked
}

// pid is the process's, or 0 while it is down.
func (w *process) pid() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cmd == nil {
		return 0
	}
	return w.cmd.Process.Pid
}

// leave has the process not started again once it ends.
func (w *process) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over, w.pause = true, 0
}

// isDone reports whether it has ended as it may.
func (w *process) isDone() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ended
}

// end kills the process for good and waits until it is gone.
func (w *process) end() {
	w.mu.Lock()
	w.over, w.pause = true, 0
	if w.cmd != nil {
		_ = w.cmd.Process.Kill() // fails only when it has ended already
	}
	w.mu.Unlock()
	w.done.Wait()
}

// tail is the end of the log.
func (w *process) tail() string {
	log, err := os.ReadFile(w.log)
	if err != nil {
		return err.Error()
	}
	return string(log[max(0, len(log)-4000):])
}

// about returns the lines of the log that tell of a message.
func (w *process) about(id string) string {
	log, err := os.ReadFile(w.log)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err.Error()
	}
	var out strings.Builder
	for line := range bytes.Lines(log) {
		if bytes.Contains(line, []byte(id)) {
			fmt.Fprintf(&out, "    %s %s", w.name, line)
		}
	}
	return out.String()
}

// waitFor waits until the condition holds, with the patience that a busy machine
// needs.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited %s for %s", patience, what)
		}
	}
}

// patience only ever ends a run that would hang.
const patience = 2 * time.Minute
