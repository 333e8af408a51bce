package dashboard_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/dashboard"
	"github.com/otpq/otpq/internal/overview"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

func TestTheProvidersPageTellsWhatWaits(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for range 3 {
		r.send()
	}
	r.send(enqueue.InLane(tasks.Bulk))
	p := r.get("/deliveries").want(t, http.StatusOK, "kinpos", "medsenior", "unimedbh", "No worker is running", "breaker unknown",
		`data-label="Pending">3<`, `data-label="Pending">1<`)
	p.without(t, "http-equiv", "paused")
	r.get("/deliveries?refresh=10").want(t, http.StatusOK, `http-equiv="refresh" content="10"`)
	r.get("/deliveries?refresh=0").want(t, http.StatusOK).without(t, "http-equiv")
	if err := r.rdb.Set(t.Context(), "asynq:{"+queue+"}:paused", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	r.get("/deliveries").want(t, http.StatusOK, "paused")
}

// live has a worker be there, as its presence tells.
func (r *rig) live(id string, breakers map[string]worker.BreakerPresence) {
	r.t.Helper()
	now, err := r.rdb.Time(r.t.Context()).Result()
	if err != nil {
		r.t.Fatal(err)
	}
	told, err := json.Marshal(worker.Presence{ID: id, Breakers: breakers})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := errors.Join(
		r.rdb.ZAdd(r.t.Context(), "otpq:workers", redis.Z{Score: float64(now.Add(time.Hour).UnixMilli()), Member: id}).Err(),
		r.rdb.Set(r.t.Context(), "otpq:worker:"+id, told, time.Hour).Err(),
	); err != nil {
		r.t.Fatal(err)
	}
}

func TestTheProvidersPageTellsOfWorkersAndTheirBreakers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	until := time.Now().Add(time.Hour)
	closed, open := worker.BreakerPresence{State: worker.BreakerClosed}, worker.BreakerPresence{State: worker.BreakerOpen, OpenUntil: until}
	r.live("first", map[string]worker.BreakerPresence{"kinpos": closed, "unimedbh": closed})
	r.get("/deliveries").want(t, http.StatusOK, "1 worker is running.", "breaker closed", "closed: messages are sent", "breaker unknown").
		without(t, "No worker is running", "breaker open")
	r.live("second", map[string]worker.BreakerPresence{"unimedbh": open, "kinpos": {State: worker.BreakerHalfOpen}})
	r.get("/deliveries").want(t, http.StatusOK, "2 workers are running.", "breaker open", "until "+until.UTC().Format("15:04:05 UTC"),
		"breaker half-open", "tries whether the provider works again").without(t, "breaker closed")
}

// A dashboard is given no token: what it lacks says nothing of a provider that workers serve.
func TestAProviderThatOnlyTheWorkersHaveOnIsNotOff(t *testing.T) {
	t.Parallel()
	r := newRig(t, func(_ *rig, c *dashboard.Config) {
		c.Providers = []overview.Settings{{Name: "medsenior", Off: "needs a token"}}
	})
	const off = "With the configuration of this dashboard it is off: it needs a token."
	r.get("/deliveries").want(t, http.StatusOK, ">off<", off)
	r.live("first", map[string]worker.BreakerPresence{"medsenior": {State: worker.BreakerOpen, OpenUntil: time.Now().Add(time.Hour)}})
	r.get("/deliveries").want(t, http.StatusOK, "breaker open").without(t, ">off<", off)
}

