package dashboard_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/enqueue"
)

// startStock builds Asynqmon's own program, with the asynq that it was released
// with, and runs it in front of the rig's Redis until the test ends.
func startStock(t *testing.T, r *rig) (url string) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "asynqmon")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "github.com/hibiken/asynqmon/cmd/asynqmon")
	build.Dir = filepath.Join("testdata", "stock")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build Asynqmon: %v\n%s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close()                                  // it took no connection
	ctx, stop := context.WithCancel(context.Background()) //nolint:usetesting // the test's own ends before its cleanups run
	cmd := exec.CommandContext(ctx, binary, "-port", port, "-redis-url", r.redis.URL(), "-max-payload-length", strconv.Itoa(1<<20))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = cmd.Wait() // "signal: killed" is what was asked for
	})
	return "http://127.0.0.1:" + port
}

// ask reads a JSON answer of the stock Asynqmon, once it answers.
func ask[V any](r *rig, at string) (v V) {
	r.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); ; <-tick.C {
		req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, at, http.NoBody)
		if err != nil {
			r.t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			if time.Now().After(end) {
				r.t.Fatal(err)
			}
			continue
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			r.t.Fatalf("%s = %d, %v: %s", at, res.StatusCode, err, text)
		}
		r.nobodyIn(at, string(text))
		if err := json.Unmarshal(text, &v); err != nil {
			r.t.Fatalf("%s: %v: %s", at, err, text)
		}
		return v
	}
}

func TestTheStockAsynqmonNamesNobodyEither(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// First: a build may take longer than a task may.
	stock := startStock(t, r)
	// One message in each place that a message can be in.
	retried, active := r.send(), r.send(enqueue.InLane("bulk"))
	started := make(chan struct{})
	release := make(chan struct{})
	server := asynq.NewServerFromRedisClient(r.rdb, asynq.Config{
		Queues: map[string]int{queue: 1, "otpq:unimedbh:bulk": 1}, LogLevel: asynq.FatalLevel,
		RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Hour },
	})
	if err := server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		if id, _ := asynq.GetTaskID(ctx); id == retried {
			return errors.New("provider_error") // a reason, as our worker's errors are
		}
		close(started)
		<-release
		return nil
	})); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(release); server.Shutdown() })
	<-started
	type list struct {
		Tasks []struct {
			ID      string `json:"id"`
			Payload string `json:"payload"`
			Error   string `json:"error_message"`
		} `json:"tasks"`
	}
	tasksIn := func(queue, state string) list {
		return ask[list](r, stock+"/api/queues/"+queue+"/"+state+"_tasks")
	}
	eventually(t, "the failed task to wait", func() bool { return len(tasksIn(queue, "retry").Tasks) == 1 })
	server.Stop()
	pending, scheduled := r.send(), r.send(enqueue.At(time.Now().Add(time.Hour)))
	archived := r.send()
	inspector := asynq.NewInspectorFromRedisClient(r.rdb)
	if err := inspector.ArchiveTask(queue, archived); err != nil {
		t.Fatal(err)
	}
	for state, id := range map[string]string{"pending": pending, "scheduled": scheduled, "archived": archived, "retry": retried, "active": active} {
		in := queue
		if state == "active" {
			in = "otpq:unimedbh:bulk"
		}
		got := tasksIn(in, state)
		if len(got.Tasks) != 1 || got.Tasks[0].ID != id || !strings.Contains(got.Tasks[0].Payload, `"sealed":"`) {
			t.Errorf("%s tasks = %+v, want %s, sealed", state, got, id)
		}
		ask[any](r, fmt.Sprintf("%s/api/queues/%s/tasks/%s", stock, in, id))
	}
	type servers struct {
		Servers []struct {
			Workers []any `json:"active_workers"`
		} `json:"servers"`
	}
	eventually(t, "asynq to tell what it works on", func() bool {
		s := ask[servers](r, stock+"/api/servers")
		return len(s.Servers) == 1 && len(s.Servers[0].Workers) == 1
	})
	for _, at := range []string{"/api/queues", "/api/queue_stats", "/api/queues/" + queue, "/api/redis_info"} {
		ask[any](r, stock+at)
	}
}

// eventually waits for the condition.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
