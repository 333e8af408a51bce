package worker

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/otpq/otpq/providers"
)

const (
	// memorySpan is how long a worker remembers what became of an attempt. A
	// Redis that lost its last second, or two, brings a message back as soon as
	// it is up again, or when its lease ends.
	memorySpan = 3 * time.Minute
	// memorySize bounds how many attempts are remembered, at some 250 bytes each.
	memorySize = 100_000
)

// memory is what this process knows of its own attempts, whatever Redis says. A
// Redis that crashed under `appendfsync everysec`, or failed over, has forgotten
// its last writes: it hands out attempts that were made, and claims that are held.
// memory keeps this process from making them again. It is shared by all lanes and
// safe for concurrent use.
type memory struct {
	mu       sync.Mutex
	inFlight map[string]string // the task, by message
	done     map[fingerprint]remembered
	order    []moment // the oldest first
}

// fingerprint stands for the id of a message that is not in hand any more: the id
// itself is a part of the text that it was read from, the whole message, which would
// stay in memory with it.
type fingerprint [16]byte

func fingerprintOf(id string) fingerprint {
	sum := sha256.Sum256([]byte(id))
	return fingerprint(sum[:16])
}

// remembered is one attempt and what became of it.
type remembered struct {
	attempt int
	outcome providers.Outcome
	took    time.Duration
	sentAt  time.Time
}

// moment is when an attempt began.
type moment struct {
	message fingerprint
	sentAt  time.Time
}

func newMemory() *memory {
	return &memory{inFlight: map[string]string{}, done: map[fingerprint]remembered{}}
}

// begin notes that an execution works on a message. It reports false when
// another one of this process does.
func (m *memory) begin(message, task string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, busy := m.inFlight[message]; busy {
		return false
	}
	m.inFlight[message] = task
	return true
}

// working reports whether an execution works on this very task.
func (m *memory) working(message, task string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now, busy := m.inFlight[message]
	return busy && now == task
}

// end notes that the execution is over.
func (m *memory) end(message string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.inFlight, message)
}

// remember notes what became of an attempt at a message.
func (m *memory) remember(id string, r remembered) {
	message := fingerprintOf(id)
	m.mu.Lock()
	defer m.mu.Unlock()
	r.outcome.Err = nil // for the log, which has it
	m.done[message] = r
	m.order = append(m.order, moment{message, r.sentAt})
	oldest := r.sentAt.Add(-memorySpan)
	for len(m.order) > memorySize || m.order[0].sentAt.Before(oldest) {
		first := m.order[0]
		m.order = m.order[1:]
		if m.done[first.message].sentAt.Equal(first.sentAt) { // and not of a later attempt
			delete(m.done, first.message)
		}
	}
}

// recall returns what became of an attempt that was made, or of a later one.
func (m *memory) recall(id string, attempt int) (remembered, bool) {
	message := fingerprintOf(id)
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.done[message]
	return r, ok && r.attempt >= attempt
}
