package stage

import (
	"context"
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// gone waits until a process does not exist any more.
func gone(t *testing.T, pid int) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("process %d still runs", pid)
		}
	}
}

func TestARedisOfOurOwnCountsWhatIsDone(t *testing.T) {
	t.Parallel()
	r, err := startRedis(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	opts, err := redis.ParseURL(r.URL)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	if err := rdb.Ping(t.Context()).Err(); err != nil { // connects
		t.Fatal(err)
	}
	before, err := r.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const n, size = 100, 10_000
	for i := range n {
		if err := rdb.Set(t.Context(), strings.Repeat("k", i+1), strings.Repeat("v", size), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	after, err := r.Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	used := after.Sub(before)
	// Our own INFO is one of the commands.
	if used.Commands != n+1 || used.Reads < n || used.In < n*size || used.Memory < n*size*9/10 { // buffers come and go
		t.Errorf("%d SETs of %d bytes came to %+v", n, size, used)
	}
	pids := r.PIDs()
	r.Stop()
	for _, pid := range pids {
		gone(t, pid)
	}
}

func TestAClusterIsWhole(t *testing.T) {
	t.Parallel()
	r, err := startCluster(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Stop)
	addrs := strings.Split(strings.TrimPrefix(r.URL, "redis-cluster://"), ",")
	rdb := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	defer rdb.Close()
	for _, key := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		if err := rdb.Set(t.Context(), key, 1, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.PIDs()) != clusterMasters {
		t.Errorf("%d nodes, want %d", len(r.PIDs()), clusterMasters)
	}
}

// sh is a process that says it is ready and does as told.
func sh(t *testing.T, script string) *Proc {
	t.Helper()
	p, err := start(command{name: "sh", dir: t.TempDir(), argv: []string{"/bin/sh", "-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

func TestAProcessTellsAndIsEnded(t *testing.T) {
	t.Parallel()
	p := sh(t, `echo noise; echo '{"event":"ready","data":"here"}'; read word; echo "{\"event\":\"done\",\"data\":\"$word\"}"; cat`)
	var said string
	for event, want := range map[string]string{"ready": "here"} {
		if err := p.Await(t.Context(), event, &said); err != nil || said != want {
			t.Fatalf("Await(%s) = %q, %v", event, said, err)
		}
	}
	if err := p.Go(); err != nil {
		t.Fatal(err)
	}
	if err := p.Await(t.Context(), "done", &said); err != nil || said != "go" {
		t.Fatalf("Await(done) = %q, %v", said, err)
	}
	p.Stop()
	gone(t, p.PID())
}

func TestAProcessThatFailsSaysWhy(t *testing.T) {
	t.Parallel()
	p := sh(t, `echo out of luck >&2; exit 3`)
	err := p.Await(t.Context(), "ready", nil)
	if err == nil || !strings.Contains(err.Error(), "out of luck") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("Await() = %v, want what it said and how it ended", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := sh(t, "cat").Await(ctx, "ready", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Await() after its context ended = %v", err)
	}
}

func TestSettingsOfAnotherWorkerAreNotHandedOn(t *testing.T) {
	t.Setenv("OTPQ_REDIS_URL", "redis://elsewhere")
	p := sh(t, `echo "{\"event\":\"ready\",\"data\":\"$OTPQ_REDIS_URL\"}"; cat`)
	var url string
	if err := p.Await(t.Context(), "ready", &url); err != nil || url != "" {
		t.Errorf("the process sees OTPQ_REDIS_URL = %q, %v", url, err)
	}
}

func TestCPUIsCountedForProcessAndChildren(t *testing.T) {
	t.Parallel()
	// The shell waits for a child that counts, and tells when it is done.
	p := sh(t, `sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; echo '{"event":"ready"}'; cat`)
	if err := p.Await(t.Context(), "ready", nil); err != nil {
		t.Fatal(err)
	}
	tree, err := treeCPU(p.PID())
	if err != nil {
		t.Fatal(err)
	}
	if tree < 20*time.Millisecond {
		t.Errorf("treeCPU() = %v, want what the child used", tree)
	}
	own, err := CPU(os.Getpid())
	if err != nil || own <= 0 {
		t.Errorf("CPU() of this process = %v, %v", own, err)
	}
	now, peak, err := Memory(os.Getpid())
	if err != nil || now <= 0 || peak < now {
		t.Errorf("Memory() = %v, %v, %v", now, peak, err)
	}
	p.Kill()
	if _, err := CPU(p.PID()); err == nil {
		t.Error("CPU() of a process that has ended is no error")
	}
}

func TestForeignWorkIsTheMachinesLessOurs(t *testing.T) {
	from := Cost{At: time.Unix(0, 0), Parts: map[string]time.Duration{"redis": time.Second}, machine: 10 * time.Second, self: time.Second}
	to := Cost{
		At: time.Unix(2, 0), machine: 13 * time.Second, self: time.Second + 500*time.Millisecond,
		Parts: map[string]time.Duration{"redis": 2 * time.Second, "worker": 500 * time.Millisecond},
	}
	parts, took, foreign := to.Sub(from)
	if parts["redis"] != time.Second || parts["worker"] != 500*time.Millisecond || took != 2*time.Second || foreign != 0.5 {
		t.Errorf("Sub() = %v in %v, foreign %v; want 1 s, 500 ms in 2 s, 0.5 cores", parts, took, foreign)
	}
	if Noisy(0.2) || !Noisy(0.21) {
		t.Error("0.2 cores of others are quiet, more are not")
	}
}
