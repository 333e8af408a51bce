// Package tasks is the wire contract between producers and workers: the
// message, how it is sealed, which queue it travels in and which versions of
// it can be read. It is not where messages are sent from or worked on.
package tasks

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/hibiken/asynq"
)

// Lane is one of a provider's two ways to be asked. Each has queues of its own.
type Lane string

const (
	// Interactive is for a person who is waiting for the code now.
	Interactive Lane = "interactive"
	// Bulk is for re-sends and campaigns; it never delays Interactive.
	Bulk Lane = "bulk"
)

// Lanes lists every lane, the more urgent first.
func Lanes() []Lane { return []Lane{Interactive, Bulk} }

// Valid reports whether l is one of [Lanes].
func (l Lane) Valid() bool { return l == Interactive || l == Bulk }

// Message is one code to be sent. It does not change once it is queued: what
// happens to it is kept in its status record.
type Message struct {
	ID       string
	Provider string
	Lane     Lane
	// Request is the vendor's documented JSON. It names a person, so it
	// travels sealed; so does IdempotencyKey, which apps build from names.
	Request        json.RawMessage
	IdempotencyKey string
	// CreatedAt and NotAfter have millisecond precision. No request for the
	// message starts at NotAfter or later.
	CreatedAt time.Time
	NotAfter  time.Time
	// MaxAttempts is the message's own attempt budget; zero leaves it to the
	// worker's configuration.
	MaxAttempts int
	// Campaign and ReplayOf link the message to where it came from.
	Campaign string
	ReplayOf string
	// Trace is the W3C trace context (traceparent, tracestate). It travels
	// as the task's headers.
	Trace map[string]string
}

// NewID returns a new message id: a UUID of version 7, so that ids sort by the
// time they were made.
func NewID() string { return uuid.Must(uuid.NewV7()).String() }

// TaskType is the asynq type of every otpq task. The version is inside the
// payload, so that a worker sees a newer version instead of "no handler".
const TaskType = "otpq:send"

const (
	// TaskTimeout is asynq's limit for one execution of a task. It lies under
	// the 30 s lease that asynq gives a dequeued task, because a handler that
	// outlives its lease runs twice; everything a worker does with a message
	// has to fit below it.
	TaskTimeout = 25 * time.Second

	// MaxRetry of a task is far away: asynq archives one that reached it without
	// asking anyone, and attempts are counted in the status record instead.
	MaxRetry = 1_000_000
)

// A message whose task was taken from a dead worker goes on as a task of another
// id, so that what the old one still does or says falls on nothing: the message's
// id, this mark, and how often that has happened.
const takenOver = "~"

// MessageID is the id of the message that a task stands for.
func MessageID(taskID string) string {
	id, _, _ := strings.Cut(taskID, takenOver)
	return id
}

// Takeovers is how often the message was taken from a dead worker before it
// became this task.
func Takeovers(taskID string) int {
	_, count, is := strings.Cut(taskID, takenOver)
	if !is {
		return 0
	}
	n, err := strconv.Atoi(count)
	if err != nil {
		return 0
	}
	return n
}

// TakeoverID is the id of the task that takes another's place.
func TakeoverID(taskID string) string {
	return MessageID(taskID) + takenOver + strconv.Itoa(Takeovers(taskID)+1)
}

// NewTask encodes m into the task to enqueue, with the options that every otpq
// task needs. The task id is the message id, so that enqueuing a message twice
// queues it once. It goes to the first queue of its lane; [asynq.Queue] names
// another, see [QueueOf].
func NewTask(keys *Keyring, m Message) (*asynq.Task, error) {
	payload, err := Encode(keys, m)
	if err != nil {
		return nil, err
	}
	return asynq.NewTaskWithHeaders(TaskType, payload, m.Trace,
		asynq.TaskID(m.ID),
		asynq.Queue(QueueName(m.Provider, m.Lane)),
		asynq.MaxRetry(MaxRetry),
		asynq.Timeout(TaskTimeout),
	), nil
}
