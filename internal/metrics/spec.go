package metrics

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// spec is one metric. All are made from specs, so that [Reference] lists what there
// is and nothing else.
type spec struct {
	name    string
	kind    kind
	help    string
	labels  []string
	buckets []float64 // of a histogram
}

type kind string

const (
	counterKind   kind = "counter"
	gaugeKind     kind = "gauge"
	histogramKind kind = "histogram"
)

func (s spec) counter() *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Name: s.name, Help: s.help}, s.labels)
}

func (s spec) gauge() *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: s.name, Help: s.help}, s.labels)
}

func (s spec) histogram() *prometheus.HistogramVec {
	return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: s.name, Help: s.help, Buckets: s.buckets}, s.labels)
}

// read is a metric whose value is looked up when it is asked for.
type read struct {
	*prometheus.Desc
	as prometheus.ValueType
}

func (s spec) read() read {
	as := prometheus.GaugeValue
	if s.kind == counterKind {
		as = prometheus.CounterValue
	}
	return read{prometheus.NewDesc(s.name, s.help, s.labels, nil), as}
}

// value is one series. A label that came from Redis may hold any bytes, and one that
// is no UTF-8 would take all other metrics away.
func (r read) value(v float64, labels ...string) prometheus.Metric {
	for i, l := range labels {
		labels[i] = strings.ToValidUTF8(l, "\uFFFD")
	}
	return prometheus.MustNewConstMetric(r.Desc, r.as, v, labels...)
}

// The metrics of a worker's own doing.
var (
	attemptsSpec = spec{name: "otpq_attempts_total", kind: counterKind, labels: []string{"provider", "lane", "outcome", "reason"},
		help: "Requests made to a provider, by what became of them."}
	messagesSpec = spec{name: "otpq_messages_total", kind: counterKind, labels: []string{"provider", "lane", "state"},
		help: "Messages that came to their end, by terminal state. Those that an app cancels are not counted: no worker sees them."}
	deferralsSpec = spec{name: "otpq_deferrals_total", kind: counterKind, labels: []string{"provider", "lane", "reason"},
		help: "Times that a message had to wait, by reason."}
	takeoversSpec = spec{name: "otpq_takeovers_total", kind: counterKind, labels: []string{"provider", "lane"},
		help: "Messages that this worker took from one that had died."}
	durationSpec = spec{name: "otpq_send_duration_seconds", kind: histogramKind, labels: []string{"provider"},
		help:    "How long a provider took to answer.",
		buckets: prometheus.ExponentialBuckets(0.005, 2, 13)} // 5 ms to 20 s, above the longest timeout
	acceptSpec = spec{name: "otpq_time_to_accept_seconds", kind: histogramKind, labels: []string{"provider", "lane"},
		help:    "From the app's request until the provider took it.",
		buckets: prometheus.ExponentialBuckets(0.005, 2, 17)} // 5 ms to 5 min, the default validity
	pickupSpec = spec{name: "otpq_pickup_delay_seconds", kind: histogramKind, labels: []string{"provider", "lane"},
		help:    "From when a message was queued, or fell due again, until a worker began with it; of those that came to a request.",
		buckets: prometheus.ExponentialBuckets(0.001, 2, 18)} // 1 ms, half an idle pick-up, to 2 min
	limiterSpec = spec{name: "otpq_limiter_wait_seconds", kind: histogramKind, labels: []string{"provider", "lane"},
		help:    "How long a message was held in a worker for the rate limit, whether or not it then got a token. Empty without a limit.",
		buckets: prometheus.ExponentialBuckets(0.001, 2, 13)} // 1 ms to 4 s, above the longest hold
	inFlightSpec = spec{name: "otpq_in_flight", kind: gaugeKind, labels: []string{"provider", "lane"},
		help: "Messages in this worker's hands."}
	slotsSpec = spec{name: "otpq_slots", kind: gaugeKind, labels: []string{"provider", "lane"},
		help: "How many messages this worker may have in its hands."}
	breakerSpec = spec{name: "otpq_breaker_state", kind: gaugeKind, labels: []string{"provider", "state"},
		help: "1 for the state that this worker's breaker is in, 0 for the others."}
	redisErrorsSpec = spec{name: "otpq_redis_errors_total", kind: counterKind, labels: []string{"kind"},
		help: "Commands to Redis that failed, those that were tried again included. A pipeline counts once."}
	buildSpec = spec{name: "otpq_build_info", kind: gaugeKind, labels: []string{"version", "goversion"},
		help: "Always 1; the labels tell which otpq runs."}
)

