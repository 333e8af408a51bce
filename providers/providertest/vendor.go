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

// vendor is a listener that reads requests and answers each in its own way.
type vendor struct {
	url    string
	listen net.Listener
	reply  func(c net.Conn, r recorded) (more bool)
	wait   sync.WaitGroup

	mu       sync.Mutex
	requests []recorded
	conns    []net.Conn
	closed   bool
}

// startVendor serves on a port of its own until close. reply has the connection
// to itself once a request was read whole, and says whether to read another.
func startVendor(reply func(c net.Conn, r recorded) (more bool)) (*vendor, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	v := &vendor{url: "http://" + l.Addr().String(), listen: l, reply: reply}
	v.wait.Go(v.accept)
	return v, nil
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
		v.wait.Go(func() { v.serve(c) })
	}
}

func (v *vendor) serve(c net.Conn) {
	defer c.Close()
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
		if !v.reply(c, r) {
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
