package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

const provider = "unimedbh"

// person is masked in a record and sealed in its payload; no finding holds
// either.
const person = "m***@***.com"

// scene is a Redis with what apps and workers have left in it.
type scene struct {
	*testing.T
	rdb   redis.UniversalClient
	store *status.Redis
	keys  *tasks.Keyring
	queue *asynq.Client
	tasks *asynq.Inspector
	now   time.Time
}

func newScene(t *testing.T, rdb redis.UniversalClient) *scene {
	t.Helper()
	keys, err := tasks.NewKeyring(tasks.Key{ID: "k", Secret: tasks.GenerateSecret()})
	if err != nil {
		t.Fatal(err)
	}
	return &scene{
		T: t, rdb: rdb, store: status.NewRedis(rdb, status.Retention{}), keys: keys,
		queue: asynq.NewClientFromRedisClient(rdb), tasks: asynq.NewInspectorFromRedisClient(rdb),
		now: time.Now().UTC().Truncate(time.Millisecond),
	}
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// recorded writes a message's record, made so long ago, and no task.
func (s *scene) recorded(age, validity time.Duration) tasks.Message {
	s.Helper()
	created := s.now.Add(-age)
	m := tasks.Message{
		ID: tasks.NewID(), Provider: provider, Lane: tasks.Interactive, Request: json.RawMessage(`{"username":"x"}`),
		CreatedAt: created, NotAfter: created.Add(validity),
	}
	s.must(s.store.Create(s.Context(), status.NewRecord(m, person)))
	return m
}

// queued writes a record and queues its task.
func (s *scene) queued(age, validity time.Duration, opts ...asynq.Option) tasks.Message {
	s.Helper()
	m := s.recorded(age, validity)
	s.enqueue(m, opts...)
	return m
}

func (s *scene) enqueue(m tasks.Message, opts ...asynq.Option) {
	s.Helper()
	task, err := tasks.NewTask(s.keys, m)
	s.must(err)
	_, err = s.queue.Enqueue(task, opts...)
	s.must(err)
}

func (s *scene) claim(m tasks.Message, at time.Time) status.Claimed {
	s.Helper()
	c, err := s.store.Claim(s.Context(), status.Claim{
		Seed: status.NewRecord(m, person), Token: "w/1", Now: at, AbandonedAfter: time.Hour,
	})
	s.must(err)
	return c
}

// attempted makes one attempt at a message.
func (s *scene) attempted(m tasks.Message, to status.State, outcome, reason string, at time.Time) {
	s.Helper()
	c := s.claim(m, at)
	s.must(s.store.Finish(s.Context(), status.Finish{
		ID: m.ID, Provider: provider, Token: "w/1", State: to, Reason: reason, Now: at, Payload: []byte("sealed"),
		Ambiguous: outcome == "ambiguous", Spent: true,
		Attempt: status.Attempt{Number: c.Attempt, StartedAt: at, DurationMS: 12, Outcome: outcome, Reason: reason},
	}))
}

// set changes a record as no code of otpq would.
func (s *scene) set(m tasks.Message, pairs ...any) {
	s.Helper()
	s.must(s.rdb.HSet(s.Context(), recordKey(m.ID), pairs...).Err())
}

// audit looks at the scene and returns the kinds that were found, by id.
func (s *scene) audit(o Options) (map[string][]Kind, Totals) {
	s.Helper()
	if o.Settle == 0 {
		o.Settle = time.Millisecond
	}
	found := map[string][]Kind{}
	totals, err := Live(s.Context(), s.rdb, o, func(f Finding) error {
		kind := f.Kind
		if f.Note {
			kind = "note:" + kind
		}
		found[f.ID] = append(found[f.ID], kind)
		if text, err := json.Marshal(f); err != nil || strings.Contains(string(text), person) || f.What == "" || f.Do == "" {
			s.Errorf("finding %s, %v; want what and do, and no person", text, err)
		}
		return nil
	})
	s.must(err)
	return found, totals
}

func TestMessagesOnTheirWayAndAtTheirEndAreNoFindings(t *testing.T) {
	t.Parallel()
	s := newScene(t, redistest.Start(t).Client())
	s.queued(time.Second, time.Minute)
	s.queued(time.Hour, 2*time.Hour, asynq.ProcessIn(time.Hour)) // asked for later
	deferred := s.queued(time.Minute, 5*time.Minute)
	s.attempted(deferred, status.Deferred, "retry_later", "provider_error", s.now)
	s.claim(s.queued(time.Minute, 5*time.Minute), s.now.Add(-10*time.Second))
	justOver := s.queued(time.Minute, 50*time.Second)
	s.attempted(justOver, status.Deferred, "retry_later", "provider_error", s.now.Add(-30*time.Second))
	// Ends, whose tasks are gone.
	s.attempted(s.recorded(time.Hour, time.Minute), status.Accepted, "accepted", "", s.now.Add(-time.Hour))
	for range 2 {
		s.attempted(s.recorded(time.Hour, time.Minute), status.Rejected, "rejected", "recipient_unknown", s.now.Add(-time.Hour))
	}
	discarded := s.recorded(time.Hour, time.Minute)
	s.attempted(discarded, status.Rejected, "rejected", "recipient_unknown", s.now.Add(-time.Hour))
	s.must(s.store.DropDead(t.Context(), provider, discarded.ID))
	flagged := s.recorded(time.Hour, time.Minute)
	s.attempted(flagged, status.Deferred, "ambiguous", "timeout", s.now.Add(-time.Hour))
	s.attempted(flagged, status.Accepted, "accepted", "", s.now.Add(-time.Hour))
	// Claimed in time by a worker that came to its request too late, and made none.
	stalled := s.recorded(time.Hour, time.Minute)
	s.attempted(stalled, status.Expired, "retry_later", reasonStalled, stalled.NotAfter.Add(time.Second))

	found, totals := s.audit(Options{})
	if diff := cmp.Diff(map[string][]Kind{}, found); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	want := Totals{
		Records: 11,
		States: map[status.State]int{
			status.Queued: 2, status.Deferred: 2, status.Sending: 1, status.Accepted: 2, status.Rejected: 3, status.Expired: 1,
		},
		Tasks: TaskTotals{Pending: 4, Scheduled: 1}, Findings: map[Kind]int{},
	}
	if diff := cmp.Diff(want, totals); diff != "" {
		t.Errorf("totals (-want +got):\n%s", diff)
	}
}

func TestEachFaultIsFound(t *testing.T) {
	t.Parallel()
	rdb := redistest.Start(t).Client()
	s := newScene(t, rdb)
	long := s.now.Add(-time.Hour)
	want := map[string][]Kind{}
	add := func(m tasks.Message, kinds ...Kind) { want[m.ID] = kinds }

	add(s.recorded(time.Minute, time.Hour), Stranded)
	add(s.recorded(time.Hour, time.Minute), Stranded) // and not overdue as well: nothing will come
	inRetry := s.recorded(time.Minute, time.Hour)
	s.attempted(inRetry, status.Deferred, "retry_later", "provider_error", s.now)
	add(inRetry, Stranded)
	claimed := s.recorded(time.Minute, time.Hour)
	s.claim(claimed, s.now.Add(-time.Minute))
	add(claimed, Stranded)
	archived := s.queued(time.Minute, time.Hour)
	s.must(s.tasks.ArchiveTask(tasks.QueueName(provider, tasks.Interactive), archived.ID)) // a worker buries it
	refused := s.recorded(time.Minute, time.Hour)
	add(refused, "note:"+Stranded)

	for taken, moved := range map[int]tasks.Message{1: s.recorded(time.Minute, time.Hour), 3: s.recorded(time.Minute, time.Hour), 9: s.recorded(time.Minute, time.Hour)} {
		s.enqueue(moved, asynq.TaskID(fmt.Sprintf("%s~%d", moved.ID, taken))) // and no finding
	}
	due := s.recorded(time.Minute, time.Hour)
	s.enqueue(due, asynq.TaskID(due.ID+"~12"), asynq.ProcessIn(time.Minute))

	add(s.queued(time.Hour, time.Minute), Overdue)
	stale := s.queued(time.Hour, 2*time.Hour)
	s.claim(stale, s.now.Add(-5*time.Minute))
	add(stale, StaleClaim)
	released := s.queued(time.Hour, 2*time.Hour)
	s.claim(released, s.now.Add(-5*time.Minute))
	s.must(s.store.Release(t.Context(), released.ID, "w"))
	add(released, StaleClaim)

	for _, outcome := range []string{"accepted", "ambiguous", ""} {
		twice := s.recorded(time.Hour, time.Minute)
		s.attempted(twice, status.Deferred, "retry_later", "provider_error", long)
		s.attempted(twice, status.Deferred, outcome, "timeout", long)
		s.attempted(twice, status.Accepted, "accepted", "", long)
		s.must(rdb.HDel(t.Context(), recordKey(twice.ID), "duplicate").Err())
		add(twice, SilentDouble)
	}
	after := s.recorded(time.Hour, time.Minute)
	s.attempted(after, status.Accepted, "accepted", "", after.NotAfter)
	add(after, Late)

	perhaps := s.recorded(time.Hour, time.Minute)
	s.attempted(perhaps, status.Expired, "ambiguous", reasonWorkerLost, perhaps.NotAfter.Add(-time.Second))
	s.set(perhaps, "reason", "deadline")
	add(perhaps, Untrue)
	said := s.recorded(time.Hour, time.Minute)
	s.attempted(said, status.Deferred, "ambiguous", "timeout", long)
	s.must(status.Cancel(t.Context(), s.store, said.ID, s.now)) // which says so

	bare := s.recorded(time.Hour, time.Minute)
	s.attempted(bare, status.Exhausted, "retry_later", "provider_error", long)
	s.must(rdb.HDel(t.Context(), recordKey(bare.ID), "payload").Err())
	add(bare, DeadLetter)
	unlisted := s.recorded(time.Hour, time.Minute)
	s.attempted(unlisted, status.Unknown, "ambiguous", "timeout", long)
	s.must(rdb.ZRem(t.Context(), "otpq:dead:"+provider, unlisted.ID).Err())
	add(unlisted, DeadLetter)
	old := s.recorded(31*24*time.Hour, time.Minute)
	s.attempted(old, status.Rejected, "rejected", "x", s.now.Add(-31*24*time.Hour)) // out of the index since a day

	odd := s.recorded(time.Minute, time.Hour)
	s.set(odd, "state", "sent")
	add(odd, Malformed)
	headless := s.recorded(time.Minute, time.Hour)
	s.set(headless, "made", fmt.Sprint(provider, "|interactive|", s.now.UnixMilli(), "|x"))
	s.enqueue(headless)
	add(headless, Malformed)

	unknown := tasks.Message{
		ID: tasks.NewID(), Provider: provider, Lane: tasks.Bulk, Request: json.RawMessage(`{}`), CreatedAt: s.now, NotAfter: s.now.Add(time.Hour),
	}
	s.enqueue(unknown, asynq.TaskID(unknown.ID+"~2"))
	add(unknown, "note:"+NoRecord)

	found, totals := s.audit(Options{Refused: func(id string) bool { return id == refused.ID }})
	for _, kinds := range found {
		slices.Sort(kinds)
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	count := 0
	for _, kinds := range want {
		for _, k := range kinds {
			if !strings.HasPrefix(string(k), "note:") {
				count++
			}
		}
	}
	if totals.Found() != count || totals.Notes != 2 {
		t.Errorf("totals have %d findings and %d notes, want %d and 2", totals.Found(), totals.Notes, count)
	}
}

// between runs something once, after the first look at tasks.
type between struct {
	do   func()
	done atomic.Bool
}

func (b *between) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (b *between) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (b *between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		err := next(ctx, cmds)
		if cmds[0].Name() == "hget" && b.done.CompareAndSwap(false, true) {
			b.do()
		}
		return err
	}
}

func TestWhatIsInTheMakingIsNoFinding(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(*scene, tasks.Message){
		"the task is queued a moment after the record": func(s *scene, m tasks.Message) { s.enqueue(m) },
		"the message goes on and comes to its end": func(s *scene, m tasks.Message) {
			s.attempted(m, status.Accepted, "accepted", "", s.now)
		},
		"the message goes on": func(s *scene, m tasks.Message) { s.claim(m, s.now) },
		"the record is deleted": func(s *scene, m tasks.Message) {
			s.must(s.rdb.Del(s.Context(), recordKey(m.ID)).Err())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t)
			s := newScene(t, server.Client())
			m := s.recorded(10*time.Second, time.Minute)
			looking := newScene(t, server.Client())
			hook := &between{do: func() { meanwhile(s, m) }}
			looking.rdb.AddHook(hook)
			if found, _ := looking.audit(Options{}); len(found) > 0 || !hook.done.Load() {
				t.Errorf("findings = %v, and the message went on: %v; want none", found, hook.done.Load())
			}
		})
	}
}

