// Package metrics holds what a worker counts, for Prometheus. Labels are closed
// sets: no id and nothing of a person is ever one.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Worker is a worker's metrics. It is safe for concurrent use.
type Worker struct {
	attempts *prometheus.CounterVec
	ended    *prometheus.CounterVec
	waits    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	accepted *prometheus.HistogramVec
	breaker  *prometheus.GaugeVec
	taken    *prometheus.CounterVec
}

// NewWorker registers a worker's metrics with r. When r is nil they are counted
// and shown nowhere.
func NewWorker(r prometheus.Registerer) *Worker {
	w := &Worker{
		attempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "otpq_attempts_total", Help: "Requests made to a provider, by what became of them.",
		}, []string{"provider", "lane", "outcome", "reason"}),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "otpq_messages_total", Help: "Messages that came to their end, by terminal state.",
		}, []string{"provider", "lane", "state"}),
		waits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "otpq_deferrals_total", Help: "Times that a message had to wait, by reason.",
		}, []string{"provider", "lane", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "otpq_send_duration_seconds", Help: "How long a provider took to answer.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 13), // 5 ms to 20 s, above the longest timeout
		}, []string{"provider"}),
		accepted: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "otpq_time_to_accept_seconds", Help: "From the app's request until the provider took it.",
			Buckets: prometheus.ExponentialBuckets(0.005, 2, 17), // 5 ms to 5 min, the default validity
		}, []string{"provider", "lane"}),
		breaker: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "otpq_breaker_state", Help: "1 for the state that this worker's breaker is in.",
		}, []string{"provider", "state"}),
		taken: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "otpq_takeovers_total", Help: "Messages that this worker took from one that had died.",
		}, []string{"provider", "lane"}),
	}
	if r == nil {
		return w
	}
	r.MustRegister(w.attempts, w.ended, w.waits, w.duration, w.accepted, w.breaker, w.taken)
	return w
}

// Prepare creates a lane's counters at zero, so that a rate over them sees the
// first event too.
func (w *Worker) Prepare(provider, lane string, states []string) {
	for _, s := range states {
		w.ended.WithLabelValues(provider, lane, s)
	}
	w.accepted.WithLabelValues(provider, lane)
	w.duration.WithLabelValues(provider)
	w.taken.WithLabelValues(provider, lane)
}

// Attempt counts one request and what became of it.
func (w *Worker) Attempt(provider, lane, outcome, reason string, took time.Duration) {
	w.attempts.WithLabelValues(provider, lane, outcome, reason).Inc()
	w.duration.WithLabelValues(provider).Observe(took.Seconds())
}

// Ended counts a message that came to its end.
func (w *Worker) Ended(provider, lane, state string) {
	w.ended.WithLabelValues(provider, lane, state).Inc()
}

// Deferred counts a message that has to wait.
func (w *Worker) Deferred(provider, lane, reason string) {
	w.waits.WithLabelValues(provider, lane, reason).Inc()
}

// Accepted observes how long a message took from the app to the provider.
func (w *Worker) Accepted(provider, lane string, took time.Duration) {
	w.accepted.WithLabelValues(provider, lane).Observe(took.Seconds())
}

// TakenOver counts a message that was taken from a worker that had died.
func (w *Worker) TakenOver(provider, lane string) {
	w.taken.WithLabelValues(provider, lane).Inc()
}

// Breaker sets the state of a provider's breaker, one of states.
func (w *Worker) Breaker(provider, state string, states []string) {
	for _, s := range states {
		v := 0.0
		if s == state {
			v = 1
		}
		w.breaker.WithLabelValues(provider, s).Set(v)
	}
}
