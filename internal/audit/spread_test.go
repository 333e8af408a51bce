package audit

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// TestATaskIsFoundInWhateverQueueOfItsLane has producers spread over one, two and five
// queues, and workers take messages over in them; two messages are in no queue.
func TestATaskIsFoundInWhateverQueueOfItsLane(t *testing.T) {
	for name, rdb := range map[string]redis.UniversalClient{
		"one server":  redistest.Start(t).Client(),
		"three nodes": redistest.StartCluster(t).Client(),
	} {
		t.Run(name, func(t *testing.T) {
			s := newScene(t, rdb)
			const n = 5
			queues := tasks.Queues(provider, tasks.Interactive, n)
			for i := range 40 {
				m := s.recorded(time.Minute, time.Hour)
				s.enqueue(m, asynq.Queue(tasks.QueueOf(m.Provider, m.Lane, m.ID, []int{1, 2, n}[i%3])))
			}
			for _, queue := range queues {
				s.enqueue(s.recorded(time.Minute, time.Hour), asynq.Queue(queue))
				// Asked for by name, and found by a search.
				for _, took := range []string{"~2", "~17"} {
					m := s.recorded(time.Minute, time.Hour)
					s.enqueue(m, asynq.Queue(queue), asynq.TaskID(m.ID+took))
				}
			}
			lost, claimed := s.recorded(time.Minute, time.Hour), s.recorded(time.Minute, time.Hour)
			s.attempted(claimed, status.Deferred, "retry_later", "provider_error", s.now.Add(-30*time.Second))
			found, totals := s.audit(Options{})
			if diff := cmp.Diff(map[string][]Kind{lost.ID: {Stranded}, claimed.ID: {Stranded}}, found); diff != "" {
				t.Errorf("findings (-want +got):\n%s", diff)
			}
			if totals.Records != 57 || totals.Tasks.Pending != 55 {
				t.Errorf("%d records and %d tasks were seen, want 57 and 55", totals.Records, totals.Tasks.Pending)
			}
			_, err := Live(t.Context(), rdb, Options{Settle: time.Millisecond}, func(f Finding) error {
				if want := "none of the 5 queues of otpq:unimedbh:interactive has a task for it"; !strings.Contains(f.What, want) {
					t.Errorf("it says %q, want %q", f.What, want)
				}
				return nil
			})
			s.must(err)
		})
	}
}

// TestAQueueThatComesUpMeanwhileIsNoFinding has a producer spread over more queues
// after the audit has looked which there are.
func TestAQueueThatComesUpMeanwhileIsNoFinding(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newScene(t, server.Client())
	m := s.recorded(10*time.Second, time.Minute)
	looking := newScene(t, server.Client())
	hook := &between{do: func() { s.enqueue(m, asynq.Queue(tasks.Queues(provider, tasks.Interactive, 3)[2])) }}
	looking.rdb.AddHook(hook)
	if found, totals := looking.audit(Options{}); len(found) > 0 || totals.Tasks.Pending != 1 || !hook.done.Load() {
		t.Errorf("findings = %v in %+v, want none, and the task", found, totals)
	}
}

// TestQueuesOfTheConfigurationAreLookedThrough has Redis forget which queues there are.
func TestQueuesOfTheConfigurationAreLookedThrough(t *testing.T) {
	t.Parallel()
	s := newScene(t, redistest.Start(t).Client())
	queues := tasks.Queues(provider, tasks.Interactive, 3)
	for _, queue := range queues {
		s.enqueue(s.recorded(time.Minute, time.Hour), asynq.Queue(queue))
	}
	s.must(s.rdb.Del(t.Context(), "asynq:queues").Err())
	if found, totals := s.audit(Options{Queues: queues}); len(found) > 0 || totals.Tasks.Pending != 3 {
		t.Errorf("findings = %v, %d tasks; want none, and 3", found, totals.Tasks.Pending)
	}
}