func TestAMessageIsLookedUpWithItsPlaceInTheQueue(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ids := []string{r.send(), r.send(), r.send()}
	for i, want := range []string{"it is the next one", "with 1 message before it", "with 2 messages before it"} {
		r.get("/deliveries/message?id="+ids[i]).want(t, http.StatusOK, ids[i], want, "unimedbh, interactive", masked, "No running worker serves unimedbh")
	}
	later := r.send(enqueue.At(time.Now().Add(time.Hour)))
	r.get("/deliveries/message?id="+later).want(t, http.StatusOK, "asked for later: it is due in")
	// Another worker's task stands for the message, in a queue that nobody has configured.
	taken, elsewhere := r.send(), "otpq:unimedbh:interactive:3"
	if _, err := r.rdb.Pipelined(t.Context(), func(p redis.Pipeliner) error {
		p.SAdd(t.Context(), "asynq:queues", elsewhere)
		p.Del(t.Context(), "asynq:{"+queue+"}:t:"+taken)
		p.HSet(t.Context(), "asynq:{"+elsewhere+"}:t:"+tasks.TakeoverID(taken), "state", "pending")
		p.LPush(t.Context(), "asynq:{"+elsewhere+"}:pending", tasks.TakeoverID(taken))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	r.get("/deliveries/message?id="+taken).want(t, http.StatusOK, "it is the next one in "+elsewhere)
	r.get("/deliveries/message?id="+taken+"&refresh=3").want(t, http.StatusOK, `http-equiv="refresh" content="3"`)

	r.get("/deliveries/message?id="+url.QueryEscape(" "+taken+"\t")).want(t, http.StatusOK, taken)
	r.get("/deliveries/message?id=none").want(t, http.StatusNotFound, "There is no message with this id")
	r.get("/deliveries/message?id="+strings.Repeat("x", 300)).want(t, http.StatusBadRequest)
	if p := r.get("/deliveries/message"); p.code != http.StatusSeeOther {
		t.Errorf("no id = %d, want the way back", p.code)
	}
	r.get("/deliveries/message?id="+url.QueryEscape(`"><script>alert(1)</script>`)).want(t, http.StatusNotFound).without(t, "<script")
}

func TestAMessageShowsItsTimeline(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.bury("unimedbh", status.Rejected, "invalid_request", time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC))
	p := r.get("/deliveries/message?id="+id).want(t, http.StatusOK,
		"2026-11-23 11:59:59.000 UTC", "attempt 1", "2026-11-23 11:59:59.500 UTC", "rejected after 12 ms: the provider calls the request invalid (HTTP 400)",
		"2026-11-23 12:00:00.000 UTC", "It is a dead letter", masked)
	p.without(t, "Why is it waiting", "http-equiv")
}

var idLink = regexp.MustCompile(`href="/deliveries/message\?id=([^"&]+)"`)

// listedDead are the ids on a page of dead letters, and the way to the next page.
func (r *rig) listedDead(at string) (ids []string, more string) {
	r.t.Helper()
	p := r.get(at).want(r.t, http.StatusOK)
	for _, m := range idLink.FindAllStringSubmatch(p.body, -1) {
		ids = append(ids, m[1])
	}
	if m := regexp.MustCompile(`class="more" href="([^"]*)"`).FindStringSubmatch(p.body); m != nil {
		more = html.UnescapeString(m[1])
	}
	return ids, more
}

func TestDeadLettersAreListedPageByPageEachOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.get("/deliveries/dead").want(t, http.StatusOK, "There are none.")
	var want []string
	now := time.Now()
	for i := range 120 {
		// Many die in the same millisecond.
		want = append(want, r.bury([]string{"kinpos", "unimedbh"}[i/60], status.Exhausted, "timeout", now.Add(time.Duration(i/40-10)*time.Second)))
	}
	var got []string
	pages := 0
	for at := "/deliveries/dead"; at != ""; pages++ {
		var ids []string
		ids, at = r.listedDead(at)
		got = append(got, ids...)
	}
	if pages != 3 {
		t.Errorf("%d pages, want 3", pages)
	}
	r.get("/deliveries/dead?after="+url.QueryEscape(fmt.Sprintf("unimedbh,%d,x", now.UnixMilli()))).want(t, http.StatusOK, "There are no more.")
	slices.Sort(want)
	slices.Sort(got)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%d letters are listed, want each of the %d once", len(got), len(want))
	}
}

// TestALetterThatIsListedLaterIsOnOnePage: a worker that stood still and comes with its
// result too late is refused, but the letter is listed as of then.
func TestALetterThatIsListedLaterIsOnOnePage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	began := time.Now().Add(-time.Hour)
	var want []string
	for i := range 120 {
		want = append(want, r.bury("kinpos", status.Exhausted, "timeout", began.Add(time.Duration(i)*time.Second)))
	}
	late := status.Move{ID: want[0], Provider: "kinpos", To: status.Rejected, Payload: []byte("x"), Now: began.Add(49500 * time.Millisecond)}
	if err := r.store.Move(t.Context(), late); err == nil {
		t.Fatal("the late result is not refused")
	}
	want = slices.Insert(slices.Clone(want[1:]), 49, want[0]) // the last of its page
	var got []string
	for at := "/deliveries/dead"; at != "" && len(got) <= len(want); {
		var ids []string
		ids, at = r.listedDead(at)
		got = append(got, ids...)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("listed (-want +got):\n%s", diff)
	}
}

