package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/otpq/otpq/tasks"
)

// TestAWorkerWithADeadLaneIsNotHealthy stops one lane's loops under a worker that
// goes on.
func TestAWorkerWithADeadLaneIsNotHealthy(t *testing.T) {
	r := newRig(t)
	w, _ := r.start(nil, always(accepted).config())
	w.laneStill = 3 * time.Second
	eventually(t, func() bool { return w.Healthy() == nil }, func() string { return "a new worker is not healthy: " + w.Healthy().Error() })
	w.served.all()[0].server.Shutdown()
	queue := tasks.QueueName("unimedbh", tasks.Interactive)
	eventually(t, func() bool { return w.Healthy() != nil }, func() string { return "the worker never said that its lane is dead" })
	if err := w.Healthy(); !strings.Contains(err.Error(), "lane "+queue) || strings.Contains(err.Error(), string(tasks.Bulk)) {
		t.Errorf("Healthy() = %v, want it to name %s alone", err, queue)
	}
}

// TestABusyLaneIsHealthy has every slot taken for a while.
func TestABusyLaneIsHealthy(t *testing.T) {
	r := newRig(t)
	w, _ := r.start(nil, hanging().config(func(pc *ProviderConfig) { pc.Concurrency[tasks.Interactive] = 1 }))
	r.send()
	r.send()
	busy := time.NewTimer(3 * time.Second)
	defer busy.Stop()
	for done := false; !done; {
		select {
		case <-busy.C:
			done = true
		case <-time.After(50 * time.Millisecond):
		}
		if err := w.Healthy(); err != nil && !strings.Contains(err.Error(), "has not started") {
			t.Fatalf("Healthy() = %v", err)
		}
	}
}

// TestStoppedLoopsAreNamed looks at each loop that a worker has.
func TestStoppedLoopsAreNamed(t *testing.T) {
	r := newRig(t)
	w, stop := r.start(nil, always(accepted).config())
	eventually(t, func() bool { return w.Healthy() == nil }, func() string { return "a new worker is not healthy" })
	stop()
	long := time.Now().Add(-time.Hour).UnixNano()
	w.presence.lastTurn.Store(long)
	w.recovery.lastTurn.Store(long)
	err := w.Healthy()
	for _, want := range []string{"heartbeat", "recovery"} {
		if err == nil || !strings.Contains(err.Error(), want+" last turned 1h") {
			t.Errorf("Healthy() = %v, want it to name the %s", err, want)
		}
	}
}
