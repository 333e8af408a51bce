package worker

import (
	"context"
	_ "embed"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/tasks"
)

const (
	// askTime bounds one request for tokens. Those who wait for it have their own
	// times to leave.
	askTime = 5 * time.Second
	// yieldGrace is for how long beyond its token's falling due bulk yields to an
	// interactive message, so that none slips in before the token is asked for.
	yieldGrace = 100 * time.Millisecond
	// longestStock is how long a token may lie here before it is used.
	longestStock = 10 * time.Millisecond
	// shortestRest is between two requests for tokens that were refused.
	shortestRest = time.Millisecond
)

//go:embed lua/tokens.lua
var tokensLua string

var tokensScript = redis.NewScript(tokensLua)

// RateLimit is how many requests a provider gets, from all workers together,
// in any Period. A Limit of zero is no limit.
type RateLimit struct {
	Limit  int
	Period time.Duration
}

// gcra turns the limit into a burst, and a rate of tokens in a Period, that never
// let more than Limit requests into any window of one Period: those of the burst,
// those that come back within the period, and those that came back before it and
// lay in stock. A burst of one alone would do, but then each request waits for a
// round trip to Redis; two in a hundred are enough for many to share one, and are
// taken off the rate.
func (l RateLimit) gcra() (rate, burst int) {
	burst = 1 + l.Limit/50
	rate = l.Limit - (burst - 1)
	if keeps := float64(l.stock()); keeps > 0 {
		rate -= int(math.Ceil(float64(rate) * keeps / (float64(l.Period) + keeps)))
	}
	return rate, burst
}

// stock is how long a token may lie in a process before it is used. Small limits
// have none: so few would be in it that they change nothing.
func (l RateLimit) stock() time.Duration {
	if l.Limit < 1000 {
		return 0
	}
	return min(l.Period/100, longestStock)
}

// limiter shares one provider's send budget between all workers, interactive
// messages first. Those that wait for it in this process ask together: one request
// is under way at a time, and who comes meanwhile is in the next. While the limit
// is far from binding, a request also brings what the next few milliseconds are
// likely to want, so that most messages wait for nothing. What is not used by then
// is lost: it would come into another window than the one it was counted in.
type limiter struct {
	rdb   redis.UniversalClient
	limit RateLimit
	key   string
	self  string // names this process to the others
	// pausedUntil is when the provider's own 429 allows the next request, in
	// Unix nanoseconds.
	pausedUntil atomic.Int64

	mu                sync.Mutex
	interactive, bulk line
	stock             int       // tokens for who comes next, when nobody waits
	stockEnds         time.Time // when they are lost
	used              int       // tokens since asked
	asked             time.Time
	asking            bool          // a goroutine asks for those in line
	wake              chan struct{} // closed to end its rest, and nil then
}

func newLimiter(rdb redis.UniversalClient, provider string, limit RateLimit) *limiter {
	return &limiter{rdb: rdb, limit: limit, key: "otpq:limit:" + provider, self: uuid.NewString()}
}

// pause stops the provider's requests in this process for d: the provider said
// that it has had enough.
func (l *limiter) pause(now time.Time, d time.Duration) {
	until := now.Add(d).UnixNano()
	for {
		old := l.pausedUntil.Load()
		if old >= until || l.pausedUntil.CompareAndSwap(old, until) {
			return
		}
	}
}

// mayWait reports whether a message may have to wait for the right to its request.
func (l *limiter) mayWait() bool { return l.limit.Limit > 0 || l.pauseLeft() > 0 }

// take waits up to hold for the right to make one request. It returns the zero
// time with that right, and otherwise when to ask again.
func (l *limiter) take(ctx context.Context, lane tasks.Lane, hold time.Duration) (retry time.Time, err error) {
	if !l.mayWait() {
		return time.Time{}, nil
	}
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	if l.takeStock() {
		return time.Time{}, nil
	}
	w := &waiter{end: time.Now().Add(hold), answer: make(chan answer, 1)}
	l.join(lane, w)
	timer := time.NewTimer(hold)
	defer timer.Stop()
	var a answer
	select {
	case a = <-w.answer:
	case <-timer.C:
		if l.leave(lane, w) {
			return w.end.Add(l.interval()), nil
		}
		a = <-w.answer
	case <-ctx.Done():
		if l.leave(lane, w) {
			return time.Time{}, ctx.Err()
		}
		a = <-w.answer
	}
	if err := ctx.Err(); err != nil {
		if a.token() {
			l.passOn()
		}
		return time.Time{}, err
	}
	return a.again, a.err
}

// takeStock takes a token without asking for it.
func (l *limiter) takeStock() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stock == 0 || l.pauseLeft() > 0 || !time.Now().Before(l.stockEnds) {
		return false
	}
	l.stock--
	l.used++
	return true
}

func (l *limiter) join(lane tasks.Lane, w *waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lane == tasks.Interactive && len(l.interactive) == 0 {
		l.wakeUp() // from a rest that only bulk needs: this one may have its token now
	}
	line := l.lineOf(lane)
	*line = append(*line, w)
	if !l.asking {
		l.asking = true
		go l.ask()
	}
}

