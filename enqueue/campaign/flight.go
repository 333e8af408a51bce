package campaign

import (
	"time"

	"github.com/otpq/otpq/status"
)

const (
	// A message in flight is looked at this long after it was queued, then again
	// after a quarter of its age, within these.
	soonest = 50 * time.Millisecond
	latest  = 2 * time.Second
)

// flying is a message in flight.
type flying struct {
	seenMessage
	since, next time.Time
	reason      string
}

// flight is all that a feeder has in flight, the oldest look first. It is for one
// goroutine.
type flight struct {
	queue   []flying
	head    int
	looking []flying // those that due has given
}

func (q *flight) len() int { return len(q.queue) - q.head + len(q.looking) }

func (q *flight) reset() { *q = flight{} }

func (q *flight) add(s seenMessage) {
	now := time.Now()
	q.queue = append(q.queue, flying{seenMessage: s, since: now, next: now.Add(soonest)})
}

// due gives up to n messages that are to be looked at; settle takes them back.
func (q *flight) due(now time.Time, n int) []seenMessage {
	if q.head > 4096 && q.head > len(q.queue)/2 {
		q.queue, q.head = append(q.queue[:0], q.queue[q.head:]...), 0
	}
	var out []seenMessage
	for passed := len(q.queue) - q.head; passed > 0 && len(out) < n; passed-- {
		m := q.queue[q.head]
		q.head++
		if m.next.After(now) {
			q.queue = append(q.queue, m)
			continue
		}
		q.looking = append(q.looking, m)
		out = append(out, m.seenMessage)
	}
	return out
}

// settle takes the messages back that due gave, with what was found of them, and
// returns those of which that is news.
func (q *flight) settle(now time.Time, results []result) []result {
	var news []result
	for i, m := range q.looking {
		r := results[i]
		if r.ended() {
			news = append(news, r)
			continue
		}
		// That one is queued is counted when it is noted, of all that were taken with it.
		if r.state != m.state && !(m.state == RowWaiting && r.state == string(status.Queued)) {
			news = append(news, r)
		}
		m.state, m.reason = r.state, r.reason
		m.next = now.Add(max(soonest, min(now.Sub(m.since)/4, latest)))
		q.queue = append(q.queue, m)
	}
	q.looking = q.looking[:0]
	return news
}
