// Package peers is the product's producer and what people would pick instead of
// the product, each doing the same job: one POST and one status write a message.
// BullMQ is not in it, because it runs on Node.js: see bullmq.mjs. Nothing is
// measured here.
package peers

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/bench/load"
	"github.com/otpq/otpq/bench/provider"
)

// Config is what a process of a peer is told.
type Config struct {
	// Redis, Postgres and NATS are the URLs of the stores.
	Redis    string `json:"redis"`
	Postgres string `json:"postgres"`
	NATS     string `json:"nats"`
	// Provider is where the provider's paths start.
	Provider string `json:"provider"`
	// InFlight is how many messages are worked on at once.
	InFlight int `json:"in_flight"`
	// Variant is one of the peer's set-ups; empty is its defaults.
	Variant string `json:"variant,omitempty"`
	// Key is the product's sealing key.
	Key string `json:"key,omitempty"`
	// Lane is the product's lane; empty is the interactive one.
	Lane string `json:"lane,omitempty"`
	// Queues is over how many queues the product's lane is spread; zero is one.
	Queues int `json:"queues,omitempty"`
}

// Tuned is the variant that a peer's documents suggest for speed.
const Tuned = "tuned"

// Producer puts messages into a queue. It is safe for concurrent use.
type Producer interface {
	// Send queues the message with a number and returns once the queue has
	// confirmed it. The id is "" where nobody needs it later.
	Send(ctx context.Context, number int) (id string, err error)
	Close() error
}

// Batcher is a Producer with a call for many messages.
type Batcher interface {
	// SendBatch queues a message for each of ids, from number first on, in one call,
	// and notes the ids that somebody needs later.
	SendBatch(ctx context.Context, first int, ids []string) error
}

// State is what has become of a peer's messages.
type State struct {
	// Left are those still in the queue, whatever for.
	Left int `json:"left"`
	// Accepted are those whose status says that the provider took them.
	Accepted int `json:"accepted"`
	// Known are those that have a record, whatever it says; only of the product.
	Known int `json:"known"`
}

// Peer is one program to compare.
type Peer struct {
	// Open makes a producer.
	Open func(ctx context.Context, cfg Config) (Producer, error)
	// Work runs a worker until ctx ends. It calls start once it is ready, before
	// the first message is taken. Nil where another program is the worker.
	Work func(ctx context.Context, cfg Config, start func()) error
	// Check looks at messages: the ids are those of Send.
	Check func(ctx context.Context, cfg Config, ids []string) (State, error)
}

// All lists the peers by name.
func All() map[string]Peer {
	return map[string]Peer{
		"otpq":          {Open: openOtpq, Check: checkOtpq},
		"asynq":         {Open: openAsynq, Work: workAsynq, Check: checkAsynq},
		"nats":          {Open: openNATS, Work: workNATS, Check: checkNATS},
		"river":         {Open: openRiver, Work: workRiver, Check: checkRiver},
		"direct":        {Open: openDirect, Check: checkNothing},
		"direct-status": {Open: openDirectStatus, Check: checkDirect},
		// Its programs are in bullmq.mjs.
		"bullmq": {Check: checkBullMQ},
	}
}

// poster posts to the provider. It is safe for concurrent use.
type poster struct {
	client http.Client
	url    string
}

func newPoster(cfg Config) *poster {
	t := &http.Transport{
		MaxIdleConns: 2 * cfg.InFlight, MaxIdleConnsPerHost: 2 * cfg.InFlight,
		IdleConnTimeout: 30 * time.Second, DisableCompression: true,
	}
	return &poster{client: http.Client{Transport: t, Timeout: 30 * time.Second}, url: cfg.Provider + provider.Path}
}

// post makes the one request of a message.
func (p *poster) post(ctx context.Context, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the provider answered %s", resp.Status)
	}
	return nil
}

// statusPrefix starts the keys of the peers' status records.
const statusPrefix = "bench:status:"

// ledger writes the one status record of a message into Redis.
type ledger struct{ rdb *redis.Client }

func newLedger(cfg Config) (*ledger, error) {
	opts, err := redis.ParseURL(cfg.Redis)
	if err != nil {
		return nil, err
	}
	opts.PoolSize = cfg.InFlight
	opts.ContextTimeoutEnabled = true
	return &ledger{redis.NewClient(opts)}, nil
}

func (l *ledger) accepted(ctx context.Context, number int) error {
	return l.rdb.HSet(ctx, statusPrefix+strconv.Itoa(number),
		"state", "accepted", "updated", time.Now().UnixMilli(), "attempts", 1).Err()
}

// count reads how many of the first n messages are accepted.
func (l *ledger) count(ctx context.Context, n int) (int, error) {
	accepted := 0
	const batch = 1000
	for from := 0; from < n; from += batch {
		cmds, err := l.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for i := from; i < min(from+batch, n); i++ {
				p.HGet(ctx, statusPrefix+strconv.Itoa(i), "state")
			}
			return nil
		})
		if err != nil && err != redis.Nil { //nolint:errorlint // a pipeline returns it as it is
			return 0, err
		}
		for _, cmd := range cmds {
			if state, ok := cmd.(*redis.StringCmd); ok && state.Val() == "accepted" {
				accepted++
			}
		}
	}
	return accepted, nil
}

// handle does a peer's whole job for one message, but for the queue's own part.
func handle(ctx context.Context, p *poster, body []byte, accepted func(context.Context, int) error) error {
	number, ok := load.Number(body)
	if !ok {
		return fmt.Errorf("a message of %d bytes is none of the benchmark's", len(body))
	}
	if err := p.post(ctx, body); err != nil {
		return err
	}
	return accepted(ctx, number)
}
