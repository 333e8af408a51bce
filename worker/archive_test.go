package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// attic is one lane's archive.
type attic struct {
	*rig
	queue string
}

func (r *rig) attic(lane tasks.Lane) attic { return attic{r, tasks.QueueName("unimedbh", lane)} }

func (a attic) key(name string) string { return "asynq:{" + a.queue + "}:" + name }

// ids are those in the archive, the oldest first.
func (a attic) ids() []string {
	a.t.Helper()
	ids, err := a.rdb.ZRange(a.t.Context(), a.key("archived"), 0, -1).Result()
	if err != nil {
		a.t.Fatal(err)
	}
	return ids
}

// archive does what an operator does in a dashboard.
func (a attic) archive(ids ...string) {
	a.t.Helper()
	for _, id := range ids {
		if err := asynq.NewInspectorFromRedisClient(a.rdb).ArchiveTask(a.queue, id); err != nil {
			a.t.Fatal(err)
		}
	}
}

// raw queues a task that is none of ours.
func (a attic) raw(id string, payload []byte) {
	a.t.Helper()
	client := asynq.NewClientFromRedisClient(a.rdb)
	if _, err := client.Enqueue(asynq.NewTask("elses", payload), asynq.TaskID(id), asynq.Queue(a.queue)); err != nil {
		a.t.Fatal(err)
	}
}

// putAway puts an id into the archive, whatever its task says.
func (a attic) putAway(at time.Time, ids ...string) {
	a.t.Helper()
	for chunk := range slices.Chunk(ids, 1000) {
		members := make([]redis.Z, len(chunk))
		for i, id := range chunk {
			members[i] = redis.Z{Score: float64(at.Unix()), Member: id}
		}
		if err := a.rdb.ZAdd(a.t.Context(), a.key("archived"), members...).Err(); err != nil {
			a.t.Fatal(err)
		}
	}
}

// letters are the dead letters of unimedbh by id.
func (r *rig) letters() map[string]status.DeadLetter {
	r.t.Helper()
	out := map[string]status.DeadLetter{}
	for d, err := range r.store.Dead(r.t.Context(), "unimedbh", status.DeadFilter{}) {
		if err != nil {
			r.t.Fatal(err)
		}
		if _, twice := out[d.ID]; twice {
			r.t.Errorf("dead letter %s is listed twice", d.ID)
		}
		out[d.ID] = d
	}
	return out
}