func TestDeadLettersAreChosenByWhatTheyAre(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	now := time.Now()
	letters := map[string]string{
		"old":      r.bury("kinpos", status.Rejected, "invalid_request", now.Add(-48*time.Hour)),
		"rejected": r.bury("kinpos", status.Rejected, "recipient_unknown", now.Add(-2*time.Hour)),
		"unknown":  r.bury("unimedbh", status.Unknown, "timeout", now.Add(-time.Minute)),
	}
	for query, want := range map[string][]string{
		"":                         {"old", "rejected", "unknown"},
		"provider=kinpos":          {"old", "rejected"},
		"state=unknown":            {"unknown"},
		"reason=recipient_unknown": {"rejected"},
		"since=24h":                {"rejected", "unknown"},
		"since=1h":                 {"unknown"},
		"provider=medsenior":       nil,
		"after=nonsense":           {"old", "rejected", "unknown"},
	} {
		got, _ := r.listedDead("/deliveries/dead?" + query)
		var ids []string
		for _, name := range want {
			ids = append(ids, letters[name])
		}
		if fmt.Sprint(got) != fmt.Sprint(ids) {
			t.Errorf("%s lists %q, want %q", query, got, ids)
		}
	}
	for _, query := range []string{"provider=x", "state=queued", "since=2h"} {
		r.get("/deliveries/dead?"+query).want(t, http.StatusBadRequest)
	}
}

func TestADeadLetterIsReplayedOnceItIsConfirmed(t *testing.T) {
	t.Parallel()
	r := newRig(t, withWrite)
	dead := r.bury("unimedbh", status.Unknown, "timeout", time.Now())
	before := r.contents()
	r.get("/deliveries/message?id="+dead).want(t, http.StatusOK, "Replay…")
	r.get("/deliveries/act?do=replay&id="+dead).want(t, http.StatusOK, "Replay this dead letter?", "may have been sent already", masked)
	if r.contents() != before {
		t.Error("looking has changed Redis")
	}
	form := url.Values{"do": {"replay"}, "id": {dead}}
	r.do(r.server, http.MethodPost, "/deliveries/act?do=replay&id="+dead, url.Values{}).want(t, http.StatusBadRequest)
	p := r.do(r.server, http.MethodPost, "/deliveries/act", form)
	if p.code != http.StatusSeeOther {
		t.Fatalf("replay = %d:\n%s", p.code, p.body)
	}
	at := p.header.Get("Location")
	r.get(at).want(t, http.StatusOK, "it is the next one in "+queue, "Replay of", dead)
	newID := strings.TrimPrefix(at, "/deliveries/message?id=")
	r.get("/deliveries/message?id="+dead).want(t, http.StatusOK, "Replayed as", newID).without(t, "Replay…")
	// Sent again, it says what became of it and does nothing.
	r.do(r.server, http.MethodPost, "/deliveries/act", form).want(t, http.StatusOK, "0 replayed, 1 not", "is no dead letter any more", newID)
	if got := r.listed("pending"); len(got) != 1 {
		t.Errorf("pending tasks = %q, want the replay alone", got)
	}
	if log := r.log.String(); !strings.Contains(log, `"action":"replay"`) || !strings.Contains(log, dead) {
		t.Errorf("the log does not say who did what: %s", log)
	}
}

func TestWhatIsChosenIsActedOnAndTheRestIsLeft(t *testing.T) {
	t.Parallel()
	r := newRig(t, withWrite)
	var dead []string
	for range 3 {
		dead = append(dead, r.bury("kinpos", status.Rejected, "invalid_request", time.Now()))
	}
	r.get("/deliveries/act?do=discard&id="+dead[0]+"&id="+dead[1]).want(t, http.StatusOK, "Discard 2 dead letters?", dead[0], dead[1])
	form := url.Values{"do": {"discard"}, "id": {dead[0], dead[1], dead[1], "none"}}
	r.do(r.server, http.MethodPost, "/deliveries/act", form).want(t, http.StatusOK, "2 discarded, 1 not", "is gone")
	if left, _ := r.listedDead("/deliveries/dead"); fmt.Sprint(left) != fmt.Sprint(dead[2:]) {
		t.Errorf("left are %q, want %q", left, dead[2:])
	}
	r.do(r.server, http.MethodPost, "/deliveries/act", url.Values{"do": {"delete"}, "id": dead[2:]}).want(t, http.StatusBadRequest)
	r.do(r.server, http.MethodPost, "/deliveries/act", url.Values{"do": {"discard"}}).want(t, http.StatusBadRequest, "No dead letter is chosen")
	many := url.Values{"do": {"discard"}}
	for i := range 51 {
		many.Add("id", fmt.Sprint(i))
	}
	r.do(r.server, http.MethodPost, "/deliveries/act", many).want(t, http.StatusBadRequest, "more than a page")
	large := url.Values{"do": {"discard"}, "id": {strings.Repeat("x", 100<<10)}}
	r.do(r.server, http.MethodPost, "/deliveries/act", large).want(t, http.StatusBadRequest, "cannot be read")
	r.redis.Stop()
	r.get("/deliveries/dead").want(t, http.StatusServiceUnavailable, "Redis did not answer")
}
