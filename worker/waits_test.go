package worker

import (
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func TestWhatADeadWorkerHeldWaitsForABreakerLikeAnyOther(t *testing.T) {
	r := newRig(t)
	f := always(providers.Retry(providers.ReasonProviderError, 0, nil))
	r.start(nil, f.config(func(pc *ProviderConfig) {
		pc.Breaker.ConsecutiveFailures = 1
		pc.Breaker.OpenFor = 10 * time.Minute
	}))
	first := r.send()
	r.await(first, "put off by the breaker", func(rec status.Record) bool { return rec.Reason == string(ReasonBreakerOpen) })

	queue := tasks.QueueName("unimedbh", tasks.Interactive)
	inspector := asynq.NewInspectorFromRedisClient(r.rdb)
	if err := inspector.PauseQueue(queue); err != nil {
		t.Fatal(err)
	}
	id := r.send()
	if _, err := r.store.Claim(t.Context(), status.Claim{Seed: r.get(id), Token: "dead/1", Now: time.Now(), AbandonedAfter: abandonedAfter}); err != nil {
		t.Fatal(err)
	}
	if err := r.store.Release(t.Context(), id, "dead"); err != nil {
		t.Fatal(err)
	}
	if err := inspector.UnpauseQueue(queue); err != nil {
		t.Fatal(err)
	}
	rec := r.awaitState(id, status.Deferred)
	if len(rec.Attempts) != 1 || rec.Attempts[0].Reason != string(ReasonWorkerLost) {
		t.Errorf("attempts = %+v, want the dead worker's alone, as lost", rec.Attempts)
	}
	if wait := time.Until(rec.NextAttemptAt); wait < time.Minute {
		t.Errorf("next attempt in %s, want it after the breaker", wait)
	}
}
