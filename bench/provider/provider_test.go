package provider

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/bench/clock"
	"github.com/otpq/otpq/bench/load"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/providers/unimedbh"
)

// serve runs a provider for n messages.
func serve(t *testing.T, s Settings) *Control {
	t.Helper()
	server := httptest.NewServer(New())
	t.Cleanup(server.Close)
	c := &Control{URL: server.URL}
	t.Cleanup(c.HTTP.CloseIdleConnections)
	if err := c.Reset(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	return c
}

func post(t *testing.T, c *Control, path string, body []byte) int {
	t.Helper()
	resp, err := http.Post(c.URL+path, "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

func tally(t *testing.T, c *Control) Tally {
	t.Helper()
	got, err := c.Await(t.Context(), 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

var counts = cmpopts.IgnoreFields(Tally{}, "FirstArrival", "LastAnswer")

func TestWhatIsLostDoubledOrStrangeShows(t *testing.T) {
	c := serve(t, Settings{Messages: 4})
	for _, number := range []int{0, 2, 2, 3, 3, 3} {
		if got := post(t, c, Path, load.Body(number)); got != http.StatusOK {
			t.Errorf("message %d was answered with %d", number, got)
		}
	}
	for name, strange := range map[string][]byte{
		"a number of another run": load.Body(4), "another body": []byte(`{}`), "a body too long": append(load.Body(1), 'x'),
	} {
		if got := post(t, c, Path, strange); got == http.StatusOK {
			t.Errorf("%s was taken", name)
		}
	}
	if got := post(t, c, "/elsewhere", load.Body(1)); got == http.StatusOK {
		t.Error("a request to another path was taken")
	}
	want := Tally{Distinct: 3, Doubled: 2, Strange: 4}
	if diff := cmp.Diff(want, tally(t, c), counts); diff != "" {
		t.Errorf("tally (-want +got):\n%s", diff)
	}
	if err := c.Reset(t.Context(), Settings{Messages: 4}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Tally{}, tally(t, c)); diff != "" {
		t.Errorf("tally of a new run (-want +got):\n%s", diff)
	}
}

func TestArrivalsAreTakenOnTheSharedClock(t *testing.T) {
	const delay = 20 * time.Millisecond
	c := serve(t, Settings{Messages: 3, Delay: delay})
	before := clock.Now()
	post(t, c, Path, load.Body(0))
	between := clock.Now()
	post(t, c, Path, load.Body(2))
	post(t, c, Path, load.Body(2))
	after := clock.Now()
	first, second, err := c.Arrivals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if first[0] < before || first[0] > between-int64(delay) || first[2] < between || first[1] != 0 {
		t.Errorf("first arrivals %v, want one after %d, none, and one after %d", first, before, between)
	}
	if second[2] < first[2]+int64(delay) || second[2] > after || second[0] != 0 {
		t.Errorf("second arrivals %v, want only the last number's, after %d", second, first[2])
	}
	if got := tally(t, c); got.FirstArrival != first[0] || got.LastAnswer < second[2]+int64(delay) || got.LastAnswer > after {
		t.Errorf("from %d to %d, want from %d to %d or later", got.FirstArrival, got.LastAnswer, first[0], second[2]+int64(delay))
	}
}

func TestAwaitEndsWithTheLastMessageOrWithAStall(t *testing.T) {
	c := serve(t, Settings{Messages: 2})
	post(t, c, Path, load.Body(0))
	done := make(chan Tally, 1)
	go func() {
		got, err := c.Await(context.WithoutCancel(t.Context()), 2, time.Hour)
		if err != nil {
			t.Error(err)
		}
		done <- got
	}()
	select {
	case got := <-done:
		t.Errorf("Await() = %+v before the second message", got)
	case <-time.After(20 * time.Millisecond):
	}
	post(t, c, Path, load.Body(1))
	select {
	case got := <-done:
		if got.Distinct != 2 {
			t.Errorf("Await() = %+v, want both", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("Await() goes on after the last message")
	}
	if got, err := c.Await(t.Context(), 2, time.Hour); err != nil || got.Distinct != 2 {
		t.Errorf("Await() of what was awaited before = %+v, %v", got, err)
	}
	if got, err := c.Await(t.Context(), 3, time.Millisecond); err != nil || got.Distinct != 2 {
		t.Errorf("Await() of one more than there are = %+v, %v", got, err)
	}
}

// The product talks to the benchmark's provider through what ships.
func TestTheProductUnderstandsTheAnswers(t *testing.T) {
	for answer, want := range map[Answer]providers.Kind{
		"": providers.Accepted, Accept: providers.Accepted, NotSent: providers.RetryLater, Refuse: providers.Rejected,
	} {
		c := serve(t, Settings{Messages: 2, First: answer, FirstFrom: 1})
		p, err := unimedbh.New(providers.Settings{BaseURL: c.URL, Log: zerolog.Nop()})
		if err != nil {
			t.Fatal(err)
		}
		send := func(number int) providers.Kind {
			r := load.NewRequest(number)
			return p.Send(t.Context(), unimedbh.Request{Username: r.Username, Type: r.Type}).Kind
		}
		for i, c := range []struct {
			number int
			want   providers.Kind
		}{{0, providers.Accepted}, {1, want}, {1, providers.Accepted}} {
			if got := send(c.number); got != c.want {
				t.Errorf("answer %q, request %d for message %d: %v, want %v", answer, i, c.number, got, c.want)
			}
		}
		if diff := cmp.Diff(Tally{Distinct: 2, Doubled: 1}, tally(t, c), counts); diff != "" {
			t.Errorf("answer %q (-want +got):\n%s", answer, diff)
		}
	}
}

func TestTheProductUnderstandsTheOtherProvider(t *testing.T) {
	c := serve(t, Settings{Messages: 1})
	p, err := medsenior.New(providers.Settings{BaseURL: c.URL + OtherPath, Token: "bench", Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	r := medsenior.Request{EmailID: "1", CPF: "12345678901", PrimeiroAcesso: new(false)}
	if got := p.Send(t.Context(), r); got.Kind != providers.Accepted {
		t.Errorf("Send() = %+v, want it accepted", got)
	}
	if diff := cmp.Diff(Tally{Other: 1}, tally(t, c), counts); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatHangsIsCounted(t *testing.T) {
	c := serve(t, Settings{Messages: 1})
	ctx, leave := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+HangPath+"/any", bytes.NewReader([]byte(`{}`)))
	if err != nil {
		t.Fatal(err)
	}
	left := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		left <- err
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); tally(t, c).Hanging == 0; <-tick.C {
		if time.Now().After(end) {
			t.Fatal("nothing hangs")
		}
	}
	select {
	case err := <-left:
		t.Errorf("it was answered: %v", err)
	default:
	}
	leave()
	if err := <-left; err == nil {
		t.Error("it was answered")
	}
}
