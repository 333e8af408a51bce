package chaos

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// guardEnv makes the test binary a guard.
const guardEnv = "OTPQ_CHAOS_GUARD"

func TestMain(m *testing.M) {
	if os.Getenv(guardEnv) != "" {
		keepGuard(os.Stdin)
		return
	}
	os.Exit(m.Run())
}

// guard is a process that outlives this one for a moment: when this one ends in
// a way that runs no cleanup (an interrupt, a test's timeout), the pipe between
// them closes, and the guard ends the processes it was told of, by their pids.
type guard struct {
	mu   sync.Mutex
	pipe io.WriteCloser
}

func startGuard(t *testing.T) *guard {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary)
	cmd.Env = append(os.Environ(), guardEnv+"=1")
	pipe, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = pipe.Close()
		_ = cmd.Wait()
	})
	return &guard{pipe: pipe}
}

// watch has the guard end the process if it is still there; unwatch says that it
// is not, since its pid may be another's soon.
func (g *guard) watch(pid int)   { g.tell('+', pid) }
func (g *guard) unwatch(pid int) { g.tell('-', pid) }

func (g *guard) tell(sign byte, pid int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	fmt.Fprintf(g.pipe, "%c%d\n", sign, pid)
}

// keepGuard is the guard itself.
func keepGuard(from io.Reader) {
	// A terminal sends its interrupt to all processes of the run.
	signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	watched := map[int]bool{}
	lines := bufio.NewScanner(from)
	for lines.Scan() {
		pid, err := strconv.Atoi(strings.TrimLeft(lines.Text(), "+-"))
		switch {
		case err != nil || pid <= 1:
		case lines.Text()[0] == '+':
			watched[pid] = true
		default:
			delete(watched, pid)
		}
	}
	for pid := range watched {
		_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by itself
	}
}

func TestTheGuardEndsWhatItWatchesAndNothingElse(t *testing.T) {
	start := func() (*exec.Cmd, chan error) {
		cmd := exec.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // it may have ended
		return cmd, ended
	}
	watched, gone := start()
	let, alive := start()
	g := startGuard(t)
	g.watch(watched.Process.Pid)
	g.watch(let.Process.Pid)
	g.unwatch(let.Process.Pid)
	if err := g.pipe.Close(); err != nil { // as the end of this process would
		t.Fatal(err)
	}
	select {
	case <-gone:
	case <-time.After(patience):
		t.Errorf("the guard did not end process %d", watched.Process.Pid)
	}
	select {
	case err := <-alive:
		t.Errorf("the guard ended a process that it was told to leave: %v", err)
	default:
	}
}
