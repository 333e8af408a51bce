package asynqredis

import (
	"errors"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// QueuesKey is the set of all queues: what is not in it, no dashboard shows.
const QueuesKey = "asynq:queues"

// PendingKey is the list of a queue's tasks that may run, the next one last.
func PendingKey(queue string) string { return key(queue, "pending") }

// ScheduledKey is the set of a queue's tasks that wait for their time, by Unix
// second.
func ScheduledKey(queue string) string { return key(queue, "scheduled") }

// TaskKey is the hash of a task.
func TaskKey(queue, id string) string { return key(queue, "t:") + id }

// Task is a task to be enqueued, with those of asynq's options that otpq uses.
type Task struct {
	ID, Type, Queue string
	Payload         []byte
	Headers         map[string]string
	MaxRetry        int
	// Timeout is rounded down to whole seconds, and at least one.
	Timeout time.Duration
}

// The numbers of the fields in asynq's TaskMessage.
const (
	fieldType    = 1
	fieldPayload = 2
	fieldID      = 3
	fieldQueue   = 4
	fieldRetry   = 5
	fieldTimeout = 8
	fieldHeaders = 15

	entryName  = 1
	entryValue = 2
)

var errNotText = errors.New("encode task: its id, queue, type or headers are no UTF-8")

// AppendMessage appends to dst what asynq's own client writes for the task, which
// takes that client several times as long. It fails when a text is no UTF-8.
func (t Task) AppendMessage(dst []byte) ([]byte, error) {
	text := utf8.ValidString(t.Type) && utf8.ValidString(t.ID) && utf8.ValidString(t.Queue)
	dst = appendText(dst, fieldType, t.Type)
	if len(t.Payload) > 0 {
		dst = protowire.AppendTag(dst, fieldPayload, protowire.BytesType)
		dst = protowire.AppendBytes(dst, t.Payload)
	}
	dst = appendText(dst, fieldID, t.ID)
	dst = appendText(dst, fieldQueue, t.Queue)
	dst = appendNumber(dst, fieldRetry, int64(int32(t.MaxRetry))) //nolint:gosec // as asynq does
	dst = appendNumber(dst, fieldTimeout, int64(t.Timeout.Seconds()))
	for name, value := range t.Headers {
		text = text && utf8.ValidString(name) && utf8.ValidString(value)
		size := protowire.SizeTag(entryName) + protowire.SizeBytes(len(name)) + protowire.SizeTag(entryValue) + protowire.SizeBytes(len(value))
		dst = protowire.AppendTag(dst, fieldHeaders, protowire.BytesType)
		dst = protowire.AppendVarint(dst, uint64(size)) //nolint:gosec // a size is not negative
		// An entry has both its fields, empty or not.
		dst = protowire.AppendTag(dst, entryName, protowire.BytesType)
		dst = protowire.AppendString(dst, name)
		dst = protowire.AppendTag(dst, entryValue, protowire.BytesType)
		dst = protowire.AppendString(dst, value)
	}
	if !text {
		return nil, errNotText
	}
	return dst, nil
}

func appendText(dst []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, field, protowire.BytesType), s)
}

func appendNumber(dst []byte, field protowire.Number, n int64) []byte {
	if n == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), uint64(n)) //nolint:gosec // as protobuf has it
}
