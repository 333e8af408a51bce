package enqueue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

func TestSendMakesRecordAndTaskReadableAtOnce(t *testing.T) {
	r := newRig(t)
	for _, req := range requests() {
		t.Run(req.ProviderName(), func(t *testing.T) {
			before := time.Now().Truncate(time.Millisecond)
			receipt, err := r.Send(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			record := r.record(receipt.ID)
			want := status.Record{
				ID: receipt.ID, Provider: req.ProviderName(), Lane: tasks.Interactive, State: status.Queued,
				Recipient: req.MaskedRecipient(), CreatedAt: record.CreatedAt, UpdatedAt: record.CreatedAt,
				NotAfter: record.CreatedAt.Add(DefaultValidity), Attempts: []status.Attempt{},
				Who: r.keys.RecipientPrint(req.ProviderName(), req.Recipient()),
			}
			if diff := cmp.Diff(want, record); diff != "" {
				t.Errorf("record (-want +got):\n%s", diff)
			}
			if record.CreatedAt.Before(before) || record.CreatedAt.After(time.Now()) {
				t.Errorf("created at %v, want between %v and now", record.CreatedAt, before)
			}
			// A value of more than 64 bytes makes Redis keep the record in a form that
			// takes more memory and time.
			if form := r.look.ObjectEncoding(t.Context(), "otpq:msg:"+receipt.ID).Val(); form != "listpack" {
				t.Errorf("Redis keeps the record as a %s, want a listpack", form)
			}
			wantReceipt := Receipt{ID: record.ID, State: status.Queued, NotAfter: record.NotAfter}
			if diff := cmp.Diff(wantReceipt, receipt); diff != "" {
				t.Errorf("receipt (-want +got):\n%s", diff)
			}

			info, err := r.tasks.GetTaskInfo(tasks.QueueName(req.ProviderName(), tasks.Interactive), receipt.ID)
			if err != nil {
				t.Fatal(err)
			}
			m, err := tasks.Decode(r.keys, info.Payload)
			if err != nil {
				t.Fatal(err)
			}
			if info.State != asynq.TaskStatePending {
				t.Errorf("task is %v, want pending", info.State)
			}
			if !m.NotAfter.Equal(record.NotAfter) || !m.CreatedAt.Equal(record.CreatedAt) {
				t.Errorf("task lives %v to %v, its record %v to %v", m.CreatedAt, m.NotAfter, record.CreatedAt, record.NotAfter)
			}
		})
	}
}

// recordFirst fails a task that is queued before its record is there, or without it.
type recordFirst struct {
	t    *testing.T
	look *redis.Client
	seen int
}

func (h *recordFirst) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *recordFirst) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		for _, cmd := range cmds {
			h.check(ctx, cmd)
		}
		return next(ctx, cmds)
	}
}

func (h *recordFirst) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		h.check(ctx, cmd)
		return next(ctx, cmd)
	}
}

func (h *recordFirst) check(ctx context.Context, cmd redis.Cmder) {
	line := words(cmd)
	if !steps["task"](line) || steps["submit"](line) { // a script is one step
		return
	}
	h.seen++
	if n := len(h.look.Keys(ctx, "otpq:msg:*").Val()); n == 0 {
		h.t.Errorf("the task is queued with no record there: a worker would overtake the record")
	}
}

func TestTheRecordIsWrittenBeforeTheTask(t *testing.T) {
	for name, newRig := range rigs {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			hook := &recordFirst{t: t, look: r.look}
			r.rdb.AddHook(hook)
			r.send()
			batch, err := r.SendBatch(t.Context(), []Item{{Request: example}, {Request: requests()[0]}})
			if err != nil || batch[0].Err != nil || batch[1].Err != nil {
				t.Fatal(batch, err)
			}
			if r.apart.Load() != (hook.seen > 0) {
				t.Errorf("%d tasks were queued in a step of their own: the test does not test what it says", hook.seen)
			}
		})
	}
}

