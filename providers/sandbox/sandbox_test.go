package sandbox

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// twoAPIs are stand-ins that act on a body which is not "bad".
func twoAPIs() map[string]http.Handler {
	api := func(name string) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("POST /"+name+"/{id}", func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(r.Body)
			switch {
			case errors.As(err, new(*http.MaxBytesError)):
				w.WriteHeader(http.StatusRequestEntityTooLarge)
			case string(body) == "bad":
				w.WriteHeader(http.StatusBadRequest)
			}
			_, _ = io.WriteString(w, name)
		})
		return mux
	}
	return map[string]http.Handler{"one": api("one"), "two": api("two")}
}

// serveOn listens on a real port: cut connections and leaving clients need one.
func serveOn(t *testing.T, o Options) (*Server, string) {
	t.Helper()
	if o.Providers == nil {
		o.Providers = twoAPIs()
	}
	s := New(o)
	h := httptest.NewServer(s.Handler())
	t.Cleanup(h.Close)
	t.Cleanup(s.Close) // before h.Close, which waits for what hangs
	return s, h.URL
}

func mustSet(t *testing.T, s *Server, provider string, f Fault) {
	t.Helper()
	if err := s.SetFault(provider, f); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(got)
}

// statuses posts n requests to provider one and returns their statuses.
func statuses(t *testing.T, base string, n int) []int {
	t.Helper()
	got := make([]int, n)
	for i := range got {
		res, _ := do(t, http.MethodPost, base+"/one/x", "ok")
		got[i] = res.StatusCode
	}
	return got
}

func wantCounts(t *testing.T, s *Server, provider string, want Counts) {
	t.Helper()
	got, err := s.Counts(provider)
	if err != nil {
		t.Fatal(err)
	}
	if want.ByStatus == nil {
		want.ByStatus = map[int]int{}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("counts of %s (-want +got):\n%s", provider, diff)
	}
}

// waitCounts waits for an account that another goroutine is about to complete.
func waitCounts(t *testing.T, s *Server, provider string, done func(Counts) bool) Counts {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		c, err := s.Counts(provider)
		if err != nil {
			t.Fatal(err)
		}
		if done(c) {
			return c
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("counts of %s stay %+v", provider, c)
		}
	}
}

func TestServerServesEachProviderAndCounts(t *testing.T) {
	s, base := serveOn(t, Options{})
	for _, c := range []struct {
		path, body, want string
		status           int
	}{
		{"/one/1", "ok", "one", 200},
		{"/two/1", "ok", "two", 200},
		{"/two/1", "bad", "two", 400},
		{"/two/2", strings.Repeat("x", maxBody), "two", 200},
		{"/two/2", strings.Repeat("x", maxBody+1), "two", 413},
	} {
		if res, body := do(t, http.MethodPost, base+c.path, c.body); res.StatusCode != c.status || body != c.want {
			t.Errorf("POST %s = %d %q, want %d %q", c.path, res.StatusCode, body, c.status, c.want)
		}
	}
	wantCounts(t, s, "one", Counts{Received: 1, Acted: 1, ByStatus: map[int]int{200: 1}})
	wantCounts(t, s, "two", Counts{Received: 4, Acted: 2, ByStatus: map[int]int{200: 2, 400: 1, 413: 1}})

	c, err := s.Counts("one")
	if err != nil {
		t.Fatal(err)
	}
	c.ByStatus[200] = 99 // the caller's own
	wantCounts(t, s, "one", Counts{Received: 1, Acted: 1, ByStatus: map[int]int{200: 1}})

	const person = "12345678901"
	res, body := do(t, http.MethodPost, base+"/three/"+person, "ok")
	if res.StatusCode != http.StatusNotFound || !strings.Contains(body, "GET /_sandbox/") || strings.Contains(body, person) {
		t.Errorf("a path nobody has = %d %s, want a 404 that points to the control endpoint and names nobody", res.StatusCode, body)
	}
}

