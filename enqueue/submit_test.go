package enqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/asynqredis"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// parsed returns an item that is ready for Redis.
func (r *rig) parsed(opts ...Option) *item {
	r.t.Helper()
	now := r.now()
	o, err := newOptions(opts, now)
	if err != nil {
		r.t.Fatal(err)
	}
	it, err := r.newItem(example, o, now)
	if err != nil {
		r.t.Fatal(err)
	}
	return it
}

// TestWhatIsQueuedIsWhatAsynqAndTheStoreWrite queues a message twice: with ours, and
// with asynq's own client and [status.Redis.Create].
func TestWhatIsQueuedIsWhatAsynqAndTheStoreWrite(t *testing.T) {
	later := time.Now().Add(time.Hour).Truncate(time.Second)
	trace := Trace(map[string]string{"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"})
	for way, newRig := range rigs {
		for name, opts := range map[string][]Option{
			"now": {trace}, "later": {At(later)}, "a campaign": {Campaign("c"), InLane(tasks.Bulk)},
		} {
			t.Run(name+", "+way, func(t *testing.T) {
				r := newRig(t)
				it := r.parsed(opts...)
				r.submit(t.Context(), []*item{it})
				if it.err != nil || it.isHeld {
					t.Fatal(it.err, it.held)
				}
				record := "otpq:msg:" + it.m.ID
				kept := r.look.PTTL(t.Context(), record).Val()
				got := dump(t, r.look)
				r.look.FlushAll(t.Context())

				task, err := asynqredis.Decode(it.msg)
				if err != nil {
					t.Fatal(err)
				}
				if err := r.store.Create(t.Context(), it.record()); err != nil {
					t.Fatal(err)
				}
				with := []asynq.Option{asynq.TaskID(it.m.ID), asynq.Queue(it.queue), asynq.MaxRetry(task.MaxRetry), asynq.Timeout(task.Timeout)}
				if !it.at.IsZero() {
					with = append(with, asynq.ProcessAt(it.at))
				}
				stock := asynq.NewClientFromRedisClient(r.look)
				if _, err := stock.Enqueue(asynq.NewTaskWithHeaders(task.Type, task.Payload, task.Headers), with...); err != nil {
					t.Fatal(err)
				}
				want := dump(t, r.look)
				if diff := cmp.Diff(lines(want), lines(got)); diff != "" {
					t.Errorf("Redis (-asynq's +ours):\n%s", diff)
				}
				if plain := r.look.PTTL(t.Context(), record).Val(); (plain - kept).Abs() > 20*time.Second {
					t.Errorf("the record is kept for %v, and %v when it is created alone", kept, plain)
				}
			})
		}
	}
}

// lines sorts a dump, without the moments that differ.
func lines(dump string) []string {
	var out []string
	for line := range strings.Lines(dump) {
		if at := strings.Index(line, "pending_since:"); at >= 0 {
			end := at + strings.IndexAny(line[at:], " ]")
			line = line[:at] + "pending_since" + line[end:]
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// TestASubmitThatIsRepeatedQueuesOnce is what go-redis does when a reply is lost.
func TestASubmitThatIsRepeatedQueuesOnce(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			items := []*item{r.parsed(), r.parsed(IdempotencyKey("a")), r.parsed(IdempotencyKey("b")), r.parsed(At(time.Now().Add(time.Hour)))}
			for range 3 {
				r.submit(t.Context(), items)
			}
			for i, it := range items {
				if it.err != nil || it.isHeld && !strings.Contains(it.held, it.m.ID) {
					t.Errorf("item %d: %v, held %q", i, it.err, it.held)
				}
			}
			if !r.apart.Load() {
				r.resolve(t.Context(), items)
				for i, it := range items {
					if it.receipt.Repeated || it.receipt.ID != it.m.ID {
						t.Errorf("receipt %d = %+v, want a first one", i, it.receipt)
					}
				}
			}
			if ids := r.queued(tasks.Interactive); len(ids) != 3 {
				t.Errorf("the queue has %q, want 3 messages", ids)
			}
			r.wantKeys("asynq:{otpq:unimedbh:interactive}:t:*", func() (keys []string) {
				for _, it := range items {
					keys = append(keys, "asynq:{otpq:unimedbh:interactive}:t:"+it.m.ID)
				}
				return keys
			}()...)
		})
	}
}

