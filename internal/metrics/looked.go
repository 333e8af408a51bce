package metrics

import (
	"context"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// lookedFresh is for how long what was read is shown again: several
	// Prometheuses, and people with curl, cost Redis no more than one.
	lookedFresh = 5 * time.Second
	// lookedTimeout bounds one look. A scrape is given ten seconds, mostly, and
	// without Redis what a worker counts is wanted more than ever.
	lookedTimeout = 2 * time.Second
)

// looked is what was read from Redis the last time.
type looked struct {
	mu   sync.Mutex
	at   time.Time
	seen []prometheus.Metric
}

// collect sends what look reads, or what it read a moment ago.
func (l *looked) collect(ch chan<- prometheus.Metric, look func(context.Context) []prometheus.Metric) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at.IsZero() || time.Since(l.at) >= lookedFresh {
		ctx, cancel := context.WithTimeout(context.Background(), lookedTimeout)
		l.seen = look(ctx)
		cancel()
		l.at = time.Now()
	}
	for _, m := range l.seen {
		ch <- m
	}
}
