package worker

import (
	"bufio"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"maps"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/metrics"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/kinpos"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/providers/sandbox"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// people are whom the requests name, with all that the providers' pages let them
// say of a person. They are nobody.
var people = map[string]providers.Request{
	"medsenior": medsenior.Request{
		CPF: "52998224725", EmailID: "3f0c6a51-9d0e-4b52-8a3b-5f2f6f0c9a11", CelularID: "c1d7a4be-2b0f-4f7e-9b61-0a7d5e8843d2", PrimeiroAcesso: new(true),
	},
	"unimedbh": unimedbh.Request{Username: "maria+silva.souza@exemplo.com.br", Type: "EMAIL"},
	"kinpos": kinpos.Request{
		UserTypeAltID: "5b0e7f6a-77aa-4f3e-8d0c-2f4c6f1f9e21", MobileNumber: "50498765432", InternationalPrefix: "00504",
		EmailAddress: "joao.peixoto@exemplo.hn", RecoveryID: new(int64(7190445512)), UserRegistrationID: new(int64(8842017736)),
		DeviceID: new(int64(5518273640)), DeviceAltID: "R58N12ABCDE-SM-G991B", IPAddress: "203.0.113.177",
		Latitude: "14.07227519", Longitude: "-87.19213617", ApplicationID: "app", ApplicationOS: "ANDROID", Language: "es",
		AuditInfo:            &kinpos.AuditInfo{IPAddress: "198.51.100.233", Latitude: "15.50417283", Longitude: "-88.02501642"},
		AdditionalParameters: map[string]string{"apellido": "Rodríguez Peña"},
	},
}

const (
	idempotencyKey = "login de 529.982.247-25 / maria+silva"
	baggage        = "user=maria%2Bsilva.souza%40exemplo.com.br,conta=4711-0815"
	// vendorText is what a provider says in its errors beside whom it says it of.
	vendorText = "cadastro sem contato confirmado"
	// The stranger is in a payload that nobody sealed, the namesake in a sealed
	// one that no provider can take.
	stranger = "estranho.fulano@exemplo.org"
	namesake = "sicrano.beltrano@exemplo.org"
)

// private are all values that may be readable nowhere, by what they are.
func (r *rig) private() map[string]string {
	raw, err := base64.StdEncoding.DecodeString(r.key.Secret.Reveal())
	if err != nil {
		r.t.Fatal(err)
	}
	all := map[string]string{
		"the idempotency key": idempotencyKey, "the baggage": baggage, "the token": sandboxToken,
		"the stranger": stranger, "the namesake": namesake,
		"the sealing secret": r.key.Secret.Reveal(), "the sealing key": string(raw),
		"kinpos's user": "8842017736",
	}
	for name, req := range people {
		for i, value := range req.Personal() {
			all[fmt.Sprintf("%s's value %d", name, i+1)] = value
		}
	}
	return all
}

// surface is something that leaves this process.
type surface struct{ name, text, lower string }

// TestNobodyIsReadableWhateverBecomesOfTheirMessage takes messages of all three
// providers to every state there is, has the providers repeat in their errors whom
// they were asked about, and looks for all of it in all that leaves this process:
// Redis, as it was and as it was told to be, the log and the metrics.
func TestNobodyIsReadableWhateverBecomesOfTheirMessage(t *testing.T) {
	r := newRig(t)
	told := r.monitor()
	registry := prometheus.NewRegistry()
	counted := metrics.NewWorker(registry)
	configured := func(c *Config) { c.Metrics = counted }
	ids := journey{}

	r.sendEarly(ids)
	seen := r.dump()
	server, list := r.sandboxed(func(pc *ProviderConfig) { pc.Timeout = 15 * time.Second })
	for name := range people {
		r.fault(server, name, sandbox.Fault{Hang: true})
	}
	_, stop := r.start(configured, list...)
	for name := range people {
		r.awaitState(ids[status.Unknown][name], status.Sending)
	}
	eventually(t, func() bool { // asynq's list of what is in hand, payloads and all
		keys, err := r.rdb.Keys(t.Context(), "asynq:workers:*").Result()
		return err == nil && len(keys) > 0
	}, func() string { return "asynq never told what is in hand" })
	seen += r.dump()
	server.Close() // what it holds is never answered
	for name := range people {
		r.awaitState(ids[status.Unknown][name], status.Unknown)
	}
	stop()

	server, list = r.sandboxed(func(*ProviderConfig) {})
	r.start(configured, list...)
	for name, req := range people {
		r.sendLate(server, name, req, ids)
	}
	r.wantEveryState(ids)
	eventually(t, func() bool { return !strings.Contains(r.dump(), stranger) }, func() string {
		return "a payload that nobody sealed stays in Redis"
	})
	seen += r.dump()

	surfaces := []surface{
		{name: "Redis", text: seen}, {name: "what Redis was told", text: told()},
		{name: "the log", text: r.log.String()}, {name: "the metrics", text: gather(t, registry)},
	}
	wantSurfaces(t, surfaces)
	for what, value := range r.private() {
		for _, s := range surfaces {
			if what == "the stranger" && (s.name == "Redis" || s.name == "what Redis was told") {
				continue // by who queued it, in the clear; the last state was looked at above
			}
			for form, found := range s.find(value) {
				t.Errorf("%s is readable in %s, as %s: %q", what, s.name, form, found)
			}
		}
	}
	wantVendorsQuotedInDebugLinesOnly(t, surfaces)
	r.wantTraceContextOnly(ids[status.Queued])
}

// journey is which message, by its provider, is to come to which state.
type journey map[status.State]map[string]string

func (j journey) note(state status.State, provider, id string) {
	if j[state] == nil {
		j[state] = map[string]string{}
	}
	j[state][provider] = id
}

// sendEarly queues what waits, is taken back or comes too late, before there is a
// worker, and what will be in the middle of its request when there is one.
func (r *rig) sendEarly(ids journey) {
	r.t.Helper()
	trace := enqueue.Trace(map[string]string{
		"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "tracestate": "vendor=1",
		"baggage": baggage, "X-User": namesake,
	})
	for name, req := range people {
		ids.note(status.Queued, name, r.sendTo(req, enqueue.At(time.Now().Add(time.Hour)), trace, enqueue.IdempotencyKey(idempotencyKey)))
		canceled := r.sendTo(req, trace, enqueue.InLane(tasks.Bulk))
		ids.note(status.Canceled, name, canceled)
		if err := r.client.Cancel(r.t.Context(), canceled); err != nil {
			r.t.Fatal(err)
		}
		ids.note(status.Expired, name, r.sendTo(req, enqueue.ValidFor(time.Millisecond)))
		ids.note(status.Unknown, name, r.sendTo(req, trace, enqueue.MaxAttempts(1)))
	}
	sealed := tasks.Message{
		ID: tasks.NewID(), Provider: "unimedbh", Lane: tasks.Interactive, CreatedAt: time.Now(), NotAfter: time.Now().Add(time.Minute),
		Request: json.RawMessage(`{"` + namesake + `":"` + namesake + `","username":["` + namesake + `"],"type":"` + namesake + `"}`),
	}
	payload, err := tasks.Encode(r.keyring(), sealed)
	if err != nil {
		r.t.Fatal(err)
	}
	for id, payload := range map[string][]byte{
		sealed.ID:      payload,
		tasks.NewID():  []byte("send a code to " + stranger),
		"not-a-number": []byte(`{"v":"` + stranger + `"}`),
	} {
		task := asynq.NewTask(tasks.TaskType, payload, asynq.TaskID(id), asynq.Queue(tasks.QueueName("unimedbh", tasks.Interactive)))
		if _, err := asynq.NewClientFromRedisClient(r.rdb).Enqueue(task); err != nil {
			r.t.Fatal(err)
		}
		ids.note(status.Rejected, id, id)
	}
}

// sendLate takes a provider's messages to the other states.
func (r *rig) sendLate(server *sandbox.Server, name string, req providers.Request, ids journey) {
	r.t.Helper()
	ctx := r.t.Context()
	opts := []enqueue.Option{enqueue.IdempotencyKey(idempotencyKey + " 2"), enqueue.Campaign("novembro")}
	ids.note(status.Accepted, name, r.awaitState(r.sendTo(req, opts...), status.Accepted).ID)
	if receipt, err := r.client.Send(ctx, req, opts...); err != nil || !receipt.Repeated {
		r.t.Fatalf("Send() with the same key = %+v, %v; want the first receipt", receipt, err)
	}

	r.fault(server, name, sandbox.Fault{ErrorRate: 1, ErrorStatus: http.StatusBadRequest, ErrorBody: echo(req)})
	ids.note(status.Rejected, name, r.awaitState(r.sendTo(req), status.Rejected).ID)
	replayed := r.awaitState(r.sendTo(req, opts[1]), status.Rejected).ID

	r.fault(server, name, sandbox.Fault{ErrorRate: 1, ErrorBody: echo(req)})
	discarded := r.awaitState(r.sendTo(req, enqueue.MaxAttempts(1)), status.Exhausted).ID
	if err := r.store.DropDead(ctx, name, discarded); err != nil {
		r.t.Fatal(err)
	}
	ids.note(status.Exhausted, name, r.awaitState(r.sendTo(req, enqueue.MaxAttempts(2)), status.Exhausted).ID)

	r.fault(server, name, sandbox.Fault{})
	receipt, err := r.client.Replay(ctx, replayed)
	if err != nil {
		r.t.Fatal(err)
	}
	r.awaitState(receipt.ID, status.Accepted)

	// The last, because the worker leaves the provider alone after it.
	r.fault(server, name, sandbox.Fault{
		ErrorRate: 1, ErrorStatus: http.StatusTooManyRequests, ErrorBody: echo(req), RetryAfter: sandbox.Duration(time.Hour),
	})
	ids.note(status.Deferred, name, r.awaitState(r.sendTo(req, enqueue.ValidFor(2*time.Hour)), status.Deferred).ID)
}

func (r *rig) fault(server *sandbox.Server, provider string, f sandbox.Fault) {
	r.t.Helper()
	if err := server.SetFault(provider, f); err != nil {
		r.t.Fatal(err)
	}
}

// echo is a provider's error that repeats whom it was asked about, in several
// spellings, and with what token.
func echo(req providers.Request) string {
	values := req.Personal()
	if req.ProviderName() == "medsenior" { // the only one that is given a token
		values = append(values, sandboxToken)
	}
	var details []string
	for _, v := range values {
		details = append(details, url.QueryEscape(v), dotted(v), html.EscapeString(v), strconv.QuoteToASCII(v))
	}
	body, err := json.Marshal(map[string]any{
		"date": "2026-11-23", "message": vendorText + ": " + strings.Join(values, ", "), "details": details,
	})
	if err != nil {
		panic(err) // strings: it cannot fail
	}
	return strings.NewReplacer("+", `\u002b`, "í", `\u00ed`).Replace(string(body))
}

// wantEveryState checks that a message of each provider came to each state.
func (r *rig) wantEveryState(ids journey) {
	r.t.Helper()
	for _, state := range status.States() {
		for name := range people {
			if ids[state][name] == "" && state != status.Sending { // all that is sent was
				r.t.Errorf("no message of %s was taken to %s", name, state)
			}
		}
		for _, id := range ids[state] {
			r.awaitState(id, state)
		}
	}
}

// wantSurfaces checks that the search has before it what it is to look through.
func wantSurfaces(t *testing.T, surfaces []surface) {
	t.Helper()
	parts := map[string][]string{
		"Redis": {
			"asynq:{otpq:unimedbh:interactive}:t:", "asynq:workers:{", "otpq:idem:{", "otpq:msg:", "otpq:dead:kinpos", "otpq:expired:kinpos", "otpq:worker:",
			`"sealed":"`, `"quarantined":"`, "rate_limited", "traceparent",
		},
		"what Redis was told": {"evalsha", "asynq:workers:{", `"sealed":"`, `"quarantined":"`, "rate_limited", "queued|", "otpq:dead:medsenior"},
		"the log":             {`"level":"debug"`, `"message":"vendor replied"`, vendorText, `"state":"rejected"`, `"component":"asynq"`},
		"the metrics":         {"otpq_attempts_total", "Requests made to a provider", "unimedbh", "rate_limited"},
	}
	for i, s := range surfaces {
		surfaces[i].lower = strings.ToLower(s.text)
		for _, part := range parts[s.name] {
			if !strings.Contains(s.text, part) {
				t.Errorf("%q is not in %s: the search looks at something else", part, s.name)
			}
		}
	}
}

// wantVendorsQuotedInDebugLinesOnly: their words are shown, redacted, to who asks
// for debug lines, and kept nowhere.
func wantVendorsQuotedInDebugLinesOnly(t *testing.T, surfaces []surface) {
	t.Helper()
	for _, s := range surfaces {
		for line := range strings.Lines(s.text) {
			inDebug := strings.Contains(line, `"level":"debug"`) && strings.Contains(line, `"message":"vendor replied"`)
			if strings.Contains(line, vendorText) && (s.name != "the log" || !inDebug) {
				t.Errorf("a provider's words are in %s: %q", s.name, line)
			}
		}
	}
}

// wantTraceContextOnly checks what travels beside the payload, in the clear.
func (r *rig) wantTraceContextOnly(queued map[string]string) {
	r.t.Helper()
	for name, id := range queued {
		info, err := asynq.NewInspectorFromRedisClient(r.rdb).GetTaskInfo(tasks.QueueName(name, tasks.Interactive), id)
		if err != nil {
			r.t.Fatal(err)
		}
		headers := slices.Sorted(maps.Keys(info.Headers))
		if diff := cmp.Diff([]string{"traceparent", "tracestate"}, headers); diff != "" {
			r.t.Errorf("headers of a task of %s (-want +got):\n%s", name, diff)
		}
	}
}

// find looks for a value in every form in which it can be read, or undone by who
// guesses it, and returns what is there by form.
func (s surface) find(value string) map[string]string {
	found := map[string]string{}
	looked := map[string]bool{}
	look := func(text, form, what string) {
		if i := strings.Index(text, what); i >= 0 && !looked[what] {
			found[form] = "…" + text[max(0, i-60):min(len(text), i+len(what)+20)] + "…"
		}
		looked[what] = true
	}
	hashes := map[string][]byte{}
	for _, v := range []string{value, dotted(value)} {
		// Whoever has a list of everybody's numbers undoes a plain hash.
		sum1, sum5, sum256 := sha1.Sum([]byte(v)), md5.Sum([]byte(v)), sha256.Sum256([]byte(v))
		hashes["SHA-1 of "+v], hashes["MD5 of "+v], hashes["SHA-256 of "+v] = sum1[:], sum5[:], sum256[:]
		percent, escaped := "", ""
		for _, b := range []byte(v) {
			percent += fmt.Sprintf("%%%02x", b)
		}
		for _, c := range v {
			escaped += fmt.Sprintf("\\u%04x", c)
		}
		look(s.lower, "it is", strings.ToLower(v))
		for form, what := range map[string]string{
			"a URL's query": url.QueryEscape(v), "a URL's path": url.PathEscape(v), "percent signs": percent,
			"hex": hex.EncodeToString([]byte(v)), "a Go string": strings.Trim(strconv.QuoteToASCII(v), `"`), "JSON": escaped, "HTML": html.EscapeString(v),
		} {
			look(s.lower, form, strings.ToLower(what))
		}
		for form, what := range inBase64(v) {
			look(s.text, form, what)
		}
	}
	for form, sum := range hashes {
		look(s.text, form, string(sum))
		look(s.lower, form+" in hex", hex.EncodeToString(sum))
		look(s.text, form+" in base64", base64.RawStdEncoding.EncodeToString(sum))
		look(s.text, form+" in base64 of URLs", base64.RawURLEncoding.EncodeToString(sum))
	}
	return found
}

// inBase64 is what base64 makes of a value wherever it stands in a text: without
// the characters that what is before and after it has a part in.
func inBase64(value string) map[string]string {
	forms := map[string]string{}
	for before := range 3 {
		padded := append(make([]byte, before), value...)
		for name, enc := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64 of URLs": base64.RawURLEncoding} {
			text := enc.EncodeToString(padded)
			if len(padded)%3 != 0 {
				text = text[:len(text)-1]
			}
			forms[fmt.Sprint(name, " after ", before)] = text[[]int{0, 2, 3}[before]:]
		}
	}
	return forms
}

