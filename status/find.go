package status

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisscript"
)

const (
	// findStep is how many keys are looked at at once: Redis is held up for a fraction of
	// a millisecond.
	findStep = 500
	// findRecords is after how many records that it found a call ends.
	findRecords = 100
)

// ErrSearchLost means that a search cannot go on where it was: Redis was started anew,
// or a cluster has other nodes. Begin again.
var ErrSearchLost = errors.New("the search cannot go on: Redis was started anew, or its nodes are others; begin again")

// Found is what one call of [Redis.FindRecipient] found.
type Found struct {
	// Records are the newest first.
	Records []Record
	// Looked is how many records were looked at.
	Looked int
	// Next is where to go on; empty when all were looked at.
	Next string
}

// FindRecipient looks at the records among about so many keys in Redis for those whose
// [Record] Who is one of prints. from is empty, or the Next of the call before; calls
// that go on until Next is empty find every record that was there all the while, now
// and then one twice. There is no index to ask: each message would pay for it, and few
// are ever looked for.
//
// When ctx ends it returns what it has found until then. It fails when it got nowhere,
// and with [ErrSearchLost].
func (s *Redis) FindRecipient(ctx context.Context, prints []string, from string, keys int) (Found, error) {
	nodes, err := s.searched(ctx)
	if err != nil {
		return Found{}, err
	}
	at, err := parsePlace(from, nodes)
	if err != nil {
		return Found{}, err
	}
	wanted := map[string]bool{}
	for _, p := range prints {
		if p != "" { // a record without one is nobody's
			wanted[p] = true
		}
	}
	var found Found
	seen := map[string]bool{}
	for step := range (keys + findStep - 1) / findStep {
		records, looked, next, err := s.findStep(ctx, nodes[at.node].rdb, wanted, at.cursor)
		if err != nil && ctx.Err() != nil && step > 0 {
			break
		}
		if err != nil {
			return Found{}, err
		}
		found.Looked += looked
		for _, r := range records {
			if !seen[r.ID] { // SCAN may name a key again
				seen[r.ID] = true
				found.Records = append(found.Records, r)
			}
		}
		at.cursor = next
		if next == 0 {
			at.node++
		}
		if at.node == len(nodes) || len(found.Records) >= findRecords {
			break
		}
	}
	if at.node < len(nodes) {
		found.Next = at.String()
	}
	slices.SortFunc(found.Records, func(a, b Record) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), strings.Compare(b.ID, a.ID))
	})
	return found, nil
}

// findStep looks at the keys that one SCAN names.
func (s *Redis) findStep(ctx context.Context, node redis.Cmdable, wanted map[string]bool, cursor uint64) (records []Record, looked int, next uint64, err error) {
	// A node's SCAN names its own keys; they are read through s.rdb, which follows a
	// key that moves to another.
	keys, next, err := node.Scan(ctx, cursor, recordKey("*"), findStep).Result()
	if err != nil {
		return nil, 0, 0, fmt.Errorf("search records: %w", err)
	}
	mades := make([]*redis.StringCmd, len(keys))
	redisscript.Pipelined(ctx, s.rdb, func(p redis.Pipeliner) {
		for i, key := range keys {
			mades[i] = p.HGet(ctx, key, madeField)
		}
	})
	for i, cmd := range mades {
		value, err := cmd.Result()
		if err != nil && err != redis.Nil && !isWrongType(err) { //nolint:errorlint // a command returns it as it is
			return nil, 0, 0, fmt.Errorf("search records: %w", err)
		}
		if !wanted[decodeMade(value).who] {
			continue
		}
		r, err := s.Get(ctx, strings.TrimPrefix(keys[i], recordKey("")))
		switch {
		case err == nil && wanted[r.Who]:
			records = append(records, r)
		case IsUnreachable(err):
			return nil, 0, 0, err
		}
	}
	return records, len(keys), next, nil
}

// isWrongType reports whether a key is no record, but something else of its name.
func isWrongType(err error) bool { return redis.HasErrorPrefix(err, "WRONGTYPE") }

// node is a Redis that holds keys, and which run of it: a SCAN goes on in the same run
// only.
type node struct {
	rdb redis.Cmdable
	run string
}

// searched are the nodes that hold keys, always in the same order.
func (s *Redis) searched(ctx context.Context) ([]node, error) {
	var mu sync.Mutex
	var nodes []node
	add := func(ctx context.Context, rdb redis.Cmdable) error {
		run, err := runOf(ctx, rdb)
		mu.Lock()
		defer mu.Unlock()
		nodes = append(nodes, node{rdb, run})
		return err
	}
	var err error
	if cluster, ok := s.rdb.(*redis.ClusterClient); ok {
		err = cluster.ForEachMaster(ctx, func(ctx context.Context, rdb *redis.Client) error { return add(ctx, rdb) })
	} else {
		err = add(ctx, s.rdb)
	}
	if err != nil {
		return nil, fmt.Errorf("find the nodes to search: %w", err)
	}
	slices.SortFunc(nodes, func(a, b node) int { return strings.Compare(a.run, b.run) })
	return nodes, nil
}

// runOf returns what a Redis calls its run; empty when it does not say.
func runOf(ctx context.Context, rdb redis.Cmdable) (string, error) {
	info, err := rdb.Info(ctx, "server").Result()
	var refused redis.Error
	if errors.As(err, &refused) {
		return "", nil // one that is only like Redis
	}
	for line := range strings.Lines(info) {
		if run, ok := strings.CutPrefix(line, "run_id:"); ok {
			return strings.TrimSpace(run), nil
		}
	}
	return "", err
}

// searchPlace is where a search is: at a cursor of one of the nodes of which all tells.
type searchPlace struct {
	all    string
	node   int
	cursor uint64
}

func (p searchPlace) String() string {
	return p.all + "." + strconv.Itoa(p.node) + "." + strconv.FormatUint(p.cursor, 10)
}

// parsePlace reads what String wrote, for the same nodes.
func parsePlace(text string, nodes []node) (searchPlace, error) {
	h := fnv.New64a()
	for _, n := range nodes {
		_, _ = h.Write([]byte(n.run + "\n")) // never fails
	}
	p := searchPlace{all: strconv.FormatUint(h.Sum64(), 36)}
	if text == "" {
		return p, nil
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 || parts[0] != p.all {
		return p, ErrSearchLost
	}
	var nodeErr, cursorErr error
	p.node, nodeErr = strconv.Atoi(parts[1])
	p.cursor, cursorErr = strconv.ParseUint(parts[2], 10, 64)
	if nodeErr != nil || cursorErr != nil || p.node < 0 || p.node >= len(nodes) {
		return p, ErrSearchLost
	}
	return p, nil
}
