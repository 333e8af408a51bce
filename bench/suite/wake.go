package suite

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/bench/clock"
	"github.com/otpq/otpq/bench/peers"
	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
	"github.com/otpq/otpq/status"
)

func wake() suite {
	s := suite{n: 50, Suite: report.Suite{
		Name: "wake", Title: "Whatever queues a message wakes the worker",
		About: `An idle worker, and messages from elsewhere than Send, one each 50 ms ± 50 %: from a stock asynq client; scheduled for later and ` +
			`then started by Asynqmon's "Run" (Inspector.RunTask); dead letters that are replayed. From just before the call to the arrival of the ` +
			`request. A retry is timed from the moment that its record names (next_attempt_at): what is left after a negative time was early.`,
		Columns: latenciesAnd(
			report.Column{Key: "earliest", Title: "earliest", Digits: 1},
			report.Column{Key: "samples", Title: "messages"},
		),
		Goals: []report.Goal{
			{Text: "a retry, longest after its time, ms", Key: "max", Case: "a retry that falls due", Bound: 300, Most: true},
			{Text: "a retry, earliest, ms", Key: "earliest", Case: "a retry that falls due", Bound: 0},
		},
	}}
	for _, c := range []struct {
		name  string
		phase func(context.Context, *run, *peers.Otpq) error
	}{
		{"a stock asynq client", wakeStock},
		{"Asynqmon's Run", wakeRun},
		{"a replay", wakeReplay},
		{"a retry that falls due", wakeRetry},
	} {
		s.cases = append(s.cases, contest{c.name, stage.Needs{}, func(ctx context.Context, r *run) error {
			return wakeOnce(ctx, r, c.phase)
		}})
	}
	return s
}

// wakeOnce runs one phase beside an idle worker.
func wakeOnce(ctx context.Context, r *run, phase func(context.Context, *run, *peers.Otpq) error) error {
	worker, err := r.WorkOtpq(stage.Otpq{Interactive: inFlight, Bulk: inFlight, Patient: true})
	if err != nil {
		return err
	}
	if err := worker.AwaitLog(ctx, stage.OtpqStarted); err != nil {
		return err
	}
	o, err := peers.OpenOtpq(r.Config)
	if err != nil {
		return err
	}
	defer o.Close()
	before, _, err := r.begin(ctx)
	if err != nil {
		return err
	}
	if err := phase(ctx, r, o); err != nil {
		return err
	}
	after, err := r.Cost()
	if err != nil {
		return err
	}
	_, _, foreign := after.Sub(before)
	r.noise(foreign)
	return nil
}

// timed calls each at a pace and notes how long after the call the message's
// first or second request arrived.
func (r *run) timed(ctx context.Context, second bool, call func(ctx context.Context, number int) error) error {
	begun, err := pace(idleInterval).Run(ctx, 0, r.n, call)
	if err != nil {
		return err
	}
	arrived, err := r.arrivals(ctx, second)
	if err != nil {
		return err
	}
	r.quantiles(gaps(begun, arrived))
	r.value("samples", float64(r.n))
	return r.exactly(ctx, second)
}

