package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/bench/load"
	"github.com/otpq/otpq/bench/peers"
	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/bench/stage"
)

func serveProvider(ctx context.Context, p *parent) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: provider.New(), ReadHeaderTimeout: time.Minute}
	context.AfterFunc(ctx, func() { _ = s.Close() })
	if err := p.tell("ready", l.Addr().String()); err != nil {
		return err
	}
	return s.Serve(l)
}

func serveNATS(ctx context.Context, p *parent, dir string) error {
	const anyPort = -1
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: anyPort, JetStream: true, StoreDir: dir, NoSigs: true,
	})
	if err != nil {
		return err
	}
	s.Start()
	defer s.Shutdown()
	if !s.ReadyForConnections(30 * time.Second) {
		return errors.New("the NATS server did not start within 30 s")
	}
	if err := p.tell("ready", s.ClientURL()); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func work(ctx context.Context, p *parent, name, plan string) error {
	redis.SetLogger(quietRedis{})
	peer, ok := peers.All()[name]
	if !ok || peer.Work == nil {
		return fmt.Errorf("there is no worker of a peer %q here", name)
	}
	var cfg peers.Config
	if err := json.Unmarshal([]byte(plan), &cfg); err != nil {
		return err
	}
	return peer.Work(ctx, cfg, func() { _ = p.ready(ctx) }) // ctx ends Work too
}

// quietRedis drops what go-redis says when connections end with a run.
type quietRedis struct{}

func (quietRedis) Printf(context.Context, string, ...any) {}

func produce(ctx context.Context, p *parent, name, text string) error {
	redis.SetLogger(quietRedis{})
	peer, ok := peers.All()[name]
	if !ok || peer.Open == nil {
		return fmt.Errorf("there is no producer of a peer %q here", name)
	}
	var plan stage.Plan
	if err := json.Unmarshal([]byte(text), &plan); err != nil {
		return err
	}
	producer, err := peer.Open(ctx, plan.Config)
	if err != nil {
		return err
	}
	defer producer.Close()
	if err := p.ready(ctx); err != nil {
		return err
	}
	ids := make([]string, plan.N)
	send := func(ctx context.Context, number int) error {
		id, err := producer.Send(ctx, number)
		ids[number-plan.First] = id
		return err
	}
	took, err := carryOut(ctx, plan, producer, send, ids)
	if err != nil {
		return err
	}
	if err := os.WriteFile(plan.IDsFile, []byte(strings.Join(ids, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	if err := p.tell("done", stage.Produced{Took: took}); err != nil {
		return err
	}
	<-ctx.Done() // until then the parent may read what we cost
	return nil
}

// carryOut does what the plan says.
func carryOut(ctx context.Context, plan stage.Plan, producer peers.Producer, send func(context.Context, int) error, ids []string) (time.Duration, error) {
	switch plan.Mode {
	case "pace":
		begun, err := plan.Pace.Run(ctx, plan.First, plan.N, send)
		if err != nil {
			return 0, err
		}
		return 0, load.WriteTimes(plan.BegunFile, begun)
	case "fill":
		if plan.Keep > 0 {
			held, err := peers.HoldBack(plan.Config, plan.Keep)
			if err != nil {
				return 0, err
			}
			defer held.Close()
			rush := send
			send = func(ctx context.Context, number int) error { return errors.Join(held.Wait(ctx), rush(ctx, number)) }
		}
		return load.Fill(ctx, plan.First, plan.N, plan.Callers, send)
	case "batch":
		batcher, ok := producer.(peers.Batcher)
		if !ok {
			return 0, errors.New("this peer has no call for many messages")
		}
		start := time.Now()
		for done := 0; done < plan.N; done += plan.Batch {
			if err := batcher.SendBatch(ctx, plan.First+done, ids[done:min(done+plan.Batch, plan.N)]); err != nil {
				return 0, err
			}
		}
		return time.Since(start), nil
	}
	return 0, fmt.Errorf("there is no mode %q", plan.Mode)
}
