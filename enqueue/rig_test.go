package enqueue

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

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/kinpos"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// rig is a producer with a Redis of its own, and a second connection to look at
// what the producer left there.
type rig struct {
	*Client
	t      *testing.T
	server *redistest.Server
	faults *faults
	look   *redis.Client
	store  *status.Redis
	tasks  *asynq.Inspector
}

// newApartRig is a rig whose producer takes Redis for a cluster, and so takes one
// step after the other.
func newApartRig(t *testing.T) *rig {
	t.Helper()
	r := newRig(t)
	r.apart.Store(true)
	return r
}

// rigs are both ways to queue a message.
var rigs = map[string]func(*testing.T) *rig{"in one step": newRig, "step by step": newApartRig}

func newRig(t *testing.T) *rig {
	t.Helper()
	s := redistest.Start(t)
	r := &rig{t: t, server: s, faults: &faults{}, look: s.Client()}
	r.store = status.NewRedis(r.look, status.Retention{})
	r.tasks = asynq.NewInspectorFromRedisClient(r.look)
	rdb := s.Client()
	rdb.AddHook(r.faults)
	r.Client = r.producer(Config{Redis: rdb, Keys: []tasks.Key{newKey("k")}})
	return r
}

func newKey(id string) tasks.Key { return tasks.Key{ID: id, Secret: tasks.GenerateSecret()} }

// producer opens another Client of the same Redis.
func (r *rig) producer(cfg Config) *Client {
	r.t.Helper()
	if cfg.Redis == nil {
		cfg.Redis = r.server.Client()
	}
	c, err := Open(cfg)
	if err != nil {
		r.t.Fatalf("Open: %v", err)
	}
	return c
}

func (r *rig) send(opts ...Option) Receipt {
	r.t.Helper()
	receipt, err := r.Send(r.t.Context(), example, opts...)
	if err != nil {
		r.t.Fatalf("Send: %v", err)
	}
	return receipt
}

func (r *rig) record(id string) status.Record {
	r.t.Helper()
	record, err := r.Status(r.t.Context(), id)
	if err != nil {
		r.t.Fatalf("Status(%s): %v", id, err)
	}
	return record
}

// task returns a message's task in the queue of the example's provider.
func (r *rig) task(id string, lane tasks.Lane) *asynq.TaskInfo {
	r.t.Helper()
	info, err := r.tasks.GetTaskInfo(tasks.QueueName(unimedbh.Name, lane), id)
	if err != nil {
		r.t.Fatalf("task of %s: %v", id, err)
	}
	return info
}

// message reads what a worker will read.
func (r *rig) message(id string, lane tasks.Lane) tasks.Message {
	r.t.Helper()
	m, err := tasks.Decode(r.keys, r.task(id, lane).Payload)
	if err != nil {
		r.t.Fatalf("Decode: %v", err)
	}
	return m
}

// wantOne fails unless Redis holds exactly one record and one task, of id.
func (r *rig) wantOne(id string) {
	r.t.Helper()
	r.wantKeys("otpq:msg:*", "otpq:msg:"+id)
	r.wantKeys("asynq:*:t:*", "asynq:{"+tasks.QueueName(unimedbh.Name, tasks.Interactive)+"}:t:"+id)
}

func (r *rig) wantKeys(pattern string, want ...string) {
	r.t.Helper()
	got, err := r.look.Keys(r.t.Context(), pattern).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		r.t.Errorf("keys %s = %q, want %q", pattern, got, want)
	}
}

// finish does what a worker does: it claims the next attempt and ends it.
func (r *rig) finish(id string, state status.State) {
	r.t.Helper()
	record := r.record(id)
	now := time.Now()
	claimed, err := r.store.Claim(r.t.Context(), status.Claim{Seed: record, Token: "w", Now: now, AbandonedAfter: time.Minute})
	if err != nil || claimed.Result != status.ClaimedNow {
		r.t.Fatalf("Claim(%s) = %+v, %v", id, claimed, err)
	}
	if state == status.Sending {
		return
	}
	task := r.task(id, record.Lane)
	err = r.store.Finish(r.t.Context(), status.Finish{
		ID: id, Provider: record.Provider, Token: "w", State: state, Payload: task.Payload, Now: now,
		Attempt: status.Attempt{Number: claimed.Attempt, StartedAt: now, Outcome: "x"},
	})
	if err != nil {
		r.t.Fatalf("Finish(%s): %v", id, err)
	}
	// asynq deletes a task that is done.
	if err := r.tasks.DeleteTask(tasks.QueueName(record.Provider, record.Lane), id); err != nil {
		r.t.Fatalf("delete the task of %s: %v", id, err)
	}
}

// example is a request of a provider whose page asks for little.
var example = unimedbh.Request{Username: "maria.souza@example.com", Type: "EMAIL"}

// requests are one for each provider.
func requests() []providers.Request {
	device := int64(8273645190)
	return []providers.Request{
		medsenior.Request{
			EmailID: "bed1066b-d8b5-47bc-a67f-2fd70a3c442d", CelularID: "1163cc70-cdf5-4cbb-95d7-9ae7457046fc",
			CPF: "98765432100", PrimeiroAcesso: new(true),
		},
		example,
		kinpos.Request{
			MobileNumber: "59899123456", InternationalPrefix: "00598", EmailAddress: "joana.lima@example.com",
			DeviceID: &device, DeviceAltID: "device-of-joana", IPAddress: "203.0.113.77",
			Latitude: "-19.9191248", AuditInfo: &kinpos.AuditInfo{Longitude: "-43.9386291"},
			AdditionalParameters: map[string]string{"nome": "Joana de Lima"},
		},
	}
}

