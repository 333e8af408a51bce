package campaign

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers"
)

const (
	// batchRows is how many rows are looked at together: whole chunks.
	batchRows = 20 * chunkRows
	// shards is over how many hashes those are spread by which duplicates are found:
	// a million is 61 in each, which Redis keeps in a fifth of the memory.
	shards = 1 << 14
	// creating is how long what a creation leaves is kept when it dies.
	creating = 24 * time.Hour
	// creatingLease is how long a creation that says nothing keeps others away.
	creatingLease = 10 * time.Second
)

// Source is where the rows come from.
type Source struct {
	// Rows are read once, to their end.
	Rows rows.Source
	// Name describes them for people, without naming anybody: the file's name.
	Name string
	// Digest, when there is one, tells the same rows from others.
	Digest string
}

// CreateOptions say how rows are taken.
type CreateOptions struct {
	// Strict fails at the first row that is wrong, and creates nothing.
	Strict bool
	// OnInvalid, when not nil, is called for each row that is wrong.
	OnInvalid func(line int, problems []providers.FieldError)
	// OnProgress, when not nil, is called now and then while rows are read.
	OnProgress func(Counts)
}

// InvalidRowError is a row that is wrong: the first one, to who is strict or where all
// are.
type InvalidRowError struct {
	Line     int
	Problems providers.FieldErrors
	// All is how many rows there are when every one of them is wrong, and else 0.
	All int64
}

// Error implements error.
func (e *InvalidRowError) Error() string {
	return fmt.Sprintf("line %d: %v; nothing was created", e.Line, e.Problems)
}

// Create reads all rows, and keeps them, sealed. A Create that died is begun anew. Of
// a campaign that has the same settings and rows (the same Digest), it returns what
// there is: repeated is true then.
//
// It fails with a [SettingError], with [ErrExists], with [ErrCreating] while another
// creates it, with an [InvalidRowError] when Strict or when no row is right, and with the
// source's own error; then nothing is created.
func (c *Campaigns) Create(ctx context.Context, s Settings, source Source, o CreateOptions) (made Campaign, repeated bool, err error) {
	if strings.Contains(s.ID, ".") {
		return Campaign{}, false, &SettingError{"id", "must not have a dot: it marks retries"}
	}
	return c.create(ctx, s, source, "", o)
}

func (c *Campaigns) create(ctx context.Context, s Settings, source Source, retryOf string, o CreateOptions) (made Campaign, repeated bool, err error) {
	if err := s.check(); err != nil {
		return Campaign{}, false, err
	}
	if _, err := c.definition(s.Provider); err != nil {
		return Campaign{}, false, err
	}
	k := &creation{c: c, o: o, token: uuid.NewString()}
	if err := k.begin(ctx, s, source, retryOf); errors.Is(err, ErrExists) {
		return c.existing(ctx, s, source)
	} else if err != nil {
		return Campaign{}, false, err
	}
	if err = k.readAll(ctx, source.Rows); err == nil && k.wrong != nil && k.counts.Invalid == k.counts.Rows {
		k.wrong.All = k.counts.Rows // it would end at once, and look like one that was sent
		err = k.wrong
	}
	if err == nil {
		err = k.end(ctx)
	}
	if err != nil {
		k.abandon(ctx)
		return Campaign{}, false, err
	}
	m, err := c.read(ctx, s.ID)
	if err != nil {
		return Campaign{}, false, err
	}
	return m.Campaign, false, nil
}

// existing returns a campaign that has the same settings and rows.
func (c *Campaigns) existing(ctx context.Context, s Settings, source Source) (Campaign, bool, error) {
	m, err := c.read(ctx, s.ID)
	if err != nil {
		return Campaign{}, false, err
	}
	digest, err := c.sourceDigest(m, source)
	if err != nil {
		return Campaign{}, false, err
	}
	if m.Settings != s || digest == "" || m.digest != digest {
		return Campaign{}, false, ErrExists
	}
	return m.Campaign, true, nil
}

