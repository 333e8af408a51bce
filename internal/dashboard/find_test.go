package dashboard_test

import (
	"html"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/dashboard"
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/kinpos"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/providers/unimedbh"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
)

// find asks for a recipient's messages.
func (r *rig) find(provider, recipient string) page {
	r.t.Helper()
	return r.do(r.server, http.MethodPost, "/deliveries/find", url.Values{"provider": {provider}, "recipient": {recipient}})
}

// found are the ids on a page, in its order.
func (p page) found() (ids []string) {
	for _, m := range idLink.FindAllStringSubmatch(p.body, -1) {
		ids = append(ids, m[1])
	}
	return ids
}

var hiddenField = regexp.MustCompile(`<input type="hidden" name="([^"]*)" value="([^"]*)">`)

// goOn is the form that goes on with a search; nil when it is over.
func (p page) goOn() url.Values {
	if !strings.Contains(p.body, "Go on searching") {
		return nil
	}
	form := url.Values{}
	for _, m := range hiddenField.FindAllStringSubmatch(p.body, -1) {
		form.Set(m[1], html.UnescapeString(m[2]))
	}
	return form
}

func TestMessagesAreFoundByTheirRecipientInAReadOnlyDashboard(t *testing.T) {
	t.Parallel()
	r := newRig(t, withAuth(oneUser(t)))
	signIn := func(q *http.Request) { q.SetBasicAuth("ana", "correct horse battery") }
	send := func(q providers.Request) string {
		receipt, err := r.client.Send(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return receipt.ID
	}
	ids := map[string]string{
		"user":  r.send(),
		"cpf":   send(medsenior.Request{CPF: "11987654321", CelularID: "c", PrimeiroAcesso: new(false)}),
		"phone": send(kinpos.Request{InternationalPrefix: "00055", MobileNumber: "11987654321"}),
		"mail":  send(kinpos.Request{EmailAddress: person}),
	}
	send(unimedbh.Request{Username: "somebody@example.com", Type: "EMAIL"})
	before := r.contents()
	for _, c := range []struct{ provider, text, want string }{
		{"unimedbh", " Maria.Souza@Example.com ", "user"},
		{"medsenior", "119.876.543-21", "cpf"},
		{"kinpos", "+00055 11 98765-4321", "phone"},
		{"kinpos", person, "mail"},
	} {
		form := url.Values{"provider": {c.provider}, "recipient": {c.text}}
		p := r.do(r.server, http.MethodPost, "/deliveries/find", form, signIn).want(t, http.StatusOK, "the 5 records searched")
		if got := p.found(); !slices.Equal(got, []string{ids[c.want]}) {
			t.Errorf("%s %q: found %q, want %s", c.provider, c.text, got, ids[c.want])
		}
		if got := p.header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("the page may be kept: %q", got)
		}
		p.without(t, strings.TrimSpace(c.text))
	}
	p := r.do(r.server, http.MethodPost, "/deliveries/find", url.Values{"provider": {"unimedbh"}, "recipient": {"no" + person}}, signIn)
	p.want(t, http.StatusOK, "None of unimedbh's among the 5 records searched")
	r.do(r.server, http.MethodPost, "/deliveries/find", url.Values{"provider": {"unimedbh"}, "recipient": {person}}).want(t, http.StatusUnauthorized)
	if after := r.contents(); after != before {
		t.Error("a search has changed Redis")
	}
	r.nobodyIn("the log", r.log.String())
	if log := r.log.String(); log != "" {
		t.Errorf("a search gets into the log: %s", log)
	}
}

func TestASearchGoesOnWithoutSayingForWhom(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	want := []string{}
	for range 3 {
		var items []enqueue.Item
		for range 1000 {
			items = append(items, enqueue.Item{Request: unimedbh.Request{Username: person, Type: "EMAIL"}})
		}
		results, err := r.client.SendBatch(t.Context(), items)
		if err != nil {
			t.Fatal(err)
		}
		for _, result := range results {
			want = append(want, result.Receipt.ID)
		}
	}
	p := r.find("unimedbh", person).want(t, http.StatusOK, "records searched so far", masked)
	got, pages := p.found(), 1
	for form := p.goOn(); form != nil; form = p.goOn() {
		if form.Has("recipient") {
			t.Error("the form holds the recipient")
		}
		p = r.do(r.server, http.MethodPost, "/deliveries/find", form).want(t, http.StatusOK)
		got = append(got, p.found()...)
		pages++
	}
	slices.Sort(want)
	slices.Sort(got)
	if got = slices.Compact(got); !slices.Equal(got, want) || pages < 4 {
		t.Errorf("%d found on %d pages, want all %d on several", len(got), pages, len(want))
	}
	p.want(t, http.StatusOK, "the 3000 records searched.")

	form := r.find("unimedbh", person).goOn()
	for name, change := range map[string]url.Values{
		"another Redis's cursor": {"from": {"other.0.17"}},
		"no cursor":              {"from": {person}},
	} {
		asked := url.Values{"provider": {"unimedbh"}, "prints": form["prints"], "from": change["from"]}
		r.do(r.server, http.MethodPost, "/deliveries/find", asked).want(t, http.StatusConflict, "search again").without(t, name)
	}
	form.Set("prints", "nonsense")
	r.do(r.server, http.MethodPost, "/deliveries/find", form).want(t, http.StatusBadRequest)
}

