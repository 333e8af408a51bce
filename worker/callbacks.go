package worker

import (
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/rs/zerolog"
)

// What asynq calls of ours runs outside its own recover: a panic there ends the
// process, with all that is in flight.

// retryDelay tells asynq when to run a task again.
func retryDelay(_ int, err error, _ *asynq.Task) time.Duration {
	// A lost lease, a timeout or a panic that the pipeline did not see: the
	// record decides what happens, so soon is as good as late.
	delay := time.Second
	_ = guard(func() error {
		var d *deferral
		if errors.As(err, &d) {
			delay = max(0, time.Until(d.next))
		}
		return nil
	})
	return delay
}

// isFailure tells asynq's statistics whether an attempt failed.
func isFailure(err error) bool {
	failed := true
	_ = guard(func() error {
		var d *deferral
		failed = !errors.As(err, &d) || d.failed
		return nil
	})
	return failed
}

// asynqLog hands asynq's own log lines to zerolog.
type asynqLog struct{ log zerolog.Logger }

// Debug implements [asynq.Logger], and so do the others.
func (l asynqLog) Debug(args ...any) { l.write(zerolog.DebugLevel, args) }

// Info is the start and stop of each of asynq's loops: detail, to us.
func (l asynqLog) Info(args ...any)  { l.write(zerolog.DebugLevel, args) }
func (l asynqLog) Warn(args ...any)  { l.write(zerolog.WarnLevel, args) }
func (l asynqLog) Error(args ...any) { l.write(zerolog.ErrorLevel, args) }

// Fatal only logs: a library does not end this process.
func (l asynqLog) Fatal(args ...any) { l.write(zerolog.FatalLevel, args) }

func (l asynqLog) write(level zerolog.Level, args []any) {
	_ = guard(func() error {
		l.log.WithLevel(level).Msg(fmt.Sprint(args...))
		return nil
	})
}
