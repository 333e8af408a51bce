package peers

import (
	"context"
	"sync"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/bench/load"
)

const (
	asynqType  = "bench"
	asynqQueue = "default"

	// asynqServers and asynqInterval are the tuned variant: a server dequeues one
	// task per round trip whatever its concurrency, so four of them share it, and
	// an empty queue is asked every few milliseconds instead of each second.
	asynqServers  = 4
	asynqInterval = 5 * time.Millisecond
	// LanesVariant is asynq with a server for each lane of the product, at their
	// defaults.
	LanesVariant = "lanes"
)

type asynqProducer struct{ client *asynq.Client }

func openAsynq(_ context.Context, cfg Config) (Producer, error) {
	opt, err := asynq.ParseRedisURI(cfg.Redis)
	if err != nil {
		return nil, err
	}
	return asynqProducer{asynq.NewClient(opt)}, nil
}

// Send implements [Producer].
func (p asynqProducer) Send(ctx context.Context, number int) (string, error) {
	info, err := p.client.EnqueueContext(ctx, asynq.NewTask(asynqType, load.Body(number)), asynq.Queue(asynqQueue))
	if err != nil {
		return "", err
	}
	return info.ID, nil
}

// Close implements [Producer].
func (p asynqProducer) Close() error { return p.client.Close() }

func workAsynq(ctx context.Context, cfg Config, start func()) error {
	opt, err := asynq.ParseRedisURI(cfg.Redis)
	if err != nil {
		return err
	}
	l, err := newLedger(cfg)
	if err != nil {
		return err
	}
	defer l.rdb.Close()
	p := newPoster(cfg)
	handler := asynq.HandlerFunc(func(ctx context.Context, t *asynq.Task) error {
		return handle(ctx, p, t.Payload(), l.accepted)
	})
	servers, concurrency, interval := 1, cfg.InFlight, time.Duration(0) // zero is asynq's default
	queue := func(int) string { return asynqQueue }
	switch cfg.Variant {
	case Tuned:
		servers, concurrency, interval = asynqServers, max(1, cfg.InFlight/asynqServers), asynqInterval
	case LanesVariant:
		servers = 6
		queue = func(i int) string { return "lane" + string(rune('0'+i)) }
	}
	var list []*asynq.Server
	for i := range servers {
		list = append(list, asynq.NewServer(opt, asynq.Config{
			Concurrency: concurrency, TaskCheckInterval: interval, LogLevel: asynq.ErrorLevel,
			Queues: map[string]int{queue(i): 1},
		}))
	}
	start()
	for _, s := range list {
		if err := s.Start(handler); err != nil {
			return err
		}
	}
	<-ctx.Done()
	var wg sync.WaitGroup
	for _, s := range list {
		wg.Go(s.Shutdown)
	}
	wg.Wait()
	return nil
}

// openChecked counts the status records of n messages, and opens the Redis to look
// for what is left in the queue.
func openChecked(ctx context.Context, cfg Config, n int) (State, *redis.Client, error) {
	s, err := checkLedger(ctx, cfg, n)
	if err != nil {
		return s, nil, err
	}
	opts, err := redis.ParseURL(cfg.Redis)
	if err != nil {
		return s, nil, err
	}
	return s, redis.NewClient(opts), nil
}

func checkAsynq(ctx context.Context, cfg Config, ids []string) (State, error) {
	s, rdb, err := openChecked(ctx, cfg, len(ids))
	if err != nil {
		return s, err
	}
	defer rdb.Close()
	s.Left, err = left(rdb, asynqQueue)
	return s, err
}

// checkBullMQ counts the job ids in each of BullMQ's lists of the queue.
func checkBullMQ(ctx context.Context, cfg Config, ids []string) (State, error) {
	s, rdb, err := openChecked(ctx, cfg, len(ids))
	if err != nil {
		return s, err
	}
	defer rdb.Close()
	const queue = "bull:bench:"
	for _, list := range []string{"wait", "active", "paused"} {
		n, err := rdb.LLen(ctx, queue+list).Result()
		if err != nil {
			return s, err
		}
		s.Left += int(n)
	}
	for _, set := range []string{"delayed", "prioritized", "failed", "completed"} {
		n, err := rdb.ZCard(ctx, queue+set).Result()
		if err != nil {
			return s, err
		}
		s.Left += int(n)
	}
	return s, nil
}
