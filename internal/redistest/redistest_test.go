package redistest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

func TestStartGivesEachTestAnEmptyServerOfItsOwn(t *testing.T) {
	one, two := Start(t), Start(t)
	if err := one.Client().Set(t.Context(), "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n := two.Client().DBSize(t.Context()).Val(); n != 0 {
		t.Errorf("the second server holds %d keys, want 0", n)
	}
	opts, err := redis.ParseURL(one.URL())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(one.Addr(), opts.Addr); diff != "" {
		t.Errorf("URL and Addr differ (-addr +url):\n%s", diff)
	}
}

func TestTheServerIsGoneWhenItsTestEnds(t *testing.T) {
	for name, end := range map[string]func(*Server){
		"running": func(*Server) {},
		"stopped": (*Server).Stop,
		"paused":  (*Server).Pause,
	} {
		t.Run(name, func(t *testing.T) {
			var pid int
			t.Run("inner", func(t *testing.T) {
				s := Start(t)
				pid = s.proc.cmd.Process.Pid
				end(s)
			})
			// Signal 0 only asks whether the process is there.
			if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("kill(%d, 0) = %v, want %v", pid, err, syscall.ESRCH)
			}
		})
	}
}

func TestRestartKeepsThePortAndWhatAOFKept(t *testing.T) {
	for name, tc := range map[string]struct {
		opts []Option
		want int64
	}{
		"with AOF the key is there":   {[]Option{AOF()}, 1},
		"without AOF the key is gone": {nil, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := Start(t, tc.opts...)
			c, addr := s.Client(), s.Addr()
			if err := c.Set(t.Context(), "k", "v", 0).Err(); err != nil {
				t.Fatal(err)
			}
			s.Stop()
			if err := c.Ping(t.Context()).Err(); err == nil {
				t.Error("a stopped server answers")
			}
			s.Restart()
			if s.Addr() != addr {
				t.Errorf("Addr() = %s after Restart, want %s", s.Addr(), addr)
			}
			if got := s.Client().Exists(t.Context(), "k").Val(); got != tc.want {
				t.Errorf("%d keys after Restart, want %d", got, tc.want)
			}
		})
	}
}

func TestAPausedServerAnswersAfterResume(t *testing.T) {
	s := Start(t)
	c := s.Client()
	s.Pause()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Ping(ctx).Err(); err == nil {
		t.Error("a paused server answers")
	}
	s.Resume()
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Errorf("a resumed server does not answer: %v", err)
	}
}

func TestArgsReachTheServer(t *testing.T) {
	s := Start(t, Args("--maxmemory", "3mb"))
	got, err := s.Client().ConfigGet(t.Context(), "maxmemory").Result()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"maxmemory": strconv.Itoa(3 << 20)}, got); diff != "" {
		t.Errorf("CONFIG GET (-want +got):\n%s", diff)
	}
}

func TestAPortTakenByAnotherProcessIsNoticed(t *testing.T) {
	other := Start(t)
	// Another Redis on the port is the nasty case: it answers PING too.
	s := &Server{t: t, dir: t.TempDir(), port: other.port, addr: other.addr}
	t.Cleanup(s.kill)
	binary, err := findBinary()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.run(binary); !errors.Is(err, errPortTaken) {
		t.Errorf("run on a taken port = %v, want %v", err, errPortTaken)
	}
}

func TestArgumentsThatRedisRefusesAreShown(t *testing.T) {
	binary, err := findBinary()
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, dir: t.TempDir(), port: freePort(t), args: []string{"--no-such-setting", "1"}}
	s.addr = net.JoinHostPort(host, strconv.Itoa(s.port))
	t.Cleanup(s.kill)
	err = s.run(binary)
	if err == nil || !strings.Contains(err.Error(), "no-such-setting") {
		t.Errorf("run with a wrong argument = %v, want an error that shows it", err)
	}
}

func TestHungTakesConnectionsAndNeverAnswers(t *testing.T) {
	c := redis.NewClient(&redis.Options{Addr: Hung(t), MaxRetries: -1, ContextTimeoutEnabled: true})
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Ping(ctx).Err(); !errors.Is(err, context.DeadlineExceeded) && !os.IsTimeout(err) {
		t.Errorf("Ping of a hung server = %v, want a timeout", err)
	}
}

// fatals stands in for a test that is expected to fail, so that its message can
// be read. Fatalf ends the goroutine, as testing's own does.
type fatals struct {
	testing.TB
	message string
}

func (f *fatals) Helper() {}

func (f *fatals) Fatalf(format string, args ...any) {
	f.message = strings.TrimSpace(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

func TestAMissingBinarySaysWhatToRun(t *testing.T) {
	t.Setenv(BinaryEnv, "/nonexistent/redis-server")
	f := &fatals{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		Start(f)
	}()
	<-done
	for _, want := range []string{BinaryEnv, "make test"} {
		if !strings.Contains(f.message, want) {
			t.Errorf("failure = %q, want %q in it", f.message, want)
		}
	}
}

// BenchmarkStart tells whether a server a test is still cheap enough to need
// no sharing between tests.
func BenchmarkStart(b *testing.B) {
	for b.Loop() {
		s := Start(b)
		s.Stop()
	}
}