// sweeper is the role alone, of a worker that is not started.
func (r *rig) sweeper() *archive {
	r.t.Helper()
	rdb := r.newClient()
	w, err := New(Config{
		Redis: rdb, Keys: r.keyring(), Store: status.NewRedis(rdb, status.Retention{}),
		Providers: []ProviderConfig{always(accepted).config()}, Log: zerolog.New(r.log),
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return &archive{rdb: rdb, served: w.served, log: zerolog.New(r.log)}
}

func (s *archive) must(t *testing.T) {
	t.Helper()
	if err := s.sweep(t.Context()); err != nil {
		t.Fatalf("sweep() = %v", err)
	}
}

func TestWhatSomebodyArchivesBecomesADeadLetter(t *testing.T) {
	r := newRig(t)
	a := r.attic(tasks.Interactive)
	ctx, now := t.Context(), time.Now()
	person := func(name string) string {
		return r.sendTo(unimedbh.Request{Username: name + "@example.com", Type: "EMAIL"})
	}
	claim := func(id string, at time.Time) {
		t.Helper()
		c := status.Claim{Seed: r.get(id), Token: "other/1", Now: at, AbandonedAfter: time.Minute}
		if got, err := r.store.Claim(ctx, c); err != nil || got.Result != status.ClaimedNow {
			t.Fatalf("Claim(%s) = %+v, %v", id, got, err)
		}
	}
	queued, deferred, forgotten, oddMessage, broken := person("queued"), person("deferred"), person("forgotten"), person("odd"), person("broken")
	done, canceled := person("done"), person("canceled")
	abandoned, busy := person("abandoned"), person("busy")
	a.raw("stranger", []byte(`{"username":"stranger@example.com"}`))
	other := tasks.Key{ID: "other", Secret: tasks.GenerateSecret()}
	elsewhere, err := enqueue.Open(enqueue.Config{Redis: r.rdb, Keys: []tasks.Key{other}})
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := elsewhere.Send(ctx, example)
	if err != nil {
		t.Fatal(err)
	}
	a.archive(queued, deferred, forgotten, oddMessage, broken, done, canceled, abandoned, busy, "stranger", foreign.ID)

	if err := r.store.Move(ctx, status.Move{ID: deferred, Provider: "unimedbh", To: status.Deferred, Reason: "breaker_open", Next: now.Add(time.Hour), Now: now}); err != nil {
		t.Fatal(err)
	}
	if err := r.client.Cancel(ctx, canceled); err != nil {
		t.Fatal(err)
	}
	claim(done, now)
	finish := status.Finish{ID: done, Provider: "unimedbh", Token: "other/1", State: status.Accepted, Attempt: status.Attempt{Number: 1, StartedAt: now, Outcome: "accepted"}, Now: now}
	if err := r.store.Finish(ctx, finish); err != nil {
		t.Fatal(err)
	}
	claim(abandoned, now.Add(-time.Hour))
	claim(busy, now.Add(time.Hour)) // by somebody who will be at it for a while
	for _, err := range []error{
		r.rdb.Del(ctx, "otpq:msg:"+forgotten).Err(),
		r.rdb.HSet(ctx, a.key("t:"+oddMessage), "msg", "no message of asynq's, of odd@example.com").Err(),
		r.rdb.HSet(ctx, a.key("t:"+broken), "state", "active").Err(), // as when asynq's script breaks
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	a.putAway(now, "ghost")

	f := always(accepted)
	_, stop := r.start(nil, f.config())
	eventually(t, func() bool { return cmp.Equal(a.ids(), []string{busy}) }, func() string {
		return fmt.Sprintf("in the archive: %q, want only the one that cannot be ended, %q", a.ids(), busy)
	})
	if rec := r.get(busy); rec.State != status.Sending {
		t.Errorf("the one that somebody has claimed: record = %+v, want sending", rec)
	}
	letters := r.letters()
	for id, state := range map[string]status.State{
		queued: status.Rejected, deferred: status.Rejected, forgotten: status.Rejected, broken: status.Rejected,
		oddMessage: status.Rejected, "stranger": status.Rejected, foreign.ID: status.Rejected,
		abandoned: status.Unknown, // its claim says: maybe sent
	} {
		d, ok := letters[id]
		if !ok || d.State != state || d.Reason != string(ReasonArchived) {
			t.Errorf("letter %s = %+v, want %s and archived", id, d.Record, state)
		}
		delete(letters, id)
	}
	if len(letters) > 0 {
		t.Errorf("letters that nobody wants: %v", letters)
	}
	for id, state := range map[string]status.State{done: status.Accepted, canceled: status.Canceled} {
		if rec := r.get(id); rec.State != state {
			t.Errorf("record of %s = %+v, want %s as before", id, rec, state)
		}
	}
	if left, err := r.rdb.Keys(ctx, "asynq:*:t:*").Result(); err != nil || !cmp.Equal(left, []string{a.key("t:" + busy)}) {
		t.Errorf("tasks left: %q, %v, want only %s", left, err, busy)
	}
	if n := len(f.requests()); n > 0 {
		t.Errorf("%d requests were made of what is archived", n)
	}

	// What can be read can be replayed; what cannot is kept sealed.
	for _, id := range []string{queued, deferred, forgotten, broken, abandoned} {
		again, err := r.client.Replay(ctx, id)
		if err != nil {
			t.Errorf("Replay(%s) = %v", id, err)
			continue
		}
		r.awaitState(again.ID, status.Accepted)
	}
	if _, err := elsewhere.Replay(ctx, foreign.ID); err != nil {
		t.Errorf("Replay() of a letter sealed with another key, by who has it = %v", err)
	}
	stop()
	for id, want := range map[string]string{"stranger": "stranger@", oddMessage: "no message of asynq's"} {
		d, err := r.store.DeadLetter(ctx, id)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := tasks.Release(r.keyring(), d.Payload); err != nil || !strings.Contains(string(raw), want) {
			t.Errorf("quarantined payload of %s = %q, %v, want %q in it", id, raw, err, want)
		}
	}
	if everything := r.dump() + r.log.String(); strings.Contains(everything, "@example.com") {
		t.Error("a person is readable in Redis or in the log")
	}
	if !strings.Contains(r.log.String(), "dead letters now") {
		t.Error("nothing of it is in the log")
	}

	// The one that was left is ended by a later turn, once its claim is let go.
	if err := r.store.Release(ctx, busy, "other"); err != nil {
		t.Fatal(err)
	}
	r.sweeper().must(t)
	if rec := r.get(busy); rec.State != status.Unknown || rec.Reason != string(ReasonArchived) || len(a.ids()) > 0 {
		t.Errorf("record = %+v, in the archive: %q; want unknown and archived, and nothing", rec, a.ids())
	}
}

func TestAnArchivedTaskIsWaitedForADay(t *testing.T) {
	r := newRig(t)
	a := r.attic(tasks.Bulk)
	now := time.Now()
	today, yesterday := r.send(enqueue.InLane(tasks.Bulk)), r.send(enqueue.InLane(tasks.Bulk))
	a.archive(today, yesterday)
	for _, id := range []string{today, yesterday} {
		c := status.Claim{Seed: r.get(id), Token: "other/1", Now: now.Add(48 * time.Hour), AbandonedAfter: time.Minute}
		if _, err := r.store.Claim(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	a.putAway(now.Add(-23*time.Hour), today)
	a.putAway(now.Add(-25*time.Hour), yesterday)
	r.sweeper().must(t)
	if diff := cmp.Diff([]string{today}, a.ids()); diff != "" {
		t.Errorf("in the archive (-want +got):\n%s", diff)
	}
}

// A message is not lost because Redis fails while its task is looked at, however
// old that is.
func TestAnArchivedTaskIsKeptWhileItsRecordCannotBeWritten(t *testing.T) {
	r := newRig(t)
	a := r.attic(tasks.Interactive)
	id := r.send()
	a.archive(id)
	a.putAway(time.Now().Add(-100*24*time.Hour), id)
	s := r.sweeper()
	store := &brokenStore{Store: r.store, fail: map[string]int{"move": 1 << 30}}
	for _, q := range s.served.all() {
		q.store = store
	}
	if err := s.sweep(t.Context()); !errors.Is(err, errBroken) {
		t.Errorf("sweep() = %v, want the store's error", err)
	}
	if diff := cmp.Diff([]string{id}, a.ids()); diff != "" {
		t.Errorf("in the archive (-want +got):\n%s", diff)
	}
	store.fail = nil
	s.must(t)
	if n := len(r.letters()); n != 1 || len(a.ids()) > 0 {
		t.Errorf("%d letters, %q in the archive; want one and nothing", n, a.ids())
	}
}

// pages notes how much of an archive is asked for at a time.
type pages struct {
	redis.Hook
	mu     sync.Mutex
	counts []any
}

func (p *pages) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		// EVALSHA digest 1 …:archived prefix skip count
		if args := cmd.Args(); len(args) == 7 && strings.HasSuffix(fmt.Sprint(args[3]), ":archived") {
			p.mu.Lock()
			p.counts = append(p.counts, args[6])
			p.mu.Unlock()
		}
		return next(ctx, cmd)
	}
}
func (p *pages) DialHook(next redis.DialHook) redis.DialHook { return next }
func (p *pages) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func TestTheArchiveIsReadInPages(t *testing.T) {
	r := newRig(t)
	a := r.attic(tasks.Interactive)
	a.archive(r.sendMany(250)...)
	s, spy := r.sweeper(), &pages{}
	s.rdb.AddHook(spy)
	s.must(t)
	if len(a.ids()) > 0 {
		t.Errorf("in the archive: %q, want nothing", a.ids())
	}
	// Two full ones and a half, and one of the other lane.
	if len(spy.counts) < 4 || slices.ContainsFunc(spy.counts, func(n any) bool { return n != 100 }) {
		t.Errorf("asked for %v at a time, want a hundred, at least four times", spy.counts)
	}
}

func TestManyMaySweepAtOnce(t *testing.T) {
	r := newRig(t)
	a := r.attic(tasks.Interactive)
	ids := r.sendMany(250)
	a.archive(ids...)
	var wait sync.WaitGroup
	for range 4 {
		s := r.sweeper()
		wait.Go(func() {
			if err := s.sweep(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	r.sweeper().must(t) // one may pass over what another has in hand
	letters := r.letters()
	for _, id := range ids {
		if d := letters[id]; d.State != status.Rejected || d.Reason != string(ReasonArchived) {
			t.Errorf("letter %s = %+v, want rejected and archived", id, d.Record)
		}
	}
	if len(letters) != len(ids) || len(a.ids()) > 0 {
		t.Errorf("%d letters, %q in the archive; want %d and nothing", len(letters), a.ids(), len(ids))
	}
}

// armed is how many tasks, older than 90 days, are in an archive with which asynq's
// archive script breaks: Lua unpacks some 8,000 at most.
const armed = 20_000

// archiveOne has a plain asynq server archive one task, and returns the task's state
// once the server is through with it.
func (a attic) archiveOne(id string) string {
	a.t.Helper()
	a.raw(id, []byte("x"))
	server := asynq.NewServerFromRedisClient(a.newClient(), asynq.Config{
		Concurrency: 1, Queues: map[string]int{a.queue: 1}, TaskCheckInterval: 10 * time.Millisecond,
		Logger: asynqLog{zerolog.Nop()},
	})
	refuse := func(context.Context, *asynq.Task) error { return asynq.SkipRetry }
	if err := server.Start(asynq.HandlerFunc(refuse)); err != nil {
		a.t.Fatal(err)
	}
	defer server.Shutdown()
	ctx := a.t.Context()
	eventually(a.t, func() bool {
		_, err := a.rdb.ZScore(ctx, a.key("archived"), id).Result()
		return err == nil
	}, func() string { return "asynq never archived its task" })
	return a.rdb.HGet(ctx, a.key("t:"+id), "state").Val()
}

func TestAnArmedArchiveIsDefused(t *testing.T) {
	r := newRig(t)
	long := time.Now().Add(-91 * 24 * time.Hour)

	// One that went off: asynq has deleted the tasks, not their ids, and half of the
	// task that set it off is in the archive.
	exploded := r.attic(tasks.Interactive)
	ghosts := make([]string, armed)
	for i := range ghosts {
		ghosts[i] = fmt.Sprint("ghost-", i)
	}
	exploded.putAway(long, ghosts...)
	if state := exploded.archiveOne("victim"); state != "active" || len(exploded.ids()) != armed+1 {
		t.Fatalf("asynq's archive script ended with a task that is %q and %d in the archive: it does not break any more", state, len(exploded.ids()))
	}

	// One that has not: what messages there are can be saved.
	waiting := r.attic(tasks.Bulk)
	ids := waiting.fill(armed / 4)
	waiting.putAway(long, append(slices.Clone(ids), ghosts[len(ids):]...)...)

	s := r.sweeper()
	for range 2 { // the one that set it off comes after the bound of a turn
		s.must(t)
	}
	if a, b := exploded.ids(), waiting.ids(); len(a)+len(b) > 0 {
		t.Fatalf("%d and %d are left in the archives", len(a), len(b))
	}
	letters := r.letters()
	for _, id := range append(ids, "victim") {
		if d := letters[id]; d.State != status.Rejected || d.Reason != string(ReasonArchived) {
			t.Fatalf("letter %s = %+v, want rejected and archived", id, d.Record)
		}
	}
	if len(letters) != len(ids)+1 {
		t.Errorf("%d dead letters, want %d", len(letters), len(ids)+1)
	}
	if left, err := r.rdb.Keys(t.Context(), "asynq:*:t:*").Result(); err != nil || len(left) > 0 {
		t.Errorf("%d tasks are left, %v", len(left), err)
	}
	for _, a := range []attic{exploded, waiting} {
		if state := a.archiveOne("next"); state != "archived" {
			t.Errorf("asynq archives again, and its task is %q, want archived", state)
		}
	}
}

// fill makes so many messages whose tasks are archived, and whose records are gone.
func (a attic) fill(count int) []string {
	a.t.Helper()
	ctx := a.t.Context()
	pipe, err := a.rdb.AutoPipeline() // what many ask at once goes out together
	if err != nil {
		a.t.Fatal(err)
	}
	defer pipe.Close()
	client, ring := asynq.NewClientFromRedisClient(pipe), a.keyring()
	ids := make([]string, count)
	var wait sync.WaitGroup
	const at = 200
	for worker := range at {
		wait.Go(func() {
			for i := worker; i < count; i += at {
				now := time.Now()
				ids[i] = tasks.NewID()
				task, err := tasks.NewTask(ring, tasks.Message{
					ID: ids[i], Provider: "unimedbh", Lane: tasks.Bulk, CreatedAt: now, NotAfter: now.Add(time.Minute),
					Request: []byte(`{"username":"teste@gmail.com","type":"EMAIL"}`),
				})
				if err == nil {
					_, err = client.EnqueueContext(ctx, task)
				}
				if err == nil {
					err = pipe.HSet(ctx, a.key("t:"+ids[i]), "state", "archived").Err()
				}
				if err != nil {
					a.t.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
	if err := a.rdb.Del(ctx, a.key("pending")).Err(); err != nil || a.t.Failed() {
		a.t.Fatal(err)
	}
	return ids
}
