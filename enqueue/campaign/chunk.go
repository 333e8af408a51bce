package campaign

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/klauspost/compress/zstd"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/tasks"
)

// chunkRows is how many rows are kept together: Redis keeps a hash of so many short
// fields, which is what the rows' ends are, in a tenth of the memory.
const chunkRows = 100

// kind is what a row is.
type kind byte

const (
	kindRow       kind = 'r'
	kindMaybeSent kind = 'm' // a row whose recipient may have been sent a code already
	kindDuplicate kind = 'd'
	kindInvalid   kind = 'x'
)

// entry is one row as it is kept.
type entry struct {
	line     int
	kind     kind
	replayOf string
	// text is the request's JSON, or that of what is wrong with it.
	text []byte
}

// newEntry is that of a row that is no duplicate.
func newEntry(r rows.Row) (entry, error) {
	e := entry{line: r.Line, kind: kindRow, replayOf: r.ReplayOf}
	var err error
	switch {
	case r.Request == nil:
		e.kind = kindInvalid
		e.text, err = json.Marshal(r.Problems)
	case r.PossibleDuplicate:
		e.kind = kindMaybeSent
		fallthrough
	default:
		e.text, err = json.Marshal(r.Request)
	}
	if err != nil {
		return entry{}, fmt.Errorf("line %d cannot be kept as JSON", r.Line)
	}
	return e, nil
}

func (e entry) isRow() bool { return e.kind == kindRow || e.kind == kindMaybeSent }

// isLink reports whether the row is a duplicate whose old message lives on as the
// message of its recipient's first row.
func (e entry) isLink() bool { return e.kind == kindDuplicate && e.replayOf != "" }

// request reads the request.
func (e entry) request(def providers.Definition) (providers.Request, error) {
	r, err := def.Decode(e.text)
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", e.line, err)
	}
	return r, nil
}

// appendTo writes an entry as a line: JSON has no line break of its own.
func (e entry) appendTo(b []byte) []byte {
	b = strconv.AppendInt(b, int64(e.line), 10)
	b = append(b, ' ', byte(e.kind), ' ')
	b = append(append(b, e.replayOf...), ' ')
	return append(append(b, e.text...), '\n')
}

var errChunk = errors.New("rows of the campaign cannot be read: they were changed in Redis")

func parseEntry(line []byte) (entry, error) {
	number, rest, _ := bytes.Cut(line, []byte(" "))
	k, rest, _ := bytes.Cut(rest, []byte(" "))
	replayOf, text, ok := bytes.Cut(rest, []byte(" "))
	n, err := strconv.Atoi(string(number))
	if err != nil || len(k) != 1 || !ok {
		return entry{}, errChunk
	}
	return entry{line: n, kind: kind(k[0]), replayOf: string(replayOf), text: text}, nil
}

// chunkCoder seals and opens chunks of rows. It is safe for concurrent use.
type chunkCoder struct {
	keys *tasks.Keyring
	enc  *zstd.Encoder
	dec  *zstd.Decoder
}

func newChunkCoder(keys *tasks.Keyring) (*chunkCoder, error) {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxChunk))
	return &chunkCoder{keys, enc, dec}, err
}

// maxChunk bounds a chunk: each row is under 256 KiB.
const maxChunk = chunkRows << 18

// associated binds a chunk to its place.
func associated(id string, number int) []byte {
	return fmt.Appendf(nil, "otpq/campaign rows|%s|%d", id, number)
}

// seal makes what Redis holds of a chunk: the key's id, a line break and the sealed
// rows.
func (c *chunkCoder) seal(id string, number int, entries []entry) ([]byte, error) {
	var plain []byte
	for _, e := range entries {
		plain = e.appendTo(plain)
	}
	keyID, sealed, err := c.keys.Seal(c.enc.EncodeAll(plain, nil), associated(id, number))
	if err != nil {
		return nil, err
	}
	return append(append([]byte(keyID), '\n'), sealed...), nil
}

// open reads what seal made. It fails as [tasks.Keyring.Open] does.
func (c *chunkCoder) open(id string, number int, data []byte) ([]entry, error) {
	keyID, sealed, ok := bytes.Cut(data, []byte("\n"))
	if !ok {
		return nil, errChunk
	}
	packed, err := c.keys.Open(string(keyID), sealed, associated(id, number))
	if err != nil {
		return nil, fmt.Errorf("rows of campaign %s: %w", id, err)
	}
	plain, err := c.dec.DecodeAll(packed, nil)
	if err != nil {
		return nil, errChunk
	}
	entries := make([]entry, 0, chunkRows)
	for line := range bytes.Lines(plain) {
		e, err := parseEntry(bytes.TrimSuffix(line, []byte("\n")))
		if err != nil {
			return nil, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}
