package rows

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

const (
	// maxRow is the longest row, in bytes. The largest request that a provider's page
	// allows is a few KiB.
	maxRow = 256 << 10
	// fillSize is how much is read at once, or less.
	fillSize = 64 << 10
)

// ReadError is where reading ended before the end of the file. The rows before Line
// are whole.
type ReadError struct {
	Line int
	Err  error
}

// Error implements error.
func (e *ReadError) Error() string {
	return fmt.Sprintf("cannot read on at line %d: %v", e.Line, e.Err)
}

// Unwrap returns the cause.
func (e *ReadError) Unwrap() error { return e.Err }

// lines is a window over a text, which moves on by whole lines. It holds the row that
// is being read and never more than maxRow of it.
type lines struct {
	r     io.Reader
	buf   []byte
	start int // the first byte of the row
	end   int
	line  int   // of start
	err   error // why there is no more to read
}

func newLines(r io.Reader) *lines {
	return &lines{r: r, buf: make([]byte, maxRow+2*fillSize), line: 1}
}

// more reads more of the text behind what is there. It reports false when there is
// none, and err says why.
func (l *lines) more() bool {
	if l.err != nil {
		return false
	}
	if len(l.buf)-l.end < fillSize {
		copy(l.buf, l.buf[l.start:l.end])
		l.start, l.end = 0, l.end-l.start
	}
	const patience = 100 // as bufio has it
	for range patience {
		n, err := l.r.Read(l.buf[l.end:])
		l.end += n
		l.err = err
		if n > 0 || err != nil {
			return n > 0
		}
	}
	l.err = io.ErrNoProgress
	return false
}

// reach is how a line ended.
type reach int

const (
	whole   reach = iota // with a line break, or with the text
	tooLong              // the row would have more than maxRow
	broken               // the text cannot be read on: see err
)

// lineAt returns where the line ends, its line break included, that begins so far
// from the start of the row. At the end of the text it ends where it begins.
func (l *lines) lineAt(from int) (int, reach) {
	for looked := from; ; {
		if i := bytes.IndexByte(l.buf[l.start+looked:l.end], '\n'); i >= 0 {
			if looked += i + 1; looked > maxRow {
				return 0, tooLong
			}
			return looked, whole
		}
		if looked = l.end - l.start; looked > maxRow {
			return 0, tooLong
		}
		if !l.more() && !errors.Is(l.err, io.EOF) {
			return 0, broken
		} else if l.err != nil && looked == l.end-l.start {
			return looked, whole
		}
	}
}

// text is so much of the row.
func (l *lines) text(to int) []byte { return l.buf[l.start : l.start+to] }

// advance leaves behind so many bytes.
func (l *lines) advance(n int) {
	l.line += bytes.Count(l.text(n), []byte("\n"))
	l.start += n
}

// skip leaves behind the first line of the row, however long.
func (l *lines) skip() {
	for {
		if i := bytes.IndexByte(l.buf[l.start:l.end], '\n'); i >= 0 {
			l.advance(i + 1)
			return
		}
		l.start = l.end
		if !l.more() {
			return
		}
	}
}

// failure is the error of a text that is broken.
func (l *lines) failure() error { return &ReadError{l.line, unpackError(l.err)} }

// trimEOL takes the line break off a line's end.
func trimEOL(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}
