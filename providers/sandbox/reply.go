package sandbox

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"net/http"
	"strconv"
	"time"
)

// reply is an answer that is not sent yet: between a provider's acting and its
// client's knowing lie latency and cut connections.
type reply struct {
	header http.Header
	status int
	body   bytes.Buffer
	to     http.ResponseWriter // nil when no provider writes this reply
}

func newReply(to http.ResponseWriter) *reply {
	return &reply{header: http.Header{}, status: http.StatusOK, to: to}
}

// Header implements [http.ResponseWriter].
func (r *reply) Header() http.Header { return r.header }

// WriteHeader implements [http.ResponseWriter].
func (r *reply) WriteHeader(status int) { r.status = status }

// Write implements [http.ResponseWriter].
func (r *reply) Write(p []byte) (int, error) { return r.body.Write(p) }

// Unwrap lets [http.ResponseController] reach the connection.
func (r *reply) Unwrap() http.ResponseWriter { return r.to }

func (r *reply) send(w http.ResponseWriter) {
	maps.Copy(w.Header(), r.header)
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body.Bytes()) // fails only when the client has left
}

// plainReply is a reply of the sandbox's own, for which no vendor has a form.
func plainReply(status int, message string) *reply {
	r := newReply(nil)
	r.status = status
	r.header.Set("Content-Type", "application/json; charset=utf-8")
	_ = json.NewEncoder(&r.body).Encode(map[string]string{"message": message}) // a string: cannot fail
	return r
}

// retryAfter sets the header, rounded up: it has no fractions, and 0 would invite
// a retry at once.
func (r *reply) retryAfter(d time.Duration) {
	r.header.Set("Retry-After", strconv.Itoa(int((d+time.Second-1)/time.Second)))
}

func errorReply(f Fault) *reply {
	r := plainReply(cmp.Or(f.ErrorStatus, defaultErrorStatus), "failed by a fault of the sandbox")
	if f.RetryAfter > 0 {
		r.retryAfter(time.Duration(f.RetryAfter))
	}
	if f.ErrorBody != "" {
		r.body.Reset()
		r.body.WriteString(f.ErrorBody)
	}
	return r
}

// garbageReply is what captive portals and login pages of proxies answer.
func garbageReply() *reply {
	r := newReply(nil)
	r.header.Set("Content-Type", "text/html; charset=utf-8")
	r.body.WriteString("<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body><h1>Please sign in to the network</h1></body></html>\n")
	return r
}
