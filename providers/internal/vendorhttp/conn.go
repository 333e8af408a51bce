package vendorhttp

import (
	"errors"
	"net"
	"sync"
)

var (
	// errOutOfTurn is what becomes of a connection on which the vendor speaks unasked.
	errOutOfTurn = errors.New("the host answered before it was asked; check base_url")
	errSpoiled   = errors.New("nothing more is written to this connection")
)

// conn is a connection that hears nothing before it has asked something.
//
// A vendor that answers twice, or writes more than the length it announced, leaves
// bytes behind its reply. net/http throws such a connection away when it sees them,
// but hands it to the next request first: now and then that request was given
// another one's leftover for its own reply, and its message called accepted.
//
// What a vendor says unasked once the next request has left cannot be told from a
// reply to it by anybody.
type conn struct {
	net.Conn

	mu      sync.Mutex
	changed *sync.Cond // of what follows
	waiting bool       // net/http has read all there was and waits for more
	asked   bool       // the present request has begun to leave
	spoiled bool       // nothing more may leave: the vendor spoke out of turn, or nobody waits for a reply
	closed  bool
}

func newConn(c net.Conn) *conn {
	g := &conn{Conn: c}
	g.changed = sync.NewCond(&g.mu)
	return g
}

// next readies a used connection for a request that has not left yet. It returns
// when net/http has looked at what is left of the last reply: it either waits for
// more by then, and nothing is left, or has closed the connection.
func (c *conn) next() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for !c.waiting && !c.closed {
		c.changed.Wait()
	}
	c.asked = false
}

// withhold keeps the present request from ever leaving, and reports true, unless it
// has begun to leave. It is false for a nil conn: nothing is known of it.
func (c *conn) withhold() bool {
	if c == nil {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spoiled = c.spoiled || !c.asked
	return !c.asked
}

// Read implements [net.Conn].
func (c *conn) Read(p []byte) (int, error) {
	c.mu.Lock()
	c.waiting = true
	c.changed.Broadcast()
	c.mu.Unlock()

	n, err := c.Conn.Read(p)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = false
	if n > 0 && !c.asked {
		c.spoiled = true
		return 0, errOutOfTurn
	}
	return n, err
}

// Write implements [net.Conn].
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	spoiled := c.spoiled
	c.asked = c.asked || !spoiled
	c.mu.Unlock()
	if spoiled {
		return 0, errSpoiled
	}
	return c.Conn.Write(p)
}

// Close implements [net.Conn].
func (c *conn) Close() error {
	c.mu.Lock()
	c.closed = true
	c.changed.Broadcast()
	c.mu.Unlock()
	return c.Conn.Close()
}