var cpf = regexp.MustCompile(`\b(\d{3})(\d{3})(\d{3})(\d{2})\b`)

// dotted is a text with each CPF in it as people write it.
func dotted(text string) string { return cpf.ReplaceAllString(text, "$1.$2.$3-$4") }

// monitor notes every word that Redis is sent, scripts' own calls included, until
// the test ends. What it returns tells them, each once.
func (r *rig) monitor() func() string {
	r.t.Helper()
	conn, err := new(net.Dialer).DialContext(r.t.Context(), "tcp", r.redis.Addr())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	lines := bufio.NewReader(conn)
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		r.t.Fatal(err)
	}
	if line, err := lines.ReadString('\n'); err != nil || line != "+OK\r\n" {
		r.t.Fatalf("MONITOR = %q, %v", line, err)
	}
	var mu sync.Mutex
	words := map[string]bool{}
	quoted := regexp.MustCompile(`"(?:[^"\\]|\\.)*"`)
	go func() {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			mu.Lock()
			for _, q := range quoted.FindAllString(line, -1) {
				word, err := strconv.Unquote(q)
				if err != nil {
					word = q
				}
				words[word] = true
			}
			mu.Unlock()
		}
	}()
	return func() string {
		r.t.Helper()
		const end = "all that was said before this"
		if err := r.rdb.Echo(r.t.Context(), end).Err(); err != nil {
			r.t.Fatal(err)
		}
		eventually(r.t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return words[end]
		}, func() string { return "Redis stopped telling what it is told" })
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(slices.Sorted(maps.Keys(words)), "\n")
	}
}

