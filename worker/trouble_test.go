package worker

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/tasks"
)

// place is a Redis that can be brought into trouble and out of it.
type place struct {
	url        string
	begin, end func()
	// lasts is how long the trouble goes on; zero means troubleTime.
	lasts time.Duration
	// commands and dials bound what one lane sends in a second of trouble: some
	// three times what was measured. Without pauses it is thousands.
	commands, dials float64
}

// troubles are what Redis may go through. None of them loses a write that Redis
// has confirmed: what runs without replicas logs each write before it answers,
// and a master's replica has got all of them when its master is killed.
var troubles = map[string]func(t *testing.T) place{
	"down": func(t *testing.T) place {
		s := redistest.Start(t, redistest.AOF())
		// Longer than the task of a result may take to write it.
		return place{url: s.URL(), begin: s.Stop, end: s.Restart, lasts: recordBudget + 2*time.Second, commands: 25, dials: 80}
	},
	"hung": func(t *testing.T) place {
		s := redistest.Start(t)
		return place{url: s.URL(), begin: s.Pause, end: s.Resume, commands: 25, dials: 20}
	},
	"out of memory": func(t *testing.T) place {
		s := redistest.Start(t)
		c := s.Client()
		set := func(bytes string) func() {
			return func() {
				if err := c.ConfigSet(t.Context(), "maxmemory", bytes).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		return place{url: s.URL(), begin: set("1"), end: set("0"), commands: 50, dials: 10}
	},
	"a replica that takes no writes": func(t *testing.T) place {
		s, dead := redistest.Start(t), redistest.Start(t)
		dead.Stop()
		c := s.Client()
		replicaOf := func(host, port string) func() {
			return func() {
				if err := c.ReplicaOf(t.Context(), host, port).Err(); err != nil {
					t.Fatal(err)
				}
			}
		}
		host, port, _ := net.SplitHostPort(dead.Addr())
		return place{url: s.URL(), begin: replicaOf(host, port), end: replicaOf("NO", "ONE"), commands: 100, dials: 25}
	},
	"restarted without its scripts": func(t *testing.T) place {
		s := redistest.Start(t, redistest.AOF())
		flush := func() {
			if err := s.Client().ScriptFlush(t.Context()).Err(); err != nil {
				t.Fatal(err)
			}
		}
		// It is back at once: an idle lane asks fifty times a second.
		return place{url: s.URL(), begin: func() { flush(); s.Restart() }, end: flush, commands: 200, dials: 10}
	},
	"connections killed all the time": func(t *testing.T) place {
		s := redistest.Start(t)
		c := s.Client()
		stop := make(chan struct{})
		var killing sync.WaitGroup
		end := sync.OnceFunc(func() { close(stop); killing.Wait() })
		t.Cleanup(end)
		begin := func() {
			killing.Go(func() {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for {
					for _, kind := range []string{"normal", "pubsub"} {
						c.ClientKillByFilter(context.Background(), "TYPE", kind) // but not c itself
					}
					select {
					case <-tick.C:
					case <-stop:
						return
					}
				}
			})
		}
		// A lane has several connections, and each is made anew fifty times a
		// second, with four commands.
		return place{url: s.URL(), begin: begin, end: end, commands: 800, dials: 250}
	},
	"failed over by a Sentinel": func(t *testing.T) place {
		s := redistest.StartSentinel(t)
		// Back after a second, with a lane's fifty commands.
		return place{url: s.URL(), begin: func() { s.Sync(); s.KillMaster() }, end: s.AwaitFailover, commands: 200, dials: 60}
	},
	"a cluster that misses a node": func(t *testing.T) place {
		c := redistest.StartCluster(t, redistest.AOF())
		node := c.NodeOf("asynq:{" + tasks.QueueName("unimedbh", tasks.Interactive) + "}")
		return place{url: c.URL(), begin: func() { c.Kill(node) }, end: func() { c.Restart(node) }, commands: 100, dials: 60}
	},
}

// troubleTime is how long Redis is in trouble: long enough for every lane to slow
// down.
const troubleTime = 4 * time.Second

// TestATroubledRedisLosesNothingAndIsNotHammered has six messages in flight and
// 24 more queued when the trouble begins: the interactive lanes are full, and the
// bulk lanes look for work. While it lasts, the results of those in flight come in
// and more messages are sent.
func TestATroubledRedisLosesNothingAndIsNotHammered(t *testing.T) {
	for name, start := range troubles {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			redis := start(t)
			r := newRigAt(t, redis.url)
			m, c := &meter{}, newCrowd()
			w := r.startMetered(m, c.configs()...)
			p := r.newProducer()
			for range 5 * crowdSlots {
				p.send(patience, tasks.Interactive)
			}
			p.before = len(p.list)
			eventually(t, func() bool { return c.people() == crowdSlots }, func() string { return "the slots never filled" })

			redis.begin()
			commands, dials, began := m.commands.Load(), m.dials.Load(), time.Now()
			close(c.open)
			p.sendFor(max(redis.lasts, troubleTime))
			perLane := time.Since(began).Seconds() * float64(len(w.queues()))
			commandRate := float64(m.commands.Load()-commands) / perLane
			dialRate := float64(m.dials.Load()-dials) / perLane
			redis.end()

			t.Logf("%.1f commands and %.1f dials a second and lane", commandRate, dialRate)
			if commandRate > redis.commands || dialRate > redis.dials {
				t.Errorf("%.1f commands and %.1f dials a second and lane, want at most %.0f and %.0f",
					commandRate, dialRate, redis.commands, redis.dials)
			}
			p.checkSends()
			p.checkEnds(c)
			r.checkNothingIsLeft(w)
			r.checkSame(w)
		})
	}
}
