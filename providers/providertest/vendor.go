package providertest

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// recorded is one request as the vendor read it.
type recorded struct {
	line   string // method and path
	header http.Header
	body   []byte
}

// String renders a request as exchange files hold it: headers sorted, without
// the host, whose port is another one each time.
func (r recorded) String() string {
	lines := []string{r.line}
	for name, values := range r.header {
		for _, v := range values {
			lines = append(lines, name+": "+strings.ReplaceAll(v, token, "TOKEN"))
		}
	}
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n") + "\n\n" + string(r.body) + "\n"
}

// vendor is a listener that treats each connection in its own way.
type vendor struct {
	url    string
	listen net.Listener
	handle func(c net.Conn)
	wait   sync.WaitGroup

	mu       sync.Mutex
	requests []recorded
	conns    []net.Conn
	closed   bool
}

// startVendor serves on a port of its own until close. reply has the connection
// to itself once a request was read whole, and says whether to read another.
func startVendor(reply func(c net.Conn, r recorded) (more bool)) (*vendor, error) {
	v := &vendor{}
	v.handle = func(c net.Conn) { v.serve(c, reply) }
	err := v.start()
	return v, err
}

// startPeer serves like startVendor, but handle has each connection from its start.
func startPeer(handle func(c net.Conn)) (*vendor, error) {
	v := &vendor{handle: handle}
	err := v.start()
	return v, err
}

func (v *vendor) start() (err error) {
	if v.listen, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return err
	}
	v.url = "http://" + v.listen.Addr().String()
	v.wait.Go(v.accept)
	return nil
}

func (v *vendor) accept() {
	for {
		c, err := v.listen.Accept()
		if err != nil {
			return
		}
		v.mu.Lock()
		v.conns = append(v.conns, c)
		closed := v.closed
		v.mu.Unlock()
		if closed {
			c.Close()
			return
		}
		v.wait.Go(func() {
			defer c.Close()
			v.handle(c)
		})
	}
}

func (v *vendor) serve(c net.Conn, reply func(c net.Conn, r recorded) (more bool)) {
	b := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(b)
		if err != nil {
			return
		}
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		r := recorded{line: req.Method + " " + req.RequestURI, header: req.Header, body: body}
		v.mu.Lock()
		v.requests = append(v.requests, r)
		v.mu.Unlock()
		if !reply(c, r) {
			return
		}
	}
}

func (v *vendor) close() {
	v.mu.Lock()
	v.closed = true
	conns := v.conns
	v.mu.Unlock()
	v.listen.Close()
	for _, c := range conns {
		c.Close() // ends whoever still writes to it
	}
	v.wait.Wait()
}

// got returns the requests that were read so far.
func (v *vendor) got() []recorded {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.requests)
}

// expectRequests fails unless the vendor read exactly n requests.
func (v *vendor) expectRequests(n int) error {
	if got := len(v.got()); got != n {
		return fmt.Errorf("the vendor got %d requests, want %d", got, n)
	}
	return nil
}

// expectConnections fails unless exactly n connections were made.
func (v *vendor) expectConnections(n int) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if got := len(v.conns); got != n {
		return fmt.Errorf("the vendor got %d connections, want %d", got, n)
	}
	return nil
}

// always answers every request with the same bytes and closes the connection.
func always(response []byte) func(net.Conn, recorded) bool {
	return func(c net.Conn, _ recorded) bool {
		_, _ = c.Write(response) // a client that has left is the rule's matter
		return false
	}
}

// answer makes a whole HTTP reply. status is "200 OK" or the like.
func answer(status, contentType, body string, headers ...string) []byte {
	lines := append([]string{"HTTP/1.1 " + status, "Content-Type: " + contentType,
		fmt.Sprintf("Content-Length: %d", len(body))}, headers...)
	return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n" + body)
}

// parts splits a raw reply into its head, with the blank line, and its body.
func parts(response []byte) (head, body []byte) {
	head, body, _ = bytes.Cut(response, []byte("\r\n\r\n"))
	return append(slices.Clone(head), "\r\n\r\n"...), body
}
