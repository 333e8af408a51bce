package worker

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// keysAsked notes the first key of each script, in order.
type keysAsked struct {
	passHook
	mu   sync.Mutex
	keys []string
}

func (k *keysAsked) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); strings.HasPrefix(cmd.Name(), "eval") && len(args) > 3 {
			key, _ := args[3].(string)
			k.mu.Lock()
			k.keys = append(k.keys, key)
			k.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}

// TestAWorkerIsHeardOfBeforeItTakesAnything looks at the order: what a worker holds
// that nobody has heard of is taken for orphaned.
func TestAWorkerIsHeardOfBeforeItTakesAnything(t *testing.T) {
	r := newRig(t)
	asked := &keysAsked{}
	r.startOn(r.newClient(), asked, nil, always(accepted).config())
	r.awaitState(r.send(), status.Accepted)
	asked.mu.Lock()
	defer asked.mu.Unlock()
	if len(asked.keys) == 0 || asked.keys[0] != workersKey {
		t.Errorf("the first scripts are for %q, want %s first", asked.keys[:min(3, len(asked.keys))], workersKey)
	}
}

// TestALostAttemptIsMadeAgainWithoutABackOff has waited for its worker's death to be
// noticed already.
func TestALostAttemptIsMadeAgainWithoutABackOff(t *testing.T) {
	now := time.Now()
	p := &pipeline{now: func() time.Time { return now }}
	p.cfg.Retry = Retry{MaxAttempts: 5, Initial: time.Hour, Max: time.Hour}
	a := &attempt{message: tasks.Message{NotAfter: now.Add(24 * time.Hour)}, claimed: status.Claimed{Attempt: 1}}
	for range 10 {
		v := p.classify(a, providers.Unknown(ReasonWorkerLost, nil))
		if wait := v.next.Sub(now); v.state != status.Deferred || wait > time.Second {
			t.Fatalf("classify() = %s in %s, want deferred for a second at most", v.state, wait)
		}
	}
}