// errInjected is what a faulty connection says.
var errInjected = &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}

// faults is a go-redis hook that breaks one command.
type faults struct {
	mu    sync.Mutex
	match func(args string) bool
	// lost lets Redis run the command and drops the reply.
	lost bool
	// hang waits for ctx instead of failing at once.
	hang bool
	hits int
}

// failOnce breaks the next command that the step names.
func (f *faults) failOnce(step string, lost bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.match, f.lost, f.hits = steps[step], lost, 0
}

// steps recognises the commands of a Send by their keys and arguments.
var steps = map[string]func(string) bool{
	"reserve": func(s string) bool { return strings.HasPrefix(s, "eval") && strings.Contains(s, " otpq:idem:") },
	"record": func(s string) bool {
		return strings.HasPrefix(s, "eval") && strings.Contains(s, " otpq:msg:") && strings.Contains(s, " made ")
	},
	"task": func(s string) bool { return strings.HasPrefix(s, "eval") && strings.Contains(s, " asynq:{") },
	"mark": func(s string) bool { return strings.HasPrefix(s, "set otpq:idem:") },
	"replayed": func(s string) bool {
		return strings.HasPrefix(s, "eval") && strings.Contains(s, " |rejected|exhausted|unknown|")
	},
	"read": func(s string) bool { return strings.HasPrefix(s, "hget otpq:msg:") },
	// All of a Send at once.
	"submit": func(s string) bool {
		return strings.HasPrefix(s, "eval") && strings.Contains(s, " otpq:msg:") && strings.Contains(s, " asynq:{")
	},
	"drop": func(s string) bool { // it alone gives a record two numbers
		return strings.HasPrefix(s, "eval") && strings.Contains(s, " otpq:msg:") && len(strings.Fields(s)) == 6 && !strings.Contains(s, "|")
	},
	"unlist": func(s string) bool { return strings.HasPrefix(s, "zrem otpq:dead:") },
}

// words joins a command's arguments, without the text of a script.
func words(cmd redis.Cmder) string {
	args := slices.Clone(cmd.Args())
	if cmd.Name() == "eval" {
		args[1] = "script"
	}
	return fmt.Sprintln(args...)
}

// take reports whether the command is the one to break, and does so once.
func (f *faults) take(cmd redis.Cmder) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.match == nil || !f.match(words(cmd)) {
		return false
	}
	f.match = nil
	f.hits++
	return true
}

func (f *faults) broken(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hits != 1 {
		t.Fatalf("the fault was met %d times, want once: the test does not test what it says", f.hits)
	}
}

// DialHook implements [redis.Hook].
func (f *faults) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook implements [redis.Hook].
func (f *faults) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		f.mu.Lock()
		lost, hang := f.lost, f.hang
		f.mu.Unlock()
		if !lost {
			if !f.take(cmd) {
				return next(ctx, cmd)
			}
			if hang {
				<-ctx.Done()
				return ctx.Err()
			}
			return errInjected
		}
		// A script that Redis does not know yet was not run.
		if err := next(ctx, cmd); err != nil || !f.take(cmd) {
			return err
		}
		return errInjected
	}
}

// ProcessPipelineHook implements [redis.Hook].
func (f *faults) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		f.mu.Lock()
		lost, hang := f.lost, f.hang
		f.mu.Unlock()
		if lost {
			if err := next(ctx, cmds); err != nil {
				return err
			}
		}
		if !slices.ContainsFunc(cmds, f.take) {
			if lost {
				return nil
			}
			return next(ctx, cmds)
		}
		err := error(errInjected)
		if hang {
			<-ctx.Done()
			err = ctx.Err()
		}
		for _, cmd := range cmds {
			cmd.SetErr(err)
		}
		return err
	}
}

// dump returns every key of Redis with all that it holds.
func dump(t *testing.T, rdb *redis.Client) string {
	t.Helper()
	ctx := t.Context()
	var b strings.Builder
	keys := rdb.Scan(ctx, 0, "*", 100).Iterator()
	for keys.Next(ctx) {
		key := keys.Val()
		var value any
		var err error
		switch kind := rdb.Type(ctx, key).Val(); kind {
		case "string":
			value, err = rdb.Get(ctx, key).Result()
		case "hash":
			value, err = rdb.HGetAll(ctx, key).Result()
		case "list":
			value, err = rdb.LRange(ctx, key, 0, -1).Result()
		case "set":
			value, err = rdb.SMembers(ctx, key).Result()
		case "zset":
			value, err = rdb.ZRangeWithScores(ctx, key, 0, -1).Result()
		default:
			t.Fatalf("key %s is a %s: teach dump to read it", key, kind)
		}
		if err != nil {
			t.Fatalf("read %s: %v", key, err)
		}
		fmt.Fprintf(&b, "%s = %v\n", key, value)
	}
	if err := keys.Err(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// wantUnavailable returns the error as an UnavailableError.
func wantUnavailable(t *testing.T, err error) *UnavailableError {
	t.Helper()
	var u *UnavailableError
	if !errors.As(err, &u) {
		t.Fatalf("error = %v, want an UnavailableError", err)
	}
	return u
}

// waitFor waits until the condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !holds(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited 20 s for %s", what)
		}
	}
}
