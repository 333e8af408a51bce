package asynqredis

import (
	"context"
	_ "embed"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/archived.lua
var archivedLua string

//go:embed lua/unarchive.lua
var unarchiveLua string

var (
	archivedScript  = redis.NewScript(archivedLua)
	unarchiveScript = redis.NewScript(unarchiveLua)
)

// Archived is an entry of a queue's archive.
type Archived struct {
	Queue, ID string
	// At is when it was archived.
	At time.Time
	// Message is the task as asynq has it in Redis, which [Decode] reads; empty
	// when there is no such task: asynq deletes some and leaves their ids.
	Message []byte
}

// ListArchived returns up to count entries of a queue's archive, the oldest first,
// after the first skip. It costs one round trip.
func ListArchived(ctx context.Context, rdb redis.UniversalClient, queue string, skip, count int) ([]Archived, error) {
	fields, err := archivedScript.Run(ctx, rdb, []string{key(queue, "archived")}, key(queue, "t:"), skip, count).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("list archived tasks of %s: %w", queue, err)
	}
	var out []Archived
	for ; len(fields) >= 3; fields = fields[3:] {
		a := Archived{Queue: queue, ID: fields[0], Message: []byte(fields[2])}
		if at, err := strconv.ParseFloat(fields[1], 64); err == nil {
			a.At = time.Unix(int64(at), 0)
		}
		out = append(out, a)
	}
	return out, nil
}

// Drop deletes the entry and its task. A task that somebody has brought back in the
// meantime stays. It may be repeated.
func (a Archived) Drop(ctx context.Context, rdb redis.UniversalClient) error {
	keys := []string{key(a.Queue, "archived"), key(a.Queue, "t:"+a.ID), key(a.Queue, "lease"), key(a.Queue, "active")}
	if err := unarchiveScript.Run(ctx, rdb, keys, a.ID).Err(); err != nil {
		return fmt.Errorf("delete archived task: %w", err)
	}
	return nil
}