func TestAnInvalidRequestNamesEveryFieldAndLeavesNothing(t *testing.T) {
	r := newRig(t)
	_, err := r.Send(t.Context(), medsenior.Request{CPF: "123"})
	var fields providers.FieldErrors
	if !errors.As(err, &fields) {
		t.Fatalf("Send = %v, want FieldErrors", err)
	}
	var got []string
	for _, f := range fields {
		got = append(got, f.Field)
	}
	if diff := cmp.Diff([]string{"emailId", "celularId", "cpf", "primeiroAcesso"}, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	r.wantKeys("*")
}

func TestAWrongOptionIsNamedAndLeavesNothing(t *testing.T) {
	r := newRig(t)
	for name, c := range map[string]struct {
		opt  Option
		want string
	}{
		"a key that is too long":              {IdempotencyKey(strings.Repeat("k", 256)), "idempotency key"},
		"no validity":                         {ValidFor(0), "validity"},
		"a negative validity":                 {ValidFor(-time.Second), "validity"},
		"a validity beyond the longest":       {ValidFor(MaxValidity + 1), "validity"},
		"a lane that there is not":            {InLane("fast"), "lane"},
		"no lane":                             {InLane(""), "lane"},
		"a negative budget":                   {MaxAttempts(-1), "max attempts"},
		"a time beyond what a record lives":   {At(time.Now().AddDate(8000, 0, 0)), "time"},
		"a campaign that is too long":         {Campaign(strings.Repeat("c", 129)), "campaign"},
		"a campaign that JSON would change":   {Campaign("black\xff"), "campaign"},
		"a campaign with a control character": {Campaign("black\nfriday"), "campaign"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := r.Send(t.Context(), example, c.opt)
			var wrong *OptionError
			if !errors.As(err, &wrong) || wrong.Option != c.want {
				t.Fatalf("Send = %v, want an OptionError about %s", err, c.want)
			}
			if !strings.HasPrefix(err.Error(), c.want+" ") {
				t.Errorf("error = %q, want it to start with the option", err)
			}
		})
	}
	r.wantKeys("*")
}

func TestOptionsArriveOnTheTask(t *testing.T) {
	r := newRig(t)
	receipt := r.send(
		IdempotencyKey("order 17"), InLane(tasks.Bulk), ValidFor(time.Minute), MaxAttempts(3), Campaign("café 2026"),
		Trace(map[string]string{
			"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Tracestate": "a=b",
			"baggage": "user=maria.souza@example.com", "authorization": "Bearer s3cret",
		}),
	)
	m := r.message(receipt.ID, tasks.Bulk)
	want := tasks.Message{
		ID: receipt.ID, Provider: "unimedbh", Lane: tasks.Bulk, IdempotencyKey: "order 17",
		Request:   []byte(`{"username":"maria.souza@example.com","type":"EMAIL"}`),
		CreatedAt: m.CreatedAt, NotAfter: m.CreatedAt.Add(time.Minute), MaxAttempts: 3, Campaign: "café 2026",
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("message (-want +got):\n%s", diff)
	}
	headers := map[string]string{
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "a=b",
	}
	if diff := cmp.Diff(headers, r.task(receipt.ID, tasks.Bulk).Headers); diff != "" {
		t.Errorf("headers (-want +got):\n%s", diff)
	}
	if got := r.record(receipt.ID); got.Lane != tasks.Bulk || got.Campaign != "café 2026" {
		t.Errorf("record is in lane %s of campaign %q, want bulk of café 2026", got.Lane, got.Campaign)
	}
}

