package chaos

import (
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// counter is a provider that speaks Unimed-BH's API, accepts everything, and counts.
type counter struct {
	url string

	mu      sync.Mutex
	total   int
	count   map[string]int // of requests, by recipient
	strange int            // requests that are not the page's
	awaited int
	there   chan struct{} // closed at so many as are awaited
}

func startCounter(t *testing.T) *counter {
	t.Helper()
	c := &counter{count: map[string]int{}}
	server := httptest.NewServer(c)
	c.url = server.URL
	t.Cleanup(server.Close)
	return c
}

// ServeHTTP implements [http.Handler].
func (c *counter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct{ Username, Type string }
	err := json.NewDecoder(r.Body).Decode(&body)
	if err != nil { // it did not arrive whole: its sender was killed, and it is none
		return
	}
	c.mu.Lock()
	if r.URL.Path != "/security/v1/otp/request" || body.Type != "EMAIL" {
		c.strange++
	}
	c.count[recipientOf(body.Username)]++
	c.total++
	if c.there != nil && c.total >= c.awaited {
		close(c.there)
		c.there = nil
	}
	c.mu.Unlock()
	// Some requests are under way at each moment.
	<-time.After(rand.N(8 * time.Millisecond))
	w.Header().Set("Content-Type", "application/json")
	_, _ = strings.NewReader(sended).WriteTo(w)
}

// reached returns what is closed once there were so many requests. It is for one
// goroutine.
func (c *counter) reached(requests int) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	there := make(chan struct{})
	if c.total >= requests {
		close(there)
	} else {
		c.awaited, c.there = requests, there
	}
	return there
}

// distinct is how many recipients were sent a request.
func (c *counter) distinct() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return int64(len(c.count))
}
