package dashboard

import (
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// requests counts what the dashboard is asked. Its labels are closed sets.
type requests struct{ counted *prometheus.CounterVec }

// parts are what a path can be for, by how it begins; [partOther] for another.
var parts = []struct{ prefix, name string }{
	{asynqmonRoot + "/api/", "asynqmon_api"}, {asynqmonRoot, "asynqmon"}, {deliveriesRoot, "deliveries"}, {assetsRoot, "assets"},
	{"/healthz", "probe"}, {"/readyz", "probe"}, {"/metrics", "metrics"},
}

const partOther = "other"

// Parts are what the label part of the metric can be.
func Parts() []string {
	out := []string{partOther}
	for _, p := range parts {
		out = append(out, p.name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// partOf names what a path is for.
func partOf(path string) string {
	for _, part := range parts {
		if strings.HasPrefix(path, part.prefix) {
			return part.name
		}
	}
	return partOther
}

func (q requests) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := &counted{ResponseWriter: w, code: http.StatusOK}
		next.ServeHTTP(c, r)
		q.counted.WithLabelValues(partOf(r.URL.Path), strconv.Itoa(c.code)).Inc()
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