func TestATraceThatCannotTravelIsLeftOut(t *testing.T) {
	r := newRig(t)
	const parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	long := strings.Repeat("x", 513)
	for name, c := range map[string]struct{ headers, want map[string]string }{
		"not UTF-8, and too long":           {map[string]string{"traceparent": "\xff", "tracestate": long}, nil},
		"a person in place of a trace":      {map[string]string{"traceparent": "maria.souza@example.com"}, nil},
		"a person in the trace":             {map[string]string{"traceparent": "00-maria.souza.at.example.com.abcd-00f067aa0ba902b7-01"}, nil},
		"a person behind the trace":         {map[string]string{"traceparent": parent + "-maria"}, nil},
		"more than version 0 has":           {map[string]string{"traceparent": parent + "-00"}, nil},
		"a tracestate alone":                {map[string]string{"tracestate": "a=b"}, nil},
		"a tracestate that is too long":     {map[string]string{"traceparent": parent, "tracestate": long}, map[string]string{"traceparent": parent}},
		"a later version with more to it":   {map[string]string{"traceparent": "01" + parent[2:] + "-0a"}, map[string]string{"traceparent": "01" + parent[2:] + "-0a"}},
		"a later version, and a person too": {map[string]string{"traceparent": "01" + parent[2:] + "-maria"}, nil},
		"capital letters":                   {map[string]string{"traceparent": strings.ToUpper(parent)}, nil},
	} {
		receipt := r.send(Trace(c.headers))
		if diff := cmp.Diff(c.want, r.task(receipt.ID, tasks.Interactive).Headers, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s: headers (-want +got):\n%s", name, diff)
		}
	}
}

func TestADelayedMessageIsNeverEarly(t *testing.T) {
	r := newRig(t)
	whole := time.Now().Add(time.Hour).Truncate(time.Second)
	for name, c := range map[string]struct{ at, want time.Time }{
		"a whole second stays":          {whole, whole},
		"a nanosecond more is rounded":  {whole.Add(1), whole.Add(time.Second)},
		"the last nanosecond too":       {whole.Add(time.Second - 1), whole.Add(time.Second)},
		"another zone is the same time": {whole.Add(1).In(time.FixedZone("", -10800)), whole.Add(time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			receipt := r.send(At(c.at), ValidFor(time.Minute))
			task := r.task(receipt.ID, tasks.Interactive)
			if task.State != asynq.TaskStateScheduled || !task.NextProcessAt.Equal(c.want) {
				t.Errorf("task is %v until %v, want scheduled until %v", task.State, task.NextProcessAt, c.want)
			}
			if want := c.want.Add(time.Minute); !receipt.NotAfter.Equal(want) {
				t.Errorf("NotAfter = %v, want %v: the validity counts from the time of sending", receipt.NotAfter, want)
			}
		})
	}
	t.Run("a time that has passed delays nothing", func(t *testing.T) {
		receipt := r.send(At(time.Now().Add(-time.Hour)), ValidFor(time.Minute))
		if s := r.task(receipt.ID, tasks.Interactive).State; s != asynq.TaskStatePending {
			t.Errorf("task is %v, want pending", s)
		}
		if left := time.Until(receipt.NotAfter); left < 30*time.Second {
			t.Errorf("%v are left, want about a minute: the validity counts from now", left)
		}
	})
	t.Run("its record outlives its wait", func(t *testing.T) {
		receipt := r.send(At(time.Now().Add(30 * 24 * time.Hour)))
		if ttl := r.look.TTL(t.Context(), "otpq:msg:"+receipt.ID).Val(); ttl < 31*24*time.Hour {
			t.Errorf("the record ends in %v, before the message is sent", ttl)
		}
	})
}

