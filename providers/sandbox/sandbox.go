// Package sandbox serves the providers' APIs locally, with faults on demand and
// counts of what was asked and what was done. It is not where the APIs are
// written (each provider's folder has its own) and it opens no port: it is a
// handler for whoever listens.
package sandbox

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// maxBody bounds the body of a request; the largest documented one has 1.6 KiB.
const maxBody = 1 << 20

// Router is a handler that can tell whether a request is its own without
// serving it. [*http.ServeMux] is one.
type Router interface {
	http.Handler
	// Handler returns the pattern that serves a request; "" when none does.
	Handler(r *http.Request) (h http.Handler, pattern string)
}

// Options is what a Server is made from.
type Options struct {
	// Providers are the APIs to serve, by name. Each must be a [Router] that
	// knows its documented paths, and no two may share one.
	Providers map[string]http.Handler
	// Seed makes the faults' chances repeatable: with the same seed the n-th
	// request to a provider meets the same luck. Zero means a seed of the
	// server's own choosing.
	Seed uint64
	// OnActed, when set, is told of every request that a provider acted on,
	// before the reply leaves. The request's body is spent; body is what the
	// provider read of it. Calls may be concurrent.
	OnActed func(provider string, r *http.Request, body []byte)
}

// Counts is the account of one provider's requests since the start or the last
// reset. Once nothing is in flight, Received is the sum of ByStatus, Hung, Cut
// and Left.
type Counts struct {
	Received int         `json:"received"`  // requests that came in
	Acted    int         `json:"acted"`     // codes that went out, whatever became of the reply
	ByStatus map[int]int `json:"by_status"` // replies
	Hung     int         `json:"hung"`      // never answered, by hang
	Cut      int         `json:"cut"`       // connections closed with no reply, by cut_rate
	Left     int         `json:"left"`      // clients that went away before the reply, or that [Server.Close] dropped
}

// Server serves the APIs and their control endpoint. It is safe for concurrent use.
type Server struct {
	options   Options
	mux       *http.ServeMux
	names     []string // of the providers, sorted
	providers map[string]*provider
	closed    chan struct{}
	close     func()
}

// provider is one API with its present fault and its account.
type provider struct {
	name string
	api  Router

	mu     sync.Mutex // guards what follows
	fault  Fault
	counts Counts
	chance *rand.Rand
	good   int       // requests that count against unauthorized_after
	second time.Time // the start of the rate limit's present second
	passed int       // requests in it
}

// New makes a Server with no faults. It panics when a provider is not a
// [Router], which only a change of code can cause or mend.
func New(o Options) *Server {
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	closed := make(chan struct{})
	s := &Server{
		options:   o,
		names:     slices.Sorted(maps.Keys(o.Providers)),
		providers: make(map[string]*provider, len(o.Providers)),
		closed:    closed,
		close:     sync.OnceFunc(func() { close(closed) }),
	}
	for name, h := range o.Providers {
		api, ok := h.(Router)
		if !ok {
			panic(fmt.Sprintf("sandbox: the handler of %s is a %T: it must be a Router, such as an *http.ServeMux", name, h))
		}
		s.providers[name] = &provider{name: name, api: api}
	}
	s.Reset()
	s.mux = s.routes()
	return s
}

// Handler returns the APIs at their documented paths, and the control endpoint
// under /_sandbox/.
func (s *Server) Handler() http.Handler { return s.mux }

// Close drops the requests that hang or wait for their latency, now and from
// now on, so that a graceful shutdown has nothing to wait for.
func (s *Server) Close() { s.close() }

