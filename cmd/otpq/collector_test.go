package main

import (
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// collector takes OTLP over HTTP, as a real one does, and keeps it.
type collector struct {
	url string

	mu       sync.Mutex
	raw      bytes.Buffer // all that came, uncompressed
	requests []*collectorpb.ExportTraceServiceRequest
	problems []string
	tokens   []string // what came in Authorization
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	server := httptest.NewServer(http.HandlerFunc(c.take))
	c.url = server.URL
	t.Cleanup(func() {
		server.Close()
		for _, p := range c.problems {
			t.Errorf("collector: %s", p)
		}
	})
	return c
}

func (c *collector) take(rw http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			c.problem(rw, err.Error())
			return
		}
		body = z
	}
	data, err := io.ReadAll(body)
	if err != nil {
		c.problem(rw, err.Error())
		return
	}
	var request collectorpb.ExportTraceServiceRequest
	if err := proto.Unmarshal(data, &request); err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" {
		c.problem(rw, "not OTLP: "+r.URL.Path+" "+r.Header.Get("Content-Type"))
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.raw.Write(data)
	c.tokens = append(c.tokens, r.Header.Get("Authorization"))
	c.requests = append(c.requests, &request)
	rw.Header().Set("Content-Type", "application/x-protobuf")
}

func (c *collector) problem(rw http.ResponseWriter, text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.problems = append(c.problems, text)
	rw.WriteHeader(http.StatusBadRequest)
}

// taken is one span as the collector got it.
type taken struct {
	name, trace, id, parent string
	kind                    tracepb.Span_SpanKind
	attributes              map[string]*commonpb.AnyValue
	failed                  string
	start, end              uint64
	service                 string
}

func (s taken) text(key string) string { return s.attributes[key].GetStringValue() }
func (s taken) int(key string) int64   { return s.attributes[key].GetIntValue() }

// spans are all that came, the first to begin first.
func (c *collector) spans() []taken {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []taken
	for _, request := range c.requests {
		for _, resource := range request.GetResourceSpans() {
			service := attributesOf(resource.GetResource().GetAttributes())["service.name"].GetStringValue()
			for _, scope := range resource.GetScopeSpans() {
				for _, s := range scope.GetSpans() {
					one := taken{
						name: s.GetName(), trace: hex.EncodeToString(s.GetTraceId()), id: hex.EncodeToString(s.GetSpanId()),
						parent: hex.EncodeToString(s.GetParentSpanId()), kind: s.GetKind(), attributes: attributesOf(s.GetAttributes()),
						start: s.GetStartTimeUnixNano(), end: s.GetEndTimeUnixNano(), service: service,
					}
					if s.GetStatus().GetCode() == tracepb.Status_STATUS_CODE_ERROR {
						one.failed = s.GetStatus().GetMessage()
					}
					out = append(out, one)
				}
			}
		}
	}
	slices.SortStableFunc(out, func(a, b taken) int { return int(int64(a.start) - int64(b.start)) })
	return out
}

// named are the spans whose names start so.
func (c *collector) named(prefix string) []taken {
	return slices.DeleteFunc(c.spans(), func(s taken) bool { return !strings.HasPrefix(s.name, prefix) })
}

// bytes are all that came.
func (c *collector) bytes() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.raw.String()
}

func attributesOf(list []*commonpb.KeyValue) map[string]*commonpb.AnyValue {
	out := map[string]*commonpb.AnyValue{}
	for _, kv := range list {
		out[kv.GetKey()] = kv.GetValue()
	}
	return out
}
