package stage

import (
	"context"
	"fmt"
	"maps"
	"os"
	"time"

	"github.com/otpq/otpq/bench/peers"
	"github.com/otpq/otpq/bench/provider"
	"github.com/otpq/otpq/tasks"
)

// Programs are what the processes run.
type Programs struct {
	Self   string // this program
	Otpq   string // the product
	Node   string
	BullMQ string // bullmq.mjs
}

// Needs are the stores of a run.
type Needs struct{ Postgres, NATS, Cluster bool }

// Stage holds what all runs share: the provider, and PostgreSQL once it was
// needed. Its methods are for one goroutine.
type Stage struct {
	Programs
	Provider *provider.Control
	dir      string
	key      string
	provider *Proc
	postgres *Postgres
}

// Open makes a folder for everything under dir, and starts the provider.
func Open(ctx context.Context, dir string, programs Programs) (*Stage, error) {
	dir, err := os.MkdirTemp(dir, "otpq-bench-*")
	if err != nil {
		return nil, err
	}
	s := &Stage{Programs: programs, dir: dir, key: tasks.GenerateSecret().Reveal()}
	if s.provider, err = start(command{name: "provider", dir: dir, argv: []string{programs.Self, "provider"}}); err != nil {
		return nil, err
	}
	var addr string
	if err := s.await(ctx, s.provider, "ready", &addr); err != nil {
		s.Close()
		return nil, err
	}
	s.Provider = &provider.Control{URL: "http://" + addr}
	return s, nil
}

// Close ends what runs and removes all files.
func (s *Stage) Close() {
	s.postgres.Stop()
	s.provider.Kill()
	_ = os.RemoveAll(s.dir) // what is left is in the system's folder for such things
}

func (s *Stage) await(ctx context.Context, p *Proc, event string, data any) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.Await(ctx, event, data)
}

// Scene is one run: stores with nothing in them, and the processes that use them.
// Close ends them all.
type Scene struct {
	*Stage
	Config peers.Config
	Redis  *Redis
	nats   *Proc
	procs  []*Proc
	// otpqConfig is the file with which the product's worker was started last.
	otpqConfig string
	// parts are the processes whose cost is told, by what they are.
	parts map[string]func() (time.Duration, error)
}

// Scene starts the stores of a run.
func (s *Stage) Scene(ctx context.Context, needs Needs) (scene *Scene, err error) {
	scene = &Scene{Stage: s, parts: map[string]func() (time.Duration, error){}}
	defer func() {
		if err != nil {
			scene.Close()
		}
	}()
	if needs.Cluster {
		scene.Redis, err = startCluster(ctx, s.dir)
	} else {
		scene.Redis, err = startRedis(ctx, s.dir)
	}
	if err != nil {
		return scene, err
	}
	scene.Config = peers.Config{Redis: scene.Redis.URL, Provider: s.Provider.URL, Key: s.key}
	scene.watch("provider", s.provider.PID())
	scene.watch("redis", scene.Redis.PIDs()...)
	if needs.NATS {
		store, err := os.MkdirTemp(s.dir, "nats-*")
		if err != nil {
			return scene, err
		}
		if scene.nats, err = start(command{name: "nats", dir: s.dir, argv: []string{s.Self, "nats", store}}); err != nil {
			return scene, err
		}
		if err := s.await(ctx, scene.nats, "ready", &scene.Config.NATS); err != nil {
			return scene, err
		}
		scene.watch("nats", scene.nats.PID())
	}
	if needs.Postgres {
		if err := s.needPostgres(ctx); err != nil {
			return scene, err
		}
		scene.Config.Postgres = s.postgres.URL
		pid := s.postgres.proc.PID()
		scene.parts["postgres"] = func() (time.Duration, error) { return treeCPU(pid) }
	}
	return scene, nil
}

// needPostgres runs PostgreSQL, once for all runs: initdb takes seconds. A run
// starts with empty tables.
func (s *Stage) needPostgres(ctx context.Context) error {
	if s.postgres == nil {
		pg, err := startPostgres(ctx, s.dir)
		if err != nil {
			return err
		}
		s.postgres = pg
		if err := peers.PrepareRiver(ctx, pg.URL); err != nil {
			return err
		}
	}
	return peers.EmptyRiver(ctx, s.postgres.URL)
}

// watch has the cost of processes told as part's.
func (s *Scene) watch(part string, pids ...int) {
	before := s.parts[part]
	s.parts[part] = func() (time.Duration, error) {
		var sum time.Duration
		if before != nil {
			t, err := before()
			if err != nil {
				return 0, err
			}
			sum = t
		}
		for _, pid := range pids {
			t, err := CPU(pid)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", part, err)
			}
			sum += t
		}
		return sum, nil
	}
}

// Close ends the scene's processes: those that use the stores first.
func (s *Scene) Close() {
	for _, p := range s.procs {
		p.Stop()
	}
	s.nats.Kill()
	s.Redis.Stop()
}

// Cost is the CPU time of each part, and of the whole machine.
type Cost struct {
	At      time.Time
	Parts   map[string]time.Duration
	machine time.Duration
	self    time.Duration
}

// Cost reads what each part has used so far.
func (s *Scene) Cost() (Cost, error) {
	c := Cost{At: time.Now(), Parts: map[string]time.Duration{}}
	var err error
	for name, read := range s.parts {
		if c.Parts[name], err = read(); err != nil {
			return c, err
		}
	}
	if c.self, err = CPU(os.Getpid()); err != nil {
		return c, err
	}
	c.machine, err = MachineBusy()
	return c, err
}

// Sub is what was used between two readings. A part that is new has used all it
// ever did in between.
func (c Cost) Sub(before Cost) (parts map[string]time.Duration, took time.Duration, foreign float64) {
	took = c.At.Sub(before.At)
	parts = maps.Clone(c.Parts)
	own := c.self - before.self
	for name := range parts {
		parts[name] -= before.Parts[name]
		own += parts[name]
	}
	return parts, took, max(0, (c.machine-before.machine-own).Seconds()/took.Seconds())
}

// quietEnough is how much of one core somebody else may use in a run.
const quietEnough = 0.20

// Noisy reports whether somebody else used too much of the machine.
func Noisy(foreign float64) bool { return foreign > quietEnough }

// AwaitQuiet waits, as long as patience at most, until nobody else uses much of
// the machine.
func (s *Scene) AwaitQuiet(ctx context.Context, patience time.Duration) error {
	for end := time.Now().Add(patience); time.Now().Before(end); {
		before, err := s.Cost()
		if err != nil {
			return err
		}
		select {
		case <-time.After(500 * time.Millisecond): // a share needs a stretch of time
		case <-ctx.Done():
			return ctx.Err()
		}
		after, err := s.Cost()
		if err != nil {
			return err
		}
		if _, _, foreign := after.Sub(before); !Noisy(foreign) {
			return nil
		}
	}
	return nil
}

// Settle waits until the stores have been told what the last answers led to.
func (s *Scene) Settle(ctx context.Context) error {
	select {
	case <-time.After(settleTime):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