// creation is a Create under way.
type creation struct {
	c      *Campaigns
	o      CreateOptions
	m      *meta
	token  string
	batch  []rows.Row
	number int // of the batch
	kept   int
	chunks int // how many there are, or were of a try before
	counts Counts
	wrong  *InvalidRowError // the first row that is
}

// creator stands where a lease has its feeder's name: nobody feeds what is created.
const creator = "create"

func (k *creation) begin(ctx context.Context, s Settings, source Source, retryOf string) error {
	k.m = &meta{Campaign: Campaign{Settings: s}, keyID: k.c.keys.SealingKey()}
	settings, err := json.Marshal(s)
	if err != nil {
		return err
	}
	digest, err := k.c.sourceDigest(k.m, source)
	if err != nil {
		return err
	}
	now := k.c.now()
	// Before there is one: a campaign that is on no list is fed by nobody.
	listed := redis.Z{Score: float64(now.UnixMilli()), Member: s.ID}
	if err := k.c.rdb.ZAddNX(ctx, indexKey, listed).Err(); err != nil {
		return fmt.Errorf("create campaign: %w", err)
	}
	keys := []string{campaignKey(s.ID), countsKey(s.ID), leaseKey(s.ID), liveKey(s.ID), doubtKey(s.ID)}
	args := []any{
		k.token, creator, creatingLease.Milliseconds(), creating.Milliseconds(),
		"settings", settings, "created", now.UnixMilli(), "key", k.m.keyID, "source", source.Name, "digest", digest,
	}
	if retryOf != "" {
		args = append(args, "retry_of", retryOf)
	}
	reply, err := beginScript.Run(ctx, k.c.rdb, keys, args...).StringSlice()
	switch {
	case err != nil:
		return fmt.Errorf("create campaign: %w", err)
	case reply[0] == "exists":
		return ErrExists
	case reply[0] == "busy":
		return ErrCreating
	}
	k.chunks = int(number(reply[1]))
	if err := k.c.rdb.ZAdd(ctx, indexKey, listed).Err(); err != nil { // not as old as another of its name
		return fmt.Errorf("create campaign: %w", err)
	}
	// What a try before has seen is none of this one's.
	if k.chunks > 0 {
		return k.c.unsee(ctx, s.ID)
	}
	return nil
}

// readAll keeps the rows.
func (k *creation) readAll(ctx context.Context, source rows.Source) error {
	for row, err := range source {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if row.Request == nil {
			if k.wrong == nil {
				k.wrong = &InvalidRowError{Line: row.Line, Problems: row.Problems}
			}
			if k.o.Strict {
				return k.wrong
			}
			if k.o.OnInvalid != nil {
				k.o.OnInvalid(row.Line, row.Problems)
			}
		} else if name := row.Request.ProviderName(); name != k.m.Provider {
			return &SettingError{"provider", fmt.Sprintf("is %s, and line %d is for %s", k.m.Provider, row.Line, name)}
		}
		if k.batch = append(k.batch, row); len(k.batch) == batchRows {
			if err := k.flush(ctx); err != nil {
				return err
			}
		}
	}
	return k.flush(ctx)
}

// flush keeps a batch.
func (k *creation) flush(ctx context.Context) error {
	if len(k.batch) == 0 {
		return nil
	}
	entries := make([]entry, len(k.batch))
	var places []int // of the valid rows
	args := make([]any, 9, 9+len(k.batch))
	for i, row := range k.batch {
		var err error
		if entries[i], err = newEntry(row); err != nil {
			return err
		}
		if row.Request == nil {
			continue
		}
		id, err := k.c.messageID(k.m, row.Request.Recipient())
		if err != nil {
			return err
		}
		places = append(places, i)
		args = append(args, id[:])
	}
	id, before := k.m.ID, k.kept/chunkRows
	k.number++
	k.kept += len(entries)
	k.chunks = max(k.chunks, (k.kept+chunkRows-1)/chunkRows)
	invalid := len(entries) - len(places)
	copy(args, []any{
		k.token, creator, creatingLease.Milliseconds(), k.number, seenPrefix(id), shards, creating.Milliseconds(), k.chunks, invalid,
	})
	answer, err := addScript.Run(ctx, k.c.rdb, []string{campaignKey(id), countsKey(id), leaseKey(id)}, args...).Text()
	if errors.Is(err, redis.Nil) {
		return ErrCreating
	}
	if err != nil {
		return fmt.Errorf("keep rows: %w", err)
	}
	duplicates := 0
	for place := range strings.SplitSeq(answer, ",") {
		if n, err := strconv.Atoi(place); err == nil && n < len(places) {
			entries[places[n]].kind = kindDuplicate
			duplicates++
		}
	}
	if err := k.keep(ctx, before, entries); err != nil {
		return err
	}
	k.counts.Rows += int64(len(entries))
	k.counts.Invalid += int64(invalid)
	k.counts.Duplicate += int64(duplicates)
	k.counts.Waiting += int64(len(places) - duplicates)
	if k.o.OnProgress != nil {
		k.o.OnProgress(k.counts)
	}
	k.batch = k.batch[:0]
	return nil
}

