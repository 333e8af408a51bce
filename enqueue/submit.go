package enqueue

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/internal/redisscript"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

//go:embed lua/submit.lua
var submitLua string

var submitScript = redisscript.New(submitLua)

const (
	// submitCalls is how many calls the Sends of all callers together make at
	// once, and mostTogether how many messages go into one. Larger ones cost Redis
	// more for each message, because they outgrow its processor's caches, and keep
	// everybody else waiting: this many take half a millisecond.
	submitCalls  = 2
	mostTogether = 64
	// submitTime bounds a call for many Sends, each of which waits only as long
	// as its own ctx lets it.
	submitTime = 5 * time.Second
)

// item is one message on its way into Redis.
type item struct {
	// ctx is that of a Send: what nobody waits for any more is not queued.
	ctx       context.Context //nolint:containedctx // of a call, in what stands for the call
	m         tasks.Message
	recipient string
	who       string // the record's
	at        time.Time
	duplicate bool // what the record says of a possible duplicate
	kept      bool // not taken back when it fails: its sender repeats it

	// The message as Redis gets it.
	queue string
	msg   []byte
	seed  status.Seed
	keys  []string // of its idempotency key, if it has one
	own   string   // its reservation as it is written

	// isHeld is true when Redis says that the idempotency key is another's: held is
	// that one's reservation, and heldKey where it stands.
	isHeld        bool
	heldKey, held string

	receipt Receipt
	err     error
}

// payloads are buffers for what is in a message only to be copied.
var payloads = sync.Pool{New: func() any { return new([]byte) }}

// encode makes what Redis gets of the message.
func (c *Client) encode(it *item) error {
	kept, _ := payloads.Get().(*[]byte)
	defer payloads.Put(kept)
	payload, err := tasks.EncodeValid((*kept)[:0], c.keys, it.m)
	if err != nil {
		return err
	}
	*kept = payload
	it.queue = c.queueOf(it.m)
	task := asynqredis.Task{
		ID: it.m.ID, Type: tasks.TaskType, Queue: it.queue, Payload: payload, Headers: it.m.Trace,
		MaxRetry: tasks.MaxRetry, Timeout: tasks.TaskTimeout,
	}
	// What else is in it is short, but for a trace.
	if it.msg, err = task.AppendMessage(make([]byte, 0, len(payload)+128)); err != nil {
		return err
	}
	it.seed = c.store.Seed(it.record())
	return nil
}

func (it *item) record() status.Record {
	r := status.NewRecord(it.m, it.recipient)
	r.PossibleDuplicate, r.Who = it.duplicate, it.who
	if it.due() != "" {
		r.NextAttemptAt = it.at
	}
	return r
}

// due is when the task is to run, in Unix seconds, or "" for now.
func (it *item) due() string {
	if it.at.IsZero() || !it.at.After(it.m.CreatedAt) {
		return ""
	}
	return strconv.FormatInt(it.at.Unix(), 10)
}

// reservation is the item's own; once the message is queued it says so.
func (it *item) reservation(queued bool) reservation {
	return reservation{id: it.m.ID, queued: queued, lane: it.m.Lane, created: it.m.CreatedAt, notAfter: it.m.NotAfter}
}

func (it *item) unavailable(err error) { it.err = &UnavailableError{ID: it.m.ID, Err: err} }

// fresh is the receipt of a message that this call queued.
func (it *item) fresh() Receipt {
	return Receipt{ID: it.m.ID, State: status.Queued, NotAfter: it.m.NotAfter}
}

// submit writes records and queues tasks. A worker never meets a message whose app
// cannot read its status: they are written in one step, or one after the other.
// Both may be repeated: a message is recorded once and queued once however often.
//
// An item whose idempotency key is another's is held afterwards, and not queued.
func (c *Client) submit(ctx context.Context, items []*item) {
	if c.apart.Load() {
		c.submitApart(ctx, items)
		return
	}
	var calls []*call
	byShape := map[shape]*call{}
	for _, it := range items {
		s := shapeOf(it)
		l := byShape[s]
		if l == nil {
			l = &call{shape: s}
			byShape[s] = l
			calls = append(calls, l)
		}
		l.items = append(l.items, it)
	}
	for _, l := range calls {
		l.build(c.window)
	}
	scripts := make([]*redisscript.Call, len(calls))
	for i, l := range calls {
		scripts[i] = &l.script
	}
	redisscript.Run(ctx, c.rdb, scripts...)
	for _, l := range calls {
		answer, err := l.script.Cmd.Slice()
		switch {
		case redis.HasErrorPrefix(err, "CROSSSLOT"):
			// A cluster behind one address.
			c.apart.Store(true)
			c.submitApart(ctx, l.items)
		case err != nil:
			for _, it := range l.items {
				it.unavailable(fmt.Errorf("queue the message: %w", err))
			}
		default:
			l.hold(answer)
		}
	}
}

