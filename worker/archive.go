package worker

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

const (
	// archiveInterval is how often the archives are looked at.
	archiveInterval = time.Minute
	// archivePage is how many of an archive's tasks are read at a time.
	archivePage = 100
	// archivePause is left between pages to what matters more.
	archivePause = 10 * time.Millisecond
	// archiveTurn bounds how many tasks of one archive are looked at in a turn:
	// twice what asynq keeps.
	archiveTurn = 20_000
	// archivedLongest is when a task whose message cannot be ended is deleted all
	// the same.
	archivedLongest = 24 * time.Hour
)

// archive empties asynq's archives. otpq itself archives nothing, but whoever has
// asynq's tools or a dashboard can, and there messages would be lost: asynq keeps
// 9,999 of them and 90 days, deletes the rest without a word, and breaks for good
// when some 8,000 have grown too old at once. Each archived task becomes a dead
// letter of otpq's own. Several workers may do it at once.
type archive struct {
	rdb    redis.UniversalClient
	served *served
	log    zerolog.Logger
}

// run looks at the archives now and every minute, until ctx ends.
func (s *archive) run(ctx context.Context) {
	tick := time.NewTicker(archiveInterval)
	defer tick.Stop()
	for {
		if err := s.sweep(ctx); err != nil && ctx.Err() == nil {
			s.log.Warn().Err(err).Msg("cannot empty asynq's archives")
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// sweep goes once through each archive.
func (s *archive) sweep(ctx context.Context) error {
	var errs []error
	for _, q := range s.served.all() {
		lane := q.pipeline
		ended, err := s.sweepQueue(ctx, q.name, lane)
		if ended > 0 {
			s.log.Warn().Str("provider", lane.cfg.Name).Str("lane", string(lane.lane)).Int("messages", ended).
				Msg("tasks that somebody archived in asynq are dead letters now")
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sweepQueue returns how many messages it ended.
func (s *archive) sweepQueue(ctx context.Context, queue string, lane *pipeline) (ended int, err error) {
	var errs []error
	for seen, left := 0, 0; seen < archiveTurn; {
		page, err := asynqredis.ListArchived(ctx, s.rdb, queue, left, archivePage)
		if err != nil {
			return ended, errors.Join(append(errs, err)...)
		}
		for _, task := range page {
			if ctx.Err() != nil {
				return ended, ctx.Err()
			}
			result, err := s.take(ctx, lane, task)
			if err != nil {
				// One that makes trouble stops no other; without Redis all do.
				if errs = append(errs, err); len(errs) == 3 {
					return ended, errors.Join(errs...)
				}
			}
			switch result {
			case notOver:
				left++
			case endedNow:
				ended++
			case wasOver:
			}
		}
		if seen += len(page); len(page) < archivePage {
			break
		}
		select {
		case <-time.After(archivePause):
		case <-ctx.Done():
		}
	}
	return ended, errors.Join(errs...)
}

// archivedResult is what became of the message of an archived task.
type archivedResult int

const (
	// notOver: it cannot be ended now, and its task stays for another turn.
	notOver archivedResult = iota
	// wasOver: it had come to its end before, there is no message, or it is not
	// waited for any longer.
	wasOver
	// endedNow: it is a dead letter now.
	endedNow
)

// take ends the message of an archived task and then deletes the task.
func (s *archive) take(ctx context.Context, lane *pipeline, task asynqredis.Archived) (archivedResult, error) {
	result := wasOver
	if len(task.Message) > 0 { // and not an id without a task
		// A panic here would end every worker as it starts.
		err := guard(func() (err error) {
			result, err = lane.unarchive(ctx, task)
			return err
		})
		switch {
		case err != nil:
			return notOver, err
		case result == notOver && time.Since(task.At) < archivedLongest:
			return notOver, nil
		case result == notOver:
			result = wasOver
		}
	}
	if err := task.Drop(ctx, s.rdb); err != nil {
		return notOver, err
	}
	return result, nil
}

// unarchive ends the message of an archived task as a dead letter, with the reason
// archived. An error means that Redis did not answer.
func (p *pipeline) unarchive(ctx context.Context, task asynqredis.Archived) (archivedResult, error) {
	a := &attempt{taskID: task.ID, messageID: tasks.MessageID(task.ID), started: p.now()}
	record, err := p.store.Get(ctx, a.messageID)
	switch {
	case err == nil && record.State.Terminal():
		return wasOver, nil
	case err != nil && !errors.Is(err, status.ErrNotFound):
		return notOver, err
	}
	if !p.memory.begin(a.messageID, a.taskID) {
		return notOver, nil // somebody brought it back, and it is at work
	}
	defer p.memory.end(a.messageID)

	info, err := asynqredis.Decode(task.Message)
	if err == nil {
		a.payload = info.Payload
		// Only what the record needs is of interest here, not what is wrong with it.
		err = guard(func() error { p.decode(ctx, a); return nil })
	} else {
		a.payload = task.Message
	}
	if err != nil {
		p.unreadable(a, ReasonArchived, tasks.ErrMalformed) // seals it
	}

	v := end(status.Rejected, ReasonArchived, nil)
	v.step = "archive"
	v = p.record(ctx, a, v)
	switch {
	case v.write != writeNothing && v.state.Terminal():
		p.metrics.Ended(p.cfg.Name, string(p.lane), string(v.state))
		return endedNow, nil
	case v.state.Terminal():
		return wasOver, nil
	case v.reason == ReasonRedis:
		return notOver, v.err
	}
	return notOver, nil // claimed by somebody who may be alive
}
