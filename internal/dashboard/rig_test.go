package dashboard_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"golang.org/x/crypto/bcrypt"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/internal/dashboard"
	"github.com/otpq/otpq/internal/overview"
	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/internal/redistest"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// What names the tests' person. No page may show any of it.
var personal = []string{"maria.souza", "11987654321", "maria"}

const (
	person = "maria.souza@example.com"
	masked = "m***@***.com"
)

// patience only ever ends a test that would hang.
const patience = 30 * time.Second

// rig is a dashboard in front of a Redis with messages in it.
type rig struct {
	t      *testing.T
	redis  *redistest.Server
	url    string
	rdb    redis.UniversalClient
	store  *status.Redis
	client *enqueue.Client
	key    tasks.Key
	ring   *tasks.Keyring

	campaigns *campaign.Campaigns
	server    *httptest.Server
	log       *syncBuffer
}

// option changes what a rig's dashboard is made with.
type option func(*rig, *dashboard.Config)

func withWrite(r *rig, c *dashboard.Config) { c.Act = acts{r} }

func withAuth(a dashboard.Auth) option {
	return func(_ *rig, c *dashboard.Config) { c.Auth = a }
}

// oneUser lets in ana, with the password that the tests send.
func oneUser(t *testing.T) dashboard.Auth {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte("correct horse battery"), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return dashboard.Auth{Users: []string{"ana:" + string(hash)}}
}

// acts does what the command's do.
type acts struct{ r *rig }

func (a acts) Replay(ctx context.Context, id string) (string, error) {
	receipt, err := a.r.client.Replay(ctx, id)
	return receipt.ID, err
}

func (a acts) Discard(ctx context.Context, provider, id string) error {
	return a.r.store.DropDead(ctx, provider, id)
}

func newRig(t *testing.T, options ...option) *rig {
	t.Helper()
	server := redistest.Start(t)
	r := &rig{t: t, redis: server, url: server.URL(), rdb: server.Client()}
	r.start(options...)
	return r
}

// newClusterRig is a rig on a Redis Cluster; it has no redis.
func newClusterRig(t *testing.T, options ...option) *rig {
	t.Helper()
	cluster := redistest.StartCluster(t)
	r := &rig{t: t, url: cluster.URL(), rdb: cluster.Client()}
	r.start(options...)
	return r
}

// start makes what works with the Redis.
func (r *rig) start(options ...option) {
	t := r.t
	t.Helper()
	r.log = &syncBuffer{}
	r.store = status.NewRedis(r.rdb, status.Retention{})
	key := tasks.Key{ID: "2026-11", Secret: tasks.GenerateSecret()}
	r.key = key
	var err error
	if r.ring, err = tasks.NewKeyring(key); err != nil {
		t.Fatal(err)
	}
	if r.client, err = enqueue.Open(enqueue.Config{RedisURL: r.url, Keys: []tasks.Key{key}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.client.Close() })
	r.campaigns, err = campaign.Open(campaign.Config{
		Redis: r.rdb, Keys: []tasks.Key{key}, Definitions: []providers.Definition{unimedbh.Definition()},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.campaigns.Close() })
	r.server = r.serve(options...)
}

// serve makes one more dashboard in front of the same Redis.
func (r *rig) serve(options ...option) *httptest.Server {
	r.t.Helper()
	cfg := dashboard.Config{
		Redis: r.rdb, Records: r.store, Campaigns: r.campaigns, Registry: prometheus.NewRegistry(), Version: "test", Log: zerolog.New(r.log),
		OpenRedis: func() (redis.UniversalClient, error) { return redisconn.Open(r.url, redisconn.Options{}) },
	}
	for _, name := range []string{"kinpos", "medsenior", "unimedbh"} {
		cfg.Providers = append(cfg.Providers, overview.Settings{
			Name: name, Timeout: 10 * time.Second, RateLimit: overview.RateLimit{Period: "1s"}, Queues: 1,
			Concurrency: map[tasks.Lane]int{tasks.Interactive: 64, tasks.Bulk: 16},
		})
	}
	cfg.Keys, cfg.Definitions = r.ring, all.All()
	for _, o := range options {
		o(r, &cfg)
	}
	d, err := dashboard.New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	server := httptest.NewServer(d.Handler())
	r.t.Cleanup(func() {
		server.Close()
		if err := d.Close(); err != nil {
			r.t.Errorf("Close() = %v", err)
		}
	})
	return server
}