// keep writes chunks, unless another has begun to create the campaign since.
func (k *creation) keep(ctx context.Context, first int, entries []entry) error {
	keys, args := []string{campaignKey(k.m.ID)}, []any{k.token, unfinished.Milliseconds()}
	n := first
	for chunk := range slices.Chunk(entries, chunkRows) {
		data, err := k.c.chunks.seal(k.m.ID, n, chunk)
		if err != nil {
			return err
		}
		keys, args = append(keys, chunkPrefix(k.m.ID)+strconv.Itoa(n)), append(args, data)
		n++
	}
	switch kept, err := keepScript.Run(ctx, k.c.rdb, keys, args...).Int(); {
	case err != nil:
		return fmt.Errorf("keep rows: %w", err)
	case kept == 0:
		return ErrCreating
	}
	return nil
}

// end makes the campaign one that can be started.
func (k *creation) end(ctx context.Context) error {
	id := k.m.ID
	keys := []string{campaignKey(id), countsKey(id), leaseKey(id)}
	chunks := (k.kept + chunkRows - 1) / chunkRows
	done, err := createdScript.Run(ctx, k.c.rdb, keys, k.token, k.kept, chunks, unfinished.Milliseconds()).Int()
	if err != nil {
		return fmt.Errorf("create campaign: %w", err)
	}
	if done == 0 {
		return ErrCreating
	}
	// Of no use any more, and gone in a day by themselves.
	_ = k.c.unsee(ctx, id)
	_ = k.c.eachChunk(ctx, chunks, k.chunks, func(p redis.Pipeliner, n string) { p.Unlink(ctx, chunkPrefix(id)+n) })
	return nil
}

// abandon deletes what a Create that failed has kept, unless another has begun anew.
func (k *creation) abandon(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	id := k.m.ID
	by, err := k.c.rdb.HMGet(ctx, campaignKey(id), "by", "state").Result()
	if err != nil || by[0] != k.token || by[1] != string(Creating) {
		return
	}
	_ = k.c.eachChunk(ctx, 0, k.chunks, func(p redis.Pipeliner, n string) { p.Unlink(ctx, chunkPrefix(id)+n) })
	_ = k.c.unsee(ctx, id)
	k.c.rdb.Unlink(ctx, campaignKey(id), countsKey(id), leaseKey(id))
	k.c.rdb.ZRem(ctx, indexKey, id)
}

// unsee forgets which recipients were seen.
func (c *Control) unsee(ctx context.Context, id string) error {
	for from := 0; from < shards; from += batchRows {
		var keys []string
		for n := from; n < min(from+batchRows, shards); n++ {
			keys = append(keys, seenPrefix(id)+strconv.Itoa(n))
		}
		if err := c.rdb.Unlink(ctx, keys...).Err(); err != nil {
			return fmt.Errorf("create campaign: %w", err)
		}
	}
	return nil
}

// eachChunk has do called with the numbers of chunks.
func (c *Control) eachChunk(ctx context.Context, from, to int, do func(p redis.Pipeliner, n string)) error {
	for ; from < to; from += batchRows {
		_, err := c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
			for n := from; n < min(from+batchRows, to); n++ {
				do(p, strconv.Itoa(n))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
