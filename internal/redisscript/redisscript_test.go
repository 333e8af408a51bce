package redisscript

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
)

var (
	count = New(`return redis.call('INCR', KEYS[1]) + ARGV[1]`)
	twice = New(`return redis.call('INCRBY', KEYS[1], 2) + ARGV[1]`)
)

func callOf(s *Script, key string, plus int) *Call {
	return &Call{Script: s, Args: append(s.Begin(5), 1, key, plus)}
}

// trips counts the round trips of a client's scripts, and runs before ahead of each.
type trips struct {
	n      int
	before func()
}

func (*trips) DialHook(next redis.DialHook) redis.DialHook {
	return func(ctx context.Context, network, addr string) (net.Conn, error) { return next(ctx, network, addr) }
}

func (t *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		t.begin(cmd)
		return next(ctx, cmd)
	}
}

func (t *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		t.begin(cmds[0])
		return next(ctx, cmds)
	}
}

func (t *trips) begin(first redis.Cmder) {
	if name := first.Name(); name != "evalsha" && name != "eval" {
		return // a new connection's
	}
	t.n++
	if t.before != nil {
		t.before()
	}
}

func flush(t *testing.T, rdb redis.UniversalClient) {
	t.Helper()
	if err := rdb.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
}

// answers are the calls' answers, or errors.
func answers(calls []*Call) []any {
	out := make([]any, len(calls))
	for i, c := range calls {
		n, err := c.Cmd.Int()
		if out[i] = n; err != nil {
			out[i] = err.Error()
		}
	}
	return out
}

func TestEachCallIsRunOnceWhateverRedisKnows(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		known []*Script
		trips int
	}{
		"all scripts are known":      {[]*Script{count, twice}, 1},
		"one of two is known":        {[]*Script{twice}, 2},
		"none is known":              {nil, 2},
		"they are flushed each time": {nil, 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			rdb, look := server.Client(), server.Client()
			seen := &trips{}
			rdb.AddHook(seen)
			for _, s := range tc.known {
				if err := s.Load(t.Context(), look).Err(); err != nil {
					t.Fatal(err)
				}
			}
			if name == "they are flushed each time" {
				seen.before = func() { flush(t, look) }
			}
			calls := []*Call{callOf(count, "a", 10), callOf(twice, "b", 20), callOf(count, "a", 30), callOf(twice, "c", 40)}
			Run(t.Context(), rdb, calls...)
			if diff := cmp.Diff([]any{11, 22, 32, 42}, answers(calls)); diff != "" {
				t.Errorf("answers (-want +got):\n%s", diff)
			}
			if seen.n != tc.trips {
				t.Errorf("%d round trips, want %d", seen.n, tc.trips)
			}
			for key, want := range map[string]string{"a": "2", "b": "2", "c": "2"} {
				if got := look.Get(t.Context(), key).Val(); got != want {
					t.Errorf("%s = %q, want %s: each call changes it once", key, got, want)
				}
			}
		})
	}
}

func TestOneCallIsRunOnceAfterAFlush(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	ways := map[string]func(*Call){
		"Run":     func(c *Call) { Run(t.Context(), rdb, c) },
		"RunWith": func(c *Call) { RunWith(t.Context(), rdb.Process, c) },
	}
	for name, run := range ways {
		for turn := range 3 {
			for _, flushed := range []bool{true, false} {
				if flushed {
					flush(t, rdb)
				}
				c := callOf(count, fmt.Sprint(name, turn, flushed), 0)
				run(c)
				if diff := cmp.Diff([]any{1}, answers([]*Call{c})); diff != "" {
					t.Errorf("%s, flushed %t (-want +got):\n%s", name, flushed, diff)
				}
			}
		}
	}
}

