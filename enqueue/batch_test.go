package enqueue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// numbered is a request that tells which one it is.
func numbered(i int) unimedbh.Request {
	return unimedbh.Request{Username: fmt.Sprintf("person%06d@example.com", i), Type: "EMAIL"}
}

// rows are the items of a campaign.
func rows(n int, opts func(i int) []Option) []Item {
	items := make([]Item, n)
	for i := range items {
		items[i].Request = numbered(i)
		if opts != nil {
			items[i].Options = opts(i)
		}
	}
	return items
}

// byRow gives each row a key of its own.
func byRow(i int) []Option { return []Option{IdempotencyKey(fmt.Sprint("row ", i))} }

// queued reads what a worker would take from the example's provider: ids, the next
// one first.
func (r *rig) queued(lane tasks.Lane) []string {
	r.t.Helper()
	ids, err := r.look.LRange(r.t.Context(), "asynq:{"+tasks.QueueName(unimedbh.Name, lane)+"}:pending", 0, -1).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Reverse(ids)
	return ids
}

// wantRow fails unless a message is the one of row i, recorded and queued.
func (r *rig) wantRow(id string, i int) {
	r.t.Helper()
	if m := r.message(id, tasks.Interactive); !strings.Contains(string(m.Request), numbered(i).Username) {
		r.t.Errorf("message %s is of another row than %d", id, i)
	}
	if got := r.record(id); got.State != status.Queued || got.Recipient != numbered(i).MaskedRecipient() {
		r.t.Errorf("record of row %d = %+v", i, got)
	}
}

// wantEachOnce fails unless exactly the rows 0 to n-1 are in the queue, once each.
func (r *rig) wantEachOnce(n int) {
	r.t.Helper()
	count := map[string]int{}
	ids := r.queued(tasks.Interactive)
	for _, id := range ids {
		count[string(r.message(id, tasks.Interactive).Request)]++
	}
	for request, times := range count {
		if times != 1 {
			r.t.Errorf("%s is queued %d times", request, times)
		}
	}
	if len(ids) != n || len(count) != n {
		r.t.Errorf("%d messages of %d rows are queued, want %d", len(ids), len(count), n)
	}
	if records := r.look.Keys(r.t.Context(), "otpq:msg:*").Val(); len(records) != n {
		r.t.Errorf("there are %d records, want %d", len(records), n)
	}
}

func TestEachItemOfABatchHasItsOwnResult(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			const n = 3*mostTogether + 7
			later := time.Now().Add(time.Hour).Truncate(time.Second)
			items := rows(n, func(i int) []Option {
				switch i % 10 {
				case 4:
					return []Option{At(later)}
				case 5:
					return []Option{ValidFor(-1)}
				case 6:
					return []Option{InLane(tasks.Bulk), Campaign("november"), IdempotencyKey(fmt.Sprint(i))}
				case 7:
					return []Option{ValidFor(time.Duration(i) * time.Minute)}
				}
				return nil
			})
			for i := range items {
				switch i % 10 {
				case 2:
					items[i].Request = unimedbh.Request{Type: "EMAIL"}
				case 3:
					items[i].Request = requests()[i%3]
				case 8:
					items[i].Request = nil
				}
			}
			results, err := r.SendBatch(t.Context(), items)
			if err != nil || len(results) != n {
				t.Fatalf("SendBatch = %d results, %v", len(results), err)
			}
			for i, got := range results {
				var fields providers.FieldErrors
				var option *OptionError
				switch i % 10 {
				case 2:
					if !errors.As(got.Err, &fields) || fields[0].Field != "username" {
						t.Errorf("result %d = %+v, want a FieldErrors", i, got)
					}
					continue
				case 5, 8:
					if !errors.As(got.Err, &option) {
						t.Errorf("result %d = %+v, want an OptionError", i, got)
					}
					continue
				}
				record := r.record(got.Receipt.ID)
				if want := (Receipt{ID: record.ID, State: status.Queued, NotAfter: record.NotAfter}); got.Err != nil || !cmp.Equal(want, got.Receipt) {
					t.Errorf("result %d = %+v, want %+v", i, got, want)
				}
				task, err := r.tasks.GetTaskInfo(tasks.QueueName(record.Provider, record.Lane), record.ID)
				if err != nil {
					t.Fatal(err)
				}
				m, err := tasks.Decode(r.keys, task.Payload)
				if err != nil {
					t.Fatal(err)
				}
				person := items[i].Request.Personal()[0]
				if !strings.Contains(string(m.Request), person) || record.Recipient != items[i].Request.MaskedRecipient() || !m.NotAfter.Equal(record.NotAfter) {
					t.Errorf("result %d is of another item: %+v", i, record)
				}
				if scheduled := task.State == asynq.TaskStateScheduled; scheduled != (i%10 == 4) || scheduled && !task.NextProcessAt.Equal(later) {
					t.Errorf("task %d is %v for %v", i, task.State, task.NextProcessAt)
				}
				if bulk := record.Lane == tasks.Bulk && record.Campaign == "november"; bulk != (i%10 == 6) {
					t.Errorf("record %d = %+v", i, record)
				}
				if i%10 == 7 && record.NotAfter.Sub(record.CreatedAt) != time.Duration(i)*time.Minute {
					t.Errorf("record %d may be sent for %v", i, record.NotAfter.Sub(record.CreatedAt))
				}
			}
		})
	}
}