func TestAMessageThatRedisDidNotTakeIsNotLeftQueued(t *testing.T) {
	for _, step := range []string{"record", "task", "submit"} {
		for _, lost := range []bool{false, true} {
			name := step + " is refused"
			if lost {
				name = "the reply about the " + step + " is lost"
			}
			t.Run(name, func(t *testing.T) {
				r := newApartRig(t)
				r.apart.Store(step != "submit")
				r.faults.failOnce(step, lost)
				_, err := r.Send(t.Context(), example)
				r.faults.broken(t)
				u := wantUnavailable(t, err)
				// Of its own cause, asynq hands on only the text.
				if !errors.Is(err, errInjected) && !strings.Contains(err.Error(), errInjected.Error()) {
					t.Errorf("error = %v, want its cause in it", err)
				}
				r.withdrawals.worker.Wait()
				got, err := r.Status(t.Context(), u.ID)
				if step != "task" && !lost {
					if !errors.Is(err, status.ErrNotFound) {
						t.Errorf("Status = %v, %v, want no record", got.State, err)
					}
					return
				}
				if err != nil || got.State != status.Canceled {
					t.Errorf("Status = %q, %v, want canceled: no worker may ever come to it", got.State, err)
				}
			})
		}
	}
}

func TestACtxThatEndsMidwayLeavesNoMessageQueued(t *testing.T) {
	r := newApartRig(t)
	r.faults.hang = true
	r.faults.failOnce("task", false)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := r.Send(ctx, example)
	r.faults.broken(t)
	u := wantUnavailable(t, err)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error = %v, want a deadline in it", err)
	}
	r.withdrawals.worker.Wait()
	if got := r.record(u.ID).State; got != status.Canceled {
		t.Errorf("state = %s, want canceled", got)
	}
}

func TestAMessageIsTakenBackOnceRedisIsThereAgain(t *testing.T) {
	t.Parallel()
	r := newApartRig(t)
	r.faults.failOnce("task", false)
	// The outage outlasts the Send, and several tries to take the message back.
	withdraw, tries := r.withdrawals.cancel, 0
	r.withdrawals.cancel = func(ctx context.Context, id string) error {
		if tries++; tries <= 2 {
			return errInjected
		}
		return withdraw(ctx, id)
	}
	u := wantUnavailable(t, func() error { _, err := r.Send(t.Context(), example); return err }())
	r.withdrawals.worker.Wait()
	if got := r.record(u.ID).State; got != status.Canceled || tries != 3 {
		t.Errorf("state = %s after %d tries, want canceled after 3", got, tries)
	}
}

func TestCloseWaitsNoLongerThanASecondForARedisThatIsAway(t *testing.T) {
	t.Parallel()
	for name, rawURL := range map[string]string{"hung": "redis://" + redistest.Hung(t), "down": "redis://127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := Open(Config{RedisURL: rawURL, Keys: []tasks.Key{newKey("k")}})
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				_, err = c.Send(ctx, example)
				cancel()
				wantUnavailable(t, err)
			}
			start := time.Now()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			// One try is a second; five would be five.
			if took := time.Since(start); took > 4*time.Second {
				t.Errorf("Close took %s", took)
			}
		})
	}
}

func TestWithdrawalsAreBounded(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	canceled := map[string]bool{}
	begun, release := make(chan struct{}), make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	w := newWithdrawals(func(_ context.Context, id string) error {
		begin()
		<-release
		mu.Lock()
		defer mu.Unlock()
		canceled[id] = true
		return nil
	})
	w.add("first")
	<-begun
	for n := range maxWithdrawals {
		w.add(fmt.Sprint(n))
	}
	close(release)
	w.close()
	if len(canceled) != maxWithdrawals+1 || !canceled["first"] || !canceled["0"] {
		t.Errorf("%d messages were taken back, want %d", len(canceled), maxWithdrawals+1)
	}
	if len(w.line) != 0 {
		t.Errorf("%d messages are left", len(w.line))
	}
}

