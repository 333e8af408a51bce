// Package metrics holds what workers and dashboards count and what they read from
// Redis, for Prometheus. Labels are closed sets but for a few campaigns' ids: no
// message's id and nothing of a person is ever one.
package metrics

import (
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// otherReason stands for a reason that no [Vocabulary] has.
const otherReason = "other"

// Worker is a worker's metrics. It is safe for concurrent use, once Prepare was
// called for all lanes.
type Worker struct {
	attempts  *prometheus.CounterVec
	ended     *prometheus.CounterVec
	deferrals *prometheus.CounterVec
	duration  *prometheus.HistogramVec
	accepted  *prometheus.HistogramVec
	pickup    *prometheus.HistogramVec
	limiter   *prometheus.HistogramVec
	inFlight  *prometheus.GaugeVec
	slots     *prometheus.GaugeVec
	breaker   *prometheus.GaugeVec
	taken     *prometheus.CounterVec

	reasons map[string]bool
}

// NewWorker registers a worker's metrics with r. When r is nil they are counted
// and shown nowhere.
func NewWorker(r prometheus.Registerer) *Worker {
	w := &Worker{
		attempts: attemptsSpec.counter(), ended: messagesSpec.counter(), deferrals: deferralsSpec.counter(),
		duration: durationSpec.histogram(), accepted: acceptSpec.histogram(), pickup: pickupSpec.histogram(),
		limiter: limiterSpec.histogram(), inFlight: inFlightSpec.gauge(), slots: slotsSpec.gauge(),
		breaker: breakerSpec.gauge(), taken: takeoversSpec.counter(), reasons: map[string]bool{},
	}
	if r != nil {
		r.MustRegister(w.attempts, w.ended, w.deferrals, w.duration, w.accepted, w.pickup, w.limiter,
			w.inFlight, w.slots, w.breaker, w.taken)
	}
	return w
}

// Build registers with r which otpq this is.
func Build(r prometheus.Registerer, version string) {
	info := buildSpec.gauge()
	info.WithLabelValues(version, runtime.Version()).Set(1)
	r.MustRegister(info)
}

// NewDashboard registers with r how many requests a dashboard had, by part and code.
func NewDashboard(r prometheus.Registerer) *prometheus.CounterVec {
	requests := dashboardSpec.counter()
	r.MustRegister(requests)
	return requests
}

// Vocabulary is what the labels of a lane's metrics can be.
type Vocabulary struct {
	Ends []string // terminal states
	// Reasons are all that there are; others are counted as "other".
	Reasons []string
	// Attempts are the outcomes that are expected, each with its reason, and Waits
	// the reasons for which a message is expected to wait.
	Attempts []Attempt
	Waits    []string
}

// Attempt is an outcome and its reason.
type Attempt struct{ Outcome, Reason string }

// Prepare creates a lane's series at zero, so that a rate over them sees the first
// event too. slots is how many messages the lane may have in hand.
func (w *Worker) Prepare(provider, lane string, slots int, v Vocabulary) {
	for _, s := range v.Ends {
		w.ended.WithLabelValues(provider, lane, s)
	}
	for _, r := range v.Reasons {
		w.reasons[r] = true
	}
	for _, a := range v.Attempts {
		w.attempts.WithLabelValues(provider, lane, a.Outcome, w.reason(a.Reason))
	}
	for _, r := range v.Waits {
		w.deferrals.WithLabelValues(provider, lane, w.reason(r))
	}
	w.accepted.WithLabelValues(provider, lane)
	w.pickup.WithLabelValues(provider, lane)
	w.limiter.WithLabelValues(provider, lane)
	w.duration.WithLabelValues(provider)
	w.taken.WithLabelValues(provider, lane)
	w.inFlight.WithLabelValues(provider, lane)
	w.slots.WithLabelValues(provider, lane).Set(float64(slots))
}

// reason keeps the label to its closed set.
func (w *Worker) reason(r string) string {
	if r == "" || w.reasons[r] {
		return r
	}
	return otherReason
}

// Attempt counts one request and what became of it.
func (w *Worker) Attempt(provider, lane, outcome, reason string, took time.Duration) {
	w.attempts.WithLabelValues(provider, lane, outcome, w.reason(reason)).Inc()
	w.duration.WithLabelValues(provider).Observe(took.Seconds())
}

// Ended counts a message that came to its end.
func (w *Worker) Ended(provider, lane, state string) {
	w.ended.WithLabelValues(provider, lane, state).Inc()
}

// Deferred counts a message that has to wait.
func (w *Worker) Deferred(provider, lane, reason string) {
	w.deferrals.WithLabelValues(provider, lane, w.reason(reason)).Inc()
}

// Accepted observes how long a message took from the app to the provider.
func (w *Worker) Accepted(provider, lane string, took time.Duration) {
	w.accepted.WithLabelValues(provider, lane).Observe(took.Seconds())
}

// PickedUp observes how long a message that was due waited for a worker. Clocks of
// machines differ: less than nothing is nothing.
func (w *Worker) PickedUp(provider, lane string, waited time.Duration) {
	w.pickup.WithLabelValues(provider, lane).Observe(max(0, waited).Seconds())
}

// Limited observes how long a message was held for the rate limit.
func (w *Worker) Limited(provider, lane string, held time.Duration) {
	w.limiter.WithLabelValues(provider, lane).Observe(held.Seconds())
}

// Hold notes that a message is in hand until the returned function is called.
func (w *Worker) Hold(provider, lane string) (release func()) {
	g := w.inFlight.WithLabelValues(provider, lane)
	g.Inc()
	return g.Dec
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
