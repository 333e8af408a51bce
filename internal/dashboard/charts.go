package dashboard

import (
	"encoding/json"
	"maps"
	"math"
	"net/http"
	"slices"
	"strconv"
)

// chart is what Prometheus tells for one of the charts in Asynqmon's metrics view.
type chart struct {
	Status string `json:"status"`
	Data   struct {
		Type   string  `json:"resultType"`
		Result []curve `json:"result"`
	} `json:"data"`
}

type curve struct {
	Metric map[string]string `json:"metric"`
	Values []point           `json:"values"`
}

// point is a time, in Unix seconds, and a number as text.
type point [2]any

// serveCharts answers the metrics view with one curve for each queue. Every worker
// and dashboard tells of the same queues, and the view would draw and name each of
// them once for every process there was in that time.
func (m *monitor) serveCharts(w http.ResponseWriter, r *http.Request) {
	answer := newCapture()
	m.inner.ServeHTTP(answer, r)
	body := answer.body.Bytes()
	var charts map[string]json.RawMessage
	if answer.code == http.StatusOK && json.Unmarshal(body, &charts) == nil {
		for name, text := range charts {
			charts[name] = oneCurveEach(text)
		}
		if merged, err := json.Marshal(charts); err == nil {
			body = merged
		}
	}
	maps.Copy(w.Header(), answer.header)
	w.WriteHeader(answer.code)
	_, _ = w.Write(body)
}

// oneCurveEach merges the curves of each queue. What is no list of curves, such as
// an error of Prometheus's, stays as it is.
func oneCurveEach(text json.RawMessage) json.RawMessage {
	var c chart
	if json.Unmarshal(text, &c) != nil || c.Status != "success" || c.Data.Type != "matrix" {
		return text
	}
	queues := map[string]map[float64]string{}
	for _, each := range c.Data.Result {
		name := each.Metric["queue"]
		if queues[name] == nil {
			queues[name] = map[float64]string{}
		}
		for _, p := range each.Values {
			at, okAt := p[0].(float64)
			value, okValue := p[1].(string)
			if okAt && okValue {
				queues[name][at] = larger(queues[name][at], value)
			}
		}
	}
	c.Data.Result = []curve{} // the view wants a list, if an empty one
	for _, name := range slices.Sorted(maps.Keys(queues)) {
		one := curve{Metric: map[string]string{"queue": name}, Values: []point{}}
		for _, at := range slices.Sorted(maps.Keys(queues[name])) {
			one.Values = append(one.Values, point{at, queues[name][at]})
		}
		c.Data.Result = append(c.Data.Result, one)
	}
	merged, err := json.Marshal(c)
	if err != nil {
		return text
	}
	return merged
}

// larger returns the larger of two numbers: a process that has just begun knows of
// no rate yet. Anything is larger than what is no number.
func larger(a, b string) string {
	x, err := strconv.ParseFloat(a, 64)
	y, _ := strconv.ParseFloat(b, 64) // Prometheus writes nothing else
	if err != nil || math.IsNaN(x) || y > x {
		return b
	}
	return a
}