// The metrics of what is in Redis. Every worker tells the same.
var (
	redisUpSpec = spec{name: "otpq_redis_up", kind: gaugeKind,
		help: "1 when Redis answered the last time that the queues were looked at, else 0; then the metrics of the queues are absent."}
	redisUsedSpec = spec{name: "otpq_redis_memory_used_bytes", kind: gaugeKind,
		help: "Memory that Redis uses, by its own account; of a cluster's fullest master."}
	redisMaxSpec = spec{name: "otpq_redis_memory_max_bytes", kind: gaugeKind,
		help: "Redis's maxmemory, of the same node; 0 when it has none."}
	workersSpec = spec{name: "otpq_workers", kind: gaugeKind,
		help: "Workers that were heard of in the last ten seconds."}
	queueMessagesSpec = spec{name: "otpq_queue_messages", kind: gaugeKind, labels: []string{"provider", "lane", "state"},
		help: "Messages in a lane, by what they wait for."}
	queueOldestSpec = spec{name: "otpq_queue_oldest_seconds", kind: gaugeKind, labels: []string{"provider", "lane"},
		help: "How long the oldest message that waits for a worker has been ready; 0 when none waits."}
	queuePausedSpec = spec{name: "otpq_queue_paused", kind: gaugeKind, labels: []string{"provider", "lane"},
		help: "1 when somebody has paused a queue of the lane with asynq's tools."}
	deadSpec = spec{name: "otpq_dead_letters", kind: gaugeKind, labels: []string{"provider"},
		help: "Dead letters that are kept; a few too many when some were replayed or discarded a moment ago."}

	asynqTasksSpec = spec{name: "asynq_tasks_enqueued_total", kind: gaugeKind, labels: []string{"queue", "state"},
		help: "Tasks in a queue, by asynq's state. It goes down too, whatever its name says."}
	asynqSizeSpec = spec{name: "asynq_queue_size", kind: gaugeKind, labels: []string{"queue"},
		help: "Tasks in a queue."}
	asynqLatencySpec = spec{name: "asynq_queue_latency_seconds", kind: gaugeKind, labels: []string{"queue"},
		help: "How long the oldest pending task has been pending."}
	asynqMemorySpec = spec{name: "asynq_queue_memory_usage_approx_bytes", kind: gaugeKind, labels: []string{"queue"},
		help: "About how much memory a queue's tasks take: that of the next in line, times how many there are."}
	asynqProcessedSpec = spec{name: "asynq_tasks_processed_total", kind: counterKind, labels: []string{"queue"},
		help: "Tasks that were processed, whether or not they failed."}
	asynqFailedSpec = spec{name: "asynq_tasks_failed_total", kind: counterKind, labels: []string{"queue"},
		help: "Tasks whose processing failed; those that only wait are none."}
	asynqPausedSpec = spec{name: "asynq_queue_paused_total", kind: gaugeKind, labels: []string{"queue"},
		help: "1 when the queue is paused."}
)

// The metrics of campaigns. Every worker tells the same.
var (
	campaignRowsSpec = spec{name: "otpq_campaign_rows", kind: gaugeKind, labels: []string{"campaign", "provider", "state"},
		help: "Rows of a campaign, each counted in one state; of those campaigns that are not over or ended within the last hour, the newest 20 at most."}
	campaignPausedSpec = spec{name: "otpq_campaign_paused", kind: gaugeKind, labels: []string{"campaign", "reason"},
		help: "1 for the reason why a campaign, of the same ones, feeds nothing though it is not over; 0 for the others."}
	campaignRateSpec = spec{name: "otpq_campaign_rate_per_second", kind: gaugeKind, labels: []string{"campaign"},
		help: "How many rows of a campaign, of the same ones, came to their end in each of the last seconds; 0 when nobody feeds it."}
)

// dashboardSpec is of the dashboard alone.
var dashboardSpec = spec{name: "otpq_dashboard_requests_total", kind: counterKind, labels: []string{"part", "code"},
	help: "Requests to the dashboard, by what they were for and how they were answered. A series begins with its first request."}

// section is a part of [Reference].
type section struct {
	title, text string
	by          []Process // that serve it
	specs       []spec
}

// Process is a kind of process that serves metrics.
type Process string

const (
	// WorkerProcess is `otpq worker`.
	WorkerProcess Process = "worker"
	// DashboardProcess is `otpq dashboard`.
	DashboardProcess Process = "dashboard"
)

var (
	workerAlone    = []Process{WorkerProcess}
	dashboardAlone = []Process{DashboardProcess}
	both           = []Process{WorkerProcess, DashboardProcess}
)

var sections = []section{
	{"What a worker does", "Each worker counts for itself: add them up over all instances.", workerAlone, []spec{
		attemptsSpec, messagesSpec, deferralsSpec, durationSpec, acceptSpec, pickupSpec, limiterSpec,
		inFlightSpec, slotsSpec, breakerSpec, takeoversSpec,
	}},
	{"What the dashboard does", "Each dashboard counts for itself.", dashboardAlone, []spec{dashboardSpec}},
	{"What each process tells of itself", "Workers and dashboards, each of its own.", both, []spec{redisErrorsSpec, buildSpec}},
	{"What is in Redis", "Every worker and dashboard reads the same from Redis, at most once in five seconds and in constant time " +
		"however much is queued: take the maximum over all instances, not the sum.", both, []spec{
		redisUpSpec, redisUsedSpec, redisMaxSpec, workersSpec, queueMessagesSpec, queueOldestSpec, queuePausedSpec, deadSpec,
	}},
	{"Campaigns", "Read from Redis in the same way: take the maximum over all instances here too. A campaign's id is the only " +
		"label whose values are no closed set; that is why there are 20 at most, those that are not over before those that are.", both, []spec{
		campaignRowsSpec, campaignPausedSpec, campaignRateSpec,
	}},
	{"asynq's own names", "The same queues under the names of asynq's own exporter, with its labels, so that Asynqmon's metrics " +
		"view works. Take the maximum over all instances here too.", both, []spec{
		asynqTasksSpec, asynqSizeSpec, asynqLatencySpec, asynqMemorySpec, asynqProcessedSpec, asynqFailedSpec, asynqPausedSpec,
	}},
}