func TestNewPanicsOnAHandlerThatCannotTellItsPaths(t *testing.T) {
	defer func() {
		if text, _ := recover().(string); !strings.Contains(text, "the handler of x") {
			t.Errorf("New panicked with %q, want the provider's name", text)
		}
	}()
	New(Options{Providers: map[string]http.Handler{"x": http.NotFoundHandler()}})
}

func TestOnActedIsToldOfWhatWentOutAndOfNothingElse(t *testing.T) {
	var mu sync.Mutex
	var got []string
	s, base := serveOn(t, Options{OnActed: func(provider string, r *http.Request, body []byte) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, provider+" "+r.URL.Path+" "+string(body))
	}})
	do(t, http.MethodPost, base+"/one/1", "first")
	do(t, http.MethodPost, base+"/one/1", "bad")
	mustSet(t, s, "one", Fault{ErrorRate: 1})
	do(t, http.MethodPost, base+"/one/1", "failed")
	mustSet(t, s, "one", Fault{CutRate: 1})
	if _, err := http.Post(base+"/one/1", "", strings.NewReader("cut")); err == nil {
		t.Error("a cut connection answered")
	}
	mu.Lock()
	defer mu.Unlock()
	if diff := cmp.Diff([]string{"one /one/1 first", "one /one/1 cut"}, got); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestFaultsThatReply(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  Fault
		want   []int // of successive requests
		acted  int
		header map[string]string // of the last reply
		body   string
	}{
		{name: "no fault", want: []int{200, 200}, acted: 2},
		{name: "error_rate is 500 unless told otherwise", fault: Fault{ErrorRate: 1}, want: []int{500, 500}},
		{name: "error_status and error_body", fault: Fault{ErrorRate: 1, ErrorStatus: 503, ErrorBody: "down"}, want: []int{503}, body: "down"},
		{name: "an error asks for patience when told to", fault: Fault{ErrorRate: 1, ErrorStatus: 503, RetryAfter: Duration(3 * time.Second)}, want: []int{503},
			header: map[string]string{"Retry-After": "3"}},
		{name: "fail_next fails so many", fault: Fault{FailNext: 2, ErrorStatus: 502}, want: []int{502, 502, 200, 200}, acted: 2},
		{name: "garbage_rate is HTML with 200", fault: Fault{GarbageRate: 1}, want: []int{200},
			header: map[string]string{"Content-Type": "text/html; charset=utf-8"}},
		{name: "unauthorized_after", fault: Fault{UnauthorizedAfter: 2}, want: []int{200, 200, 401, 401}, acted: 2},
		{name: "another token", fault: Fault{Token: "x"}, want: []int{401}, header: map[string]string{"Www-Authenticate": "Bearer"}},
		{name: "rate_limited_rate asks for a second's patience", fault: Fault{RateLimitedRate: 1}, want: []int{429},
			header: map[string]string{"Retry-After": "1"}},
		{name: "retry_after is rounded up", fault: Fault{RateLimitedRate: 1, RetryAfter: Duration(1200 * time.Millisecond)}, want: []int{429},
			header: map[string]string{"Retry-After": "2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, base := serveOn(t, Options{})
			mustSet(t, s, "one", c.fault)
			if diff := cmp.Diff(c.want, statuses(t, base, len(c.want))); diff != "" {
				t.Errorf("statuses (-want +got):\n%s", diff)
			}
			counts := Counts{Received: len(c.want), Acted: c.acted, ByStatus: map[int]int{}}
			for _, status := range c.want {
				counts.ByStatus[status]++
			}
			wantCounts(t, s, "one", counts)
			if c.header != nil || c.body != "" {
				res, body := do(t, http.MethodPost, base+"/one/x", "ok")
				for k, want := range c.header {
					if got := res.Header.Get(k); got != want {
						t.Errorf("%s = %q, want %q", k, got, want)
					}
				}
				if c.body != "" && body != c.body {
					t.Errorf("body = %q, want %q", body, c.body)
				}
			}
			if res, _ := do(t, http.MethodPost, base+"/two/x", "ok"); res.StatusCode != 200 {
				t.Errorf("the other provider answers %d, want 200", res.StatusCode)
			}
		})
	}
}

