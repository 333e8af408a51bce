package peers

import (
	"context"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/bench/load"
	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/tasks"
)

const messages = 50

// rig is a provider, a Redis and a NATS server for one peer.
func rig(t *testing.T) (Config, *provider.Control) {
	t.Helper()
	t.Parallel()
	p := httptest.NewServer(provider.New())
	t.Cleanup(p.Close)
	c := &provider.Control{URL: p.URL}
	t.Cleanup(c.HTTP.CloseIdleConnections)
	if err := c.Reset(t.Context(), provider.Settings{Messages: messages}); err != nil {
		t.Fatal(err)
	}
	n, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, JetStream: true, StoreDir: t.TempDir(), NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	n.Start()
	t.Cleanup(func() { n.Shutdown(); n.WaitForShutdown() })
	if !n.ReadyForConnections(30 * time.Second) {
		t.Fatal("the NATS server did not start")
	}
	return Config{
		Redis: redistest.Start(t).URL(), NATS: n.ClientURL(), Provider: p.URL, InFlight: 8, Key: tasks.GenerateSecret().Reveal(),
	}, c
}

// send queues all messages.
func send(t *testing.T, peer Peer, cfg Config) []string {
	t.Helper()
	producer, err := peer.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = producer.Close() })
	ids := make([]string, messages)
	_, err = load.Fill(t.Context(), 0, messages, 4, func(ctx context.Context, number int) error {
		id, err := producer.Send(ctx, number)
		ids[number] = id
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// await waits until a peer's state is as wanted.
func await(t *testing.T, peer Peer, cfg Config, ids []string, want State) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); ; <-tick.C {
		got, err := peer.Check(t.Context(), cfg, ids)
		if err != nil {
			t.Fatal(err)
		}
		if cmp.Equal(want, got) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("state (-want +got):\n%s", cmp.Diff(want, got))
		}
	}
}

func TestEveryPeerDoesTheWholeJobOnce(t *testing.T) {
	for name, peer := range All() {
		if peer.Work == nil || name == "river" { // River needs PostgreSQL: the benchmark itself checks it
			continue
		}
		t.Run(name, func(t *testing.T) {
			cfg, p := rig(t)
			ids := send(t, peer, cfg)
			await(t, peer, cfg, ids, State{Left: messages})
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- peer.Work(ctx, cfg, func() {}) }()
			await(t, peer, cfg, ids, State{Accepted: messages})
			stop()
			if err := <-ended; err != nil {
				t.Errorf("Work() = %v", err)
			}
			tally, err := p.Await(t.Context(), messages, 0)
			if err != nil || tally.Distinct != messages || tally.Doubled+tally.Strange != 0 {
				t.Errorf("the provider got %+v, %v", tally, err)
			}
		})
	}
}

func TestWithoutAQueueTheProducerDoesTheJob(t *testing.T) {
	for _, name := range []string{"direct", "direct-status"} {
		t.Run(name, func(t *testing.T) {
			cfg, p := rig(t)
			peer := All()[name]
			await(t, peer, cfg, send(t, peer, cfg), State{Accepted: messages})
			tally, err := p.Await(t.Context(), messages, 0)
			if err != nil || tally.Distinct != messages || tally.Doubled+tally.Strange != 0 {
				t.Errorf("the provider got %+v, %v", tally, err)
			}
		})
	}
}

func TestAStatusThatIsMissingShows(t *testing.T) {
	cfg, _ := rig(t)
	peer := All()["direct-status"]
	ids := send(t, peer, cfg)
	opts, err := redis.ParseURL(cfg.Redis)
	if err != nil {
		t.Fatal(err)
	}
	rdb := redis.NewClient(opts)
	defer rdb.Close()
	if err := rdb.Del(t.Context(), statusPrefix+"7").Err(); err != nil {
		t.Fatal(err)
	}
	if err := rdb.HSet(t.Context(), statusPrefix+"8", "state", "sending").Err(); err != nil {
		t.Fatal(err)
	}
	await(t, peer, cfg, ids, State{Accepted: messages - 2})
}

func TestTheProductsMessagesAreQueuedAndKnown(t *testing.T) {
	cfg, _ := rig(t)
	peer := All()["otpq"]
	ids := send(t, peer, cfg)
	await(t, peer, cfg, ids, State{Left: messages, Known: messages})
	cfg.Lane = "bulk"
	await(t, peer, cfg, ids[:1], State{Known: 1})
}

func TestTheProductsMessagesAreKnownInAllQueues(t *testing.T) {
	cfg, _ := rig(t)
	cfg.Queues = 3
	peer := All()["otpq"]
	ids := send(t, peer, cfg)
	await(t, peer, cfg, ids, State{Left: messages, Known: messages})
}

func TestAHolderLetsNoMoreThroughThanThereIsRoomFor(t *testing.T) {
	cfg, _ := rig(t)
	h, err := HoldBack(cfg, messages+2)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	send(t, All()["otpq"], cfg)
	for range 2 {
		if err := h.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	// Those two were let through and never came: there is room for them again.
	send2, err := OpenOtpq(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer send2.Close()
	for number := range 2 {
		if _, err := send2.Send(t.Context(), number); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := h.Wait(ctx); err == nil {
		t.Error("Wait() let one more through than there is room for")
	}
}
