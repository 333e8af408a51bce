package dashboard_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/dashboard"
	"github.com/otpq/otpq/status"
)

// contents is all that Redis holds of queues and records.
func (r *rig) contents() string {
	r.t.Helper()
	var out []string
	keys, err := r.rdb.Keys(r.t.Context(), "*").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	slices.Sort(keys)
	for _, k := range keys {
		dump, err := r.rdb.Dump(r.t.Context(), k).Result()
		if err != nil {
			r.t.Fatal(err)
		}
		out = append(out, k+"="+dump)
	}
	return fmt.Sprint(len(out), out)
}

// routes are what Asynqmon has that changes something.
func routes(id string) []string {
	q := "/asynqmon/api/queues/" + queue
	return []string{
		"POST " + q + ":pause", "POST " + q + ":resume", "DELETE " + q, "DELETE " + q + "/pending_tasks/" + id,
		"DELETE " + q + "/pending_tasks:delete_all", "POST " + q + "/pending_tasks:batch_delete", "POST " + q + "/pending_tasks/" + id + ":archive",
		"POST " + q + "/scheduled_tasks/" + id + ":run", "POST " + q + "/scheduled_tasks:run_all", "DELETE " + q + "/scheduled_tasks:delete_all",
		"POST " + q + "/active_tasks:cancel_all", "PUT " + q, "PATCH " + q, "POST /asynqmon/", "POST /deliveries/act?do=discard&id=" + id,
	}
}

func TestAReadOnlyDashboardChangesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.send(enqueue.At(time.Now().Add(time.Hour)))
	dead := r.bury("unimedbh", status.Rejected, "invalid_request", time.Now())
	before := r.contents()
	for _, id := range []string{id, dead} {
		for _, route := range routes(id) {
			method, at, _ := strings.Cut(route, " ")
			form := url.Values{"do": {"discard"}, "id": {dead}}
			if got := r.do(r.server, method, at, form).code; got != http.StatusMethodNotAllowed {
				t.Errorf("%s = %d, want 405", route, got)
			}
		}
	}
	r.get("/deliveries/act?do=discard&id="+dead).want(t, http.StatusMethodNotAllowed, "--write")
	r.get("/deliveries/dead").want(t, http.StatusOK, dead).without(t, "checkbox", "Replay the chosen")
	r.get("/deliveries/message?id="+dead).want(t, http.StatusOK, "dead letter").without(t, "<button name=\"do\"")
	if after := r.contents(); after != before {
		t.Errorf("Redis was changed:\n%s\n%s", before, after)
	}
}

func TestWhoMayActPausesAndArchivesAndDeletesNoMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t, withWrite)
	id := r.send()
	for _, at := range []string{":pause", ":resume", ":pause"} {
		r.do(r.server, http.MethodPost, "/asynqmon/api/queues/"+queue+at, nil).want(t, http.StatusNoContent)
		paused := fmt.Sprintf(`"paused":%v`, at == ":pause")
		r.get("/asynqmon/api/queues").want(t, http.StatusOK, paused) // at once, though the answer is kept for a while
	}
	for _, route := range routes(id) {
		method, at, _ := strings.Cut(route, " ")
		if method != http.MethodDelete && !strings.HasSuffix(at, "batch_delete") {
			continue
		}
		r.do(r.server, method, at, nil).want(t, http.StatusForbidden, "archive it")
	}
	if got := r.listed("pending"); fmt.Sprint(got) != fmt.Sprint([]string{id}) {
		t.Errorf("pending tasks = %q, want %s left", got, id)
	}
	// Whose request is cut off is sent to again.
	for _, at := range []string{":cancel_all", ":batch_cancel", "/" + id + ":cancel"} {
		r.do(r.server, http.MethodPost, "/asynqmon/api/queues/"+queue+"/active_tasks"+at, nil).want(t, http.StatusForbidden, "would be sent again")
	}
	r.get("/asynqmon/api/queues/"+queue+"/active_tasks").want(t, http.StatusOK)
	r.do(r.server, http.MethodPost, "/asynqmon/api/queues/"+queue+"/pending_tasks/"+id+":archive", nil).want(t, http.StatusNoContent)
	if got := r.listed("archived"); fmt.Sprint(got) != fmt.Sprint([]string{id}) {
		t.Errorf("archived tasks = %q, want %s", got, id)
	}
	// What is not ours is not ours to protect.
	foreign := r.foreign("mails")
	r.do(r.server, http.MethodPost, "/asynqmon/api/queues/mails/active_tasks:cancel_all", nil).want(t, http.StatusNoContent)
	r.do(r.server, http.MethodDelete, "/asynqmon/api/queues/mails/pending_tasks/"+foreign, nil).want(t, http.StatusNoContent)
}