// arrivals waits until every message has arrived, once or twice.
func (r *run) arrivals(ctx context.Context, second bool) ([]int64, error) {
	for end := time.Now().Add(stall); ; {
		once, twice, err := r.Provider.Arrivals(ctx)
		if err != nil {
			return nil, err
		}
		if second {
			once = twice
		}
		if !slices.Contains(once, 0) {
			return once, nil
		}
		if time.Now().After(end) {
			return nil, errors.New("not all messages arrived")
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// exactly checks that each message arrived as often as it was to.
func (r *run) exactly(ctx context.Context, second bool) error {
	if err := r.Settle(ctx); err != nil {
		return err
	}
	t, err := r.Provider.Await(ctx, 0, 0)
	if err != nil {
		return err
	}
	if second {
		if t.Doubled != r.n {
			r.problem("%d of %d came twice", t.Doubled, r.n)
		}
		t.Doubled = 0
	}
	r.tally(t, r.n)
	return nil
}

func wakeStock(ctx context.Context, r *run, o *peers.Otpq) error {
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: r.n}); err != nil {
		return err
	}
	client, err := stockClient(r.Config)
	if err != nil {
		return err
	}
	defer client.Close()
	return r.timed(ctx, false, func(ctx context.Context, number int) error {
		task, err := o.Task(r.Config, number)
		if err != nil {
			return err
		}
		_, err = client.EnqueueContext(ctx, task)
		return err
	})
}

func stockClient(cfg peers.Config) (*asynq.Client, error) {
	opt, err := asynq.ParseRedisURI(cfg.Redis)
	if err != nil {
		return nil, err
	}
	return asynq.NewClient(opt), nil
}

func wakeRun(ctx context.Context, r *run, o *peers.Otpq) error {
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: r.n}); err != nil {
		return err
	}
	client, err := stockClient(r.Config)
	if err != nil {
		return err
	}
	defer client.Close()
	ids := make([]string, r.n)
	for number := range r.n {
		task, err := o.Task(r.Config, number)
		if err != nil {
			return err
		}
		info, err := client.EnqueueContext(ctx, task, asynq.ProcessIn(time.Hour))
		if err != nil {
			return err
		}
		ids[number] = info.ID
	}
	opt, err := asynq.ParseRedisURI(r.Config.Redis)
	if err != nil {
		return err
	}
	inspector := asynq.NewInspector(opt)
	defer inspector.Close()
	return r.timed(ctx, false, func(_ context.Context, number int) error {
		return inspector.RunTask(r.Config.Queue(), ids[number])
	})
}

func wakeReplay(ctx context.Context, r *run, o *peers.Otpq) error {
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: r.n, First: provider.Refuse}); err != nil {
		return err
	}
	ids := make([]string, r.n)
	for number := range r.n {
		var err error
		if ids[number], err = o.Send(ctx, number); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if _, err := awaitRecord(ctx, o, id, func(rec status.Record) bool { return rec.State == status.Rejected }); err != nil {
			return err
		}
	}
	return r.timed(ctx, true, func(ctx context.Context, number int) error {
		_, err := o.Client.Replay(ctx, ids[number])
		return err
	})
}

// wakeRetry has each message's first attempt fail and holds the second against
// the time that its record gave for it.
func wakeRetry(ctx context.Context, r *run, o *peers.Otpq) error {
	if err := r.Provider.Reset(ctx, provider.Settings{Messages: r.n, First: provider.NotSent}); err != nil {
		return err
	}
	due := make([]time.Time, r.n)
	_, err := pace(idleInterval).Run(ctx, 0, r.n, func(ctx context.Context, number int) error {
		id, err := o.Send(ctx, number)
		if err != nil {
			return err
		}
		// Now and then the second attempt is over before anybody looks.
		rec, err := awaitRecord(ctx, o, id, func(rec status.Record) bool {
			return rec.State == status.Deferred || rec.State.Terminal()
		})
		due[number] = rec.NextAttemptAt
		return err
	})
	if err != nil {
		return err
	}
	arrived, err := r.arrivals(ctx, true)
	if err != nil {
		return err
	}
	var late []int64
	for number, at := range arrived {
		if !due[number].IsZero() {
			late = append(late, int64(clock.Wall(at).Sub(due[number])))
		}
	}
	if len(late) < (r.n+1)/2 {
		return fmt.Errorf("only %d of %d retries could be timed", len(late), r.n)
	}
	r.quantiles(late)
	r.value("earliest", float64(slices.Min(late))/1e6)
	r.value("samples", float64(len(late)))
	return r.exactly(ctx, true)
}

// awaitRecord waits until a record is as wanted.
func awaitRecord(ctx context.Context, o *peers.Otpq, id string, ok func(status.Record) bool) (status.Record, error) {
	for end := time.Now().Add(stall); ; {
		rec, err := o.Client.Status(ctx, id)
		if err != nil || ok(rec) {
			return rec, err
		}
		if time.Now().After(end) {
			return rec, fmt.Errorf("a message stays %s", rec.State)
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return rec, ctx.Err()
		}
	}
}
