// Package redistest starts real redis-server processes for tests: one server a
// test, a Sentinel set or a cluster, on free ports, gone when the test ends. It
// is not a fake of Redis, and no code but tests may import it.
package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// BinaryEnv names the redis-server to start; without it PATH is searched.
	BinaryEnv = "OTPQ_TEST_REDIS_SERVER"

	// startTimeout is generous because it only ever ends a test that would
	// hang: a server answers within some ten milliseconds on an idle machine.
	startTimeout = 30 * time.Second
	// bindAttempts bounds how often another process may take the port between
	// our looking for a free one and redis-server binding it.
	bindAttempts = 20
	host         = "127.0.0.1"
)

// Option changes how [Start] runs the server.
type Option func(*Server)

// AOF makes the server log each write and fsync it before it answers, so that
// [Server.Restart] finds every write that was acknowledged.
func AOF() Option {
	return func(s *Server) { s.args = append(s.args, "--appendonly", "yes", "--appendfsync", "always") }
}

// Args adds redis-server arguments, such as "--maxmemory", "1mb".
func Args(args ...string) Option {
	return func(s *Server) { s.args = append(s.args, args...) }
}

// Password makes the server ask its clients for a password, and use it itself
// where it is a replica.
func Password(password string) Option {
	return func(s *Server) {
		s.password = password
		s.args = append(s.args, "--requirepass", password, "--masterauth", password)
	}
}

// Server is one redis-server of one test. Its methods end the test when they
// fail, so call them from the test's own goroutine only.
type Server struct {
	t        testing.TB
	dir      string
	args     []string
	password string
	port     int
	// busPort is that of a cluster's node, and zero for others.
	busPort int
	// config, when not nil, is the text of a Sentinel's configuration file.
	config func(s *Server) string
	// addr is fixed from Start on: Restart keeps the port.
	addr string
	// proc is nil while the server is stopped.
	proc *process
}

// process is one run of the binary.
type process struct {
	cmd *exec.Cmd
	log string
	// exited is closed once the process has ended and was reaped.
	exited chan struct{}
}

// Start runs a redis-server that holds no data and returns once it answers. It
// is killed when the test ends. Without persistence options nothing is written
// to disk. A start takes some ten milliseconds, so nothing is shared between
// tests: asynq's keys and its pub/sub channels would make them trip over each
// other.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s := &Server{t: t}
	for _, o := range opts {
		o(s)
	}
	s.start()
	return s
}

// start runs the server on a port that is free.
func (s *Server) start() {
	t := s.t
	t.Helper()
	binary, err := findBinary()
	if err != nil {
		t.Fatalf("these tests need a real redis-server: %v; run them with `make test`, which installs one", err)
	}
	s.dir = t.TempDir()
	// Registered after the directory was made, so it runs before it is removed.
	t.Cleanup(s.kill)
	for range bindAttempts {
		s.port = freePort(t)
		s.addr = net.JoinHostPort(host, strconv.Itoa(s.port))
		if s.busPort != 0 {
			s.busPort = freePort(t)
		}
		err = s.run(binary)
		if !errors.Is(err, errPortTaken) {
			break
		}
	}
	if err != nil {
		t.Fatalf("start %s: %v", binary, err)
	}
}

// Addr returns the server's host:port.
func (s *Server) Addr() string { return s.addr }

// URL returns the server's redis:// URL, with the password if it has one.
func (s *Server) URL() string { return "redis://" + userinfo(s.password) + s.addr + "/0" }

// userinfo is the part of a URL that tells the password.
func userinfo(password string) string {
	if password == "" {
		return ""
	}
	return url.UserPassword("", password).String() + "@"
}

// Client returns a new client of the server, closed when the test ends. It
// makes no retries and keeps to contexts, so a test sees each failure once.
func (s *Server) Client() *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: s.addr, Password: s.password, MaxRetries: -1, ContextTimeoutEnabled: true})
	s.t.Cleanup(func() { _ = c.Close() }) // the test may have closed it
	return c
}

// Stop kills the server at once, as a crash would. Connections break and new
// ones are refused until [Server.Restart].
func (s *Server) Stop() {
	s.t.Helper()
	if s.proc == nil {
		s.t.Fatal("redistest: Stop of a server that is not running")
	}
	s.kill()
}

// Restart starts the server again on the same port, killing it first when it
// runs. It holds what [AOF] kept; without AOF it is empty.
func (s *Server) Restart() {
	s.t.Helper()
	s.kill()
	binary, err := findBinary()
	if err == nil {
		// The port was ours a moment ago: only a connection that somebody
		// else opened from it can be in the way, and that passes.
		for range bindAttempts {
			if err = s.run(binary); !errors.Is(err, errPortTaken) {
				break
			}
		}
	}
	if err != nil {
		s.t.Fatalf("restart redis-server on %s: %v", s.addr, err)
	}
}