func TestAPageOfAnotherSiteCannotAct(t *testing.T) {
	t.Parallel()
	r := newRig(t, withWrite)
	dead := r.bury("unimedbh", status.Rejected, "invalid_request", time.Now())
	r.send()
	before := r.contents()
	for name, change := range map[string]func(*http.Request){
		"another site":        func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "cross-site") },
		"a neighbouring site": func(q *http.Request) { q.Header.Set("Sec-Fetch-Site", "same-site") },
		"an older browser":    func(q *http.Request) { q.Header.Set("Origin", "https://evil.example") },
		"a page of no origin": func(q *http.Request) { q.Header.Set("Origin", "null") },
	} {
		for _, at := range []string{"/asynqmon/api/queues/" + queue + ":pause", "/deliveries/act", "/deliveries/find"} {
			form := url.Values{"do": {"discard"}, "id": {dead}, "provider": {"unimedbh"}, "recipient": {person}}
			if got := r.do(r.server, http.MethodPost, at, form, change).code; got != http.StatusForbidden {
				t.Errorf("%s: POST %s = %d, want 403", name, at, got)
			}
		}
	}
	if after := r.contents(); after != before {
		t.Error("a page of another site has changed Redis")
	}
	own := func(q *http.Request) {
		q.Header.Set("Sec-Fetch-Site", "same-origin")
		q.Header.Set("Origin", r.server.URL)
	}
	r.do(r.server, http.MethodPost, "/deliveries/act", url.Values{"do": {"discard"}, "id": {dead}}, own).want(t, http.StatusOK, "1 discarded")
}

func TestEveryAnswerHasTheSecurityHeaders(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, at := range []string{
		"/", "/healthz", "/metrics", "/nothing", "/deliveries", "/deliveries/dead", "/deliveries/message?id=none", "/assets/pages.css", "/assets/roboto.css",
		"/assets/roboto-latin-400-normal.woff2", "/asynqmon/", "/asynqmon/servers", "/asynqmon/api/queues", "/asynqmon/static/js/none.js", "/asynqmon/favicon.ico",
	} {
		p := r.get(at)
		csp := p.header.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, part) {
				t.Errorf("%s has the policy %q, want %q in it", at, csp, part)
			}
		}
		for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin"} {
			if got := p.header.Get(name); got != want {
				t.Errorf("%s has %s %q, want %q", at, name, got, want)
			}
		}
		if strings.Contains(csp, "script-src") && strings.Contains(regexp.MustCompile(`script-src[^;]*`).FindString(csp), "unsafe") {
			t.Errorf("%s allows any script: %q", at, csp)
		}
	}
}

func TestPagesNeedNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	outside := regexp.MustCompile(`(?:src|href|action)="(?:https?:)?//[^"]*"|url\((?:https?:)?//`)
	for _, at := range []string{"/deliveries", "/deliveries/dead", "/asynqmon/", "/asynqmon/queues/" + queue, "/assets/pages.css", "/assets/roboto.css"} {
		if p := r.get(at); p.code != http.StatusOK || outside.MatchString(p.body) {
			t.Errorf("%s = %d and asks elsewhere: %q", at, p.code, outside.FindAllString(p.body, -1))
		}
	}
	for at, kind := range map[string]string{
		"/assets/roboto-latin-500-normal.woff2": "font/woff2", "/assets/pages.css": "text/css; charset=utf-8", "/assets/icon.svg": "image/svg+xml",
		"/asynqmon/static/media/logo-color.c2b0c1f3.svg": "image/svg+xml", "/asynqmon/static/js/main.5adda2da.chunk.js": "application/javascript; charset=utf-8",
	} {
		if p := r.get(at); p.code != http.StatusOK || p.header.Get("Content-Type") != kind {
			t.Errorf("%s = %d %s, want %s", at, p.code, p.header.Get("Content-Type"), kind)
		}
	}
	r.get("/assets/").want(t, http.StatusNotFound)
	r.get("/asynqmon/static/js/none.js").want(t, http.StatusNotFound)
	for from, to := range map[string]string{"/": "/deliveries", "/asynqmon": "/asynqmon/", "/deliveries/": "/deliveries"} {
		if p := r.get(from); p.code != http.StatusSeeOther || p.header.Get("Location") != to {
			t.Errorf("%s = %d to %q, want to %q", from, p.code, p.header.Get("Location"), to)
		}
	}
}

