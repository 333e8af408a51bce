package status

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed lua/first.lua
var firstLua string

//go:embed lua/unclaim.lua
var unclaimLua string

var unclaimScript = redis.NewScript(unclaimLua)

// FirstClaims is a [Store] that can claim the first attempt at a message in the same
// step in Redis in which its task is taken from its queue: a round trip less before
// the request. What it does not claim so, Claim does.
type FirstClaims interface {
	// FirstClaimLua defines ride(id, now, told); see asynqredis.Rider. The messages
	// that it claims stand as after a Claim that answered [ClaimedNow], attempt 1.
	FirstClaimLua() string
	// FirstClaim returns what that function is told: the claims get the token, which
	// is like that of a [Claim].
	FirstClaim(token string) []any
}

var _ FirstClaims = (*Redis)(nil)

// FirstClaimLua implements [FirstClaims].
func (s *Redis) FirstClaimLua() string { return recordLua + firstLua }

// FirstClaim implements [FirstClaims]. On a cluster, where a record is not where its
// task is, there is none.
func (s *Redis) FirstClaim(token string) []any {
	if s.scripts.group == nil {
		return nil
	}
	return []any{token, recordKey("")}
}

// Unclaim implements [Store].
func (s *Redis) Unclaim(ctx context.Context, id string, now time.Time, tokens ...string) error {
	args := []any{now.UnixMilli()}
	for _, token := range tokens {
		args = append(args, token)
	}
	if err := unclaimScript.Run(ctx, s.rdb, []string{recordKey(id)}, args...).Err(); err != nil {
		return fmt.Errorf("take back the claim: %w", err)
	}
	return nil
}