func TestTokenFaultLetsItsTokenThrough(t *testing.T) {
	s, base := serveOn(t, Options{})
	mustSet(t, s, "one", Fault{Token: "new"})
	for authorization, want := range map[string]int{"Bearer new": 200, "bearer new": 200, "Bearer old": 401, "Basic new": 401, "new": 401} {
		if res, _ := do(t, http.MethodPost, base+"/one/x", "ok", "Authorization", authorization); res.StatusCode != want {
			t.Errorf("Authorization %q = %d, want %d", authorization, res.StatusCode, want)
		}
	}
}

func TestUnauthorizedAfterCountsGoodRequestsOnly(t *testing.T) {
	s, base := serveOn(t, Options{})
	mustSet(t, s, "one", Fault{UnauthorizedAfter: 5})
	do(t, http.MethodPost, base+"/one/x", "bad")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			res, err := http.Post(base+"/one/x", "", strings.NewReader("ok"))
			if err != nil {
				t.Error(err)
				return
			}
			res.Body.Close()
		})
	}
	wg.Wait()
	wantCounts(t, s, "one", Counts{Received: 21, Acted: 5, ByStatus: map[int]int{200: 5, 400: 1, 401: 15}})
	mustSet(t, s, "one", Fault{UnauthorizedAfter: 5})
	if diff := cmp.Diff([]int{200}, statuses(t, base, 1)); diff != "" {
		t.Errorf("after setting it again (-want +got):\n%s", diff)
	}
}

func TestCutActsAndClosesWithoutAReply(t *testing.T) {
	s, base := serveOn(t, Options{})
	mustSet(t, s, "one", Fault{CutRate: 1})
	_, err := http.Post(base+"/one/x", "", strings.NewReader("ok"))
	if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("POST = %v, want a closed connection", err)
	}
	wantCounts(t, s, "one", Counts{Received: 1, Acted: 1, Cut: 1})
}

func TestCutNextCutsSoManyAndNoMore(t *testing.T) {
	s, base := serveOn(t, Options{})
	mustSet(t, s, "one", Fault{CutNext: 2})
	for n := range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+"/one/x", strings.NewReader("ok"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err == nil {
			resp.Body.Close()
		}
		if cut := err != nil; cut != (n < 2) {
			t.Errorf("request %d was cut: %v", n+1, cut)
		}
	}
	wantCounts(t, s, "one", Counts{Received: 3, Acted: 3, Cut: 2, ByStatus: map[int]int{200: 1}})
}

func TestHangNeverAnswersAndEndsWithItsClient(t *testing.T) {
	for name, f := range map[string]Fault{"hang": {Hang: true}, "hang_rate": {HangRate: 1}} {
		t.Run(name, func(t *testing.T) {
			s := New(Options{Providers: twoAPIs()})
			ended := make(chan struct{})
			h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)
				s.Handler().ServeHTTP(w, r)
			}))
			t.Cleanup(h.Close)
			t.Cleanup(s.Close)
			mustSet(t, s, "one", f)
			c := http.Client{Timeout: 50 * time.Millisecond}
			if _, err := c.Post(h.URL+"/one/x", "", strings.NewReader("ok")); err == nil {
				t.Error("a hanging provider answered")
			}
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Error("the request hangs on when its client has left")
			}
			wantCounts(t, s, "one", Counts{Received: 1, Hung: 1})
		})
	}
}

func TestHangIsBounded(t *testing.T) {
	s, base := serveOn(t, Options{})
	mustSet(t, s, "one", Fault{Hang: true, HangFor: Duration(20 * time.Millisecond)})
	if _, err := http.Post(base+"/one/x", "", strings.NewReader("ok")); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("POST = %v, want a closed connection", err)
	}
}

func TestASlowProviderActsEvenWhenItsClientLeaves(t *testing.T) {
	for name, c := range map[string]struct {
		fault Fault
		want  Counts
	}{
		"acting":  {Fault{Latency: Duration(time.Hour)}, Counts{Received: 1, Acted: 1, Left: 1}},
		"failing": {Fault{Latency: Duration(time.Hour), ErrorRate: 1}, Counts{Received: 1, Left: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			s, base := serveOn(t, Options{})
			mustSet(t, s, "one", c.fault)
			client := http.Client{Timeout: 50 * time.Millisecond}
			if _, err := client.Post(base+"/one/x", "", strings.NewReader("ok")); err == nil {
				t.Error("the reply did not wait")
			}
			waitCounts(t, s, "one", func(got Counts) bool { return got.Left == 1 })
			wantCounts(t, s, "one", c.want)
		})
	}
}

