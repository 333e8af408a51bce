package peers

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/otpq/otpq/bench/load"
)

const (
	natsStream   = "BENCH"
	natsSubject  = "bench.message"
	natsConsumer = "worker"
)

type natsProducer struct {
	conn *nats.Conn
	js   jetstream.JetStream
}

// dialNATS connects and makes the stream if it is not there.
func dialNATS(ctx context.Context, cfg Config) (natsProducer, error) {
	conn, err := nats.Connect(cfg.NATS)
	if err != nil {
		return natsProducer{}, err
	}
	js, err := jetstream.New(conn, jetstream.WithPublishAsyncMaxPending(4000))
	if err != nil {
		return natsProducer{}, err
	}
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{
		Name: natsStream, Subjects: []string{natsSubject},
		Retention: jetstream.WorkQueuePolicy, Storage: jetstream.FileStorage,
	})
	return natsProducer{conn, js}, err
}

func openNATS(ctx context.Context, cfg Config) (Producer, error) { return dialNATS(ctx, cfg) }

// Send implements [Producer].
func (p natsProducer) Send(ctx context.Context, number int) (string, error) {
	_, err := p.js.Publish(ctx, natsSubject, load.Body(number))
	return "", err
}

// SendBatch implements [Batcher]: JetStream confirms each, while more are sent.
func (p natsProducer) SendBatch(ctx context.Context, first int, ids []string) error {
	acks := make([]jetstream.PubAckFuture, 0, len(ids))
	for i := range ids {
		ack, err := p.js.PublishAsync(natsSubject, load.Body(first+i))
		if err != nil {
			return err
		}
		acks = append(acks, ack)
	}
	for _, ack := range acks {
		select {
		case <-ack.Ok():
		case err := <-ack.Err():
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Close implements [Producer].
func (p natsProducer) Close() error {
	p.conn.Close()
	return nil
}

// workNATS acknowledges each message and waits for the confirmation: without it
// a message may come again after it was worked on.
func workNATS(ctx context.Context, cfg Config, start func()) error {
	n, err := dialNATS(ctx, cfg)
	if err != nil {
		return err
	}
	defer n.conn.Close()
	l, err := newLedger(cfg)
	if err != nil {
		return err
	}
	defer l.rdb.Close()
	p := newPoster(cfg)
	consumer, err := n.js.CreateOrUpdateConsumer(ctx, natsStream, jetstream.ConsumerConfig{
		Durable: natsConsumer, AckPolicy: jetstream.AckExplicitPolicy, MaxAckPending: 4 * cfg.InFlight, AckWait: 30 * time.Second,
	})
	if err != nil {
		return err
	}
	start()
	messages, err := consumer.Messages(jetstream.PullMaxMessages(max(2, 2*cfg.InFlight)))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, messages.Stop)
	slots := make(chan struct{}, cfg.InFlight)
	for {
		slots <- struct{}{}
		m, err := messages.Next()
		if errors.Is(err, jetstream.ErrMsgIteratorClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go func() {
			defer func() { <-slots }()
			if err := handle(ctx, p, m.Data(), l.accepted); err != nil {
				_ = m.NakWithDelay(time.Second) // it comes again after AckWait anyway
				return
			}
			_ = m.DoubleAck(ctx) // what is not confirmed shows as left over or doubled
		}()
	}
}

func checkNATS(ctx context.Context, cfg Config, ids []string) (State, error) {
	s, err := checkLedger(ctx, cfg, len(ids))
	if err != nil {
		return s, err
	}
	n, err := dialNATS(ctx, cfg)
	if err != nil {
		return s, err
	}
	defer n.conn.Close()
	stream, err := n.js.Stream(ctx, natsStream)
	if err != nil {
		return s, err
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return s, err
	}
	s.Left = int(info.State.Msgs)
	return s, nil
}
