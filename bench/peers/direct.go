package peers

import (
	"context"

	"github.com/otpq/otpq/bench/load"
)

// direct is no queue at all: who has a message posts it.
type direct struct {
	poster *poster
	ledger *ledger // nil when no status is written
}

func openDirect(_ context.Context, cfg Config) (Producer, error) {
	return direct{poster: newPoster(cfg)}, nil
}

func openDirectStatus(_ context.Context, cfg Config) (Producer, error) {
	l, err := newLedger(cfg)
	if err != nil {
		return nil, err
	}
	return direct{newPoster(cfg), l}, nil
}

// Send implements [Producer].
func (d direct) Send(ctx context.Context, number int) (string, error) {
	accepted := func(context.Context, int) error { return nil }
	if d.ledger != nil {
		accepted = d.ledger.accepted
	}
	return "", handle(ctx, d.poster, load.Body(number), accepted)
}

// Close implements [Producer].
func (d direct) Close() error {
	if d.ledger == nil {
		return nil
	}
	return d.ledger.rdb.Close()
}

// checkNothing is for a peer that keeps nothing.
func checkNothing(_ context.Context, _ Config, ids []string) (State, error) {
	return State{Accepted: len(ids)}, nil
}

func checkDirect(ctx context.Context, cfg Config, ids []string) (State, error) {
	return checkLedger(ctx, cfg, len(ids))
}

func checkLedger(ctx context.Context, cfg Config, n int) (State, error) {
	l, err := newLedger(cfg)
	if err != nil {
		return State{}, err
	}
	defer l.rdb.Close()
	accepted, err := l.count(ctx, n)
	return State{Accepted: accepted}, err
}
