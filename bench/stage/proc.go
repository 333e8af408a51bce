// Package stage runs the processes of a benchmark: stores, provider, workers and
// producers. Each is ended by its own id, also when the benchmark dies. It knows
// what they cost in CPU time; what they are run for is the suites' business.
package stage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	// patience only ends what would hang.
	patience = 60 * time.Second
	// stopPatience is longer than any worker's own shutdown.
	stopPatience = 45 * time.Second
)

// Proc is one process of ours. Its methods are for one goroutine.
type Proc struct {
	Name string
	// LogFile holds what it wrote to stderr.
	LogFile string

	cmd    *exec.Cmd
	stdin  io.WriteCloser
	lines  chan string
	exited chan struct{}
	err    error // after exited
}

// event is a line that our own programs write to stdout.
type event struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// starts are run by one thread that never ends: a child's parent-death signal
// comes when the thread that started it does.
var starts = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range c {
			f()
		}
	}()
	return c
})

// command is what to start.
type command struct {
	name string
	dir  string // for its log
	argv []string
	env  []string // added to our own
	// credential is whom to run as; nil is ourselves.
	credential *syscall.Credential
}

// start starts a process. It does not end with any context: end it with
// [Proc.Stop].
func start(c command) (*Proc, error) {
	log, err := os.CreateTemp(c.dir, c.name+"-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child writes to a copy of its own
	p := &Proc{Name: c.name, LogFile: log.Name(), lines: make(chan string, 64), exited: make(chan struct{})}
	p.cmd = exec.Command(c.argv[0], c.argv[1:]...) //nolint:noctx // it outlives the call, see above
	p.cmd.Stderr = log
	for _, e := range os.Environ() {
		if !strings.HasPrefix(e, "OTPQ_") { // settings of somebody else's worker
			p.cmd.Env = append(p.cmd.Env, e)
		}
	}
	p.cmd.Env = append(p.cmd.Env, c.env...)
	// A group of its own: Ctrl-C is for us alone, and we end it in order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL, Credential: c.credential}
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	started := make(chan error, 1)
	starts() <- func() { started <- p.cmd.Start() }
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	go p.read(stdout)
	return p, nil
}

// read hands on the lines of stdout and reaps the process at their end.
func (p *Proc) read(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		select {
		case p.lines <- lines.Text():
		default: // a chatty store: nobody reads them
		}
	}
	close(p.lines)
	p.err = p.cmd.Wait()
	close(p.exited)
}

// PID is the process's id.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Await waits for an event that the process tells of, and reads its data.
func (p *Proc) Await(ctx context.Context, name string, data any) error {
	for {
		select {
		case line, ok := <-p.lines:
			if !ok {
				<-p.exited
				return fmt.Errorf("%s ended before it was %s: %w\n%s", p.Name, name, p.failure(), p.logTail())
			}
			var e event
			if json.Unmarshal([]byte(line), &e) != nil || e.Event != name {
				continue
			}
			if data == nil {
				return nil
			}
			return json.Unmarshal(e.Data, data)
		case <-ctx.Done():
			return fmt.Errorf("wait for %s to be %s: %w\n%s", p.Name, name, ctx.Err(), p.logTail())
		}
	}
}

// failure is how a process ended that should not have.
func (p *Proc) failure() error {
	if p.err == nil {
		return errors.New("exit status 0")
	}
	return p.err
}

// Go lets a process that is ready begin.
func (p *Proc) Go() error {
	_, err := io.WriteString(p.stdin, "go\n")
	return err
}

// AwaitLog waits until the log holds a text.
func (p *Proc) AwaitLog(ctx context.Context, text string) error {
	return eventually(ctx, p.Name+" to write "+text, func(context.Context) error {
		raw, err := os.ReadFile(p.LogFile)
		if err == nil && !strings.Contains(string(raw), text) {
			err = errors.New("it has not")
		}
		return p.alive(err)
	})
}

// alive adds to an error that the process has ended, if it has.
func (p *Proc) alive(err error) error {
	select {
	case <-p.exited:
		if err != nil {
			return fmt.Errorf("%w: %w (%w)\n%s", errOver, p.failure(), err, p.logTail())
		}
	default:
	}
	return err
}

// Stop ends the process: its stdin is closed and it gets SIGTERM, and SIGKILL
// when it does not end by that. It returns when it is gone.
func (p *Proc) Stop() {
	if p == nil {
		return
	}
	_ = p.stdin.Close()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails only when it has ended
	p.wait(stopPatience)
}

// Kill ends the process at once: what it has is not needed any more.
func (p *Proc) Kill() {
	if p != nil {
		p.wait(0)
	}
}

func (p *Proc) wait(patience time.Duration) {
	if patience > 0 {
		select {
		case <-p.exited:
			return
		case <-time.After(patience):
		}
	}
	// Its group, which it leads: PostgreSQL has processes of its own. It is ours
	// as long as nobody has reaped the leader, which p.exited tells.
	select {
	case <-p.exited:
	default:
		_ = syscall.Kill(-p.PID(), syscall.SIGKILL)
		<-p.exited
	}
}

// logTail is the end of the log, for an error.
func (p *Proc) logTail() string {
	raw, err := os.ReadFile(p.LogFile)
	if err != nil {
		return ""
	}
	const most = 2000
	return filepath.Base(p.LogFile) + ": " + string(raw[max(0, len(raw)-most):])
}

// errOver ends a wait: what is waited for cannot come any more.
var errOver = errors.New("it is over")

// eventually calls ok until it returns no error, or an errOver.
func eventually(ctx context.Context, what string, ok func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		if errors.Is(err, errOver) {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, errors.Join(ctx.Err(), err))
		}
	}
}
