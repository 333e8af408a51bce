package rows

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"

	"github.com/otpq/otpq/providers"
)

// Format is how a file has its rows.
type Format string

const (
	// FormatDetected is JSONL when the first row begins with {, and else CSV.
	FormatDetected Format = ""
	// CSV has a row of cells a line, or more lines where cells are quoted.
	CSV Format = "csv"
	// JSONL has a request a line, in the provider's documented JSON.
	JSONL Format = "jsonl"
)

// Header says whether the first row of a CSV file has the columns' names.
type Header int

const (
	// HeaderDetected takes the first row for a header when the mapping names columns,
	// or one of its cells is called as a field of the provider.
	HeaderDetected Header = iota
	// HeaderPresent takes it for a header.
	HeaderPresent
	// HeaderAbsent takes it for a person's.
	HeaderAbsent
)

// FileOptions say how a file is read. The zero value finds out by itself.
type FileOptions struct {
	Format Format
	// Separator is between the cells of CSV: ',', ';' or a tab, or another byte of
	// ASCII. Zero finds out by the first row.
	Separator byte
	Header    Header
	// Map says where fields come from. Fields that it does not name come from the
	// column of their name, and other columns are ignored. Without a Map, a column
	// that is no field is an error.
	Map Mapping
}

// File is a file of rows that is being read, once.
type File struct {
	in     *input
	next   func() (Row, error)
	begun  bool
	digest string
}

// Open begins to read a file, or a pipe: r is read once, to its end, in constant
// memory, and not closed. It may be compressed by gzip or zstd, and begin with a byte
// order mark.
//
// It returns a File rather than a Source because what is wrong with all rows is found
// out here, before any row, and because the rows' end is not all that there is to
// know: see [File.Digest]. It fails with a [FormatError], a [HeaderError], a
// [PairError], a [ColumnError] or a [ReadError], and with r's and ctx's errors.
func Open(ctx context.Context, r io.Reader, def providers.Definition, o FileOptions) (*File, error) {
	if t := reflect.TypeOf(def.Example); t == nil || t.Kind() != reflect.Struct {
		return nil, fmt.Errorf("requests of provider %q cannot be read: its example is no struct", def.Name)
	}
	in, err := openInput(ctx, r)
	if err != nil {
		return nil, err
	}
	f := &File{in: in}
	if f.next, err = open(newLines(in.text), def, o); err != nil {
		in.close()
		return nil, err
	}
	return f, nil
}

// open returns what reads one row after the other.
func open(l *lines, def providers.Definition, o FileOptions) (func() (Row, error), error) {
	if err := l.begin(); err != nil {
		return nil, err
	}
	if o.Format == FormatDetected {
		o.Format = CSV
		if bytes.HasPrefix(bytes.TrimSpace(l.buf[l.start:l.end]), []byte("{")) {
			o.Format = JSONL
		}
	}
	if err := l.checkText(); err != nil {
		return nil, err
	}
	switch o.Format {
	case CSV:
		return openCSV(l, def, o)
	case JSONL:
		j, err := newJSONLReader(l, def, o.Map)
		if err != nil {
			return nil, err
		}
		return j.next, nil
	case FormatDetected:
	}
	return nil, &FormatError{fmt.Sprintf("cannot be of format %q: there are %s and %s", o.Format, CSV, JSONL)}
}

// begin goes to the first row. What cannot be read is its error only when nothing can.
func (l *lines) begin() error {
	const mark = "\xef\xbb\xbf"
	for l.end < len(mark) && l.more() {
		continue
	}
	if bytes.HasPrefix(l.buf[:l.end], []byte(mark)) {
		l.start = len(mark)
	}
	for {
		to, how := l.lineAt(0)
		switch {
		case how == broken:
			return l.failure()
		case how == tooLong || to == 0 || len(bytes.TrimSpace(l.text(to))) > 0:
			return nil
		}
		l.advance(to)
	}
}

