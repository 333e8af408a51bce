package rows

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

const (
	rowTooLong = "is longer than 256 KiB"
	unclosed   = "has a quote that is not closed"
	afterQuote = "has text behind a closing quote"
	bareQuote  = "has a quote within a cell that is not quoted"
)

// csvReader takes a text apart into rows of cells, as RFC 4180 has them. Blanks around
// what is not quoted are left out.
type csvReader struct {
	*lines
	sep   byte
	width int // how many cells a row has; 0 before the first

	cells []string
	// Of the row that is being unquoted: its cells, one behind the other, and where
	// each ends.
	unquoted []byte
	ends     []int
}

// record is a row of cells. They are good until the next.
type record struct {
	line    int
	cells   []string
	problem string // why there are no cells
}

// next reads a row. It fails with [io.EOF] at the end, and with a [ReadError].
func (c *csvReader) next() (record, error) {
	rec, n, err := c.peek()
	if err != nil {
		return rec, err
	}
	if rec.problem == "" {
		if c.width == 0 {
			c.width = len(rec.cells)
		}
		if len(rec.cells) != c.width {
			rec.problem = "has " + columns(len(rec.cells)) + " where the first row has " + strconv.Itoa(c.width)
		}
	}
	switch {
	case rec.problem == rowTooLong:
		c.skip()
	case rec.problem != "":
		// Most likely a quote is missing or too many: what it took in of the lines
		// that follow are rows of their own.
		first, _ := c.lineAt(0)
		c.advance(first)
	default:
		c.advance(n)
	}
	return rec, nil
}

func columns(n int) string {
	if n == 1 {
		return "1 column"
	}
	return strconv.Itoa(n) + " columns"
}

// peek is next without moving on: n is how long the row is. It leaves behind empty
// lines.
func (c *csvReader) peek() (rec record, n int, err error) {
	for {
		to, how := c.lineAt(0)
		rec = record{line: c.line}
		switch how {
		case broken:
			return rec, 0, c.failure()
		case tooLong:
			rec.problem = rowTooLong
			return rec, 0, nil
		case whole:
		}
		if to == 0 {
			return rec, 0, io.EOF
		}
		line := trimEOL(c.text(to))
		switch {
		case len(bytes.Trim(line, " ")) == 0:
			c.advance(to)
		case bytes.IndexByte(line, '"') < 0:
			rec.cells = c.split(string(line))
			return rec, to, nil
		default:
			n, err = c.unquote(to)
			var malformed malformedError
			if errors.As(err, &malformed) {
				rec.problem = string(malformed)
				return rec, 0, nil
			}
			rec.cells = c.unquotedCells()
			return rec, n, err
		}
	}
}

// split takes a line without quotes apart.
func (c *csvReader) split(line string) []string {
	c.cells = c.cells[:0]
	for {
		cell, rest, more := strings.Cut(line, string(rune(c.sep)))
		c.cells = append(c.cells, strings.Trim(cell, " "))
		if !more {
			return c.cells
		}
		line = rest
	}
}

// malformedError says what is wrong with a row.
type malformedError string

// Error implements error.
func (e malformedError) Error() string { return string(e) }

// unquote takes a row with quotes apart, whose first line is so long. It returns how
// long the row is. It fails with a malformedError or a [ReadError].
func (c *csvReader) unquote(to int) (int, error) {
	c.unquoted, c.ends = c.unquoted[:0], c.ends[:0]
	pos, to, err := c.cell(0, to)
	for err == nil && pos < to && c.text(to)[pos] == c.sep {
		pos, to, err = c.cell(pos+1, to)
	}
	return to, err
}

// cell takes the cell at pos of a row of which so much has been looked at. It returns
// where the cell ends: at a separator, or at the row's end.
func (c *csvReader) cell(pos, to int) (int, int, error) {
	data := c.text(to)
	for pos < to && data[pos] == ' ' {
		pos++
	}
	if pos == to || data[pos] != '"' {
		end := to
		for i, b := range data[pos:] {
			if b == c.sep || b == '\n' || b == '"' {
				end = pos + i
				break
			}
		}
		if end < to && data[end] == '"' {
			return 0, 0, malformedError(bareQuote)
		}
		cell := data[pos:end]
		if end == to || data[end] == '\n' {
			cell = bytes.TrimSuffix(cell, []byte("\r"))
		}
		c.unquoted = append(c.unquoted, bytes.TrimRight(cell, " ")...)
		c.ends = append(c.ends, len(c.unquoted))
		return end, to, nil
	}
	pos, to, err := c.quotedCell(pos+1, to)
	if err != nil {
		return 0, 0, err
	}
	c.ends = append(c.ends, len(c.unquoted))
	data = c.text(to)
	for pos < to && data[pos] == ' ' {
		pos++
	}
	if pos == to || data[pos] == c.sep || len(trimEOL(data[pos:])) == 0 {
		return pos, to, nil
	}
	return 0, 0, malformedError(afterQuote)
}

// quotedCell takes what follows a quote, up to behind the closing one, which may be on
// another line.
func (c *csvReader) quotedCell(pos, to int) (int, int, error) {
	for {
		data := c.text(to)
		i := bytes.IndexByte(data[pos:], '"')
		if i < 0 {
			c.unquoted = append(c.unquoted, data[pos:]...)
			next, how := c.lineAt(to)
			switch {
			case how == broken:
				return 0, 0, c.failure()
			case how == tooLong || next == to:
				return 0, 0, malformedError(unclosed)
			}
			pos, to = to, next
			continue
		}
		c.unquoted = append(c.unquoted, data[pos:pos+i]...)
		pos += i + 1
		if pos == to || data[pos] != '"' {
			return pos, to, nil
		}
		c.unquoted = append(c.unquoted, '"')
		pos++
	}
}

// unquotedCells are the cells that unquote found.
func (c *csvReader) unquotedCells() []string {
	all, from := string(c.unquoted), 0
	c.cells = c.cells[:0]
	for _, end := range c.ends {
		c.cells = append(c.cells, all[from:end])
		from = end
	}
	return c.cells
}