// leave takes w out of its line. It fails when w is out already: then it has its
// answer.
func (l *limiter) leave(lane tasks.Lane, w *waiter) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.lineOf(lane).remove(w)
	if len(l.interactive)+len(l.bulk) == 0 {
		l.wakeUp()
	}
	return left
}

// passOn gives the token of one that has left to the next in line. When there is
// nobody it is lost: nobody waits for it, and to give it back to Redis could let
// two into its place.
func (l *limiter) passOn() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.handOut(1)
}

// ask asks for all in line until there is nobody.
func (l *limiter) ask() {
	for {
		d, ok := l.next()
		if !ok {
			return
		}
		g, err := l.request(d)
		rest, wake := l.settle(d, g, err)
		if rest == 0 {
			continue
		}
		timer := time.NewTimer(rest)
		select {
		case <-timer.C:
		case <-wake:
		}
		timer.Stop()
	}
}

// demand is how many wait for a token, and how many more are likely to.
type demand struct {
	interactive, bulk, more int
	at                      time.Time
}

// next returns what to ask for, or ends the goroutine that asks.
func (l *limiter) next() (demand, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	d := demand{interactive: len(l.interactive), bulk: len(l.bulk), at: time.Now()}
	if d.interactive+d.bulk == 0 {
		l.asking = false
		return demand{}, false
	}
	if keeps := l.limit.stock(); keeps > 0 {
		// As many as in the time before, if that was no longer.
		d.more = int(int64(l.used) * int64(keeps) / int64(max(keeps, d.at.Sub(l.asked))))
	}
	l.used, l.asked = 0, d.at
	return d, true
}

// grant is what a request for tokens brought.
type grant struct {
	interactive, bulk, more int
	wait                    time.Duration // until more may be had; zero when no one was refused
}

// request asks Redis for tokens.
func (l *limiter) request(d demand) (grant, error) {
	if left := l.pauseLeft(); left > 0 {
		return grant{wait: left}, nil
	}
	if l.limit.Limit <= 0 {
		return grant{interactive: d.interactive, bulk: d.bulk}, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), askTime)
	defer cancel()
	rate, burst := l.limit.gcra()
	reply, err := tokensScript.Run(ctx, l.rdb, []string{l.key}, rate, l.limit.Period.Microseconds(), burst,
		d.interactive, d.bulk, l.self, yieldGrace.Microseconds(), d.more).Int64Slice()
	if err != nil {
		return grant{}, fmt.Errorf("ask the rate limit: %w", err)
	}
	g := grant{interactive: int(reply[0]), bulk: int(reply[1]), more: int(reply[3])}
	if reply[2] > 0 {
		g.wait = max(time.Duration(reply[2])*time.Microsecond, shortestRest)
	}
	return g, nil
}

// settle answers those in line whom g, or err, gives an answer, and returns how
// long to rest before the next request, and what ends the rest before its time.
func (l *limiter) settle(d demand, g grant, err error) (rest time.Duration, wake <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.interactive.dismiss(func(*waiter) bool { return true }, answer{err: err})
		l.bulk.dismiss(func(*waiter) bool { return true }, answer{err: err})
		return 0, nil
	}
	l.stock = l.handOut(g.interactive + g.bulk + g.more)
	l.stockEnds = d.at.Add(l.limit.stock())
	if g.wait == 0 {
		return 0, nil
	}
	again := time.Now().Add(g.wait)
	tooLate := func(w *waiter) bool { return again.After(w.end) }
	l.bulk.dismiss(tooLate, answer{again: again})
	if g.interactive < d.interactive {
		l.interactive.dismiss(tooLate, answer{again: again})
	} else if len(l.interactive) > 0 {
		return 0, nil // who came meanwhile was not asked for, and goes before bulk
	}
	if len(l.interactive)+len(l.bulk) == 0 {
		return 0, nil
	}
	l.wake = make(chan struct{})
	return g.wait, l.wake
}

// handOut gives n tokens to the first in line, and returns how many are left. Its
// caller holds the lock.
func (l *limiter) handOut(n int) (left int) {
	left = n - l.interactive.serve(n)
	left -= l.bulk.serve(left)
	l.used += n - left
	return left
}

// wakeUp ends the rest before the next request. Its caller holds the lock.
func (l *limiter) wakeUp() {
	if l.wake != nil {
		close(l.wake)
		l.wake = nil
	}
}

func (l *limiter) lineOf(lane tasks.Lane) *line {
	if lane == tasks.Interactive {
		return &l.interactive
	}
	return &l.bulk
}

// interval is the mean time between two tokens.
func (l *limiter) interval() time.Duration {
	if l.limit.Limit <= 0 {
		return time.Second
	}
	return max(l.limit.Period/time.Duration(l.limit.Limit), time.Millisecond)
}

func (l *limiter) pauseLeft() time.Duration {
	until := l.pausedUntil.Load()
	if until == 0 {
		return 0
	}
	return max(0, time.Until(time.Unix(0, until)))
}
