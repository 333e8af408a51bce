package status

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/coalesce"
)

const (
	// runCalls is how many round trips the store makes at once for all its
	// callers together, and mostRuns how many scripts go into one.
	runCalls = 2
	mostRuns = 128
	// runTime bounds a round trip for many callers, whose own contexts end their
	// own waiting.
	runTime = 5 * time.Second
)

// scriptRun is a script that is to run, and its result.
type scriptRun struct {
	script *redis.Script
	key    string
	args   []any
	cmd    *redis.Cmd
}

// runner runs scripts of one key each, those that come at the same time in one
// round trip.
type runner struct {
	rdb   redis.UniversalClient
	group *coalesce.Group[*scriptRun] // nil on a cluster, where a slow node would hold up the others
}

func newRunner(rdb redis.UniversalClient) *runner {
	r := &runner{rdb: rdb}
	if _, cluster := rdb.(*redis.ClusterClient); !cluster {
		r.group = coalesce.New(runCalls, mostRuns, r.runAll)
	}
	return r
}

// run is [redis.Script.Run].
func (r *runner) run(ctx context.Context, script *redis.Script, key string, args ...any) *redis.Cmd {
	if r.group == nil {
		return script.Run(ctx, r.rdb, []string{key}, args...)
	}
	s := &scriptRun{script: script, key: key, args: args}
	if err := r.group.Do(ctx, s); err != nil {
		cmd := redis.NewCmd(ctx)
		cmd.SetErr(err)
		return cmd
	}
	if redis.HasErrorPrefix(s.cmd.Err(), "NOSCRIPT") {
		return script.Eval(ctx, r.rdb, []string{key}, args...)
	}
	return s.cmd
}

func (r *runner) runAll(batch []*scriptRun) {
	ctx, cancel := context.WithTimeout(context.Background(), runTime)
	defer cancel()
	if len(batch) == 1 {
		s := batch[0]
		s.cmd = s.script.EvalSha(ctx, r.rdb, []string{s.key}, s.args...)
		return
	}
	// Each command has its own error, which is looked at by whoever waits for it.
	_, _ = r.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, s := range batch {
			s.cmd = s.script.EvalSha(ctx, p, []string{s.key}, s.args...)
		}
		return nil
	})
}
