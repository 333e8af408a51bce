package asynqredis

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
)

// spy sees every command below the hook under test and may break some.
type spy struct {
	plain *redis.Client // without any hook, for the test itself
	mu    sync.Mutex
	seen  []redis.Cmder
	fault func(cmd redis.Cmder, next func() error) error // nil leaves all alone
}

func (s *spy) DialHook(next redis.DialHook) redis.DialHook { return next }

func (s *spy) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (s *spy) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		s.mu.Lock()
		s.seen = append(s.seen, cmd)
		fault := s.fault
		s.mu.Unlock()
		run := func() error { return next(ctx, cmd) }
		if fault == nil {
			return run()
		}
		err := fault(cmd, run)
		cmd.SetErr(err)
		return err
	}
}

func (s *spy) commands() []redis.Cmder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// mended is a client with the hook, and the spy below it.
func mended(t *testing.T) (*redis.Client, *spy) {
	t.Helper()
	server := redistest.Start(t)
	rdb, s := server.Client(), &spy{plain: server.Client()}
	rdb.AddHook(&Hook{})
	rdb.AddHook(s)
	return rdb, s
}

// serve runs an asynq server with handler until the test ends.
func serve(t *testing.T, rdb *redis.Client, handler asynq.HandlerFunc) (stop func()) {
	t.Helper()
	server := asynq.NewServerFromRedisClient(rdb, asynq.Config{
		Concurrency: 4, TaskCheckInterval: 5 * time.Millisecond, DelayedTaskCheckInterval: 50 * time.Millisecond,
		ShutdownTimeout: 100 * time.Millisecond, LogLevel: asynq.FatalLevel,
		RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Hour },
	})
	if err := server.Start(handler); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(server.Shutdown)
	t.Cleanup(stop)
	return stop
}

func enqueue(t *testing.T, rdb *redis.Client, name string, opts ...asynq.Option) {
	t.Helper()
	if _, err := asynq.NewClientFromRedisClient(rdb).Enqueue(asynq.NewTask(name, nil, opts...)); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.NewTimer(30 * time.Second)
	defer end.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-end.C:
			t.Fatalf("never happened: %s", what)
		}
	}
}

// TestEveryScriptOfThisAsynqIsRecognised runs each script that a server uses and
// fails when a new asynq moves their keys: then [recognise] has to learn them.
func TestEveryScriptOfThisAsynqIsRecognised(t *testing.T) {
	t.Parallel()
	rdb, s := mended(t)
	blocked := make(chan struct{})
	stop := serve(t, rdb, func(_ context.Context, task *asynq.Task) error {
		switch task.Type() {
		case "retry":
			return errors.New("not now")
		case "archive":
			return asynq.SkipRetry
		case "requeue": // still at work when the server stops
			<-blocked
		}
		return nil
	})
	t.Cleanup(func() { close(blocked) })
	enqueue(t, rdb, "done")
	enqueue(t, rdb, "done-unique", asynq.Unique(time.Minute))
	enqueue(t, rdb, "complete", asynq.Retention(time.Minute))
	enqueue(t, rdb, "complete-unique", asynq.Retention(time.Minute), asynq.Unique(time.Minute))
	enqueue(t, rdb, "retry")
	enqueue(t, rdb, "archive")
	enqueue(t, rdb, "requeue")
	inspector := asynq.NewInspectorFromRedisClient(s.plain)
	eventually(t, "every task but one is settled", func() bool {
		info, err := inspector.GetQueueInfo("default")
		return err == nil && info.Completed == 2 && info.Retry == 1 && info.Archived == 1 && info.Active == 1 && info.Pending == 0
	})
	eventually(t, "asynq has looked for what fell due", func() bool {
		looks := map[string]bool{}
		for _, cmd := range s.commands() {
			if recognise(cmd) == forward {
				looks[cmd.Args()[3].(string)] = true
			}
		}
		return len(looks) == 2
	})
	stop()

	// By the keys' own names and no others, so that a script that is new shows up.
	got := map[string]kind{}
	for _, cmd := range s.commands() {
		if !strings.HasPrefix(cmd.Name(), "eval") {
			continue
		}
		var names []string
		args := cmd.Args()
		for _, key := range args[3 : 3+args[2].(int)] {
			_, name, _ := strings.Cut(key.(string), "}:")
			name, _, _ = strings.Cut(name, ":")
			names = append(names, name)
		}
		got[strings.Join(names, " ")] = recognise(cmd)
	}
	want := map[string]kind{
		"pending paused active lease":                            dequeue,
		"active lease t processed processed":                     acknowledge, // done
		"active lease t processed processed unique":              acknowledge, // done, unique
		"active lease completed t processed processed":           acknowledge, // complete
		"active lease completed t processed processed unique":    acknowledge, // complete, unique
		"t active lease retry processed failed processed failed": acknowledge, // retry
		"active lease pending t":                                 acknowledge, // requeue
		"retry pending":                                          forward,
		"scheduled pending":                                      forward,
	}
	for keys, k := range want {
		if got[keys] != k {
			t.Errorf("script with keys %q was seen as %d, want %d; asynq ran %v", keys, got[keys], k, keysOf(got))
		}
	}
	for keys, k := range got {
		switch {
		case strings.HasPrefix(keys, "t active lease archived "):
			if k != acknowledge {
				t.Errorf("archive was seen as %d, want %d", k, acknowledge)
			}
		case want[keys] == other && k != other:
			t.Errorf("script with keys %q was taken for %d", keys, k)
		case strings.Contains(keys, "active") && k == other && !strings.HasPrefix(keys, "pending active"):
			t.Errorf("script with keys %q touches what runs and is not known", keys)
		}
	}
}