func TestABatchOfNothingIsDone(t *testing.T) {
	r := newRig(t)
	if results, err := r.SendBatch(t.Context(), nil); err != nil || len(results) != 0 {
		t.Errorf("SendBatch = %v, %v", results, err)
	}
	results, err := r.SendBatch(t.Context(), []Item{{}, {Request: unimedbh.Request{}}})
	if err != nil || results[0].Err == nil || results[1].Err == nil {
		t.Errorf("SendBatch of what is all wrong = %v, %v; want an error each", results, err)
	}
	r.wantKeys("*")
}

func TestAKeyThatABatchRepeatsIsQueuedOnce(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			const people = 2*mostTogether + 3
			// Everybody three times: beside each other, and chunks apart.
			items := rows(3*people, func(i int) []Option { return byRow(i % people) })
			for i := range items {
				items[i].Request = numbered(i % people)
			}
			items[1], items[people] = items[people], items[1]
			items[5].Options = append(items[5].Options, ValidFor(-1)) // a wrong item takes no key
			results, err := r.SendBatch(t.Context(), items)
			if err != nil {
				t.Fatal(err)
			}
			first := map[string]int{}
			for i, got := range results {
				row := items[i].Request.(unimedbh.Request).Username
				if i == 5 {
					if got.Err == nil {
						t.Error("result 5 = nil, want an error")
					}
					continue
				}
				of, again := first[row]
				if !again {
					first[row] = i
					of = i
				}
				want := results[of].Receipt
				want.Repeated = again
				if got.Err != nil || !cmp.Equal(want, got.Receipt) || !again && got.Receipt.Repeated {
					t.Errorf("result %d = %+v, want %+v", i, got, want)
				}
			}
			r.wantEachOnce(people)
		})
	}
}

// TestTheFirstWithAKeyIsTheOneThatIsQueued holds up the first chunk, so that a later
// one that may overtake it does.
func TestTheFirstWithAKeyIsTheOneThatIsQueued(t *testing.T) {
	r := newRig(t)
	r.send()
	overtaken := make(chan struct{})
	r.rdb.AddHook(&cutShort{at: 2, do: func(context.Context) { close(overtaken) }})
	r.rdb.AddHook(&cutShort{at: 1, do: func(context.Context) {
		select {
		case <-overtaken:
		case <-time.After(300 * time.Millisecond):
		}
	}})
	items := append(rows(mostTogether, byRow), rows(mostTogether, byRow)...)
	results, err := r.SendBatch(t.Context(), items)
	if err != nil {
		t.Fatal(err)
	}
	for i, got := range results {
		if got.Receipt.Repeated != (i >= mostTogether) || got.Receipt.ID != results[i%mostTogether].Receipt.ID {
			t.Errorf("result %d = %+v", i, got)
		}
	}
}

func TestABatchThatIsRepeatedQueuesNothing(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			const n = mostTogether + 5
			first, err := r.SendBatch(t.Context(), rows(n, byRow))
			if err != nil {
				t.Fatal(err)
			}
			r.finish(first[3].Receipt.ID, status.Accepted)
			if err := r.Cancel(t.Context(), first[4].Receipt.ID); err != nil {
				t.Fatal(err)
			}
			r.look.Del(t.Context(), "otpq:msg:"+first[5].Receipt.ID)
			again, err := r.SendBatch(t.Context(), rows(n, byRow))
			if err != nil {
				t.Fatal(err)
			}
			for i, got := range again {
				want := first[i].Receipt
				want.Repeated = true
				switch i {
				case 3:
					want.State = status.Accepted
				case 4:
					want.State = status.Canceled
				case 5:
					want.State = ""
				}
				if got.Err != nil || !cmp.Equal(want, got.Receipt) {
					t.Errorf("result %d = %+v, want %+v", i, got, want)
				}
			}
			if got := len(r.queued(tasks.Interactive)); got != n-1 {
				t.Errorf("%d messages are queued, want %d", got, n-1)
			}
			// A Send with the key is the same message, whichever of the two came first.
			if one, err := r.Send(t.Context(), numbered(0), byRow(0)...); err != nil || one.ID != first[0].Receipt.ID || !one.Repeated {
				t.Errorf("Send = %+v, %v", one, err)
			}
		})
	}
}

