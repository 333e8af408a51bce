package chaos

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/otpq/otpq/internal/audit"
)

// fate is what the vendor does with one request.
type fate struct {
	name    string
	acts    bool
	refuses bool // answers that it did not act
	status  int  // zero for no answer
	body    string
	// then is how the exchange ends when not with the answer: "hang" until the
	// client leaves, or "cut" the connection.
	then  string
	delay between
	// retryAfter is the header, in seconds.
	retryAfter int
}

const (
	sended  = `{"type":"EMAIL","sended":true,"requestedAt":"2025-11-11T18:40:15.071+0000"}`
	unsent  = `{"type":"EMAIL","sended":false,"requestedAt":"2025-11-11T18:40:15.071+0000"}`
	refusal = `{"date":"11/11/2025 16:29:32","message":"Nenhuma sessão encontrada com os dados informados.","details":[]}`
	broken  = `{"message":"erro interno"}`
)

var (
	quick = between{time.Millisecond, 30 * time.Millisecond}
	slow  = between{300 * time.Millisecond, 1500 * time.Millisecond}

	accepts     = fate{name: "accepts", acts: true, status: 200, body: sended, delay: quick}
	acceptsLate = fate{name: "accepts late", acts: true, status: 200, body: sended, delay: slow}
	fails       = fate{name: "500", refuses: true, status: 500, body: broken, delay: quick}
	unavailable = fate{name: "503", refuses: true, status: 503, body: broken, delay: quick, retryAfter: 1}
	limits      = fate{name: "429", refuses: true, status: 429, body: broken, retryAfter: 1}
	notSent     = fate{name: "sended: false", refuses: true, status: 200, body: unsent, delay: quick}
	unknown     = fate{name: "404", refuses: true, status: 404, body: refusal, delay: quick}
	invalid     = fate{name: "400", refuses: true, status: 400, body: refusal, delay: quick}
	gateway     = fate{name: "502", status: 502, body: "<html>", delay: quick} // nobody can tell what it did
	hangs       = fate{name: "hangs", then: "hang"}
	actsHangs   = fate{name: "acts and hangs", acts: true, then: "hang", delay: quick}
	actsCuts    = fate{name: "acts and cuts", acts: true, then: "cut", delay: quick}
)

// fates are dealt to requests by their weights, out of a thousand; the rest are
// accepted.
var fates = []struct {
	weight int
	fate
}{
	{50, acceptsLate}, {40, fails}, {15, unavailable}, {2, limits}, {25, notSent}, {20, unknown}, {10, invalid},
	{10, gateway}, {15, hangs}, {25, actsHangs}, {25, actsCuts},
}

// moods are what the vendor does with every request while a trouble lasts.
var moods = map[string]fate{
	"answers 500": fails, "answers 429": limits, "hangs": hangs, "acts and hangs": actsHangs, "acts and cuts": actsCuts,
	"acts late": acceptsLate,
}

// vendor is a provider that speaks Unimed-BH's API, writes down every request, and
// misbehaves: by its mood, or by a fate that seed, recipient and the number of the
// request decide.
type vendor struct {
	seed uint64
	url  string
	quit chan struct{}

	mu    sync.Mutex
	mood  *fate
	count map[string]int // of requests, by tag
	seen  []*audit.Seen
	did   map[string]int // of requests, by the fate's name
}

func startVendor(t *testing.T, seed uint64) *vendor {
	t.Helper()
	v := &vendor{seed: seed, quit: make(chan struct{}), count: map[string]int{}, did: map[string]int{}}
	server := httptest.NewServer(v)
	v.url = server.URL
	t.Cleanup(func() {
		close(v.quit)
		server.Close()
	})
	return v
}

// upset has the vendor do the same with every request until it is mended.
func (v *vendor) upset(kind string) {
	mood := moods[kind]
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mood = &mood
}

func (v *vendor) mend() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mood = nil
}

// requests returns what was seen so far.
func (v *vendor) requests() (seen []audit.Seen, did map[string]int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	did = map[string]int{}
	for name, n := range v.did {
		did[name] = n
	}
	for _, s := range v.seen {
		seen = append(seen, *s)
	}
	return seen, did
}

func (v *vendor) fateOf(tag string, request int) fate {
	r := random(v.seed, fmt.Sprintf("fate %s %d", tag, request))
	n := r.IntN(1000)
	for _, f := range fates {
		if n -= f.weight; n < 0 {
			return f.fate
		}
	}
	return accepts
}

// take writes a request down and decides what becomes of it.
func (v *vendor) take(tag string) (*audit.Seen, fate) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.count[tag]++
	f := v.fateOf(tag, v.count[tag])
	if v.mood != nil {
		f = *v.mood
	}
	s := &audit.Seen{Tag: tag, At: time.Now().UTC(), Acted: f.acts}
	v.seen = append(v.seen, s)
	v.did[f.name]++
	return s, f
}

// ServeHTTP implements [http.Handler].
func (v *vendor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var body struct{ Username, Type string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil || r.URL.Path != "/security/v1/otp/request" {
		// A request that did not arrive whole is none: nobody could act on it.
		http.Error(w, "not the page's request", http.StatusBadRequest)
		return
	}
	seen, f := v.take(body.Username)
	if f.delay.to > 0 {
		select {
		case <-time.After(f.delay.pick(rand.New(rand.NewPCG(rand.Uint64(), 0)))):
		case <-v.quit:
		}
	}
	switch f.then {
	case "hang":
		select {
		case <-r.Context().Done():
		case <-v.quit:
		}
		panic(http.ErrAbortHandler)
	case "cut":
		panic(http.ErrAbortHandler)
	}
	// Before it is written: from then on otpq may know it.
	v.mu.Lock()
	seen.Status, seen.Refused = f.status, f.refuses
	v.mu.Unlock()
	if f.retryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(f.retryAfter))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(f.status)
	_, _ = strings.NewReader(f.body).WriteTo(w)
}