// checkText finds, by the first row, what is no text of rows: of such a file each row
// would be wrong, for a reason that tells nobody what to do.
func (l *lines) checkText() error {
	first := l.buf[l.start:l.end]
	rest, array := bytes.CutPrefix(bytes.TrimSpace(first), []byte("["))
	if i := bytes.IndexByte(first, '\n'); i >= 0 {
		first = first[:i]
	}
	switch {
	case bytes.IndexByte(first, 0) >= 0:
		return &FormatError{"is no text, or is UTF-16: save it as UTF-8"}
	case array && bytes.HasPrefix(bytes.TrimSpace(rest), []byte("{")):
		return &FormatError{"is one JSON array: write a line for each request, as jq -c '.[]' does"}
	case bytes.IndexByte(first, '"') < 0 && bytes.IndexByte(bytes.TrimRight(first, "\r"), '\r') >= 0:
		return &FormatError{"has lines that end in carriage returns alone: save it with the line breaks of Unix or Windows"}
	}
	return nil
}

func openCSV(l *lines, def providers.Definition, o FileOptions) (func() (Row, error), error) {
	f := fieldsOf(def)
	c := &csvReader{lines: l, sep: o.Separator}
	if c.sep == 0 {
		c.sep = c.detect(f)
	}
	if c.sep >= 0x80 || c.sep == '"' || c.sep == '\n' || c.sep == '\r' || c.sep == ' ' {
		return nil, &FormatError{"cannot have that separator: it is a byte of ASCII, and no quote, blank or line break"}
	}
	rec, _, err := c.peek()
	if errors.Is(err, io.EOF) {
		return func() (Row, error) { return Row{}, io.EOF }, nil
	}
	if err != nil {
		return nil, err
	}
	header := isHeader(f, rec.cells, o)
	switch {
	case rec.problem != "" && header:
		return nil, &FormatError{fmt.Sprintf("has a header, in line %d, that %s", rec.line, rec.problem)}
	case rec.problem != "" && !o.Map.numbered():
		return nil, &FormatError{fmt.Sprintf("has a first row, in line %d, that %s", rec.line, rec.problem)}
	}
	m := maker{scratch: reflect.New(f.request).Elem()}
	if m.targets, err = newTargets(f, rec.cells, header, o.Map); err != nil {
		return nil, err
	}
	if header {
		if _, err := c.next(); err != nil {
			return nil, err
		}
	}
	return func() (Row, error) {
		rec, err := c.next()
		if err != nil {
			return Row{}, err
		}
		return m.row(rec), nil
	}, nil
}

// detect finds out what separates cells, by the first row: what makes most fields'
// names of it, or else what is there at all. A comma may be part of a number.
func (c *csvReader) detect(f fields) byte {
	best, most := byte(','), 0
	for _, sep := range []byte("\t;,") {
		c.sep = sep
		rec, _, err := c.peek()
		if err != nil || rec.problem != "" {
			continue
		}
		score := 0
		if len(rec.cells) > 1 {
			score = 1
		}
		for _, cell := range rec.cells {
			if isNamed(f, cell) {
				score += 2
			}
		}
		if score > most {
			best, most = sep, score
		}
	}
	return best
}

// Rows are the file's, in its order, each valid or with its problems. They can be gone
// through once. An error that ends them is r's, ctx's, or of what r was compressed
// with, in a [ReadError] that says in which line; the row of that line is none.
func (f *File) Rows() Source {
	return func(yield func(Row, error) bool) {
		if f.begun {
			yield(Row{}, errors.New("the file's rows were read before"))
			return
		}
		f.begun = true
		defer f.in.close()
		for {
			row, err := f.next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				yield(Row{}, err)
				return
			}
			if !yield(row, nil) {
				return
			}
		}
		// Whatever unpacks looks for more behind its end: all was read.
		f.digest = f.in.bytes.digest()
	}
}

// Digest is the SHA-256 of all that was read, as it was read: compressed, if it was.
// It is empty before Rows have come to their end. [DigestFile] gives the same.
func (f *File) Digest() string { return f.digest }