func TestEveryRecordIsSeenWhateverTheirCount(t *testing.T) {
	t.Parallel()
	s := newScene(t, redistest.Start(t).Client())
	const stranded, accepted = 2*maxSuspects + 7, 500
	at := s.now.Add(-time.Minute).UnixMilli()
	_, err := s.rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		for i := range stranded + accepted {
			state := "queued"
			if i >= stranded {
				state = "accepted"
			}
			p.HSet(t.Context(), recordKey(fmt.Sprint("m", i)), "state", state,
				"made", fmt.Sprint(provider, "|bulk|", at, "|", at+3_600_000, "|"))
		}
		return nil
	})
	s.must(err)
	// More tasks than a page holds, in a list and in a sorted set.
	for range 45 {
		s.queued(0, time.Hour)
		s.queued(0, time.Hour, asynq.ProcessIn(time.Hour))
	}
	found, totals := s.audit(Options{Page: 20})
	if len(found) != stranded || totals.States[status.Accepted] != accepted || totals.Records != stranded+accepted+90 {
		t.Errorf("%d findings in %d records, %d accepted; want %d in %d, %d accepted",
			len(found), totals.Records, totals.States[status.Accepted], stranded, stranded+accepted+90, accepted)
	}
	if diff := cmp.Diff(TaskTotals{Pending: 45, Scheduled: 45}, totals.Tasks); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}
}