// gather returns every metric with its name, its help and its labels.
func gather(t *testing.T, registry *prometheus.Registry) string {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, f := range families {
		fmt.Fprintln(&b, f)
	}
	return b.String()
}

// dump returns every key of Redis with its value.
func (r *rig) dump() string {
	r.t.Helper()
	text, err := dumpRedis(r.t.Context(), r.rdb)
	if err != nil {
		r.t.Fatal(err)
	}
	return text
}

func dumpRedis(ctx context.Context, rdb redis.Cmdable) (string, error) {
	var b strings.Builder
	keys, err := rdb.Keys(ctx, "*").Result()
	if err != nil {
		return "", err
	}
	for _, k := range keys {
		var v any
		var err error
		kind, typeErr := rdb.Type(ctx, k).Result()
		if typeErr != nil {
			return "", typeErr
		}
		switch kind {
		case "string":
			v, err = rdb.Get(ctx, k).Result()
		case "hash":
			v, err = rdb.HGetAll(ctx, k).Result()
		case "list":
			v, err = rdb.LRange(ctx, k, 0, -1).Result()
		case "set":
			v, err = rdb.SMembers(ctx, k).Result()
		case "zset":
			v, err = rdb.ZRangeWithScores(ctx, k, 0, -1).Result()
		case "stream":
			v, err = rdb.XRange(ctx, k, "-", "+").Result()
		case "none": // it went since
		default:
			return "", fmt.Errorf("key %s has type %q, which the search does not read", k, kind)
		}
		if err != nil && !errors.Is(err, redis.Nil) {
			return "", err
		}
		fmt.Fprintln(&b, k, v)
	}
	return b.String(), nil
}