func TestCloseDropsWhatWaits(t *testing.T) {
	s, base := serveOn(t, Options{})
	mustSet(t, s, "one", Fault{Hang: true})
	mustSet(t, s, "two", Fault{Latency: Duration(time.Hour)})
	errs := make(chan error)
	for _, path := range []string{"/one/x", "/two/x"} {
		go func() {
			_, err := http.Post(base+path, "", strings.NewReader("ok"))
			errs <- err
		}()
	}
	waitCounts(t, s, "one", func(c Counts) bool { return c.Hung == 1 })
	waitCounts(t, s, "two", func(c Counts) bool { return c.Acted == 1 })
	s.Close()
	s.Close() // as often as anyone likes
	for range 2 {
		if err := <-errs; err == nil {
			t.Error("a request that waited was answered")
		}
	}
}

func TestLatencyAndJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Providers: twoAPIs(), Seed: 1})
		mustSet(t, s, "one", Fault{Latency: Duration(200 * time.Millisecond), Jitter: Duration(50 * time.Millisecond)})
		seen := map[time.Duration]bool{}
		for range 50 {
			start := time.Now()
			s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/one/x", http.NoBody))
			took := time.Since(start)
			if took < 200*time.Millisecond || took > 250*time.Millisecond {
				t.Errorf("a reply took %s, want 200ms to 250ms", took)
			}
			seen[took] = true
		}
		if len(seen) < 40 {
			t.Errorf("50 replies took only %d different times", len(seen))
		}
	})
}

func TestRateLimitIsPerSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Providers: twoAPIs()})
		mustSet(t, s, "one", Fault{RateLimit: 2})
		post := func() int {
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/one/x", http.NoBody))
			return w.Code
		}
		first := []int{post(), post(), post(), post()}
		<-time.After(time.Second)
		if diff := cmp.Diff([]int{200, 200, 429, 429, 200}, append(first, post())); diff != "" {
			t.Errorf("statuses (-want +got):\n%s", diff)
		}
	})
}

func TestTheSeedDecidesWhoseLuckItIs(t *testing.T) {
	draw := func(seed uint64, disturb bool) []int {
		s := New(Options{Providers: twoAPIs(), Seed: seed})
		mustSet(t, s, "one", Fault{ErrorRate: 0.5})
		post := func(path string) int {
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, path, http.NoBody))
			return w.Code
		}
		var got []int
		for range 200 {
			got = append(got, post("/one/x"))
			if disturb {
				post("/two/x")
			}
		}
		return got
	}
	a := draw(7, false)
	if diff := cmp.Diff(a, draw(7, true)); diff != "" {
		t.Errorf("the same seed, with traffic to another provider, differs:\n%s", diff)
	}
	if cmp.Equal(a, draw(8, false)) {
		t.Error("another seed meets the same luck")
	}
	failed := 0
	for _, status := range a {
		if status == 500 {
			failed++
		}
	}
	if failed < 70 || failed > 130 {
		t.Errorf("%d of 200 failed at an error_rate of 0.5", failed)
	}
}

