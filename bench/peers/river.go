package peers

import (
	"context"
	"encoding/json"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/rivermigrate"

	"github.com/otpq/otpq/bench/load"
)

// riverArgs is a message; its JSON is the body that is posted.
type riverArgs struct{ load.Request }

// Kind implements [river.JobArgs].
func (riverArgs) Kind() string { return "bench" }

// PrepareRiver makes the tables in an empty database.
func PrepareRiver(ctx context.Context, url string) error {
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	migrator, err := rivermigrate.New(riverpgxv5.New(pool), nil)
	if err != nil {
		return err
	}
	if _, err := migrator.Migrate(ctx, rivermigrate.DirectionUp, nil); err != nil {
		return err
	}
	_, err = pool.Exec(ctx, `CREATE TABLE bench_status (
		number integer PRIMARY KEY, state text NOT NULL, attempts integer NOT NULL, updated timestamptz NOT NULL)`)
	return err
}

// EmptyRiver forgets all messages, and has the planner know.
func EmptyRiver(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `TRUNCATE river_job, bench_status`)
	return err
}

// AnalyzeRiver has the planner know what a fill has put there, as autovacuum
// would a minute later.
func AnalyzeRiver(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `ANALYZE river_job`)
	return err
}

type riverProducer struct {
	pool   *pgxpool.Pool
	client *river.Client[pgx.Tx]
}

// openRiverClient makes a client; without workers it only inserts.
func openRiverClient(ctx context.Context, cfg Config, workers *river.Workers) (*riverProducer, error) {
	pg, err := pgxpool.ParseConfig(cfg.Postgres)
	if err != nil {
		return nil, err
	}
	c := &river.Config{}
	if workers != nil {
		c.Workers = workers
		c.Queues = map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: cfg.InFlight}}
	}
	if cfg.Variant == Tuned {
		pg.MaxConns = 40
		c.FetchCooldown, c.FetchPollInterval = time.Millisecond, 100*time.Millisecond
	}
	pool, err := pgxpool.NewWithConfig(ctx, pg)
	if err != nil {
		return nil, err
	}
	client, err := river.NewClient(riverpgxv5.New(pool), c)
	if err != nil {
		return nil, err
	}
	return &riverProducer{pool, client}, nil
}

func openRiver(ctx context.Context, cfg Config) (Producer, error) {
	return openRiverClient(ctx, cfg, nil)
}

// Send implements [Producer].
func (p *riverProducer) Send(ctx context.Context, number int) (string, error) {
	_, err := p.client.Insert(ctx, riverArgs{load.NewRequest(number)}, nil)
	return "", err
}

// SendBatch implements [Batcher].
func (p *riverProducer) SendBatch(ctx context.Context, first int, ids []string) error {
	params := make([]river.InsertManyParams, len(ids))
	for i := range params {
		params[i].Args = riverArgs{load.NewRequest(first + i)}
	}
	_, err := p.client.InsertManyFast(ctx, params)
	return err
}

// Close implements [Producer].
func (p *riverProducer) Close() error {
	p.pool.Close()
	return nil
}

// riverWorker does the job of one message.
type riverWorker struct {
	river.WorkerDefaults[riverArgs]
	poster *poster
	pool   *pgxpool.Pool
}

// Work implements [river.Worker].
func (w *riverWorker) Work(ctx context.Context, job *river.Job[riverArgs]) error {
	body, err := json.Marshal(job.Args.Request)
	if err != nil {
		return err
	}
	return handle(ctx, w.poster, body, func(ctx context.Context, number int) error {
		_, err := w.pool.Exec(ctx, `INSERT INTO bench_status (number, state, attempts, updated) VALUES ($1, 'accepted', 1, now())
			ON CONFLICT (number) DO UPDATE SET state = 'accepted', attempts = bench_status.attempts + 1, updated = now()`, number)
		return err
	})
}

func workRiver(ctx context.Context, cfg Config, start func()) error {
	worker := &riverWorker{poster: newPoster(cfg)}
	workers := river.NewWorkers()
	river.AddWorker(workers, worker)
	r, err := openRiverClient(ctx, cfg, workers)
	if err != nil {
		return err
	}
	defer r.pool.Close()
	worker.pool = r.pool
	start()
	if err := r.client.Start(context.WithoutCancel(ctx)); err != nil {
		return err
	}
	<-ctx.Done()
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return r.client.Stop(stop)
}

func checkRiver(ctx context.Context, cfg Config, _ []string) (State, error) {
	conn, err := pgx.Connect(ctx, cfg.Postgres)
	if err != nil {
		return State{}, err
	}
	defer conn.Close(ctx)
	var s State
	err = conn.QueryRow(ctx, `SELECT
		(SELECT count(*) FROM river_job WHERE state <> 'completed'),
		(SELECT count(*) FROM bench_status WHERE state = 'accepted' AND attempts = 1)`).Scan(&s.Left, &s.Accepted)
	return s, err
}
