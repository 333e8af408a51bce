package campaign

import (
	"context"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"
)

// readChunks is how many chunks are read together.
const readChunks = 20

// reader reads a campaign's rows by their places. It is for one goroutine.
type reader struct {
	c     *Campaigns
	id    string
	kept  int64
	first int64 // place of the first of those that were read last
	list  []entry
}

// at is the row of a place below kept.
func (r *reader) at(ctx context.Context, place int64) (entry, error) {
	if place < r.first || place >= r.first+int64(len(r.list)) {
		if err := r.read(ctx, place/chunkRows); err != nil {
			return entry{}, err
		}
	}
	return r.list[place-r.first], nil
}

// read reads chunks from one on.
func (r *reader) read(ctx context.Context, number int64) error {
	r.first, r.list = number*chunkRows, r.list[:0]
	last := min(number+readChunks, (r.kept+chunkRows-1)/chunkRows)
	cmds := make([]*redis.StringCmd, 0, readChunks)
	_, err := r.c.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		for n := number; n < last; n++ {
			cmds = append(cmds, p.Get(ctx, chunkPrefix(r.id)+strconv.FormatInt(n, 10)))
		}
		return nil
	})
	if err != nil && err != redis.Nil { //nolint:errorlint // a pipeline returns it as it is
		return fmt.Errorf("read campaign: %w", err)
	}
	for i, cmd := range cmds {
		entries, err := r.c.chunks.open(r.id, int(number)+i, []byte(cmd.Val()))
		if err != nil {
			r.list = r.list[:0]
			return err
		}
		if place := (number + int64(i)) * chunkRows; int64(len(entries)) != min(chunkRows, r.kept-place) {
			r.list = r.list[:0]
			return errChunk
		}
		r.list = append(r.list, entries...)
	}
	return nil
}

// take returns up to n rows that are to be sent or are links, from a place on and before
// another, and the place after them.
func (f *feeder) take(ctx context.Context, from, before int64, n int) (list []row, to int64, err error) {
	// Duplicates and what is wrong are passed over; not too many at a time.
	for to = from; len(list) < n && to < min(before, from+2*batchRows); to++ {
		e, err := f.chunks.at(ctx, to)
		if err != nil {
			return nil, from, err
		}
		if !e.isRow() && !e.isLink() {
			continue
		}
		one := row{entry: e, place: to}
		if one.request, err = e.request(f.def); err != nil {
			return nil, from, err
		}
		id, err := f.c.messageID(f.m, one.request.Recipient())
		if err != nil {
			return nil, from, err
		}
		one.id = id.String()
		list = append(list, one)
	}
	return list, to, nil
}