func TestABatchThatDiedIsFinishedByItsRepetition(t *testing.T) {
	for _, step := range []string{"reserve", "record", "task", "mark", "submit"} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reply lost %v", step, lost), func(t *testing.T) {
				r := newApartRig(t)
				r.apart.Store(step != "submit")
				const n = 3 * mostTogether
				r.faults.failOnce(step, lost)
				first, err := r.SendBatch(t.Context(), rows(n, byRow))
				r.faults.broken(t)
				var failed *BatchError
				if step != "mark" && (!errors.As(err, &failed) || failed.Unknown == 0 || failed.Of != n) {
					t.Errorf("SendBatch = %v, want a BatchError", err)
				}
				again, err := r.SendBatch(t.Context(), rows(n, byRow))
				if err != nil {
					t.Fatal(err)
				}
				for i, got := range again {
					if got.Err != nil || first[i].Err == nil && (got.Receipt.ID != first[i].Receipt.ID || !got.Receipt.Repeated) {
						t.Errorf("result %d = %+v after %+v", i, got, first[i])
					}
					r.wantRow(got.Receipt.ID, i)
				}
				r.wantEachOnce(n)
			})
		}
	}
}

// TestTwoBatchesThatGoOnWithOneThatDied run at the same time.
func TestTwoBatchesThatGoOnWithOneThatDied(t *testing.T) {
	r := newApartRig(t)
	const n = 20
	r.faults.failOnce("record", false)
	if _, err := r.SendBatch(t.Context(), rows(n, byRow)); err == nil {
		t.Fatal("SendBatch = nil, want an error")
	}
	r.apart.Store(false)
	// The same rows, each twice.
	items := append(rows(n, byRow), rows(n, byRow)...)
	errs := make(chan error, 2)
	for range 2 {
		go func() { _, err := r.SendBatch(t.Context(), items); errs <- err }()
	}
	if err := errors.Join(<-errs, <-errs); err != nil {
		t.Fatal(err)
	}
	r.wantEachOnce(n)
}

// cutShort is a go-redis hook that calls a function at the n-th command with tasks.
type cutShort struct {
	at   int64
	seen atomic.Int64
	do   func(ctx context.Context)
}

func (h *cutShort) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *cutShort) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (h *cutShort) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if steps["task"](words(cmd)) && h.seen.Add(1) == h.at {
			h.do(ctx)
		}
		return next(ctx, cmd)
	}
}

// noTasks is a hook that fails whatever would queue a task in the interactive lane.
type noTasks struct{ cutShort }

func (h *noTasks) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if said := words(cmd); steps["task"](said) && strings.Contains(said, ":interactive}") {
			return errInjected
		}
		return next(ctx, cmd)
	}
}

// Two items that go on with a third, which was not queued, know no more than each other.
func TestARepeatedKeyIsNotQueuedUntilItsFirstIs(t *testing.T) {
	r := newApartRig(t)
	r.rdb.AddHook(&noTasks{})
	items := []Item{{Request: numbered(1), Options: []Option{InLane(tasks.Bulk)}}} // this one goes
	for range 3 {
		items = append(items, Item{Request: numbered(0), Options: []Option{IdempotencyKey("k")}})
	}
	results, err := r.SendBatch(t.Context(), items)
	if err == nil {
		t.Error("SendBatch = nil, want an error")
	}
	for i, got := range results {
		if (got.Err == nil) != (i == 0) {
			t.Errorf("result %d = %+v, want an error of all but the first: no task of theirs is queued", i, got)
		}
	}
}

