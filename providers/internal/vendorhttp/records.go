package vendorhttp

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"time"
)

// recordHead is how long the head of a TLS record is; the last two bytes of it are
// the length of what follows.
const recordHead = 5

// records hands TLS no more than the record that it reads. By itself TLS takes
// whatever has come, and what it has taken and not used nobody can see: a second
// reply, say, which would be read as that to the next request.
type records struct {
	net.Conn
	in   *bufio.Reader
	left int // of the record that is being read
}

func newRecords(c net.Conn) *records { return &records{Conn: c, in: bufio.NewReader(c)} }

// Read implements [net.Conn].
func (r *records) Read(p []byte) (int, error) {
	if r.left == 0 {
		head, err := r.in.Peek(recordHead)
		switch {
		case err == nil:
			r.left = recordHead + int(binary.BigEndian.Uint16(head[recordHead-2:]))
		case errors.Is(err, io.EOF) && len(head) > 0:
			r.left = len(head) // TLS is to see that it is cut off
		default:
			return 0, err
		}
	}
	n, err := r.in.Read(p[:min(len(p), r.left)])
	r.left -= n
	return n, err
}

// drained reports whether all that has been taken from the socket was read. Nobody
// may use the connection meanwhile.
func (l *line) drained() bool {
	if l.in.Buffered() > 0 {
		return false
	}
	if l.records == nil {
		return true
	}
	// A deadline that has passed keeps TLS from the socket: it has only what it took.
	if l.conn.SetReadDeadline(time.Unix(1, 0)) != nil {
		return false
	}
	n, err := l.conn.Read(make([]byte, 1))
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded) &&
		l.records.left == 0 && l.records.in.Buffered() == 0 && l.conn.SetReadDeadline(time.Time{}) == nil
}
