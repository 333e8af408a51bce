package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// rowsChoice is where a campaign's rows come from, as the flags say it.
type rowsChoice struct {
	file    string // - is standard input
	format  string
	pairs   []string
	mapping rows.Mapping

	fromStatus                  bool
	state, reason, since, until string
	states                      []status.State
	from, to                    time.Time
}

func (o *rowsChoice) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringArrayVar(&o.pairs, "map", nil, "`FIELD=COLUMN`: which column, by name or number, a field is taken from; FIELD==VALUE is the same value for all. Repeat it for more")
	f.StringVar(&o.format, "format", "", "csv or jsonl (default: by what is in FILE)")
	f.BoolVar(&o.fromStatus, "from-status", false, "take those whose messages ended badly, in place of a file")
	f.StringVar(&o.state, "state", "", "with --from-status: the `STATES` they ended in, separated by commas (default: exhausted,expired)")
	f.StringVar(&o.reason, "reason", "", "with --from-status: only those with this reason")
	f.StringVar(&o.since, "since", "", "with --from-status: only those that ended since this `TIME`: RFC 3339, a day, or a duration such as 2h (needed)")
	f.StringVar(&o.until, "until", "", "with --from-status: only those that ended until this `TIME`")
}

// read finds what is wrong with the flags alone.
func (o *rowsChoice) read(def providers.Definition) (err error) {
	switch {
	case o.fromStatus && o.file != "":
		return usagef("name a file or say --from-status, not both")
	case o.fromStatus && (len(o.pairs) > 0 || o.format != ""):
		return usagef("--map and --format are for files, not for --from-status")
	case o.fromStatus:
		return o.readStatusFlags()
	case o.state != "" || o.reason != "" || o.since != "" || o.until != "":
		return usagef("--state, --reason, --since and --until go with --from-status")
	case o.file == "":
		return usagef("say where the rows are: a FILE, - for standard input, or --from-status")
	case o.format != "" && o.format != string(rows.CSV) && o.format != string(rows.JSONL):
		return usagef("--format must be csv or jsonl, not %q", o.format)
	}
	if o.mapping, err = rows.ParseMapping(o.pairs); err != nil {
		return usagef("--map: %w", err)
	}
	for _, pair := range o.mapping {
		if !isField(def, pair.Field) {
			return usagef("--map: %q is no field of %s; its fields are %s", pair.Field, def.Name, strings.Join(rows.Fields(def), ", "))
		}
	}
	return nil
}

// isField reports whether a column can be mapped to the field.
func isField(def providers.Definition, name string) bool {
	return slices.ContainsFunc(rows.Fields(def), func(field string) bool {
		prefix, any := strings.CutSuffix(field, "*")
		return name == field || any && strings.HasPrefix(name, prefix) && name != prefix
	})
}

// readStatusFlags reads what --from-status is told.
func (o *rowsChoice) readStatusFlags() error {
	if o.since == "" {
		return usagef("--from-status needs --since: how far back, such as 2h")
	}
	now := time.Now()
	var err error
	if o.from, err = parseTime(o.since, now, ago); err != nil {
		return usagef("--since %w", err)
	}
	if o.from.After(now) {
		return usagef("--since is in the future: nothing has ended since then")
	}
	if o.until != "" {
		if o.to, err = parseTime(o.until, now, ago); err != nil {
			return usagef("--until %w", err)
		}
		if o.to.Before(o.from) {
			return usagef("--until is before --since: nothing ended between them")
		}
	}
	wanted, err := readStates(o.state, failedStates()...)
	if err != nil {
		return err
	}
	o.states = campaign.RetryStates()
	if len(wanted) > 0 {
		o.states = nil
	}
	for _, s := range wanted {
		o.states = append(o.states, status.State(s))
	}
	return nil
}

// openedRows are rows that are being read.
type openedRows struct {
	source campaign.Source
	size   int64 // of the file; 0 when nobody knows
	done   atomic.Int64
	close  func()
}

// countedReader counts what is read of a file.
type countedReader struct {
	r io.Reader
	n *atomic.Int64
}

// Read implements [io.Reader].
func (c countedReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// openRows opens what the flags name. c is nil when nothing is to be created.
func (a *app) openRows(ctx context.Context, o *createChoice, c *openCampaigns) (in *openedRows, err error) {
	if o.rows.fromStatus {
		in, err = openStatusRows(ctx, o, c)
	} else {
		in, err = a.openFile(ctx, o, c != nil)
	}
	if err != nil {
		return nil, rowsError(err)
	}
	in.source.Rows = someRows(in.source.Rows, in.source.Name)
	return in, nil
}

// someRows ends with an error when there are none: a campaign of nobody is a mistake.
func someRows(source rows.Source, name string) rows.Source {
	return func(yield func(rows.Row, error) bool) {
		none := true
		for row, err := range source {
			none = false
			if !yield(row, err) {
				return
			}
		}
		if none {
			yield(rows.Row{}, fmt.Errorf("there are no rows in %s: nothing was created", name))
		}
	}
}

// openFile opens a file, or standard input. keep says that it is to be told from others.
func (a *app) openFile(ctx context.Context, o *createChoice, keep bool) (*openedRows, error) {
	in := &openedRows{close: func() {}}
	var r io.Reader
	plain := "" // the digest of the file alone
	if o.rows.file == "-" {
		in.source.Name, r = "standard input", until(ctx, a.in)
	} else {
		f, info, err := openInput(ctx, o.rows.file)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case err != nil:
			return nil, usagef("the rows cannot be read: %s: %w", o.rows.file, errors.Unwrap(err))
		case info.IsDir():
			_ = f.Close()
			return nil, usagef("the rows cannot be read: %s is a folder", o.rows.file)
		}
		in.close = func() { _ = f.Close() }
		in.source.Name, r = filepath.Base(o.rows.file), f
		if info.Mode().IsRegular() {
			in.size = info.Size()
		}
		if info.Mode().IsRegular() && keep {
			if plain, err = rows.DigestFile(ctx, o.rows.file); err != nil {
				in.close()
				return nil, err
			}
			in.source.Digest = digestOf(plain, o)
		}
	}
	file, err := rows.Open(ctx, countedReader{r, &in.done}, o.def, rows.FileOptions{Format: rows.Format(o.rows.format), Map: o.rows.mapping})
	if err != nil {
		in.close()
		return nil, err
	}
	in.source.Rows = unchanged(file, plain, in.source.Name)
	return in, nil
}