// TestAWithdrawalThatFailsHoldsUpNoOther has one message on a node that is gone,
// and one whose record comes late.
func TestAWithdrawalThatFailsHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	tries := map[string]int{}
	done := make(chan string, 3)
	w := newWithdrawals(func(_ context.Context, id string) error {
		mu.Lock()
		defer mu.Unlock()
		tries[id]++
		switch {
		case id == "node gone" && tries[id] < 3:
			return errors.New("no route to the node")
		case id == "comes late" && tries[id] < 2, id == "never was":
			return status.ErrNotFound
		}
		done <- id
		return nil
	})
	for _, id := range []string{"node gone", "never was", "comes late", "easy"} {
		w.add(id)
	}
	for _, want := range []string{"easy", "comes late", "node gone"} {
		if got := <-done; got != want {
			t.Errorf("%q was taken back, want %q", got, want)
		}
	}
	w.worker.Wait()
	if tries["never was"] != maxMissing {
		t.Errorf("a message without a record was looked for %d times, want %d", tries["never was"], maxMissing)
	}
}

func TestAHungRedisCostsNoMoreThanTheCtx(t *testing.T) {
	for name, opts := range map[string][]Option{"without a key": nil, "with a key": {IdempotencyKey("k")}} {
		t.Run(name, func(t *testing.T) {
			c, err := Open(Config{RedisURL: "redis://" + redistest.Hung(t), Keys: []tasks.Key{newKey("k")}})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			start := time.Now()
			_, err = c.Send(ctx, example, opts...)
			// Generous for a busy machine: it is to tell 200 ms from a second, which
			// a withdrawal takes, and from go-redis's own five.
			if took := time.Since(start); took > 900*time.Millisecond {
				t.Errorf("Send took %v with a ctx of 200 ms", took)
			}
			wantUnavailable(t, err)
			// go-redis may be first to notice, on its connection.
			var timeout net.Error
			if !errors.Is(err, context.DeadlineExceeded) && !(errors.As(err, &timeout) && timeout.Timeout()) {
				t.Errorf("error = %v, want a timeout", err)
			}
			if _, err := c.Status(ctx, "x"); err == nil || errors.Is(err, status.ErrNotFound) {
				t.Errorf("Status = %v, want an error that is not \"not found\"", err)
			}
		})
	}
}

func TestARedisThatIsDownIsUnavailable(t *testing.T) {
	r := newRig(t)
	r.server.Stop()
	_, err := r.Send(t.Context(), example)
	if u := wantUnavailable(t, err); u.ID == "" || !strings.Contains(err.Error(), u.ID) {
		t.Errorf("error = %q, want the message's id in it", err)
	}
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  Config
		want string
	}{
		"no key":      {Config{RedisURL: "redis://127.0.0.1"}, "otpq keygen"},
		"a wrong key": {Config{RedisURL: "redis://127.0.0.1", Keys: []tasks.Key{{ID: "k", Secret: "short"}}}, `key "k"`},
		"a key twice": {Config{RedisURL: "redis://127.0.0.1", Keys: []tasks.Key{newKey("k"), newKey("k")}}, "used twice"},
		"a wrong URL": {Config{RedisURL: "http://127.0.0.1", Keys: []tasks.Key{newKey("k")}}, "redis URL"},
		"no Redis":    {Config{Keys: []tasks.Key{newKey("k")}}, "redis URL"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(c.cfg)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Open = %v, want an error with %q in it", err, c.want)
			}
		})
	}
}

func TestCloseClosesOnlyWhatItOpened(t *testing.T) {
	s := redistest.Start(t)
	own, err := Open(Config{RedisURL: s.URL(), Keys: []tasks.Key{newKey("k")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := own.Send(t.Context(), example); err != nil {
		t.Fatal(err)
	}
	if err := own.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if _, err := own.Send(t.Context(), example); !errors.Is(err, redis.ErrClosed) {
		t.Errorf("Send after Close = %v, want %v", err, redis.ErrClosed)
	}
	shared := s.Client()
	c, err := Open(Config{Redis: shared, Keys: []tasks.Key{newKey("k")}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := shared.Ping(t.Context()).Err(); err != nil {
		t.Errorf("a shared client does not answer after Close: %v", err)
	}
}
