package provider

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/otpq/otpq/bench/load"
)

// control serves what the benchmark itself asks of the provider, between runs.
func (s *Server) control(w http.ResponseWriter, r *http.Request) {
	now := s.now.Load()
	var reply any
	switch r.URL.Path {
	case "/control/reset":
		var set Settings
		if err := json.NewDecoder(r.Body).Decode(&set); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		s.reset(set)
	case "/control/await":
		n, err := strconv.Atoi(r.URL.Query().Get("n"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		stall, err := time.ParseDuration(r.URL.Query().Get("stall"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		now.await(r.Context(), n, stall)
		reply = now.tally()
	case "/control/arrivals":
		for _, times := range [][]int64{now.first, now.second} {
			raw := make([]byte, 0, 8*len(times))
			for i := range times {
				raw = binary.LittleEndian.AppendUint64(raw, uint64(atomic.LoadInt64(&times[i])))
			}
			_, _ = w.Write(raw)
		}
		return
	default:
		s.now.Load().strange.Add(1)
		http.NotFound(w, r)
		return
	}
	w.Header()["Content-Type"] = contentType
	_ = json.NewEncoder(w).Encode(reply) // fails only when the benchmark has left
}

// await returns when n messages have arrived and were answered, or when none has
// arrived for as long as stall.
func (r *run) await(ctx context.Context, n int, stall time.Duration) {
	a := &awaited{n: int64(n), reached: make(chan struct{})}
	r.awaited.Store(a)
	last, since := r.distinct.Load(), time.Now()
	if last >= int64(n) {
		return
	}
	tick := time.NewTicker(500 * time.Millisecond) // seldom: it shares the machine with what is measured
	defer tick.Stop()
	for {
		select {
		case <-a.reached:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		seen := r.distinct.Load()
		switch {
		case seen >= int64(n):
			return
		case seen != last:
			last, since = seen, time.Now()
		case time.Since(since) > stall:
			return
		}
	}
}

// Control is the benchmark's side of a Server in another process.
type Control struct {
	// URL is where the provider's paths start.
	URL string
	// HTTP has no timeout: ctx bounds each call.
	HTTP http.Client
}

// Reset starts a run: what arrived before is forgotten.
func (c *Control) Reset(ctx context.Context, s Settings) error {
	body, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = c.call(ctx, http.MethodPost, "/control/reset", body)
	return err
}

// Await waits until n messages have arrived, or until none has for as long as
// stall, and returns what has arrived.
func (c *Control) Await(ctx context.Context, n int, stall time.Duration) (Tally, error) {
	query := url.Values{"n": {strconv.Itoa(n)}, "stall": {stall.String()}}
	raw, err := c.call(ctx, http.MethodGet, "/control/await?"+query.Encode(), nil)
	if err != nil {
		return Tally{}, err
	}
	var t Tally
	err = json.Unmarshal(raw, &t)
	return t, err
}

// Arrivals returns when each message arrived the first and the second time, by
// number, on the shared clock; zero is not at all.
func (c *Control) Arrivals(ctx context.Context) (first, second []int64, err error) {
	raw, err := c.call(ctx, http.MethodGet, "/control/arrivals", nil)
	if err != nil {
		return nil, nil, err
	}
	times := load.ReadTimes(raw)
	return times[:len(times)/2], times[len(times)/2:], nil
}

func (c *Control) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask the provider: %w", err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("ask the provider: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the provider answered %s to %s: %s", resp.Status, path, raw)
	}
	return raw, nil
}