func TestProbesAndMetricsAreOutsideTheGate(t *testing.T) {
	t.Parallel()
	r := newRig(t, withAuth(oneUser(t)))
	for _, at := range []string{"/", "/deliveries", "/deliveries/dead", "/asynqmon/", "/asynqmon/api/queues", "/assets/pages.css", "/nothing"} {
		r.get(at).want(t, http.StatusUnauthorized)
	}
	r.get("/deliveries", func(q *http.Request) { q.SetBasicAuth("ana", "correct horse battery") }).want(t, http.StatusOK, "Signed in as ana")
	r.get("/healthz").want(t, http.StatusOK, "ok")
	r.get("/readyz").want(t, http.StatusOK, "ok")
	r.get("/metrics").want(t, http.StatusOK, `otpq_build_info{goversion="go1`, `version="test"`,
		`otpq_dashboard_requests_total{code="401",part="asynqmon_api"} 1`, `otpq_dashboard_requests_total{code="200",part="deliveries"} 1`)
	for _, at := range []string{"/healthz", "/readyz", "/metrics"} {
		for _, method := range []string{http.MethodPost, http.MethodDelete} {
			if p := r.do(r.server, method, at, nil); p.code != http.StatusMethodNotAllowed || p.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s = %d, Allow %q; want 405, GET, HEAD", method, at, p.code, p.header.Get("Allow"))
			}
		}
	}
	r.redis.Stop()
	r.get("/healthz").want(t, http.StatusOK)
	r.get("/readyz").want(t, http.StatusServiceUnavailable, "redis does not answer")
	r.get("/deliveries", func(q *http.Request) { q.SetBasicAuth("ana", "correct horse battery") }).
		want(t, http.StatusServiceUnavailable, "Redis did not answer")
}

func TestTheMetricsViewAsksPrometheusAboutQueuesOnly(t *testing.T) {
	t.Parallel()
	asked := make(chan string, 100)
	prometheus := fakePrometheus(t, func(query string) string {
		asked <- query
		return `{"status":"success"}`
	})
	r := newRig(t, func(_ *rig, c *dashboard.Config) { c.Prometheus = prometheus })
	r.get("/asynqmon/api/metrics?duration=3600&endtime=1800000000&queues="+queue).want(t, http.StatusOK, "success")
	if q := <-asked; !strings.Contains(q, queue) {
		t.Errorf("Prometheus was asked %q, want about %s", q, queue)
	}
	for len(asked) > 0 {
		<-asked
	}
	r.get(`/asynqmon/api/metrics?queues=`+url.QueryEscape(`x"} or up{job="`)).want(t, http.StatusBadRequest)
	if len(asked) > 0 {
		t.Errorf("Prometheus was asked %q", <-asked)
	}
}

// TestTheMetricsViewHasOneCurveForEachQueue: every process tells of the same queues.
func TestTheMetricsViewHasOneCurveForEachQueue(t *testing.T) {
	t.Parallel()
	const failed = `{"status":"error","errorType":"bad_data","error":"too many points"}`
	prometheus := fakePrometheus(t, func(query string) string {
		if strings.Contains(query, "latency") {
			return failed
		}
		if strings.Contains(query, "memory") {
			return `{"status":"success","data":{"resultType":"matrix","result":[]}}`
		}
		return twoProcesses
	})
	r := newRig(t, func(_ *rig, c *dashboard.Config) { c.Prometheus = prometheus })
	p := r.get("/asynqmon/api/metrics?duration=3600").want(t, http.StatusOK, failed)
	type curve struct {
		Metric map[string]string
		Values [][2]any
	}
	var got map[string]struct {
		Data struct{ Result []curve }
	}
	if err := json.Unmarshal([]byte(p.body), &got); err != nil {
		t.Fatal(err)
	}
	want := []curve{
		{map[string]string{"queue": "a"}, [][2]any{{10., "1"}, {20., "5"}, {30., "3"}, {40., "NaN"}}},
		{map[string]string{"queue": "b"}, [][2]any{{20., "7"}}},
	}
	for _, name := range []string{"queue_size", "tasks_processed_per_second", "error_rate", "archived_tasks_by_queue"} {
		if diff := cmp.Diff(want, got[name].Data.Result); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if memory := got["queue_memory_usage_approx_bytes"].Data.Result; memory == nil || len(memory) > 0 {
		t.Errorf("no curves are %v, want an empty list", memory)
	}
}

// twoProcesses is what Prometheus has when one process took another's place.
const twoProcesses = `{"status":"success","data":{"resultType":"matrix","result":[
	{"metric":{"queue":"a","instance":"1"},"values":[[10,"1"],[20,"2"],[30,"3"],[40,"NaN"]]},
	{"metric":{"queue":"b","instance":"1"},"values":[[20,"NaN"]]},
	{"metric":{"queue":"a","instance":"2"},"values":[[20,"5"],[30,"NaN"],[40,"NaN"]]},
	{"metric":{"queue":"b","instance":"2"},"values":[[20,"7"]]}]}}`

// fakePrometheus answers each query, and returns where it is.
func fakePrometheus(t *testing.T, answer func(query string) string) (url string) {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		_, _ = w.Write([]byte(answer(q.URL.Query().Get("query"))))
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// One that asks for a million tasks would have Redis answer nobody else meanwhile.
func TestNobodyAsksAsynqmonForMoreThanAPage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 105 {
		r.send()
	}
	var list struct{ Tasks []struct{} }
	if err := json.Unmarshal([]byte(r.get("/asynqmon/api/queues/"+queue+"/pending_tasks?size=1000000").body), &list); err != nil {
		t.Fatal(err)
	}
	if len(list.Tasks) != 100 {
		t.Errorf("%d tasks in one answer, want 100", len(list.Tasks))
	}
}
