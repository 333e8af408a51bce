package dashboard

import (
	"net/http"
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are what the dashboard counts of itself. Labels are closed sets.
type metrics struct {
	requests *prometheus.CounterVec
}

func newMetrics(r prometheus.Registerer, version string) *metrics {
	m := &metrics{requests: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "otpq_dashboard_requests_total", Help: "Requests to the dashboard, by what they were for and how they were answered.",
	}, []string{"part", "code"})}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "otpq_build_info", Help: "Always 1; the labels say which otpq this is.",
	}, []string{"version", "go"})
	build.WithLabelValues(version, runtime.Version()).Set(1)
	r.MustRegister(m.requests, build)
	return m
}

// partOf names what a path is for.
func partOf(path string) string {
	for _, part := range []struct{ prefix, name string }{
		{asynqmonRoot + "/api/", "asynqmon_api"}, {asynqmonRoot, "asynqmon"}, {deliveriesRoot, "deliveries"}, {assetsRoot, "assets"},
		{"/healthz", "probe"}, {"/readyz", "probe"}, {"/metrics", "metrics"},
	} {
		if strings.HasPrefix(path, part.prefix) {
			return part.name
		}
	}
	return "other"
}

func (m *metrics) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &counted{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(c, r)
		m.requests.WithLabelValues(partOf(r.URL.Path), strconv.Itoa(c.code)).Inc()
	})
}

// counted notes the code of an answer.
type counted struct {
	http.ResponseWriter
	code int
}

// WriteHeader implements [http.ResponseWriter].
func (c *counted) WriteHeader(code int) {
	c.code = code
	c.ResponseWriter.WriteHeader(code)
}

// Unwrap is for [http.ResponseController].
func (c *counted) Unwrap() http.ResponseWriter { return c.ResponseWriter }
