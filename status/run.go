package status

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/coalesce"
)

//go:embed lua/each.lua
var eachLua string

// script changes one record, or many of them in one call.
type script struct {
	text string
	*redis.Script
}

func newScript(lua string) *script {
	text := transitionsLua() + sharedLua + lua + eachLua
	return &script{text, redis.NewScript(text)}
}

// transitionsLua is the state machine as a table: after.queued.sending is true.
func transitionsLua() string {
	var b strings.Builder
	b.WriteString("local after = {")
	for _, from := range States() {
		fmt.Fprintf(&b, "%s = {", from)
		for _, to := range States() {
			if from.CanBecome(to) {
				fmt.Fprintf(&b, "%s = true, ", to)
			}
		}
		b.WriteString("}, ")
	}
	b.WriteString("}\n")
	return b.String()
}

const (
	// runCalls is how many round trips the store makes at once for all its
	// callers together, and mostRuns how many scripts go into one.
	runCalls = 2
	mostRuns = 128
	// runTime bounds a round trip for many callers, whose own contexts end their
	// own waiting.
	runTime = 5 * time.Second
)

// scriptRun is what a script is to do with one record, and its answer.
type scriptRun struct {
	script *script
	key    string
	args   []any
	answer any
	err    error
}

// runner runs scripts, those that come at the same time in one round trip.
type runner struct {
	rdb   redis.UniversalClient
	group *coalesce.Group[*scriptRun] // nil on a cluster, where each record may be on another node
}

func newRunner(rdb redis.UniversalClient) *runner {
	r := &runner{rdb: rdb}
	if _, cluster := rdb.(*redis.ClusterClient); !cluster {
		r.group = coalesce.New(runCalls, mostRuns, r.runAll)
	}
	return r
}

// run returns what the script answers of a record.
func (r *runner) run(ctx context.Context, s *script, key string, args []any) (any, error) {
	one := &scriptRun{script: s, key: key, args: args}
	if r.group == nil {
		r.runEach(ctx, []*scriptRun{one})
	} else if err := r.group.Do(ctx, one); err != nil {
		return nil, err
	}
	return one.answer, one.err
}

// runAll runs a batch in one round trip.
func (r *runner) runAll(batch []*scriptRun) {
	ctx, cancel := context.WithTimeout(context.Background(), runTime)
	defer cancel()
	calls := byScript(batch)
	cmds := make([]*redis.Cmd, len(calls))
	for i, runs := range calls {
		cmds[i] = command(ctx, "evalsha", runs)
	}
	if len(cmds) == 1 {
		_ = r.rdb.Process(ctx, cmds[0])
	} else { // each command has its own error
		_, _ = r.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for _, cmd := range cmds {
				_ = p.Process(ctx, cmd)
			}
			return nil
		})
	}
	for i, runs := range calls {
		r.settle(ctx, runs, cmds[i])
	}
}

// byScript sorts a batch into one call for each script.
func byScript(batch []*scriptRun) [][]*scriptRun {
	var calls [][]*scriptRun
next:
	for _, run := range batch {
		for i := range calls {
			if calls[i][0].script == run.script {
				calls[i] = append(calls[i], run)
				continue next
			}
		}
		calls = append(calls, append(make([]*scriptRun, 0, len(batch)), run))
	}
	return calls
}

// command is the call of a script for many records; see each.lua.
func command(ctx context.Context, name string, runs []*scriptRun) *redis.Cmd {
	code := runs[0].script.Hash()
	if name == "eval" {
		code = runs[0].script.text
	}
	size := 3 + 2*len(runs)
	for _, run := range runs {
		size += len(run.args)
	}
	args := append(make([]any, 0, size), name, code, len(runs))
	for _, run := range runs {
		args = append(args, run.key)
	}
	for _, run := range runs {
		args = append(append(args, len(run.args)), run.args...)
	}
	return redis.NewCmd(ctx, args...)
}

// settle gives each run its answer. When Redis refused the call, each is made on
// its own: one record that is no hash, say, fails the script for all the others.
// Those that were changed before it did take no harm from being changed again.
func (r *runner) settle(ctx context.Context, runs []*scriptRun, cmd *redis.Cmd) {
	var refused redis.Error
	switch err := cmd.Err(); {
	case redis.HasErrorPrefix(err, "NOSCRIPT"):
		cmd = command(ctx, "eval", runs)
		if err := r.rdb.Process(ctx, cmd); redis.HasErrorPrefix(err, "NOSCRIPT") {
			break // not to be asked for ever
		}
		r.settle(ctx, runs, cmd)
		return
	case err != nil && len(runs) > 1 && errors.As(err, &refused):
		r.runEach(ctx, runs)
		return
	}
	answers, err := cmd.Slice()
	for i, run := range runs {
		switch {
		case err != nil:
			run.err = err
		case i >= len(answers):
			run.err = fmt.Errorf("the script answered for %d records of %d", len(answers), len(runs))
		default:
			run.answer = answers[i]
		}
	}
}

func (r *runner) runEach(ctx context.Context, runs []*scriptRun) {
	for i := range runs {
		cmd := command(ctx, "evalsha", runs[i:i+1])
		_ = r.rdb.Process(ctx, cmd)
		r.settle(ctx, runs[i:i+1], cmd)
	}
}
