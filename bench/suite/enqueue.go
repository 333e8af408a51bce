package suite

import (
	"context"

	"github.com/otpq/otpq/bench/peers"
	"github.com/otpq/otpq/bench/report"
	"github.com/otpq/otpq/bench/stage"
)

func enqueue() suite {
	send := contender{name: "otpq Send × 128", peer: "otpq"}
	stock := contender{name: "asynq × 128", peer: "asynq"}
	batch := contender{name: "otpq SendBatch", peer: "otpq"}
	bulk := contender{name: "BullMQ addBulk by 1000", peer: "bullmq"}
	many := contender{name: "River InsertManyFast by 1000", peer: "river"}
	more := contender{name: "River InsertManyFast by 10000", peer: "river"}
	publish := contender{name: "JetStream × 128", peer: "nats"}
	async := contender{name: "JetStream PublishAsync", peer: "nats"}
	s := suite{n: 100_000, Suite: report.Suite{
		Name: "enqueue", Title: "Enqueue",
		About: `A producer alone, nobody drains. A call returns when the queue has confirmed it. The product also seals the message and writes ` +
			`its status record, so that its status can be read at once; the others queue the message and no more.`,
		Columns: []report.Column{
			{Key: "rate", Title: "messages/s"},
			{Key: "producer_us", Title: "CPU µs/message: producer", Digits: 1},
			{Key: "redis_us", Title: "Redis", Digits: 1},
			{Key: "store_us", Title: "PostgreSQL or NATS", Digits: 1},
			{Key: "commands", Title: "Redis commands/message", Digits: 2},
			{Key: "reads", Title: "Redis socket reads/message", Digits: 3},
			{Key: "memory", Title: "Redis bytes/message"},
		},
		Goals: []report.Goal{
			{Text: "Send / asynq", Key: "rate", Case: send.name, Against: stock.name, Bound: 1.5},
			{Text: "SendBatch / BullMQ addBulk", Key: "rate", Case: batch.name, Against: bulk.name, Bound: 3},
			{Text: "SendBatch / River InsertManyFast by 1000", Key: "rate", Case: batch.name, Against: many.name, Bound: 1.2},
			{Text: "SendBatch / River InsertManyFast by 10000", Key: "rate", Case: batch.name, Against: more.name, Bound: 1.2},
		},
		Plot: "rate", Better: "more", PlotTitle: "Enqueue: messages a second",
	}}
	add := func(c contender, batch int) {
		s.cases = append(s.cases, contest{c.name, c.needs(), func(ctx context.Context, r *run) error {
			return enqueueOnce(ctx, r, c, batch)
		}})
	}
	add(send, 0)
	add(stock, 0)
	if peers.BatchReady {
		add(batch, allAtOnce)
	}
	add(bulk, 1000)
	add(many, 1000)
	add(more, 10_000)
	add(publish, 0)
	add(async, 1000)
	return s
}

// allAtOnce is a batch of all messages of a run.
const allAtOnce = -1

// enqueueOnce queues n messages, one by one from many callers, or batch by batch.
func enqueueOnce(ctx context.Context, r *run, c contender, batch int) error {
	plan := stage.Plan{Config: c.config(r.Scene, inFlight), Mode: "batch", N: r.n, Callers: fillCallers, Batch: batch}
	switch batch {
	case 0:
		plan.Mode = "fill"
	case allAtOnce:
		plan.Batch = r.n
	}
	p, plan, err := r.Producer(ctx, c.peer, plan)
	if err != nil {
		return err
	}
	before, from, err := r.begin(ctx)
	if err != nil {
		return err
	}
	made, err := r.Produce(ctx, p, plan)
	if err != nil {
		return err
	}
	after, err := r.Cost()
	if err != nil {
		return err
	}
	to, err := r.Redis.Usage(ctx)
	if err != nil {
		return err
	}
	r.perMessage(before, after, r.n)
	r.value("producer_us", r.result.Values["worker_us"])
	delete(r.result.Values, "worker_us")
	r.value("rate", float64(r.n)/made.Took.Seconds())
	if c.peer != "nats" && c.peer != "river" {
		used := to.Sub(from)
		r.value("commands", used.Commands/float64(r.n))
		r.value("reads", used.Reads/float64(r.n))
		r.value("memory", used.Memory/float64(r.n))
	}
	return c.verifyQueued(ctx, r, made.IDs)
}

// verifyQueued holds a producer to its word: each message is queued, once. Of the
// product, the records of some are read too.
func (c contender) verifyQueued(ctx context.Context, r *run, ids []string) error {
	var sample []string
	if c.peer == "otpq" {
		for i := 0; i < len(ids); i += max(1, len(ids)/1000) {
			sample = append(sample, ids[i])
		}
	}
	state, err := peers.All()[c.peer].Check(ctx, c.config(r.Scene, inFlight), sample)
	if err != nil {
		return err
	}
	if state.Left != r.n {
		r.problem("%d in the queue after %d were sent", state.Left, r.n)
	}
	if state.Known != len(sample) {
		r.problem("%d of %d have no record", len(sample)-state.Known, len(sample))
	}
	return nil
}