// TestOneKeyTwiceInOneScriptIsOneMessage is what many callers at once may come to.
func TestOneKeyTwiceInOneScriptIsOneMessage(t *testing.T) {
	r := newRig(t)
	items := []*item{r.parsed(IdempotencyKey("k")), r.parsed(IdempotencyKey("k")), r.parsed(IdempotencyKey("l")), r.parsed(IdempotencyKey("k"))}
	r.submit(t.Context(), items)
	r.resolve(t.Context(), items)
	for i, it := range items {
		if same := i == 1 || i == 3; it.err != nil || it.receipt.Repeated != same || same && it.receipt.ID != items[0].receipt.ID {
			t.Errorf("receipt %d = %+v, %v", i, it.receipt, it.err)
		}
	}
	if ids := r.queued(tasks.Interactive); !slices.Equal(ids, []string{items[0].m.ID, items[2].m.ID}) {
		t.Errorf("the queue has %q, want the first and the third", ids)
	}
}

// TestADeadSendsMessageIsGoneOnWithOnce has two who find it at the same moment.
func TestADeadSendsMessageIsGoneOnWithOnce(t *testing.T) {
	r := newApartRig(t)
	r.faults.failOnce("record", false)
	_, err := r.Send(t.Context(), example, IdempotencyKey("k"))
	dead := wantUnavailable(t, err).ID
	r.apart.Store(false)
	items := []*item{r.parsed(IdempotencyKey("k")), r.parsed(IdempotencyKey("k"))}
	r.submit(t.Context(), items)
	r.resolve(t.Context(), items)
	for i, it := range items {
		if it.err != nil || it.receipt.ID != dead || !it.receipt.Repeated || it.receipt.State != status.Queued {
			t.Errorf("receipt %d = %+v, %v", i, it.receipt, it.err)
		}
	}
	if ids := r.queued(tasks.Interactive); !slices.Equal(ids, []string{dead}) {
		t.Errorf("the queue has %q, want the dead Send's message, once", ids)
	}
}

// TestAScriptThatFailsLeavesNothing has a key of the wrong kind in its way.
func TestAScriptThatFailsLeavesNothing(t *testing.T) {
	for _, c := range []struct{ wrong, opts string }{{"asynq:{otpq:unimedbh:interactive}:pending", ""}, {"asynq:{otpq:unimedbh:interactive}:scheduled", ""}, {"asynq:queues", ""}, {"idem", "key"}} {
		t.Run(c.wrong, func(t *testing.T) {
			r := newRig(t)
			items := []*item{r.parsed(IdempotencyKey("a")), r.parsed(IdempotencyKey("b"))}
			wrong := c.wrong
			if wrong == "idem" {
				wrong = items[1].keys[0]
			}
			if err := r.look.HSet(t.Context(), wrong, "a", "b").Err(); err != nil {
				t.Fatal(err)
			}
			r.submit(t.Context(), items)
			for i, it := range items {
				if wantUnavailable(t, it.err); !strings.Contains(it.err.Error(), "WRONGTYPE") {
					t.Errorf("item %d = %v", i, it.err)
				}
			}
			r.look.Del(t.Context(), wrong, "asynq:queues")
			r.wantKeys("*")
		})
	}
}

// gate is a go-redis hook that holds the commands with tasks until it is opened.
type gate struct {
	cutShort
	held chan struct{} // gets one for each that is held
	open chan struct{}
}

func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if steps["task"](words(cmd)) {
			g.held <- struct{}{}
			<-g.open
		}
		return next(ctx, cmd)
	}
}

// waitedFor is a ctx that tells when it is waited for.
type waitedFor struct {
	context.Context
	waits func()
}

func (c waitedFor) Done() <-chan struct{} {
	c.waits()
	return c.Context.Done()
}