// SetFault replaces a provider's fault and starts its unauthorized_after,
// fail_next and rate limit afresh; the zero Fault clears it. The error names
// the providers there are, or what is wrong with the fault.
func (s *Server) SetFault(provider string, f Fault) error {
	p, err := s.provider(provider)
	if err != nil {
		return err
	}
	if err := f.Validate(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setFault(f)
	return nil
}

// Fault returns a provider's present fault; fail_next is what remains of it.
func (s *Server) Fault(provider string) (Fault, error) {
	p, err := s.provider(provider)
	if err != nil {
		return Fault{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fault, nil
}

// Counts returns a provider's account.
func (s *Server) Counts(provider string) (Counts, error) {
	p, err := s.provider(provider)
	if err != nil {
		return Counts{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.counts
	c.ByStatus = maps.Clone(c.ByStatus)
	return c, nil
}

// Reset puts everything back to how [New] left it: no faults, no counts, and
// the chances from the start.
func (s *Server) Reset() {
	for _, p := range s.providers {
		// A stream of luck for each, so that traffic to one provider does not
		// change what another's meets.
		h := fnv.New64a()
		_, _ = io.WriteString(h, p.name)
		p.mu.Lock()
		p.setFault(Fault{})
		p.counts = Counts{ByStatus: map[int]int{}}
		p.chance = rand.New(rand.NewPCG(s.options.Seed, h.Sum64()))
		p.mu.Unlock()
	}
}

func (s *Server) provider(name string) (*provider, error) {
	if p, ok := s.providers[name]; ok {
		return p, nil
	}
	return nil, fmt.Errorf("no provider has this name; the providers are %s", strings.Join(s.names, ", "))
}

// setFault needs p.mu.
func (p *provider) setFault(f Fault) {
	p.fault, p.good, p.second, p.passed = f, 0, time.Time{}, 0
}

// serve finds whose a request is and takes it through that provider's faults.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	for _, name := range s.names {
		p := s.providers[name]
		if _, pattern := p.api.Handler(r); pattern != "" {
			s.serveProvider(p, w, r)
			return
		}
	}
	// The path is not repeated: it may hold somebody's CPF.
	replyError(w, http.StatusNotFound, errors.New("no provider has this path; GET /_sandbox/ lists the providers"))
}

func (s *Server) serveProvider(p *provider, w http.ResponseWriter, r *http.Request) {
	body := &tap{ReadCloser: http.MaxBytesReader(w, r.Body, maxBody)}
	r.Body = body
	d := p.decide(r)
	if d.hang > 0 {
		p.count(func(c *Counts) { c.Hung++ })
		_, _ = io.Copy(io.Discard, body)
		s.wait(r, d.hang)
		panic(http.ErrAbortHandler) // closes the connection without a word
	}
	out := d.instead
	if out == nil {
		out = newReply(w)
		p.api.ServeHTTP(out, r)
		if out.status/100 == 2 {
			p.count(func(c *Counts) { c.Acted++ })
			if s.options.OnActed != nil {
				s.options.OnActed(p.name, r, body.read.Bytes())
			}
		} else {
			p.giveBack()
		}
	} else {
		_, _ = io.Copy(io.Discard, body)
	}
	if !s.wait(r, d.delay) {
		p.count(func(c *Counts) { c.Left++ })
		panic(http.ErrAbortHandler)
	}
	if d.cut {
		p.count(func(c *Counts) { c.Cut++ })
		panic(http.ErrAbortHandler)
	}
	p.count(func(c *Counts) { c.ByStatus[out.status]++ })
	out.send(w)
}

// wait returns true after d, false when the client leaves or the server closes.
// The request's body must be read by then: before, net/http does not notice
// that a client left.
func (s *Server) wait(r *http.Request, d time.Duration) bool {
	if d == 0 {
		return true
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
	case <-s.closed:
	}
	return false
}

func (p *provider) count(f func(*Counts)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(&p.counts)
}

// decision is what becomes of one request.
type decision struct {
	hang    time.Duration // how long to hang; zero is not to
	instead *reply        // a fault's reply; nil lets the provider answer
	delay   time.Duration // before the reply
	cut     bool          // close the connection instead of replying
}

// decide counts a request and draws its luck. The draws are always the same
// and in the same order, so that a seed means the same whatever is set.
func (p *provider) decide(r *http.Request) (d decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts.Received++
	f := p.fault
	hang, limited, failed, garbage, cut := p.happens(f.HangRate), p.happens(f.RateLimitedRate),
		p.happens(f.ErrorRate), p.happens(f.GarbageRate), p.happens(f.CutRate)
	d.delay = time.Duration(f.Latency) + time.Duration(p.chance.Float64()*float64(f.Jitter))

	switch {
	case f.Hang || hang:
		d.hang = cmp.Or(time.Duration(f.HangFor), defaultHangFor)
	case f.FailNext > 0:
		p.fault.FailNext--
		d.instead = errorReply(f)
	case limited || p.overLimit(f.RateLimit):
		d.instead = plainReply(http.StatusTooManyRequests, "rate limited by a fault of the sandbox")
		d.instead.retryAfter(cmp.Or(time.Duration(f.RetryAfter), defaultRetryAfter))
	case f.Token != "" && bearer(r) != f.Token.Reveal(), f.UnauthorizedAfter > 0 && p.good >= f.UnauthorizedAfter:
		d.instead = plainReply(http.StatusUnauthorized, "unauthorized by a fault of the sandbox")
		d.instead.header.Set("WWW-Authenticate", "Bearer")
	case failed:
		d.instead = errorReply(f)
	case garbage:
		d.instead = garbageReply()
	default:
		// Taken before the provider answers, so that of concurrent requests no
		// more than unauthorized_after are good; giveBack undoes it.
		p.good++
		d.cut = cut || f.CutNext > 0
		p.fault.CutNext = max(0, f.CutNext-1)
	}
	return d
}

// giveBack undoes what decide took for a request that turned out no good one.
func (p *provider) giveBack() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.good = max(0, p.good-1) // a new fault may have started from zero meanwhile
}

func (p *provider) happens(rate float64) bool { return p.chance.Float64() < rate }

// overLimit counts a request against the limit of the present second.
func (p *provider) overLimit(limit int) bool {
	if limit == 0 {
		return false
	}
	if now := time.Now(); now.Sub(p.second) >= time.Second {
		p.second, p.passed = now, 0
	}
	p.passed++
	return p.passed > limit
}

func bearer(r *http.Request) string {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") {
		return ""
	}
	return strings.TrimSpace(token)
}

// tap keeps what is read of a body.
type tap struct {
	io.ReadCloser
	read bytes.Buffer
}

// Read implements [io.Reader].
func (t *tap) Read(p []byte) (int, error) {
	n, err := t.ReadCloser.Read(p)
	t.read.Write(p[:n])
	return n, err
}