func TestWhatWasQueuedBeforeARotationIsFound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	before := r.send()
	newKey := tasks.Key{ID: "2026-12", Secret: tasks.GenerateSecret()}
	client, err := enqueue.Open(enqueue.Config{RedisURL: r.url, Keys: []tasks.Key{newKey, r.key}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	receipt, err := client.Send(t.Context(), unimedbh.Request{Username: person, Type: "EMAIL"})
	if err != nil {
		t.Fatal(err)
	}
	both, err := tasks.NewKeyring(newKey, r.key)
	if err != nil {
		t.Fatal(err)
	}
	rotated := r.serve(func(_ *rig, c *dashboard.Config) { c.Keys = both })
	p := r.do(rotated, http.MethodPost, "/deliveries/find", url.Values{"provider": {"unimedbh"}, "recipient": {person}})
	if got, want := p.found(), []string{receipt.ID, before}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q, the newest first", got, want)
	}
	// A dead letter's replay is found as well: it has what the letter had.
	letter := r.send()
	r.kill(letter)
	replayed, err := client.Replay(t.Context(), letter)
	if err != nil {
		t.Fatal(err)
	}
	p = r.do(rotated, http.MethodPost, "/deliveries/find", url.Values{"provider": {"unimedbh"}, "recipient": {person}})
	if !slices.Contains(p.found(), replayed.ID) || !slices.Contains(p.found(), letter) {
		t.Errorf("found %q, want %s and its replay %s", p.found(), letter, replayed.ID)
	}
}

// kill makes a dead letter of a message that waits.
func (r *rig) kill(id string) {
	r.t.Helper()
	task, err := asynq.NewInspectorFromRedisClient(r.rdb).GetTaskInfo(queue, id)
	if err != nil {
		r.t.Fatal(err)
	}
	err = r.store.Move(r.t.Context(), status.Move{
		ID: id, Provider: "unimedbh", To: status.Rejected, Reason: "invalid_request", Payload: task.Payload, Now: time.Now(),
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestWhatIsNoRecipientIsRefusedAndNotRepeated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.find("medsenior", person).want(t, http.StatusBadRequest, "no recipient of medsenior", "CPF, with or without dots")
	r.find("unimedbh", strings.Repeat(person, 20)).want(t, http.StatusBadRequest)
	r.find("unimedbh", "").want(t, http.StatusBadRequest)
	r.find(person, person).want(t, http.StatusBadRequest, "no such provider")
	r.find("unimedbh", strings.Repeat("x", 70_000)).want(t, http.StatusBadRequest, "cannot be read")
	// Addresses are logged: what is in one is not looked at.
	r.do(r.server, http.MethodPost, "/deliveries/find?provider=unimedbh&recipient="+url.QueryEscape(person), url.Values{}).want(t, http.StatusBadRequest)
	if p := r.get("/deliveries/find?provider=unimedbh&recipient=x"); p.code != http.StatusSeeOther || p.header.Get("Location") != "/deliveries" {
		t.Errorf("GET = %d to %q, want the way back to the form", p.code, p.header.Get("Location"))
	}
	r.redis.Stop()
	r.find("unimedbh", person).want(t, http.StatusServiceUnavailable, "Redis did not answer")
	r.nobodyIn("the log", r.log.String())
}

func TestTheFormIsThereWithKeysAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.get("/deliveries").want(t, http.StatusOK, `action="/deliveries/find" method="post" autocomplete="off"`,
		`name="recipient" required maxlength="300" autocomplete="off"`, "medsenior: CPF")
	without := r.serve(func(_ *rig, c *dashboard.Config) { c.Keys = nil })
	r.do(without, http.MethodGet, "/deliveries", nil).want(t, http.StatusOK, "has no sealing keys").without(t, `name="recipient"`)
	r.do(without, http.MethodPost, "/deliveries/find", url.Values{"provider": {"unimedbh"}, "recipient": {person}}).
		want(t, http.StatusNotFound, "no sealing keys")
}
