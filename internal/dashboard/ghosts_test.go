package dashboard_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/status"
)

const queue = "otpq:unimedbh:interactive"

// listed are the ids in one of Asynqmon's lists.
func (r *rig) listed(state string) []string {
	r.t.Helper()
	var answer struct {
		Tasks []struct {
			ID      string `json:"id"`
			Payload string `json:"payload"`
		} `json:"tasks"`
	}
	p := r.get("/asynqmon/api/queues/"+queue+"/"+state+"_tasks?size=50").want(r.t, http.StatusOK)
	if err := json.Unmarshal([]byte(p.body), &answer); err != nil {
		r.t.Fatalf("%s tasks: %v\n%s", state, err, p.body)
	}
	var ids []string
	for _, task := range answer.Tasks {
		ids = append(ids, task.ID)
	}
	return ids
}

// haunt puts an id without a task into each of the queue's lists, where asynq
// looks first.
func (r *rig) haunt() {
	r.t.Helper()
	prefix := "asynq:{" + queue + "}:"
	_, err := r.rdb.Pipelined(r.t.Context(), func(p redis.Pipeliner) error {
		for _, list := range []string{"pending", "active"} {
			p.LPush(r.t.Context(), prefix+list, "ghost-l-"+list)
			p.RPush(r.t.Context(), prefix+list, "ghost-r-"+list)
		}
		for _, set := range []string{"scheduled", "retry", "archived", "completed"} {
			p.ZAdd(r.t.Context(), prefix+set, redis.Z{Score: 1, Member: "ghost-" + set})
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestAGhostBreaksNoPageOfAsynqmon(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	pending, scheduled := r.send(), r.send(enqueue.At(time.Now().Add(time.Hour)))
	r.haunt()

	// What this is about: without the guard one ghost is enough.
	inspector := asynq.NewInspectorFromRedisClient(r.rdb)
	if _, err := inspector.GetQueueInfo(queue); err == nil {
		t.Error("asynq's own GetQueueInfo did not fail: is the guard still needed?")
	}

	r.get("/asynqmon/api/queues").want(t, http.StatusOK, queue, `"pending":3`)
	r.get("/asynqmon/api/queues/"+queue).want(t, http.StatusOK, `"history"`)
	r.get("/asynqmon/api/queue_stats").want(t, http.StatusOK, queue)
	r.get("/asynqmon/api/servers").want(t, http.StatusOK)
	for state, want := range map[string][]string{
		"pending": {pending}, "scheduled": {scheduled}, "active": nil, "retry": nil, "archived": nil, "completed": nil,
	} {
		if got := r.listed(state); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s tasks = %q, want %q", state, got, want)
		}
	}
	r.get("/asynqmon/api/queues/"+queue+"/tasks/"+pending).want(t, http.StatusOK, "sealed with key 2026-11")
	r.get("/asynqmon/api/queues/"+queue+"/tasks/ghost-retry").want(t, http.StatusNotFound)
}

func TestTheGuardKnowsAQueueOfGhostsOnly(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	if err := r.rdb.SAdd(t.Context(), "asynq:queues", queue).Err(); err != nil {
		t.Fatal(err)
	}
	r.haunt()
	r.get("/asynqmon/api/queues").want(t, http.StatusOK, queue)
	if got := r.listed("pending"); got != nil {
		t.Errorf("pending tasks = %q, want none", got)
	}
}

func TestEverythingWorksOnACluster(t *testing.T) {
	t.Parallel()
	r := newClusterRig(t, withWrite)
	pending := r.send()
	dead := r.bury("kinpos", status.Rejected, "invalid_request", time.Now())
	r.haunt()
	for at, words := range map[string]string{
		"/deliveries": "unimedbh", "/deliveries/message?id=" + pending: "before it in " + queue, "/deliveries/dead": dead,
		"/asynqmon/api/queues": queue, "/asynqmon/api/queue_stats": queue, "/asynqmon/api/redis_info": `"cluster":true`, "/readyz": "ok",
	} {
		r.get(at).want(t, http.StatusOK, words)
	}
	if got := r.listed("pending"); fmt.Sprint(got) != fmt.Sprint([]string{pending}) {
		t.Errorf("pending tasks = %q, want %s", got, pending)
	}
	form := url.Values{"do": {"replay"}, "id": {dead}}
	r.do(r.server, http.MethodPost, "/deliveries/act", form).want(t, http.StatusSeeOther)
}

// calls is how often Redis has run a command.
func (r *rig) calls(command string) int {
	r.t.Helper()
	stats, err := r.rdb.Info(r.t.Context(), "commandstats").Result()
	if err != nil {
		r.t.Fatal(err)
	}
	m := regexp.MustCompile(`cmdstat_` + regexp.QuoteMeta(command) + `:calls=(\d+)`).FindStringSubmatch(stats)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1])
	return n
}

func TestManyOpenPagesAndAMillionTasksDoNotLoadRedis(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.send()
	// Ids alone: what is asked of a task does not depend on how many there are.
	ids := make([]any, 10_000)
	for i := range 100 {
		for j := range ids {
			ids[j] = fmt.Sprintf("million-%07d", i*len(ids)+j)
		}
		if err := r.rdb.LPush(t.Context(), "asynq:{"+queue+"}:pending", ids...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	memory := func() int { return r.calls("memory|usage") + r.calls("memory") }
	before := memory()
	for range 20 {
		r.get("/asynqmon/api/queues").want(t, http.StatusOK, `"pending":1000001`)
		r.get("/asynqmon/api/queues/"+queue+"/pending_tasks?page=1&size=20").want(t, http.StatusOK, id)
		r.get("/asynqmon/api/queues/"+queue+"/pending_tasks?page=9999&size=100").want(t, http.StatusOK)
	}
	// Five of one list, and the six lists themselves; asked again after a while only.
	if got := memory() - before; got == 0 || got > 3*11 {
		t.Errorf("Redis measured memory %d times for 60 requests, want some, and no more than 33", got)
	}
	hmget := r.calls("hmget")
	r.get("/asynqmon/api/queues/"+queue+"/pending_tasks?page=1&size=1000000").want(t, http.StatusOK)
	if got := r.calls("hmget") - hmget; got > 100 {
		t.Errorf("a page of a million tasks read %d of them, want no more than 100", got)
	}
	// Our own page counts no further than ten thousand messages.
	r.get("/deliveries/message?id="+id).want(t, http.StatusOK, "it is the next one in "+queue)
	last := r.send()
	r.get("/deliveries/message?id="+last).want(t, http.StatusOK, "with 10000 messages or more before it")
}

func TestPayloadsAreSummaries(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	id := r.send(enqueue.Campaign("november"))
	foreign := r.foreign("mails")
	r.get("/asynqmon/api/queues/"+queue+"/tasks/"+id).want(t, http.StatusOK,
		`"payload":"unimedbh, interactive\nnot after 20`, `campaign november`, `sealed with key 2026-11, `).without(t, "sealed\\\":")
	r.get("/asynqmon/api/queues/mails/tasks/"+foreign).want(t, http.StatusOK, `"payload":"not an otpq message, 54 bytes"`)
	r.get("/asynqmon/api/queues/mails/pending_tasks").want(t, http.StatusOK, `"payload":"not an otpq message, 54 bytes"`)
	// A message of a version to come is no foreign one.
	client := asynq.NewClientFromRedisClient(r.rdb)
	newer := asynq.NewTask("otpq:send", []byte(`{"v":7,"id":"x","who":"`+person+`"}`), asynq.TaskID("newer"))
	if _, err := client.Enqueue(newer, asynq.Queue(queue)); err != nil {
		t.Fatal(err)
	}
	r.get("/asynqmon/api/queues/"+queue+"/tasks/newer").want(t, http.StatusOK, "a message of a newer otpq")
	if strings.Contains(r.get("/asynqmon/api/queues/"+queue+"/pending_tasks").body, "sealed\":") {
		t.Error("sealed bytes are shown")
	}
}
