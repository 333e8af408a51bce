package worker

import (
	"context"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/tasks"
)

const (
	// maxDeaths is how often a suspect may be begun and not come through before it
	// is buried. With the death that made it a suspect that is three workers.
	maxDeaths = 2
	// suspicionTTL is how long a begun suspect is remembered: longer than a worker
	// takes to come back.
	suspicionTTL = time.Hour
	// clearTimeout bounds how long a suspect that came through is struck off.
	clearTimeout = time.Second
)

// suspects keeps a message that kills whoever takes it up from doing so for ever.
//
// A message that was taken from a dead worker is a suspect. Suspects are taken up
// one at a time in each process, until they have been read and looked at, and each
// is counted in Redis before and struck off after: so the count tells which one did
// not come through, and not who else was in hand. What they may have to wait for
// comes after. From the claim on, a death makes the attempt ambiguous, and those
// have a budget of their own.
type suspects struct {
	rdb  redis.UniversalClient
	log  zerolog.Logger
	self string        // names this process in the counts
	turn chan struct{} // holds a token while a suspect is taken up
}

func newSuspects(rdb redis.UniversalClient, log zerolog.Logger) *suspects {
	return &suspects{rdb: rdb, log: log, self: uuid.NewString(), turn: make(chan struct{}, 1)}
}

func suspectKey(messageID string) string { return "otpq:suspect:" + messageID }

// begin waits for its turn and returns how often the message was begun and did
// not come through. After an error it holds no turn.
func (s *suspects) begin(ctx context.Context, a *attempt) (deaths int, err error) {
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	var count *redis.IntCmd
	_, err = s.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		// A set of processes, not a number: a begin whose reply was lost is made
		// again by a process that lives.
		p.SAdd(ctx, suspectKey(a.messageID), s.self)
		count = p.SCard(ctx, suspectKey(a.messageID))
		p.Expire(ctx, suspectKey(a.messageID), suspicionTTL)
		return nil
	})
	if err != nil {
		<-s.turn
		return 0, err
	}
	a.suspect = true
	a.started = time.Now() // what it waited for its turn is not what it stood still
	return int(count.Val()) - 1, nil
}

// clear strikes off a suspect that came through and gives its turn to the next.
// To any other message it does nothing.
func (s *suspects) clear(a *attempt) {
	if !a.suspect {
		return
	}
	a.suspect = false
	ctx, cancel := context.WithTimeout(context.Background(), clearTimeout)
	defer cancel()
	if err := s.rdb.Del(ctx, suspectKey(a.messageID)).Err(); err != nil {
		s.log.Warn().Err(err).Str("id", a.messageID).Msg("a message that came through is still counted as if it had killed its worker")
	}
	<-s.turn
}

// checkSuspect has a message that was taken from a dead worker go alone, and
// buries it, unread, when that went wrong too often.
func (p *pipeline) checkSuspect(ctx context.Context, a *attempt) *verdict {
	if tasks.Takeovers(a.taskID) == 0 {
		return nil
	}
	deaths, err := p.suspects.begin(ctx, a)
	switch {
	case ctx.Err() != nil: // its turn did not come
		return again(ReasonBusy, p.now().Add(time.Second), ctx.Err())
	case err != nil:
		return again(ReasonRedis, p.now().Add(time.Second), err)
	case deaths >= maxDeaths:
		return p.unreadable(a, ReasonKillsWorkers, tasks.ErrMalformed)
	}
	return nil
}