func TestWhatOneCallIsRefusedStopsNoOther(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	if err := rdb.LPush(t.Context(), "list", "x").Err(); err != nil {
		t.Fatal(err)
	}
	for range 2 { // not known at first, and known then
		calls := []*Call{callOf(count, "a", 0), callOf(count, "list", 0), callOf(count, "b", 0)}
		Run(t.Context(), rdb, calls...)
		if calls[0].Cmd.Err() != nil || calls[2].Cmd.Err() != nil || !redis.HasErrorPrefix(calls[1].Cmd.Err(), "WRONGTYPE") {
			t.Errorf("answers = %q, want an error of the second alone", answers(calls))
		}
	}
	if got := rdb.Get(t.Context(), "b").Val(); got != "2" {
		t.Errorf("b = %s, want 2", got)
	}
}

func TestNothingIsRunAgainThatWasNotAnswered(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	seen := &trips{}
	rdb.AddHook(seen)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	calls := []*Call{callOf(count, "a", 0), callOf(twice, "b", 0)}
	Run(ctx, rdb, calls...)
	for _, c := range calls {
		if !errors.Is(c.Cmd.Err(), context.Canceled) {
			t.Errorf("error = %v, want %v", c.Cmd.Err(), context.Canceled)
		}
	}
	if seen.n != 1 {
		t.Errorf("%d round trips, want 1", seen.n)
	}
}

func TestANodeThatLacksTheScriptGetsIt(t *testing.T) {
	t.Parallel()
	c := redistest.StartCluster(t)
	rdb := c.Client()
	const n = 60
	for turn := 1; turn <= 3; turn++ {
		// Of three nodes one lacks it.
		if err := count.Load(t.Context(), rdb).Err(); err != nil {
			t.Fatal(err)
		}
		flush(t, c.NodeOf("key 0").Client())
		calls := make([]*Call, n)
		for i := range calls {
			calls[i] = callOf(count, fmt.Sprintf("key %d", i), 0)
		}
		Run(t.Context(), rdb, calls...)
		for i, got := range answers(calls) {
			if got != turn {
				t.Fatalf("call %d in turn %d = %v, want %d: it is run once", i, turn, got, turn)
			}
		}
	}
}

func TestTheArgumentsStayAsTheyWere(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	c := callOf(count, "a", 0)
	want := append([]any(nil), c.Args...)
	Run(t.Context(), rdb, c)
	if diff := cmp.Diff(want, c.Args); diff != "" {
		t.Errorf("arguments after a run by text (-before +after):\n%s", diff)
	}
}

// TestEachCommandOfAPipelineHasItsError: a Redis that refuses the connection is not
// taken for one that has nothing.
func TestEachCommandOfAPipelineHasItsError(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t, redistest.Password("right"))
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr(), Password: "wrong"})
	t.Cleanup(func() { _ = rdb.Close() })
	var got *redis.StringCmd
	var all *redis.MapStringStringCmd
	Pipelined(t.Context(), rdb, func(p redis.Pipeliner) {
		got, all = p.Get(t.Context(), "a"), p.HGetAll(t.Context(), "b")
	})
	calls := []*Call{callOf(count, "a", 0), callOf(twice, "b", 0)}
	Run(t.Context(), rdb, calls...)
	for _, cmd := range []redis.Cmder{got, all, calls[0].Cmd, calls[1].Cmd} {
		if err := cmd.Err(); !redis.HasErrorPrefix(err, "WRONGPASS") {
			t.Errorf("error of %s = %v, want Redis's WRONGPASS", cmd.Name(), err)
		}
	}
}

func TestACommandsOwnErrorIsItsAlone(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	var push, get, none *redis.Cmd
	Pipelined(t.Context(), rdb, func(p redis.Pipeliner) {
		push, get, none = p.Do(t.Context(), "lpush", "a", "1"), p.Do(t.Context(), "get", "a"), p.Do(t.Context(), "get", "b")
	})
	if push.Err() != nil || !redis.HasErrorPrefix(get.Err(), "WRONGTYPE") || !errors.Is(none.Err(), redis.Nil) {
		t.Errorf("errors = %v, %v, %v, want none, WRONGTYPE and nil", push.Err(), get.Err(), none.Err())
	}
}
