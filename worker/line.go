package worker

import (
	"slices"
	"time"
)

// waiter is a message in line. Whoever takes it out of the line answers it, once.
type waiter struct {
	end    time.Time // of its patience
	answer chan answer
}

// answer is a token, or when to ask again, or why that is not known.
type answer struct {
	again time.Time
	err   error
}

func (a answer) token() bool { return a.err == nil && a.again.IsZero() }

// line is who waits, the first in front.
type line []*waiter

// serve gives a token to each of the first n, and returns how many there were.
func (l *line) serve(n int) int {
	n = min(n, len(*l))
	for _, w := range (*l)[:n] {
		w.answer <- answer{}
	}
	*l = slices.Delete(*l, 0, n)
	return n
}

// dismiss answers all that match, and takes them out.
func (l *line) dismiss(match func(*waiter) bool, a answer) {
	*l = slices.DeleteFunc(*l, func(w *waiter) bool {
		if !match(w) {
			return false
		}
		w.answer <- a
		return true
	})
}

// remove takes w out, and reports whether it was in.
func (l *line) remove(w *waiter) bool {
	i := slices.Index(*l, w)
	if i < 0 {
		return false
	}
	*l = slices.Delete(*l, i, i+1)
	return true
}
