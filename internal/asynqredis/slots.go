package asynqredis

import (
	"slices"
	"sync"
	"time"
)

// Slots bounds how many tasks a process works on at once from all the queues that
// share it. A task is taken from Redis only when there is a slot for it, so none
// waits in this process for another queue's to end, and a queue that has much to do
// uses what the others do not need. It is safe for concurrent use.
type Slots struct {
	size int

	mu     sync.Mutex
	queues int
	used   int // of tasks that were taken and have not ended, and of those being taken
	// line are the queues that wait for a slot, the first one first. One is called
	// at a time, and takes what has come free by then: a task each, as they come
	// free, would be a round trip each.
	line   []chan struct{}
	called bool // and has not come yet
}

// NewSlots makes so many slots, for [Hook.ServeWith].
func NewSlots(size int) *Slots { return &Slots{size: size} }

func (s *Slots) join() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queues++
}

// portion is how many of the free slots one queue may take at a time. They are its
// own while it asks Redis: a node that hangs holds up no more than its queues' share.
func (s *Slots) portion() int {
	share := (s.size + s.queues - 1) / s.queues
	return min(s.size-s.used, share, mostAhead)
}

// take takes a portion of the free slots. When there is none it waits for one, in
// line; a 0 means that none came in [holdTime], or stop did.
func (s *Slots) take(stop <-chan struct{}) int {
	s.mu.Lock()
	n := s.portion()
	if s.queues == 1 {
		// asynq asks, so one is free: of a task whose lease it lost it says nothing.
		n = max(n, 1)
	}
	if n > 0 && !s.called {
		s.used += n
		s.mu.Unlock()
		return n
	}
	turn := make(chan struct{}, 1)
	s.line = append(s.line, turn)
	s.mu.Unlock()

	timer := time.NewTimer(holdTime)
	defer timer.Stop()
	select {
	case <-turn:
	case <-timer.C:
	case <-stop:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if i := slices.Index(s.line, turn); i >= 0 {
		s.line = slices.Delete(s.line, i, i+1)
		return 0
	}
	n = s.portion() // one at least: nobody else takes while one is called
	s.used += n
	s.called = false
	s.callNext()
	return n
}

// give gives slots back.
func (s *Slots) give(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
	s.callNext()
}

func (s *Slots) callNext() {
	if s.called || len(s.line) == 0 || s.used >= s.size {
		return
	}
	s.line[0] <- struct{}{}
	s.line, s.called = s.line[1:], true
}

// alone reports whether the slots are an only queue's.
func (s *Slots) alone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queues == 1
}

// overdrawn reports whether an only queue takes a slot though all are taken.
func (s *Slots) overdrawn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.queues == 1 && s.used >= s.size
}

// lanes are the queues of a [Hook], by name. One may be added while others are
// worked on.
type lanes struct {
	mu     sync.RWMutex
	byName map[string]*lane
}

func (l *lanes) add(queue *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.byName == nil {
		l.byName = map[string]*lane{}
	}
	l.byName[queue.queue] = queue
}

// get returns nil for a queue that is not served.
func (l *lanes) get(queue string) *lane {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.byName[queue]
}

func (l *lanes) all() []*lane {
	l.mu.RLock()
	defer l.mu.RUnlock()
	out := make([]*lane, 0, len(l.byName))
	for _, queue := range l.byName {
		out = append(out, queue)
	}
	return out
}
