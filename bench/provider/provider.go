// Package provider is the one HTTP server that the product and all peers post
// to, and the only place where a benchmark takes its times: it notes when each
// message arrived. It answers as Unimed-BH's page says, so that the product talks
// to it through the provider that ships. It is no sandbox: it does the least that
// an answer needs, so that it does not hide the difference between its callers.
package provider

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/otpq/otpq/bench/clock"
	"github.com/otpq/otpq/bench/load"
)

const (
	// Path is where requests go, as on the page.
	Path = "/security/v1/otp/request"
	// HangPath starts the paths that are never answered.
	HangPath = "/hang"
	// OtherPath starts the paths that are answered as MedSênior's page says, and
	// only counted.
	OtherPath = "/other"
)

// Answer is how the provider answers a request.
type Answer string

const (
	// Accept is the page's 200.
	Accept Answer = "accept"
	// NotSent is a 200 which says that nothing was sent: to be tried again.
	NotSent Answer = "not_sent"
	// Refuse is the page's 404: refused for good.
	Refuse Answer = "refuse"
)

// Settings are one run's.
type Settings struct {
	// Messages is how many numbers are expected, from 0.
	Messages int `json:"messages"`
	// Delay is how long each answer takes.
	Delay time.Duration `json:"delay"`
	// First is the answer to the first request of each message from the number
	// FirstFrom on; every other is accepted. Empty accepts these too.
	First     Answer `json:"first,omitempty"`
	FirstFrom int    `json:"first_from,omitempty"`
}

// Tally is what a run came to.
type Tally struct {
	// Distinct is how many messages arrived, Doubled how many of them more than
	// once, Strange how many requests were none of this run's.
	Distinct int `json:"distinct"`
	Doubled  int `json:"doubled"`
	Strange  int `json:"strange"`
	Hanging  int `json:"hanging"`
	// Other is how many requests another provider got.
	Other int `json:"other"`
	// FirstArrival and LastAnswer are readings of the shared clock.
	FirstArrival int64 `json:"first_arrival"`
	LastAnswer   int64 `json:"last_answer"`
}

// run is what is noted of one run.
type run struct {
	Settings
	first, second []int64 // arrivals, by number; zero is none
	count         []int32
	distinct      atomic.Int64
	strange       atomic.Int64
	hanging       atomic.Int64
	other         atomic.Int64
	lastAnswer    atomic.Int64
	// awaited is what somebody waits for, the last who asked.
	awaited atomic.Pointer[awaited]
}

// awaited is how many messages somebody waits for; reached is closed then.
type awaited struct {
	n       int64
	reached chan struct{}
	once    sync.Once
}

// Server is the provider. It is safe for concurrent use.
type Server struct {
	now     atomic.Pointer[run]
	answers map[Answer]answer
}

type answer struct {
	status int
	body   []byte
}

// New makes a Server that expects nothing yet.
func New() *Server {
	at := time.Now().UTC()
	s := &Server{answers: map[Answer]answer{
		Accept:  {http.StatusOK, fmt.Appendf(nil, `{"type":"EMAIL","sended":true,"requestedAt":%q}`, at.Format("2006-01-02T15:04:05.000-0700"))},
		NotSent: {http.StatusOK, fmt.Appendf(nil, `{"type":"EMAIL","sended":false,"requestedAt":%q}`, at.Format("2006-01-02T15:04:05.000-0700"))},
		Refuse:  {http.StatusNotFound, fmt.Appendf(nil, `{"date":%q,"message":"Nenhuma sessão encontrada com os dados informados.","details":[]}`, at.Format("02/01/2006 15:04:05"))},
	}}
	s.reset(Settings{})
	return s
}

func (s *Server) reset(set Settings) {
	s.now.Store(&run{
		Settings: set,
		first:    make([]int64, set.Messages), second: make([]int64, set.Messages), count: make([]int32, set.Messages),
	})
}

// bodies are buffers for one byte more than the largest body that is expected.
var bodies = sync.Pool{New: func() any { return new([load.BodySize + 1]byte) }}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	at := clock.Now()
	switch {
	case r.URL.Path == Path:
		s.take(w, r, at)
	case strings.HasPrefix(r.URL.Path, HangPath):
		s.now.Load().hanging.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // or its client's leaving is not noticed
		<-r.Context().Done()
	case strings.HasPrefix(r.URL.Path, OtherPath):
		s.takeOther(w, r)
	default:
		s.control(w, r)
	}
}

// takeOther answers one request of another provider.
func (s *Server) takeOther(w http.ResponseWriter, r *http.Request) {
	now := s.now.Load()
	_, _ = io.Copy(io.Discard, r.Body)
	now.other.Add(1)
	if now.Delay > 0 {
		time.Sleep(now.Delay)
	}
	w.Header()["Content-Type"] = contentType
	_, _ = io.WriteString(w, `{"data":{"tempoExpiracaoCodigoValidacaoEmSegundos":299.9998772},"isSuccess":true}`)
}

// take answers one request and notes that it arrived.
func (s *Server) take(w http.ResponseWriter, r *http.Request, at int64) {
	now := s.now.Load()
	buffer, _ := bodies.Get().(*[load.BodySize + 1]byte)
	size, err := io.ReadFull(r.Body, buffer[:])
	number, ok := load.Number(buffer[:size])
	bodies.Put(buffer)
	if err != io.ErrUnexpectedEOF || !ok || r.Method != http.MethodPost || number < 0 || number >= now.Messages {
		now.strange.Add(1)
		http.Error(w, "not a request of this run", http.StatusTeapot)
		return
	}
	kind := Accept
	switch atomic.AddInt32(&now.count[number], 1) {
	case 1:
		atomic.StoreInt64(&now.first[number], at)
		if now.First != "" && number >= now.FirstFrom {
			kind = now.First
		}
		n := now.distinct.Add(1)
		if a := now.awaited.Load(); a != nil && n == a.n {
			// The last of them is still to be answered.
			defer a.once.Do(func() { close(a.reached) })
		}
	case 2:
		atomic.StoreInt64(&now.second[number], at)
	}
	if now.Delay > 0 {
		time.Sleep(now.Delay)
	}
	a := s.answers[kind]
	w.Header()["Content-Type"] = contentType
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body)
	for answered := clock.Now(); ; {
		last := now.lastAnswer.Load()
		if last >= answered || now.lastAnswer.CompareAndSwap(last, answered) {
			return
		}
	}
}

var contentType = []string{"application/json"}

// tally counts what has arrived so far.
func (r *run) tally() Tally {
	t := Tally{Strange: int(r.strange.Load()), Hanging: int(r.hanging.Load()), Other: int(r.other.Load()), LastAnswer: r.lastAnswer.Load()}
	for i := range r.count {
		n, at := atomic.LoadInt32(&r.count[i]), atomic.LoadInt64(&r.first[i])
		if n == 0 {
			continue
		}
		t.Distinct++
		if n > 1 {
			t.Doubled++
		}
		if t.FirstArrival == 0 || at < t.FirstArrival {
			t.FirstArrival = at
		}
	}
	return t
}
