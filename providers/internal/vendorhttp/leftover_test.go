package vendorhttp

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/otpq/otpq/providers"
)

// corked is a server's connection that keeps what is written to it until it is told
// to let go.
type corked struct {
	net.Conn
	held bytes.Buffer
	on   bool
}

func (c *corked) Write(p []byte) (int, error) {
	if c.on {
		return c.held.Write(p)
	}
	return c.Conn.Write(p)
}

// release sends what is held, but for the last so many bytes.
func (c *corked) release(but int) error {
	_, err := c.Conn.Write(c.held.Next(c.held.Len() - but))
	return err
}

const (
	refusal = "HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n%s"
	success = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"
)

// refusalOf is a refusal of so many bytes.
func refusalOf(size int) string {
	head := len(fmt.Sprintf(refusal, 1000, ""))
	return fmt.Sprintf(refusal, size-head, strings.Repeat("x", size-head))
}

// TLS has buffers of its own, where a second reply may lie that neither the socket
// nor the reader of replies has any more.
func TestWhatIsLeftBehindInTLSAnswersNobodyElse(t *testing.T) {
	for name, tc := range map[string]struct {
		records []string
		late    int // how many bytes come once there is another request
	}{
		"in the record of the reply, just behind what was read": {records: []string{refusalOf(4096) + success}},
		"in the record of a longer reply":                       {records: []string{refusalOf(8192) + success}},
		"in a record that came with it":                         {records: []string{refusalOf(1024), success}},
		"in a record that came with it, but for its end":        {records: []string{refusalOf(1024), success}, late: 5},
		"in a record of which only the head came with it":       {records: []string{refusalOf(1024), success}, late: len(success) + 17},
		"in a record of which half the head came with it":       {records: []string{refusalOf(1024), success}, late: len(success) + 19},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewTLSServer(http.NotFoundHandler()) // for its certificate
			defer srv.Close()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			serve := func(raw net.Conn) {
				defer raw.Close()
				below := &corked{Conn: raw}
				c := tls.Server(below, &tls.Config{Certificates: srv.TLS.Certificates, DynamicRecordSizingDisabled: true})
				in := bufio.NewReader(c)
				for {
					r, err := http.ReadRequest(in)
					if err != nil || below.release(0) != nil {
						return
					}
					_, _ = io.Copy(io.Discard, r.Body)
					below.on = true
					for _, record := range tc.records {
						fmt.Fprint(c, record)
					}
					below.on = false
					if below.release(tc.late) != nil {
						return
					}
				}
			}
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go serve(c)
				}
			}()
			c := newClient(t, providers.Settings{BaseURL: "https://" + l.Addr().String()})
			trust(c, srv)
			for i := range 3 {
				out := c.Post(t.Context(), Call{Path: "/", Body: []byte("x"), Classify: accept})
				if out.Kind != providers.RetryLater || out.HTTPStatus != 500 {
					t.Fatalf("Post() %d = %+v, want the refusal that is its own", i+1, out)
				}
			}
		})
	}
}