// Pause freezes the server: connections stay open, new ones are accepted by
// the kernel, and nothing is answered until [Server.Resume].
func (s *Server) Pause() {
	s.t.Helper()
	s.signal(syscall.SIGSTOP)
}

// Resume lets a paused server go on, with all that it was asked meanwhile.
func (s *Server) Resume() {
	s.t.Helper()
	s.signal(syscall.SIGCONT)
}

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if s.proc == nil {
		s.t.Fatalf("redistest: signal %v to a server that is not running", sig)
	}
	if err := s.proc.cmd.Process.Signal(sig); err != nil {
		s.t.Fatalf("send %v to redis-server: %v", sig, err)
	}
}

// errPortTaken means another process holds the port that was free before.
var errPortTaken = errors.New("port is taken")

// run starts the server on s.port and waits until it answers.
func (s *Server) run(binary string) error {
	args, err := s.commandLine()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(s.dir, "redis.log"))
	if err != nil {
		return err
	}
	defer log.Close() // the child writes to a copy of its own
	// Not CommandContext: the test's context ends before its cleanups run.
	cmd := exec.Command(binary, args...)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return err
	}
	p := &process{cmd: cmd, log: log.Name(), exited: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // "signal: killed" is what was asked for; the log tells the rest
		close(p.exited)
	}()
	s.proc = p
	if err := s.waitReady(); err != nil {
		s.kill()
		return err
	}
	return nil
}

// commandLine is what redis-server is started with.
func (s *Server) commandLine() ([]string, error) {
	if s.config != nil {
		file := filepath.Join(s.dir, "sentinel.conf")
		return []string{file, "--sentinel"}, os.WriteFile(file, []byte(s.config(s)), 0o600)
	}
	args := []string{
		"--bind", host, "--port", strconv.Itoa(s.port), "--dir", s.dir,
		"--save", "", "--daemonize", "no",
		// What production must have, so that tests meet its errors.
		"--maxmemory-policy", "noeviction",
	}
	if s.busPort != 0 {
		args = append(args, "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(s.busPort))
	}
	return append(args, s.args...), nil
}

// waitReady returns when the server of s.proc, and no other, answers. It
// returns errPortTaken when the server ended because it could not bind.
func (s *Server) waitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		// Somebody else may answer on our port, hence the comparison of pids.
		pid, err := serverPID(ctx, s.addr, s.password)
		if err == nil && pid == s.proc.cmd.Process.Pid {
			return nil
		}
		select {
		case <-s.proc.exited:
			log, _ := os.ReadFile(s.proc.log) // without it the message says less
			if strings.Contains(string(log), "Address already in use") {
				return errPortTaken
			}
			return fmt.Errorf("redis-server ended at once and said:\n%s", log)
		case <-ctx.Done():
			return fmt.Errorf("no answer from %s within %v: %w", s.addr, startTimeout, err)
		case <-tick.C:
		}
	}
}

// serverPID asks the server at addr for its process id over a bare connection:
// a client with a pool would take longer than the server's whole start.
func serverPID(ctx context.Context, addr, password string) (int, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	// A stranger on our port that never answers must not hold us up for long.
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return 0, err
	}
	ask := "INFO server\r\n"
	if password != "" {
		ask = "AUTH " + strconv.Quote(password) + "\r\n" + ask
	}
	if _, err := conn.Write([]byte(ask)); err != nil {
		return 0, err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if value, ok := strings.CutPrefix(lines.Text(), "process_id:"); ok {
			return strconv.Atoi(value)
		}
		if strings.HasPrefix(lines.Text(), "-") { // an error, such as LOADING
			return 0, errors.New(lines.Text())
		}
	}
	return 0, errors.Join(lines.Err(), errors.New("no process_id in the reply to INFO"))
}

// kill ends the server by its pid, paused or not, and waits until it is gone.
func (s *Server) kill() {
	if s.proc == nil {
		return
	}
	_ = s.proc.cmd.Process.Kill() // fails only when it has ended already
	<-s.proc.exited
	s.proc = nil
}

func findBinary() (string, error) {
	if path := os.Getenv(BinaryEnv); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s: %w", BinaryEnv, err)
		}
		return path, nil
	}
	return exec.LookPath("redis-server")
}

// freePort returns a port that nobody listened on a moment ago. It lies below
// those that kernels hand to clients: from among them, a client that dials a
// stopped server might be given the server's own port and so keep it from
// being restarted, or even connect to itself.
func freePort(t testing.TB) int {
	t.Helper()
	const first, last = 15000, 32000
	var err error
	for range bindAttempts {
		port := first + rand.IntN(last-first)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port))); err == nil {
			_ = l.Close() // it took no connection
			return port
		}
	}
	t.Fatalf("look for a free port: %v", err)
	return 0
}
