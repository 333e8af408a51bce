package campaign

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// Config is what Campaigns are made from.
type Config struct {
	// Redis holds the campaigns and everything of their messages. Make it with
	// ContextTimeoutEnabled.
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

const (
	defaultRetention = 7 * 24 * time.Hour
	// unfinished is how long a campaign is kept that is never started, or never
	// comes to its end: its rows name people.
	unfinished = 90 * 24 * time.Hour
)

// Control looks at the campaigns in one Redis and controls them. It needs no sealing key
// and reads no row. It is safe for concurrent use, by many processes.
type Control struct {
	rdb       redis.UniversalClient
	store     *status.Redis
	retention time.Duration
	records   time.Duration // how long records of messages are kept at least
	now       func() time.Time
}

// NewControl makes a Control of a Config without regard to its Keys, Definitions and
// Queues. It does not reach for Redis yet, and leaves nothing to close.
func NewControl(cfg Config) *Control {
	if cfg.Retention <= 0 {
		cfg.Retention = defaultRetention
	}
	store := status.NewRedis(cfg.Redis, cfg.Status)
	return &Control{rdb: cfg.Redis, store: store, retention: cfg.Retention, records: store.RecordsKept(), now: time.Now}
}

// Campaigns are all campaigns in one Redis. It is safe for concurrent use, by many
// processes.
type Campaigns struct {
	*Control

	client      *enqueue.Client
	keys        *tasks.Keyring
	definitions []providers.Definition
	chunks      *chunkCoder
	tempo       tempo
}

// Open makes Campaigns. It does not reach for Redis yet. It fails as [enqueue.Open]
// does.
func Open(cfg Config) (*Campaigns, error) {
	client, err := enqueue.Open(enqueue.Config{Redis: cfg.Redis, Keys: cfg.Keys, Retention: cfg.Status, Queues: cfg.Queues})
	if err != nil {
		return nil, err
	}
	keys, err := tasks.NewKeyring(cfg.Keys...)
	if err != nil {
		return nil, err
	}
	c := &Campaigns{Control: NewControl(cfg), client: client, keys: keys, definitions: cfg.Definitions, tempo: usualTempo}
	c.chunks, err = newChunkCoder(keys)
	return c, err
}

// Close ends what Open began. It leaves Redis open.
func (c *Campaigns) Close() error { return c.client.Close() }

// definition is the provider's of that name. It fails with a [SettingError].
func (c *Campaigns) definition(name string) (providers.Definition, error) {
	i := slices.IndexFunc(c.definitions, func(d providers.Definition) bool { return d.Name == name })
	if i < 0 {
		return providers.Definition{}, &SettingError{"provider", fmt.Sprintf("%q is none of those there are", name)}
	}
	return c.definitions[i], nil
}

// indexKey lists the campaigns by the time they were created. It may name some that
// have gone.
const indexKey = "otpq:campaigns"

// The keys of a campaign are on one node of a cluster: scripts move its counts.
func campaignKey(id string) string { return "otpq:campaign:{" + id + "}" }
func countsKey(id string) string   { return campaignKey(id) + ":counts" }
func leaseKey(id string) string    { return campaignKey(id) + ":feeder" }
func liveKey(id string) string     { return campaignKey(id) + ":live" }  // message: its row's place and state
func doubtKey(id string) string    { return campaignKey(id) + ":doubt" } // the same, of those that ended unknown
func chunkPrefix(id string) string { return campaignKey(id) + ":rows:" } // a chunk's number after it
func endsPrefix(id string) string  { return campaignKey(id) + ":ends:" } // the same
func seenPrefix(id string) string  { return campaignKey(id) + ":seen:" } // a shard's number after it

// idPattern is what an ID is: a dot and a number mark retries.
var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,55}(\.[0-9]{1,6})?$`)

// messageID is the message's of a recipient: the same whenever a row of that
// recipient's is met in the campaign.
func (c *Campaigns) messageID(m *meta, recipient string) (uuid.UUID, error) {
	var id uuid.UUID
	hash, err := c.keys.Fingerprint(m.keyID, "campaign "+m.ID+" "+m.Provider, recipient)
	if err != nil {
		return id, fmt.Errorf("campaign %s was made with another sealing key, which finds recipients again: put it back: %w", m.ID, err)
	}
	copy(id[:], hash)
	id[6] = id[6]&0x0f | 0x80 // version 8: made up by an application
	id[8] = id[8]&0x3f | 0x80
	return id, nil
}

// sourceDigest is a source's digest as it is kept: of a file with few rows the bare one
// would tell whoever guesses them that they are right.
func (c *Campaigns) sourceDigest(m *meta, source Source) (string, error) {
	if source.Digest == "" {
		return "", nil
	}
	hash, err := c.keys.Fingerprint(m.keyID, "campaign source "+m.ID, source.Digest)
	if err != nil {
		return "", fmt.Errorf("campaign %s was made with another sealing key, without which its rows cannot be told from others: %w", m.ID, err)
	}
	return hex.EncodeToString(hash[:20]), nil
}

// IsUnreachable reports whether err means that Redis did not answer, as opposed to
// one of this package's own errors, or one of keys.
func IsUnreachable(err error) bool {
	for _, own := range []error{ErrNotFound, ErrExists, ErrFed, ErrCreating, ErrNoFailures, errChunk, tasks.ErrNoKeys, tasks.ErrKeyUnknown, tasks.ErrSealBroken} {
		if errors.Is(err, own) {
			return false
		}
	}
	var state *StateError
	var setting *SettingError
	var row *InvalidRowError
	return err != nil && !errors.As(err, &state) && !errors.As(err, &setting) && !errors.As(err, &row)
}

// List returns all campaigns, the newest first, with the counts that were last known.
func (c *Control) List(ctx context.Context) ([]Campaign, error) {
	return c.list(ctx, nil)
}

// listMost is how many campaigns are read together.
const listMost = 200

// list is List without the campaigns in over, of which it learns: those that nothing
// will become of any more, with the time they were created at.
func (c *Control) list(ctx context.Context, over map[string]float64) ([]Campaign, error) {
	index, err := c.rdb.ZRevRangeWithScores(ctx, indexKey, 0, -1).Result()
	if err != nil {
		return nil, fmt.Errorf("list campaigns: %w", err)
	}
	known := maps.Clone(over)
	clear(over)
	var ids []string
	created := map[string]float64{}
	for _, z := range index {
		id, _ := z.Member.(string)
		if at, ok := known[id]; ok && at == z.Score {
			over[id] = at
			continue
		}
		ids, created[id] = append(ids, id), z.Score
	}
	var list []Campaign
	for page := range slices.Chunk(ids, listMost) {
		all, err := c.readMany(ctx, page)
		if err != nil {
			return nil, err
		}
		for i, m := range all {
			switch {
			case m != nil:
				list = append(list, m.Campaign)
				if over != nil && m.State.Over() && m.Counts.inFlight()+m.Counts.Waiting == 0 {
					over[m.ID] = created[m.ID]
				}
			case c.now().Sub(time.UnixMilli(int64(created[page[i]]))) > time.Hour: // else it may come to be right now
				c.rdb.ZRem(ctx, indexKey, page[i])
			}
		}
	}
	return list, nil
}

// Status returns what is known of a campaign, its counts brought up to date first. It
// fails with [ErrNotFound].
func (c *Control) Status(ctx context.Context, id string) (Campaign, error) {
	m, err := c.read(ctx, id)
	if err != nil {
		return Campaign{}, err
	}
	if m.Feeder == "" && m.State != Creating && m.State != Created {
		// Nobody counts right now.
		state, err := c.recount(ctx, m)
		if err != nil {
			return Campaign{}, err
		}
		_ = c.last(ctx, m, state) // else the next look does it: this one can be told
		if m, err = c.read(ctx, id); err != nil {
			return Campaign{}, err
		}
	}
	return m.Campaign, nil
}