// TestACallerWhoGoesHarmsNoOther has Sends that wait for those before them.
func TestACallerWhoGoesHarmsNoOther(t *testing.T) {
	r := newRig(t)
	r.send() // so that Redis knows the script
	g := &gate{held: make(chan struct{}, 100), open: make(chan struct{})}
	r.rdb.AddHook(g)
	var callers sync.WaitGroup
	stay := func() {
		callers.Go(func() {
			if _, err := r.Send(t.Context(), example); err != nil {
				t.Error(err)
			}
		})
	}
	for range submitCalls {
		stay()
		<-g.held
	}
	gone := make([]string, 5)
	ctx, cancel := context.WithCancel(t.Context())
	var leavers, inLine sync.WaitGroup
	inLine.Add(len(gone))
	for i := range gone {
		stay()
		leavers.Go(func() {
			_, err := r.Send(waitedFor{ctx, sync.OnceFunc(inLine.Done)}, example)
			var u *UnavailableError
			if !errors.As(err, &u) || !errors.Is(err, context.Canceled) {
				t.Errorf("Send = %v, want its ctx's error", err)
				return
			}
			gone[i] = u.ID
		})
	}
	inLine.Wait()
	cancel()
	leavers.Wait() // while Redis has not answered anybody
	close(g.open)
	callers.Wait()
	r.withdrawals.worker.Wait()
	ids := r.queued(tasks.Interactive)
	if want := 1 + submitCalls + len(gone); len(ids) != want {
		t.Errorf("%d messages are queued, want %d", len(ids), want)
	}
	for _, id := range gone {
		if slices.Contains(ids, id) {
			t.Errorf("message %s is queued, though its caller had gone before", id)
		}
		if _, err := r.Status(t.Context(), id); !errors.Is(err, status.ErrNotFound) {
			t.Errorf("Status(%s) = %v, want no record", id, err)
		}
	}
}

// TestManySendsTakeFewRoundTrips counts scripts.
func TestManySendsTakeFewRoundTrips(t *testing.T) {
	r := newRig(t)
	r.send()
	const callers, each = 64, 20
	var all sync.WaitGroup
	before := commands(t, r.look, "evalsha")
	for caller := range callers {
		all.Go(func() {
			for i := range each {
				var opts []Option
				if i%2 == 0 {
					opts = append(opts, IdempotencyKey(fmt.Sprint(caller, i)))
				}
				if receipt, err := r.Send(t.Context(), example, opts...); err != nil || receipt.Repeated || receipt.ID == "" {
					t.Errorf("Send = %+v, %v", receipt, err)
				}
			}
		})
	}
	all.Wait()
	if n := len(r.queued(tasks.Interactive)); n != callers*each+1 {
		t.Errorf("%d messages are queued, want %d", n, callers*each+1)
	}
	if n := commands(t, r.look, "evalsha") - before; n > callers*each/2 {
		t.Errorf("%d scripts for %d messages, want half a script each at most", n, callers*each)
	}
}

// commands is how often Redis ran a command.
func commands(t *testing.T, rdb *redis.Client, name string) int {
	t.Helper()
	info, err := rdb.Info(t.Context(), "commandstats").Result()
	if err != nil {
		t.Fatal(err)
	}
	calls := 0
	for line := range strings.Lines(info) {
		_, _ = fmt.Sscanf(line, "cmdstat_"+name+":calls=%d", &calls)
	}
	return calls
}