func TestEveryMasterOfAClusterIsSeen(t *testing.T) {
	t.Parallel()
	rdb, err := redisconn.Open(redistest.StartCluster(t).URL(), redisconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	s := newScene(t, rdb)
	want := map[string][]Kind{}
	for range 40 {
		s.queued(time.Second, time.Hour)
		want[s.recorded(time.Minute, time.Hour).ID] = []Kind{Stranded}
	}
	found, totals := s.audit(Options{})
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if totals.Records != 80 || totals.Tasks.Pending != 40 {
		t.Errorf("%d records and %d tasks were seen, want 80 and 40", totals.Records, totals.Tasks.Pending)
	}
}

func TestAQueueThatRedisForgotIsSeenByItsName(t *testing.T) {
	t.Parallel()
	s := newScene(t, redistest.Start(t).Client())
	s.queued(0, time.Hour)
	s.must(s.rdb.Del(t.Context(), "asynq:queues").Err())
	if _, totals := s.audit(Options{}); totals.Tasks.Pending != 0 {
		t.Errorf("%d tasks were seen, want none", totals.Tasks.Pending)
	}
	if _, totals := s.audit(Options{Queues: []string{tasks.QueueName(provider, tasks.Interactive)}}); totals.Tasks.Pending != 1 {
		t.Errorf("%d tasks were seen, want 1", totals.Tasks.Pending)
	}
}

func TestAnErrorEndsTheAudit(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	s := newScene(t, server.Client())
	s.recorded(time.Minute, time.Hour)
	full := errors.New("disk full")
	if _, err := Live(t.Context(), s.rdb, Options{Settle: time.Millisecond}, func(Finding) error { return full }); !errors.Is(err, full) {
		t.Errorf("Live() = %v, want what report returned", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Live(ctx, s.rdb, Options{}, func(Finding) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("Live() = %v, want that it was canceled", err)
	}
	server.Stop()
	if _, err := Live(t.Context(), s.rdb, Options{}, func(Finding) error { return nil }); err == nil {
		t.Error("Live() without a Redis = nil, want an error")
	}
}

func TestRateBoundsHowManyRecordsAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLive(nil, Options{Rate: 100}, nil)
		start := time.Now()
		for range 10 {
			if err := l.pace(t.Context(), 50); err != nil {
				t.Fatal(err)
			}
		}
		// The last page is read at once after the wait for those before it.
		if took := time.Since(start); took != 4500*time.Millisecond {
			t.Errorf("500 records at 100 a second took %s, want 4.5s", took)
		}
	})
}