func keysOf(m map[string]kind) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// failAcks breaks the first n acknowledgements, before or after Redis ran them.
func failAcks(n int, ran bool) func(redis.Cmder, func() error) error {
	var mu sync.Mutex
	return func(cmd redis.Cmder, next func() error) error {
		mu.Lock()
		broken := recognise(cmd) == acknowledge && n > 0
		if broken {
			n--
		}
		mu.Unlock()
		if !broken {
			return next()
		}
		if ran {
			_ = next()
		}
		return &net.OpError{Op: "read", Err: errors.New("connection reset by the test")}
	}
}

func TestAnAcknowledgementThatFailsIsTriedUntilItLands(t *testing.T) {
	for _, c := range []struct {
		failures int
		ran      bool
	}{{1, false}, {2, false}, {8, false}, {1, true}, {3, true}} {
		for _, ending := range []string{"done", "retry", "archive"} {
			t.Run(fmt.Sprint(ending, " fails ", c.failures, " times, run by Redis: ", c.ran), func(t *testing.T) {
				t.Parallel()
				rdb, s := mended(t)
				s.fault = failAcks(c.failures, c.ran)
				var mu sync.Mutex
				runs := 0
				serve(t, rdb, func(context.Context, *asynq.Task) error {
					mu.Lock()
					defer mu.Unlock()
					runs++
					switch ending {
					case "retry":
						return errors.New("not now")
					case "archive":
						return asynq.SkipRetry
					}
					return nil
				})
				enqueue(t, rdb, ending)
				want := map[string]int64{"retry": 0, "archived": 0, "active": 0, "lease": 0}
				switch ending {
				case "retry":
					want["retry"] = 1
				case "archive":
					want["archived"] = 1
				}
				eventually(t, "the task is settled", func() bool {
					ctx := t.Context()
					got := map[string]int64{
						"retry": rdb.ZCard(ctx, "asynq:{default}:retry").Val(), "archived": rdb.ZCard(ctx, "asynq:{default}:archived").Val(),
						"active": rdb.LLen(ctx, "asynq:{default}:active").Val(), "lease": rdb.ZCard(ctx, "asynq:{default}:lease").Val(),
					}
					mu.Lock()
					defer mu.Unlock()
					return runs > 0 && cmp.Equal(want, got)
				})
				mu.Lock()
				defer mu.Unlock()
				if runs != 1 {
					t.Errorf("the task ran %d times", runs)
				}
			})
		}
	}
}

func TestAnAcknowledgementEndsWithTheLease(t *testing.T) {
	t.Parallel()
	h := &Hook{}
	var tries int
	run := h.ProcessHook(func(context.Context, redis.Cmder) error {
		tries++
		return errors.New("no route to redis")
	})
	cmd := redis.NewCmd(t.Context(), "evalsha", "sha", 2, "asynq:{q}:active", "asynq:{q}:lease")
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := run(ctx, cmd); err == nil || tries < 2 {
		t.Errorf("err = %v after %d tries, want an error after several", err, tries)
	}
	if took := time.Since(start); took > 20*time.Second { // the lease is 30 s
		t.Errorf("gave up after %s, want about the 400 ms that were left", took)
	}
}

func TestOnlyWhatMayPassIsTriedAgain(t *testing.T) {
	for err, want := range map[error]bool{
		nil:       false,
		redis.Nil: false,
		&net.OpError{Op: "dial", Err: errors.New("refused")}: true,
		context.DeadlineExceeded:                             true,
		redis.ErrClosed:                                      false,
		reply("NOT FOUND"):                                   false,
		reply("NOSCRIPT No matching script"):                 false,
		reply("NOPERM this user"):                            false,
		reply("LOADING Redis is loading"):                    true,
		reply("READONLY You can't write"):                    true,
		reply("OOM command not allowed"):                     true,
		reply("CLUSTERDOWN The cluster is down"):             true,
	} {
		if got := transient(err); got != want {
			t.Errorf("transient(%v) = %v, want %v", err, got, want)
		}
	}
}

// reply is an error that Redis answered with.
type reply string

func (r reply) Error() string { return string(r) }
func (r reply) RedisError()   {}

// TestAFullRedisIsNotHammered fills Redis, which then refuses the dequeue, and
// counts how often asynq comes back: thousands of times a second without the hook.
func TestAFullRedisIsNotHammered(t *testing.T) {
	t.Parallel()
	rdb, s := mended(t)
	enqueue(t, rdb, "waits")
	if err := rdb.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	ran := make(chan struct{})
	serve(t, rdb, func(context.Context, *asynq.Task) error { close(ran); return nil })
	dequeues := func() int {
		n := 0
		for _, cmd := range s.commands() {
			if recognise(cmd) == dequeue {
				n++
			}
		}
		return n
	}
	eventually(t, "asynq has met the error several times", func() bool { return dequeues() >= 4 })
	before := dequeues()
	<-time.After(time.Second) // a rate needs a stretch of time
	// Each turn is one EVALSHA and, after a NOSCRIPT, one EVAL.
	if n := dequeues() - before; n > 30 {
		t.Errorf("%d dequeues in a second of a Redis that is full", n)
	}
	if err := rdb.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ran:
	case <-time.After(30 * time.Second):
		t.Error("the task never ran once there was room again")
	}
}
