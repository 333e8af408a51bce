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
	"github.com/otpq/otpq/internal/redisscript"
)

//go:embed lua/each.lua
var eachLua string

// newScript makes a script that changes one record, or many of them in one call.
func newScript(lua string) *redisscript.Script {
	return redisscript.New(headLua() + lua + eachLua)
}

// headLua is what scripts that change records have in common.
func headLua() string { return transitionsLua() + recordLua + sharedLua }

// transitionsLua is the state machine as a function: leads(from, to). A table would be
// made anew in each call.
func transitionsLua() string {
	var b strings.Builder
	b.WriteString("-- Reports whether a message may go from one state to another.\nlocal function leads(from, to)\n")
	for _, from := range States() {
		fmt.Fprintf(&b, "if from == '%s' then return false", from)
		for _, to := range States() {
			if from.CanBecome(to) {
				fmt.Fprintf(&b, " or to == '%s'", to)
			}
		}
		b.WriteString(" end\n")
	}
	b.WriteString("return false\nend\n")
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
	script *redisscript.Script
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
func (r *runner) run(ctx context.Context, s *redisscript.Script, key string, args []any) (any, error) {
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
	sorted := byScript(batch)
	calls := make([]*redisscript.Call, len(sorted))
	for i, runs := range sorted {
		calls[i] = call(runs)
	}
	redisscript.Run(ctx, r.rdb, calls...)
	for i, runs := range sorted {
		r.settle(ctx, runs, calls[i].Cmd)
	}
}

// byScript sorts a batch into those of each script.
func byScript(batch []*scriptRun) [][]*scriptRun {
	var sorted [][]*scriptRun
next:
	for _, run := range batch {
		for i := range sorted {
			if sorted[i][0].script == run.script {
				sorted[i] = append(sorted[i], run)
				continue next
			}
		}
		sorted = append(sorted, append(make([]*scriptRun, 0, len(batch)), run))
	}
	return sorted
}

// call is the call of one script for many records; see each.lua.
func call(runs []*scriptRun) *redisscript.Call {
	size := 3 + 2*len(runs)
	for _, run := range runs {
		size += len(run.args)
	}
	args := append(runs[0].script.Begin(size), len(runs))
	for _, run := range runs {
		args = append(args, run.key)
	}
	for _, run := range runs {
		args = append(append(args, len(run.args)), run.args...)
	}
	return &redisscript.Call{Script: runs[0].script, Args: args}
}

// settle gives each run its answer. When Redis refused the call, each is made on
// its own: one record that is no hash, say, fails the script for all the others.
// Those that were changed before it did take no harm from being changed again.
func (r *runner) settle(ctx context.Context, runs []*scriptRun, cmd *redis.Cmd) {
	answers, err := cmd.Slice()
	var refused redis.Error
	if len(runs) > 1 && errors.As(err, &refused) {
		r.runEach(ctx, runs)
		return
	}
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
		one := call(runs[i : i+1])
		redisscript.Run(ctx, r.rdb, one)
		r.settle(ctx, runs[i:i+1], one.Cmd)
	}
}