func TestTheSearchReadsEveryTypeOfRedis(t *testing.T) {
	r := newRig(t)
	ctx := t.Context()
	told := r.monitor()
	_, err := r.rdb.Pipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, "in a key", "in a string", 0)
		p.HSet(ctx, "h", "in a field", "in a hash")
		p.RPush(ctx, "l", "in a list")
		p.SAdd(ctx, "s", "in a set")
		p.ZAdd(ctx, "z", redis.Z{Score: 52998224725, Member: "in a zset"})
		p.XAdd(ctx, &redis.XAddArgs{Stream: "x", Values: []string{"in a name", "in a stream \xff\"í"}})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"the dump": r.dump(), "the monitor": told()} {
		for _, want := range []string{
			"in a key", "in a string", "in a field", "in a hash", "in a list", "in a set", "in a zset", "in a name", "in a stream \xff\"í",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s lacks %q", name, want)
			}
		}
	}
}

func TestTheSearchFindsAValueInEveryForm(t *testing.T) {
	values := []string{"52998224725", "maria+silva.souza@exemplo.com.br", "Rodríguez Peña"}
	forms := map[string]func(string) string{
		"as it is":        func(v string) string { return v },
		"in capitals":     strings.ToUpper,
		"with dots":       dotted,
		"in a query":      func(v string) string { return "?q=" + url.QueryEscape(v) },
		"in a path":       func(v string) string { return "/" + url.PathEscape(v) },
		"in hex":          func(v string) string { return fmt.Sprintf("%X", v) },
		"in Go":           strconv.QuoteToASCII,
		"in HTML":         html.EscapeString,
		"hashed":          func(v string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(v))) },
		"hashed, base64":  func(v string) string { sum := md5.Sum([]byte(v)); return base64.StdEncoding.EncodeToString(sum[:]) },
		"hashed, in dots": func(v string) string { return fmt.Sprintf("%x", sha1.Sum([]byte(dotted(v)))) },
	}
	for n := range 7 {
		forms[fmt.Sprint("in base64 after ", n)] = func(v string) string {
			return base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", n) + v + "and more"))
		}
		forms[fmt.Sprint("last in base64 of URLs after ", n)] = func(v string) string {
			return base64.URLEncoding.EncodeToString([]byte(strings.Repeat("?", n) + v))
		}
	}
	for name, form := range forms {
		for _, v := range values {
			text := "before " + form(v) + " after"
			s := surface{text: text, lower: strings.ToLower(text)}
			if len(s.find(v)) == 0 {
				t.Errorf("%s: %q is not found in %q", name, v, text)
			}
			if found := s.find("outra.pessoa@exemplo.com.br"); len(found) > 0 {
				t.Errorf("%s: somebody else is found in %q: %v", name, text, found)
			}
		}
	}
}
