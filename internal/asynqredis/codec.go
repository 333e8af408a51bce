package asynqredis

import (
	"context"
	"errors"
	"fmt"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
)

// errNoTask is of bytes that asynq can read and that are not a task of its own: it
// makes none without an id, a type and a queue.
var errNoTask = errors.New("the message of this task names no id, no type or no queue")

// Decode reads a message as asynq keeps it in Redis. asynq's own code does it,
// on a Redis that answers with nothing but that message.
func Decode(msg []byte) (*asynq.TaskInfo, error) {
	info, err := asynq.NewInspectorFromRedisClient(onlyMessage{msg: string(msg)}).GetTaskInfo("any", "any")
	if err != nil {
		return nil, fmt.Errorf("asynq cannot read the message of this task: %w", err)
	}
	if info.ID == "" || info.Type == "" || info.Queue == "" {
		return nil, errNoTask
	}
	return info, nil
}

// onlyMessage is a Redis that has one task.
type onlyMessage struct {
	redis.UniversalClient
	msg string
}

func (m onlyMessage) SIsMember(ctx context.Context, _ string, _ any) *redis.BoolCmd {
	cmd := redis.NewBoolCmd(ctx)
	cmd.SetVal(true)
	return cmd
}

func (m onlyMessage) EvalSha(ctx context.Context, _ string, _ []string, _ ...any) *redis.Cmd {
	cmd := redis.NewCmd(ctx)
	cmd.SetVal([]any{m.msg, "active", int64(0), ""})
	return cmd
}

// encode writes a task as asynq keeps it in Redis, under another id.
func encode(task *asynq.TaskInfo, id string) ([]byte, error) {
	r := &recorder{}
	_, err := asynq.NewClientFromRedisClient(r).Enqueue(
		asynq.NewTaskWithHeaders(task.Type, task.Payload, task.Headers),
		asynq.TaskID(id), asynq.Queue(task.Queue), asynq.MaxRetry(task.MaxRetry), asynq.Timeout(task.Timeout),
	)
	if err == nil && r.msg == nil {
		err = errors.New("asynq wrote no message")
	}
	if err != nil {
		return nil, fmt.Errorf("encode task: %w", err)
	}
	return r.msg, nil
}

// recorder is a Redis that keeps the message which asynq enqueues.
type recorder struct {
	redis.UniversalClient
	msg []byte
}

func (r *recorder) SAdd(ctx context.Context, _ string, _ ...any) *redis.IntCmd {
	return redis.NewIntCmd(ctx)
}

func (r *recorder) EvalSha(ctx context.Context, _ string, _ []string, args ...any) *redis.Cmd {
	r.msg, _ = args[0].([]byte)
	cmd := redis.NewCmd(ctx)
	cmd.SetVal(int64(1))
	return cmd
}
