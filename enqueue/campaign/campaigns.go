package campaign

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// Config is what Campaigns are made from.
type Config struct {
	// Redis holds the campaigns and everything of their messages.
	Redis redis.UniversalClient
	// Keys seal rows and messages, as the workers' do.
	Keys []tasks.Key
	// Definitions are the providers whose rows can be read.
	Definitions []providers.Definition
	// Status says how long records of messages are kept.
	Status status.Retention
	// Queues is as in [enqueue.Config].
	Queues map[string]int
	// Retention is how long a campaign is kept after its end, rows and report
	// included. Zero means 7 days.
	Retention time.Duration
}

// Campaigns are all campaigns in one Redis. It is safe for concurrent use by many
// processes.
type Campaigns struct {
	cfg    Config
	client *enqueue.Client
}

// Open makes Campaigns. It does not reach for Redis yet. It fails as [enqueue.Open].
func Open(cfg Config) (*Campaigns, error) { return nil, errNotYet }

// Close ends what Open began. It leaves Redis open.
func (c *Campaigns) Close() error { return errNotYet }

var errNotYet = errors.New("not yet")

// CreateOptions say how rows are taken.
type CreateOptions struct {
	// Strict fails at the first row that is wrong, and creates nothing.
	Strict bool
	// OnInvalid, when not nil, is called for each row that is wrong.
	OnInvalid func(line int, problems []providers.FieldError)
	// OnProgress, when not nil, is called now and then while rows are read.
	OnProgress func(Counts)
}

// Create reads all rows, validates them, and keeps those that are right, sealed. A
// Create that died is begun anew. Of a campaign that has the same settings and rows
// (the same Digest), it returns what there is: repeated is true then.
//
// It fails with a [SettingError], with [ErrExists], with an [InvalidRowError] when
// Strict, and with the source's own error.
func (c *Campaigns) Create(ctx context.Context, s Settings, source Source, o CreateOptions) (made Campaign, repeated bool, err error) {
	return Campaign{}, false, errNotYet
}

// InvalidRowError is a row that is wrong, to who is strict.
type InvalidRowError struct {
	Line     int
	Problems providers.FieldErrors
}

// Start has a campaign fed, from where it was: by any worker when detached, and else
// by whoever calls [Campaigns.Feed]. A paused one is resumed. It fails with
// [ErrNotFound] or a [StateError].
func (c *Campaigns) Start(ctx context.Context, id string, detached bool) error { return errNotYet }

// Pause stops feeding within a second.
func (c *Campaigns) Pause(ctx context.Context, id string) error { return errNotYet }

// Resume is Start of a campaign that is paused, fed as before.
func (c *Campaigns) Resume(ctx context.Context, id string) error { return errNotYet }

// Cancel stops feeding for good, and takes back what is in the queue.
func (c *Campaigns) Cancel(ctx context.Context, id string) error { return errNotYet }

// Status returns what is known of a campaign, its counts brought up to date first. It
// fails with [ErrNotFound].
func (c *Campaigns) Status(ctx context.Context, id string) (Campaign, error) {
	return Campaign{}, errNotYet
}

// List returns all campaigns, the newest first, with the counts that were last known.
func (c *Campaigns) List(ctx context.Context) ([]Campaign, error) { return nil, errNotYet }

// Report yields what became of each row, in the file's order, in constant memory.
// With reveal it has the requests in the clear. An error is yielded once and ends it.
func (c *Campaigns) Report(ctx context.Context, id string, reveal bool) iter.Seq2[ReportRow, error] {
	return func(yield func(ReportRow, error) bool) { yield(ReportRow{}, errNotYet) }
}

// RetryFailed makes a campaign of the rows of another that is over and that ended in
// one of the states, [RetryStates] when there are none. Its messages are linked to the
// old ones. It is called ID.2, or ID.3 when that has been retried itself, and so on;
// repeated, it returns the one there is. It is not started.
func (c *Campaigns) RetryFailed(ctx context.Context, id string, states ...status.State) (Campaign, error) {
	return Campaign{}, errNotYet
}

// Feed feeds a running campaign until it is over, paused or canceled, or ctx ends. It
// fails with [ErrFed] when another process does already. name tells who feeds.
func (c *Campaigns) Feed(ctx context.Context, id, name string) error { return errNotYet }

// FeedDetached feeds whatever campaigns are started detached and have no feeder, until
// ctx ends. It never fails: what goes wrong is given to report, and tried again.
func (c *Campaigns) FeedDetached(ctx context.Context, name string, report func(id string, err error)) {
}

// Error implements error.
func (e *InvalidRowError) Error() string { return "" }