// send queues a message for the person and returns its id.
func (r *rig) send(options ...enqueue.Option) string {
	r.t.Helper()
	receipt, err := r.client.Send(r.t.Context(), unimedbh.Request{Username: person, Type: "EMAIL"}, options...)
	if err != nil {
		r.t.Fatal(err)
	}
	return receipt.ID
}

// bury makes a dead letter of a new message, as a worker would.
func (r *rig) bury(provider string, state status.State, reason string, died time.Time) string {
	r.t.Helper()
	m := tasks.Message{
		ID: tasks.NewID(), Provider: provider, Lane: tasks.Interactive, Request: json.RawMessage(`{"username":"` + person + `","type":"EMAIL"}`),
		CreatedAt: died.Add(-time.Second).UTC().Truncate(time.Millisecond), NotAfter: died.Add(5 * time.Minute).UTC().Truncate(time.Millisecond),
	}
	payload, err := tasks.Encode(r.ring, m)
	if err != nil {
		r.t.Fatal(err)
	}
	record := status.NewRecord(m, masked)
	ctx := r.t.Context()
	claim := status.Claim{Seed: record, Token: "w/1", Now: died.Add(-500 * time.Millisecond), AbandonedAfter: time.Minute}
	if got, err := r.store.Claim(ctx, claim); err != nil || got.Result != status.ClaimedNow {
		r.t.Fatalf("Claim() = %+v, %v", got, err)
	}
	err = r.store.Finish(ctx, status.Finish{
		ID: m.ID, Provider: provider, Token: "w/1", Spent: true, State: state, Reason: reason, Payload: payload, Now: died,
		Attempt: status.Attempt{
			Number: 1, StartedAt: claim.Now, DurationMS: 12.5, Outcome: "rejected", Reason: reason, HTTPStatus: 400,
		},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return m.ID
}

// foreign queues a task that no otpq made, with the person in the clear.
func (r *rig) foreign(queue string) string {
	r.t.Helper()
	c := asynq.NewClientFromRedisClient(r.rdb)
	info, err := c.Enqueue(asynq.NewTask("mail:send", []byte(`{"to":"`+person+`","phone":"11987654321"}`)), asynq.Queue(queue))
	if err != nil {
		r.t.Fatal(err)
	}
	return info.ID
}

// page is an answer of the dashboard.
type page struct {
	code   int
	body   string
	header http.Header
}

// do asks the dashboard, follows no redirect, and fails when anybody is named.
func (r *rig) do(server *httptest.Server, method, at string, form url.Values, change ...func(*http.Request)) page {
	r.t.Helper()
	var body io.Reader
	if form != nil {
		body = strings.NewReader(form.Encode())
	}
	req, err := http.NewRequestWithContext(r.t.Context(), method, server.URL+at, body)
	if err != nil {
		r.t.Fatal(err)
	}
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for _, c := range change {
		c(req)
	}
	client := http.Client{Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	r.nobodyIn(method+" "+at, string(text))
	return page{res.StatusCode, string(text), res.Header}
}

func (r *rig) get(at string, change ...func(*http.Request)) page {
	r.t.Helper()
	return r.do(r.server, http.MethodGet, at, nil, change...)
}

// nobodyIn fails when the text names the person.
func (r *rig) nobodyIn(what, text string) {
	r.t.Helper()
	for _, p := range personal {
		if strings.Contains(strings.ToLower(text), p) {
			r.t.Errorf("%s names a person (%s):\n%.2000s", what, p, text)
		}
	}
}

// want fails unless the page has the code and all of the words.
func (p page) want(t *testing.T, code int, words ...string) page {
	t.Helper()
	if p.code != code {
		t.Fatalf("code = %d, want %d:\n%.2000s", p.code, code, p.body)
	}
	for _, w := range words {
		if !strings.Contains(p.body, w) {
			t.Errorf("the page lacks %q:\n%.6000s", w, p.body)
		}
	}
	return p
}

func (p page) without(t *testing.T, words ...string) {
	t.Helper()
	for _, w := range words {
		if strings.Contains(p.body, w) {
			t.Errorf("the page has %q:\n%.6000s", w, p.body)
		}
	}
}

// syncBuffer is a log that many write to.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestMain(m *testing.M) {
	redisconn.LogTo(zerolog.Nop()) // failed dials are what some tests are about
	os.Exit(m.Run())
}