// shape is what the messages of one call have in common.
type shape struct {
	queue  string
	idems  int
	fields int
	// The record's rarer fields, by which those of one length are told apart.
	campaign, replayOf, duplicate bool
}

func shapeOf(it *item) shape {
	return shape{
		queue: it.queue, idems: len(it.keys), fields: len(it.seed.Fields),
		campaign: it.m.Campaign != "", replayOf: it.m.ReplayOf != "", duplicate: it.duplicate,
	}
}

// call is one run of submit.lua.
type call struct {
	shape
	items  []*item
	script redisscript.Call
}

// build makes the command for the messages, their records and their keys.
func (l *call) build(window time.Duration) {
	n, first := len(l.items), l.items[0].seed.Fields
	var shared, own []int // places of values
	for v := 1; v < len(first); v += 2 {
		same := true
		for _, it := range l.items[1:] {
			if it.seed.Fields[v] != first[v] {
				same = false
				break
			}
		}
		if same {
			shared = append(shared, v)
		} else {
			own = append(own, v)
		}
	}
	due := dueOf(l.items)
	args := submitScript.Begin(16 + 2*len(first) + n*(6+len(own)+l.idems))
	args = append(args, 3+n*(2+l.idems))
	args = l.appendTaskKeys(args)
	for _, it := range l.items {
		args = append(args, it.seed.Key)
	}
	if l.idems > 0 {
		for _, it := range l.items {
			for _, k := range it.keys {
				args = append(args, k)
			}
		}
	}
	args = append(args, asynqredis.QueuesKey)
	args = append(args, l.queue, time.Now().UnixNano(), n, l.idems, window.Milliseconds(), l.prefix(), due, len(shared), len(own))
	for _, v := range shared {
		args = append(args, first[v-1], first[v])
	}
	for _, v := range own {
		args = append(args, first[v-1])
	}
	for _, it := range l.items {
		args = append(args, it.msg, it.seed.Keep)
		for _, v := range own {
			args = append(args, it.seed.Fields[v])
		}
		if due == differs {
			args = append(args, it.due())
		}
		if l.idems > 0 {
			args = append(args, it.own)
		}
	}
	l.script = redisscript.Call{Script: submitScript, Args: args}
}

// buildTasks makes the command for the tasks alone.
func (l *call) buildTasks() {
	n := len(l.items)
	due := dueOf(l.items)
	args := append(submitScript.Begin(16+4*n), 2+n)
	args = l.appendTaskKeys(args)
	args = append(args, l.queue, time.Now().UnixNano(), n, 0, 0, l.prefix(), due, 0, 0)
	for _, it := range l.items {
		args = append(args, it.msg, 0)
		if due == differs {
			args = append(args, it.due())
		}
	}
	l.script = redisscript.Call{Script: submitScript, Args: args}
}

// prefix is how long the key of a task is before the task's id.
func (l *call) prefix() int { return len(asynqredis.TaskKey(l.queue, "")) }

// differs stands where one value is not all messages' own.
const differs = "?"

// dueOf is when all are due.
func dueOf(items []*item) string {
	due := items[0].due()
	for _, it := range items[1:] {
		if it.due() != due {
			return differs
		}
	}
	return due
}

func (l *call) appendTaskKeys(args []any) []any {
	args = append(args, asynqredis.PendingKey(l.queue), asynqredis.ScheduledKey(l.queue))
	for _, it := range l.items {
		args = append(args, asynqredis.TaskKey(l.queue, it.m.ID))
	}
	return args
}

var errAnswer = errors.New("queue the message: the script answered something else")

// hold notes whose idempotency keys are another's.
func (l *call) hold(answer []any) {
	for ; len(answer) >= 3; answer = answer[3:] {
		place, _ := answer[0].(int64)
		if place < 1 || int(place) > len(l.items) {
			for _, it := range l.items {
				it.unavailable(errAnswer)
			}
			return
		}
		it := l.items[place-1]
		it.heldKey, _ = answer[1].(string)
		it.held, _ = answer[2].(string)
		it.isHeld = it.held != it.own // or else it ran before, and its reply was lost
	}
}