// unchanged are a file's rows, and an error at their end when it has another digest by
// then: whoever writes it has not done yet, and its end would be missing.
func unchanged(file *rows.File, digest, name string) rows.Source {
	return func(yield func(rows.Row, error) bool) {
		for row, err := range file.Rows() {
			if !yield(row, err) {
				return
			}
		}
		if is := file.Digest(); digest != "" && is != "" && is != digest {
			yield(rows.Row{}, fmt.Errorf("%s was changed while it was read: nothing was created; do this again when it is whole", name))
		}
	}
}

// digestOf tells a file's rows from others: the same file read in another way has
// others.
func digestOf(plain string, o *createChoice) string {
	if len(o.rows.mapping) == 0 && o.rows.format == "" {
		return plain
	}
	how := sha256.New()
	fmt.Fprintf(how, "%s\n%s\n", plain, o.rows.format)
	var pairs []string
	for _, pair := range o.rows.mapping {
		pairs = append(pairs, pair.String())
	}
	slices.Sort(pairs)
	for _, pair := range pairs {
		fmt.Fprintf(how, "%q\n", pair)
	}
	return "sha256:" + hex.EncodeToString(how.Sum(nil))
}

// rowsError says in the command's words why rows cannot be read. What other flags mend
// is a wrong usage, and what only another file mends is none.
func rowsError(err error) error {
	const hint = "see `otpq campaign create --help` for --map"
	var pair *rows.PairError
	var column *rows.ColumnError
	var header *rows.HeaderError
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted: nothing was created")
	case errors.As(err, &pair):
		return usagef("--map: %w", err)
	case errors.As(err, &header):
		return usagef("%w, as in --map %s=1; %s", err, header.Fields[0], hint)
	case errors.As(err, &column):
		return usagef("%w; %s", err, hint)
	}
	return err
}

// sameFile reports whether both names are of one file.
func sameFile(a, b string) bool {
	if b == "" || b == "-" {
		return false
	}
	x, err1 := os.Stat(a)
	y, err2 := os.Stat(b)
	if errors.Is(err1, fs.ErrNotExist) {
		return false
	}
	return err1 == nil && err2 == nil && os.SameFile(x, y)
}

// readInterval is how often a terminal is told how much was read.
const readInterval = 200 * time.Millisecond

// reading shows on stderr how much of the rows was read: in one line on a terminal,
// in a line now and then elsewhere.
type reading struct {
	a        *app
	in       *openedRows
	began    time.Time
	at       time.Time
	terminal bool
	shown    bool
}

func (a *app) newReading(in *openedRows) *reading {
	now := time.Now()
	return &reading{a: a, in: in, began: now, at: now, terminal: isTerminal(a.err)}
}

// show is called with each row or some of them.
func (r *reading) show(n campaign.Counts) {
	if n.Rows%100 != 0 { // to look at the clock costs as much as a row
		return
	}
	interval := readInterval
	if !r.terminal {
		interval = linesInterval
	}
	now := time.Now()
	if now.Sub(r.at) < interval {
		return
	}
	r.at = now
	line := fmt.Sprintf("read %s rows", grouped(n.Rows))
	if r.in.size > 0 {
		line = fmt.Sprintf("%3.0f %%  ", 100*min(float64(r.in.done.Load())/float64(r.in.size), 1)) + line
	}
	line += fmt.Sprintf(", %s wrong, %s/s", grouped(n.Invalid), grouped(int64(float64(n.Rows)/now.Sub(r.began).Seconds())))
	if !r.terminal {
		fmt.Fprintln(r.a.err, line)
		return
	}
	r.shown = true
	fmt.Fprint(r.a.err, "\r"+line+"\x1b[K")
}

// end takes the line away.
func (r *reading) end() {
	if r.shown {
		fmt.Fprint(r.a.err, "\r\x1b[K")
	}
}

// openStatusRows are the rows of what happened.
func openStatusRows(ctx context.Context, o *createChoice, c *openCampaigns) (*openedRows, error) {
	ring, err := tasks.NewKeyring(keys(c.cfg)...)
	if err != nil {
		return nil, err
	}
	filter := status.EndedFilter{States: o.rows.states, Reason: o.rows.reason, Since: o.rows.from, Until: o.rows.to}
	var names []string
	for _, s := range o.rows.states {
		names = append(names, string(s))
	}
	name := "what ended " + strings.Join(names, ", ") + " since " + o.rows.from.UTC().Format(time.RFC3339)
	if !o.rows.to.IsZero() {
		name += " until " + o.rows.to.UTC().Format(time.RFC3339)
	}
	if o.rows.reason != "" {
		name += " for " + o.rows.reason
	}
	return &openedRows{
		source: campaign.Source{Name: name, Rows: rows.FromStatus(ctx, openStore(c.cfg, c.rdb), ring, o.def, filter)},
		close:  func() {},
	}, nil
}