func TestTheAuditorReadsWhatTheStoreWrites(t *testing.T) {
	t.Parallel()
	s := newScene(t, redistest.Start(t).Client())
	m := s.recorded(time.Minute, 5*time.Minute)
	s.attempted(m, status.Deferred, "ambiguous", "timeout", s.now)
	s.claim(m, s.now.Add(time.Second))
	s.must(s.store.Finish(t.Context(), status.Finish{
		ID: m.ID, Provider: provider, Token: "w/1", State: status.Rejected, Reason: "recipient_unknown", Now: s.now.Add(2 * time.Second),
		Reference: "ref", CodeValid: 90 * time.Second, Payload: []byte("sealed"),
		Attempt: status.Attempt{Number: 2, StartedAt: s.now.Add(time.Second), DurationMS: 12.345, Outcome: "rejected", Reason: "recipient_unknown", HTTPStatus: 404},
	}))
	s.set(m, "campaign", "c", "replay_of", "old", "replayed_as", "new", "next", s.now.UnixMilli())
	want, err := s.store.Get(t.Context(), m.ID)
	s.must(err)
	got, err := Records(t.Context(), s.rdb, []string{m.ID, "none"})
	s.must(err)
	if diff := cmp.Diff(map[string]status.Record{m.ID: want}, got); diff != "" {
		t.Errorf("record (-store +auditor):\n%s", diff)
	}
	if reasonStalled != string(worker.ReasonStalled) || reasonWorkerLost != string(worker.ReasonWorkerLost) {
		t.Errorf("the worker's reasons are %q and %q, the auditor's %q and %q",
			worker.ReasonStalled, worker.ReasonWorkerLost, reasonStalled, reasonWorkerLost)
	}
}

func TestEveryKindIsListedAndHasAdvice(t *testing.T) {
	for _, k := range Kinds() {
		if _, own := advice[k]; !own && k != Stranded && k != DeadLetter { // which depend on the case
			t.Errorf("kind %s has no advice", k)
		}
	}
}
