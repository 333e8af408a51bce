// Package redisscript runs Lua scripts by their digests, and with their text where
// Redis does not know them: after a restart, a failover or SCRIPT FLUSH, or on one
// node of a cluster. Unlike go-redis it does so for many calls in one round trip, and
// leaves none of a pipeline's commands without its error. It does not merge callers;
// see package coalesce.
package redisscript

import (
	"context"
	"slices"

	"github.com/redis/go-redis/v9"
)

// Script is a Lua script. It is safe for concurrent use.
type Script struct {
	*redis.Script
	text string
}

// New makes a Script.
func New(lua string) *Script { return &Script{redis.NewScript(lua), lua} }

// Begin returns the first arguments of a [Call], with room for size in all. What
// follows is how many keys there are, the keys, and the script's own arguments.
func (s *Script) Begin(size int) []any { return append(make([]any, 0, size), "evalsha", s.Hash()) }

// Call is one run of a Script, for one goroutine.
type Call struct {
	Script *Script
	// Args are what [Script.Begin] returned and what follows it.
	Args []any
	// Once keeps the client from making the call again when its answer is lost.
	Once bool
	// Cmd has the answer once the call was made.
	Cmd *redis.Cmd
}

// Command makes Cmd anew, for who sends it by itself: what it returns.
func (c *Call) Command(ctx context.Context) redis.Cmder { return c.command(ctx, c.Args) }

func (c *Call) command(ctx context.Context, args []any) redis.Cmder {
	c.Cmd = redis.NewCmd(ctx, args...)
	if c.Once {
		return once{c.Cmd}
	}
	return c.Cmd
}

// once is a command that a client sends no second time by itself.
type once struct{ *redis.Cmd }

// NoRetry implements [redis.Cmder].
func (once) NoRetry() bool { return true }

// withText is Command with the script's text, by which Redis gets to know it.
func (c *Call) withText(ctx context.Context) redis.Cmder {
	args := slices.Clone(c.Args)
	args[0], args[1] = "eval", c.Script.text
	return c.command(ctx, args)
}

// Unknown reports whether err is Redis's answer to the digest of a script that it
// does not know. Nothing was run then.
func Unknown(err error) bool { return redis.HasErrorPrefix(err, "NOSCRIPT") }

// Run makes the calls, each of which has its own error afterwards: in one round trip
// to each node, and in a second one those whose scripts were not known. There is never
// a third: what is called with its text cannot be unknown, whoever flushes meanwhile.
func Run(ctx context.Context, rdb redis.UniversalClient, calls ...*Call) {
	send(ctx, rdb, calls, (*Call).Command)
	var unknown []*Call
	for _, c := range calls {
		if Unknown(c.Cmd.Err()) {
			unknown = append(unknown, c)
		}
	}
	send(ctx, rdb, unknown, (*Call).withText)
}

func send(ctx context.Context, rdb redis.UniversalClient, calls []*Call, command func(*Call, context.Context) redis.Cmder) {
	switch len(calls) {
	case 0:
	case 1: // costs less than a pipeline
		_ = rdb.Process(ctx, command(calls[0], ctx))
	default:
		Pipelined(ctx, rdb, func(p redis.Pipeliner) {
			for _, c := range calls {
				_ = p.Process(ctx, command(c, ctx))
			}
		})
	}
}

// Pipelined sends commands in one round trip to each node. Each has its own error
// afterwards. With go-redis's Pipelined none has when Redis refuses the connection
// itself, because of a wrong password say: each command would have found nothing.
func Pipelined(ctx context.Context, rdb redis.UniversalClient, commands func(redis.Pipeliner)) {
	sent, err := rdb.Pipelined(ctx, func(p redis.Pipeliner) error { commands(p); return nil })
	if err == nil || slices.ContainsFunc(sent, func(cmd redis.Cmder) bool { return cmd.Err() != nil }) {
		return
	}
	for _, cmd := range sent {
		cmd.SetErr(err)
	}
}

// RunWith is [Run] of one call by way of process, which is a hook's next.
func RunWith(ctx context.Context, process redis.ProcessHook, c *Call) {
	if err := process(ctx, c.Command(ctx)); Unknown(err) {
		_ = process(ctx, c.withText(ctx))
	}
}