func TestABatchWhoseCtxEndsSaysWhatIsKnown(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			const n = 20 * mostTogether
			ctx, cancel := context.WithCancel(t.Context())
			// Whoever calls is not waited for: a reply that never comes, and a ctx
			// that go-redis does not look at.
			never := make(chan struct{})
			t.Cleanup(func() { close(never) })
			r.rdb.AddHook(&cutShort{at: 8, do: func(context.Context) { cancel(); <-never }})
			results, err := r.SendBatch(ctx, rows(n, nil))
			var failed *BatchError
			if !errors.As(err, &failed) || !errors.Is(err, context.Canceled) {
				t.Fatalf("SendBatch = %v, want a BatchError because of the ctx", err)
			}
			var done, unknown, untried int
			for i, got := range results {
				var unavailable *UnavailableError
				switch {
				case got.Err == nil:
					done++
					r.wantRow(got.Receipt.ID, i)
				case errors.As(got.Err, &unavailable) && unavailable.ID != "":
					unknown++
				case errors.Is(got.Err, ErrUntried):
					untried++
				default:
					t.Errorf("result %d = %+v", i, got)
				}
			}
			if want := (BatchError{Unknown: unknown, Untried: untried, Of: n, Err: context.Canceled}); *failed != want {
				t.Errorf("error = %+v, want %+v", *failed, want)
			}
			if done == 0 || unknown == 0 || untried == 0 || done+unknown+untried != n {
				t.Errorf("%d queued, %d unknown, %d untried of %d", done, unknown, untried, n)
			}
			r.withdrawals.worker.Wait()
			waitFor(t, "what is not known to be taken back", func() bool {
				for i, got := range results {
					if got.Err == nil {
						continue
					}
					if errors.Is(got.Err, ErrUntried) {
						continue
					}
					var unavailable *UnavailableError
					errors.As(got.Err, &unavailable)
					if record, err := r.Status(t.Context(), unavailable.ID); err == nil && record.State == status.Queued {
						t.Logf("row %d is still queued", i)
						return false
					}
				}
				return true
			})
		})
	}
}

func TestABatchCostsNoMoreThanItsCtxWhenRedisHangs(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string]func(int) []Option{"without keys": nil, "with keys": byRow} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := Open(Config{RedisURL: "redis://" + redistest.Hung(t), Keys: []tasks.Key{newKey("k")}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			start := time.Now()
			results, err := c.SendBatch(ctx, rows(5000, opts))
			if took := time.Since(start); took > 900*time.Millisecond { // of a busy machine
				t.Errorf("SendBatch took %v with a ctx of 200 ms", took)
			}
			var failed *BatchError
			if !errors.As(err, &failed) || failed.Unknown+failed.Untried != 5000 || failed.Unknown > batchWorkers*mostTogether {
				t.Errorf("SendBatch = %v", err)
			}
			for i, got := range results {
				if got.Err == nil || got.Receipt.ID != "" {
					t.Fatalf("result %d = %+v, want an error", i, got)
				}
			}
		})
	}
}

// TestABatchGivesUpWhenRedisIsDown has no deadline.
func TestABatchGivesUpWhenRedisIsDown(t *testing.T) {
	r := newRig(t)
	r.server.Stop()
	_, err := r.SendBatch(t.Context(), rows(100*mostTogether, byRow))
	var failed *BatchError
	if !errors.As(err, &failed) || failed.Unknown > batchWorkers*mostTogether || failed.Unknown+failed.Untried != failed.Of {
		t.Fatalf("SendBatch = %v", err)
	}
	if !strings.Contains(err.Error(), "refused") {
		t.Errorf("error = %v, want its cause in it", err)
	}
}

func TestABatchOutlivesAScriptFlush(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			flush := func(context.Context) {
				if err := r.look.ScriptFlush(t.Context()).Err(); err != nil {
					t.Error(err)
				}
			}
			r.rdb.AddHook(&cutShort{at: 4, do: flush})
			r.rdb.AddHook(&cutShort{at: 9, do: flush})
			const n = 10 * mostTogether
			if _, err := r.SendBatch(t.Context(), rows(n, byRow)); err != nil {
				t.Fatal(err)
			}
			r.wantEachOnce(n)
		})
	}
}

func TestAQueueIsListedAgainAfterAFlush(t *testing.T) {
	r := newRig(t)
	r.send()
	if err := r.look.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	r.send()
	// Without it no dashboard shows the queue.
	if diff := cmp.Diff([]string{"otpq:unimedbh:interactive"}, r.look.SMembers(t.Context(), "asynq:queues").Val()); diff != "" {
		t.Errorf("queues (-want +got):\n%s", diff)
	}
}

func TestAFullRedisTakesNothingOfABatch(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.send() // so that the scripts are known
			if err := r.look.ConfigSet(t.Context(), "maxmemory", "1").Err(); err != nil {
				t.Fatal(err)
			}
			results, err := r.SendBatch(t.Context(), rows(3, byRow))
			var failed *BatchError
			if !errors.As(err, &failed) || failed.Unknown != 3 || !strings.Contains(err.Error(), "OOM") {
				t.Errorf("SendBatch = %v, want a BatchError with OOM", err)
			}
			for i, got := range results {
				if wantUnavailable(t, got.Err); !strings.Contains(got.Err.Error(), "OOM") {
					t.Errorf("result %d = %v, want its cause in it", i, got.Err)
				}
			}
			if err := r.look.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
				t.Fatal(err)
			}
			if got := len(r.queued(tasks.Interactive)); got != 1 {
				t.Errorf("%d messages are queued, want the first", got)
			}
			if _, err := r.SendBatch(t.Context(), rows(3, byRow)); err != nil {
				t.Error(err)
			}
		})
	}
}