func TestControlEndpoint(t *testing.T) {
	s, base := serveOn(t, Options{Seed: 1})
	do(t, http.MethodPost, base+"/one/12345678901", "ana@example.com", "Authorization", "Bearer hunter2")
	faults := base + "/_sandbox/faults/"
	for _, c := range []struct {
		name, method, url, body string
		status                  int
		want                    string // in the body
	}{
		{"a fault is set", "PUT", faults + "one", `{"latency":"1ms","error_rate":0.5,"token":"hunter2"}`, 200, `"latency": "1ms"`},
		{"and read, its token redacted", "GET", faults + "one", "", 200, `"token": "[redacted]"`},
		{"another replaces it", "PUT", faults + "one", `{"fail_next":3}`, 200, "{\n  \"fail_next\": 3\n}"},
		{"unknown faults are named, all of them", "PUT", faults + "one", `{"latencia":1,"x":2}`, 400, `unknown fault \"latencia\"; the faults are latency,`},
		{"wrong values are named", "PUT", faults + "one", `{"error_rate":2}`, 400, "error_rate must be a number from 0 to 1"},
		{"and change nothing", "GET", faults + "one", "", 200, `"fail_next": 3`},
		{"no JSON", "PUT", faults + "one", `fail_next=3`, 400, "a fault must be a JSON object"},
		{"too much", "PUT", faults + "one", strings.Repeat(" ", maxBody+1), 413, "the body has more than"},
		{"an unknown provider is told the known ones", "PUT", faults + "three", `{}`, 404, "the providers are one, two"},
		{"for reading too", "GET", faults + "three", "", 404, "the providers are one, two"},
		{"and for clearing", "DELETE", faults + "three", "", 404, "the providers are one, two"},
		{"clearing", "DELETE", faults + "one", "", 204, ""},
		{"leaves no fault", "GET", faults + "one", "", 200, "{}"},
		{"there is nothing else", "GET", base + "/_sandbox/else", "", 404, "the control endpoint has GET /_sandbox/"},
	} {
		res, body := do(t, c.method, c.url, c.body)
		if res.StatusCode != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: %d %s, want %d with %s", c.name, res.StatusCode, body, c.status, c.want)
		}
		if strings.Contains(body, "hunter2") {
			t.Errorf("%s: the token is printed: %s", c.name, body)
		}
	}

	mustSet(t, s, "two", Fault{Token: "hunter2", FailNext: 2})
	do(t, http.MethodPost, base+"/two/x", "ok")
	res, body := do(t, http.MethodGet, base+"/_sandbox/", "")
	var index struct {
		Providers map[string]any
		Faults    map[string]string
	}
	if err := json.Unmarshal([]byte(body), &index); err != nil || res.StatusCode != 200 {
		t.Fatalf("index: %d, %v", res.StatusCode, err)
	}
	counts := func(received, acted float64, byStatus map[string]any) map[string]any {
		return map[string]any{"received": received, "acted": acted, "by_status": byStatus, "hung": 0.0, "cut": 0.0, "left": 0.0}
	}
	want := map[string]any{
		"one": map[string]any{"fault": map[string]any{}, "counts": counts(1, 1, map[string]any{"200": 1.0})},
		"two": map[string]any{"fault": map[string]any{"token": "[redacted]", "fail_next": 1.0}, "counts": counts(1, 0, map[string]any{"500": 1.0})},
	}
	if diff := cmp.Diff(want, index.Providers); diff != "" {
		t.Errorf("index (-want +got):\n%s", diff)
	}
	if len(index.Faults) != len(knobs) {
		t.Errorf("the index explains %d faults, want %d", len(index.Faults), len(knobs))
	}
	for _, personal := range []string{"12345678901", "ana@example.com", "hunter2"} {
		if strings.Contains(body, personal) {
			t.Errorf("the index prints %s", personal)
		}
	}

	if res, _ := do(t, http.MethodPost, base+"/_sandbox/reset", ""); res.StatusCode != 200 {
		t.Errorf("reset = %d", res.StatusCode)
	}
	wantCounts(t, s, "two", Counts{})
	if f, err := s.Fault("two"); err != nil || f != (Fault{}) {
		t.Errorf("after a reset Fault() = %+v, %v, want none", f, err)
	}
}

// Run with -race: requests, faults, accounts and resets at once.
func TestServerIsSafeForConcurrentUse(t *testing.T) {
	s := New(Options{Providers: twoAPIs(), OnActed: func(string, *http.Request, []byte) {}})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/one/x", strings.NewReader("ok")))
				s.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/_sandbox/", http.NoBody))
				if err := s.SetFault("one", Fault{FailNext: 1, RateLimit: 100, UnauthorizedAfter: 50}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Go(s.Reset)
	wg.Wait()
}