func TestAClusterTakesBatches(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	c, err := Open(Config{RedisURL: cluster.URL(), Keys: []tasks.Key{newKey("k")}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const n = 3*mostTogether + 1
	items := rows(n, func(i int) []Option {
		opts := []Option{InLane(tasks.Lanes()[i%2])}
		if i%3 == 0 {
			opts = append(opts, byRow(i)...)
		}
		return opts
	})
	for i := range items {
		if i%5 == 0 {
			items[i].Request = requests()[i%3]
		}
	}
	results, err := c.SendBatch(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	rdb := cluster.Client()
	inspector := asynq.NewInspectorFromRedisClient(rdb)
	for i, got := range results {
		record, err := c.Status(t.Context(), got.Receipt.ID)
		if err != nil || got.Err != nil || record.Recipient != items[i].Request.MaskedRecipient() {
			t.Fatalf("result %d = %+v, its record %+v, %v", i, got, record, err)
		}
		if _, err := inspector.GetTaskInfo(tasks.QueueName(record.Provider, record.Lane), record.ID); err != nil {
			t.Errorf("task %d: %v", i, err)
		}
	}
	again, err := c.SendBatch(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range again {
		if keyed := i%3 == 0; got.Receipt.Repeated != keyed || keyed != (got.Receipt.ID == results[i].Receipt.ID) {
			t.Errorf("result %d of the repetition = %+v", i, got)
		}
	}
	if one, err := c.Send(t.Context(), numbered(3), byRow(3)...); err != nil || !one.Repeated || one.ID != results[3].Receipt.ID {
		t.Errorf("Send = %+v, %v", one, err)
	}
	if queues, err := inspector.Queues(); err != nil || len(queues) != 6 {
		t.Errorf("queues = %q, %v; want all six", queues, err)
	}
}

// TestANodeThatIsFullFailsItsOwnMessagesOnly has one of a cluster's nodes out of
// memory, where neither the queue nor the set of queues is.
func TestANodeThatIsFullFailsItsOwnMessagesOnly(t *testing.T) {
	t.Parallel()
	cluster := redistest.StartCluster(t)
	queue := cluster.NodeOf("asynq:{otpq:unimedbh:interactive}:pending")
	all := cluster.NodeOf("asynq:queues")
	var full *redistest.Server
	for _, node := range cluster.Nodes {
		if node != queue && node != all {
			full = node
		}
	}
	c, err := Open(Config{RedisURL: cluster.URL(), Keys: []tasks.Key{newKey("k")}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := full.Client().ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	const n = 200
	results, err := c.SendBatch(t.Context(), rows(n, nil))
	var failed *BatchError
	if !errors.As(err, &failed) || failed.Untried != 0 || failed.Unknown == 0 || failed.Unknown > n*2/3 {
		t.Fatalf("SendBatch = %v, want a third of %d to fail", err, n)
	}
	for i, got := range results {
		if got.Err == nil {
			if cluster.NodeOf("otpq:msg:"+got.Receipt.ID) == full {
				t.Errorf("result %d = %+v, though its node is full", i, got)
			}
			continue
		}
		u := wantUnavailable(t, got.Err)
		if cluster.NodeOf("otpq:msg:"+u.ID) != full || !strings.Contains(got.Err.Error(), "OOM") {
			t.Errorf("result %d = %v, though its node is not full", i, got.Err)
		}
		if cluster.Client().Exists(t.Context(), "asynq:{otpq:unimedbh:interactive}:t:"+u.ID).Val() != 0 {
			t.Errorf("the task of row %d is queued without a record", i)
		}
	}
}

// TestAClusterBehindOneAddressIsFound has a cluster of one node, and a client that
// does not know that it is one.
func TestAClusterBehindOneAddressIsFound(t *testing.T) {
	t.Parallel()
	s := redistest.Start(t, redistest.Args("--cluster-enabled", "yes"))
	rdb := s.Client()
	if err := rdb.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	waitForCluster(t, rdb)
	c, err := Open(Config{Redis: rdb, Keys: []tasks.Key{newKey("k")}})
	if err != nil {
		t.Fatal(err)
	}
	if results, err := c.SendBatch(t.Context(), rows(10, byRow)); err != nil || results[9].Receipt.ID == "" {
		t.Fatalf("SendBatch = %v", err)
	}
	if receipt, err := c.Send(t.Context(), numbered(0), byRow(0)...); err != nil || !receipt.Repeated {
		t.Errorf("Send = %+v, %v", receipt, err)
	}
	if n := rdb.LLen(t.Context(), "asynq:{otpq:unimedbh:interactive}:pending").Val(); n != 10 {
		t.Errorf("%d messages are queued, want 10", n)
	}
}

func waitForCluster(t *testing.T, rdb *redis.Client) {
	t.Helper()
	waitFor(t, "the cluster to be whole", func() bool {
		return strings.Contains(rdb.ClusterInfo(t.Context()).Val(), "cluster_state:ok")
	})
}

// TestTheScriptsRunInTheRedisOfDev: it is no real one.
func TestTheScriptsRunInTheRedisOfDev(t *testing.T) {
	t.Parallel()
	server := miniredis.RunT(t)
	c, err := Open(Config{RedisURL: "redis://" + server.Addr(), Keys: []tasks.Key{newKey("k"), newKey("l")}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, repeated := range []bool{false, true} {
		results, err := c.SendBatch(t.Context(), rows(3*mostTogether, byRow))
		if err != nil {
			t.Fatal(err)
		}
		for i, got := range results {
			if got.Err != nil || got.Receipt.Repeated != repeated || got.Receipt.State != status.Queued {
				t.Errorf("result %d = %+v", i, got)
			}
		}
	}
	if ids, err := server.List("asynq:{otpq:unimedbh:interactive}:pending"); err != nil || len(ids) != 3*mostTogether {
		t.Errorf("%d messages are queued, %v", len(ids), err)
	}
}
