package dashboard

import (
	"bytes"
	"context"
	"embed"
	"html/template"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/otpq/otpq/internal/overview"
	"github.com/otpq/otpq/status"
	"github.com/otpq/otpq/tasks"
	"github.com/otpq/otpq/worker"
)

// deliveriesRoot is where our own pages are.
const deliveriesRoot = "/deliveries"

// pageTimeout bounds what a page asks of Redis.
const pageTimeout = 5 * time.Second

// link is an entry of the navigation.
type link struct{ Path, Title string }

const campaignsPath = deliveriesRoot + "/campaigns"

// navigation leads to each page; [Dashboard.addPages] has the handlers in the same
// order.
var navigation = []link{
	{deliveriesRoot, "Providers"},
	{deliveriesRoot + "/dead", "Dead letters"},
	{campaignsPath, "Campaigns"},
	{asynqmonRoot + "/", "Queues"},
}

func (d *Dashboard) addPages(mux *http.ServeMux) {
	mux.Handle("GET /{$}", http.RedirectHandler(deliveriesRoot, http.StatusSeeOther))
	mux.Handle("GET "+deliveriesRoot+"/{$}", http.RedirectHandler(deliveriesRoot, http.StatusSeeOther))
	mux.Handle("GET "+asynqmonRoot, http.RedirectHandler(asynqmonRoot+"/", http.StatusSeeOther))
	mux.Handle("GET "+assetsRoot, serveAssets())

	mux.HandleFunc("GET "+deliveriesRoot, d.page(d.showProviders))
	mux.HandleFunc("GET "+deliveriesRoot+"/message", d.page(d.showMessage))
	mux.HandleFunc("GET "+deliveriesRoot+"/dead", d.page(d.listDead))
	mux.HandleFunc("GET "+campaignsPath, d.page(d.listCampaigns))
	// In a POST alone: addresses are logged, and kept by browsers.
	mux.HandleFunc("POST "+findPath, d.page(d.findRecipient))
	mux.Handle("GET "+findPath, http.RedirectHandler(deliveriesRoot, http.StatusSeeOther))
	mux.HandleFunc("GET "+deliveriesRoot+"/act", d.page(d.confirm))
	mux.HandleFunc("POST "+deliveriesRoot+"/act", d.page(d.act))
}

// view is what a template shows.
type view struct {
	template string
	code     int // zero is 200

	Title string
	Path  string // of the entry in the navigation
	Nav   []link
	User  string
	Write bool
	Now   time.Time
	// Refresh is after how many seconds the page is loaded again; zero is never.
	Refresh int
	Data    any
}

// problem is what the error page says.
type problem struct{ Message, Advice string }

func failed(code int, message, advice string) view {
	return view{template: "problem", code: code, Title: http.StatusText(code), Data: problem{message, advice}}
}

// page makes a handler of what makes a view.
func (d *Dashboard) page(show func(ctx context.Context, r *http.Request) (view, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), pageTimeout)
		defer cancel()
		v, err := show(ctx, r)
		if err != nil {
			d.cfg.Log.Error().Err(err).Str("page", r.URL.Path).Msg("a page of the dashboard failed")
			v = failed(http.StatusServiceUnavailable, "Redis did not answer as it should.", "Try again in a moment; the log of the dashboard says more.")
		}
		if to, ok := v.Data.(redirect); ok {
			http.Redirect(w, r, string(to), http.StatusSeeOther)
			return
		}
		v.Nav, v.User, v.Write, v.Now = navigation, userOf(r.Context()), d.cfg.Act != nil, d.cfg.Now().UTC()
		if v.Path == "" {
			v.Path = deliveriesRoot
		}
		var page bytes.Buffer
		if err := templates[v.template].ExecuteTemplate(&page, "page", v); err != nil {
			d.cfg.Log.Error().Err(err).Str("page", r.URL.Path).Msg("a page of the dashboard failed")
			http.Error(w, "This page cannot be shown.", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if v.code != 0 {
			w.WriteHeader(v.code)
		}
		_, _ = w.Write(page.Bytes())
	}
}

// redirect is the data of a view that is elsewhere.
type redirect string

// providersData is what the page of the providers shows.
type providersData struct {
	Providers []providerRow
	Workers   int // that serve any of them
	Find      findForm
}

type providerRow struct {
	overview.Provider
	Lanes []laneRow
}

type laneRow struct {
	Name string
	overview.Lane
}

// Oldest is for how long the oldest pending message has been ready.
func (l laneRow) Oldest() string {
	if l.Pending == 0 {
		return "–"
	}
	return span(time.Duration(l.OldestSeconds * float64(time.Second)))
}

// BreakerWords says how the breaker is.
func (p providerRow) BreakerWords(now time.Time) string {
	switch p.Breaker.State {
	case worker.BreakerClosed:
		return "closed: messages are sent"
	case worker.BreakerHalfOpen:
		return "half-open: a request tries whether the provider works again"
	case worker.BreakerOpen:
		return "open for " + span(p.Breaker.OpenUntil.Sub(now)) + ", until " + clock(p.Breaker.OpenUntil)
	}
	return "not known: no running worker serves this provider"
}

// Limit says how many requests there may be.
func (p providerRow) Limit() string {
	if p.RateLimit.Limit == 0 {
		return "none"
	}
	return strconv.Itoa(p.RateLimit.Limit) + " in " + p.RateLimit.Period
}

// Badge is the class of the breaker's colour.
func (p providerRow) Badge() string {
	switch p.Breaker.State {
	case worker.BreakerClosed:
		return "good"
	case worker.BreakerHalfOpen:
		return "wait"
	case worker.BreakerOpen:
		return "bad"
	}
	return "plain"
}

func (d *Dashboard) showProviders(ctx context.Context, r *http.Request) (view, error) {
	all, err := overview.Read(ctx, d.cfg.Redis, d.cfg.Providers, d.cfg.Now())
	if err != nil {
		return view{}, err
	}
	data := providersData{Find: d.findForm("")}
	workers := map[string]worker.BreakerPresence{}
	for _, p := range all {
		maps.Copy(workers, p.Breaker.Workers)
		row := providerRow{Provider: p}
		for _, lane := range tasks.Lanes() {
			row.Lanes = append(row.Lanes, laneRow{string(lane), p.Lanes[string(lane)]})
		}
		data.Providers = append(data.Providers, row)
	}
	data.Workers = len(workers)
	v := view{template: "providers", Title: "Providers", Data: data}
	if r.URL.Query().Get("refresh") == "10" {
		v.Refresh = 10
	}
	return v, nil
}

//go:embed templates
var templateFiles embed.FS

var templates = func() map[string]*template.Template {
	shared := template.Must(template.New("").Funcs(template.FuncMap{
		"stamp": stamp, "clock": clock, "span": span, "rfc3339": func(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) },
		"badge": stateBadge, "words": reasonWords, "message": messageLink,
	}).ParseFS(templateFiles, "templates/page.html"))
	out := map[string]*template.Template{}
	for _, name := range []string{"providers", "message", "dead", "campaigns", "found", "confirm", "done", "problem"} {
		out[name] = template.Must(template.Must(shared.Clone()).ParseFS(templateFiles, "templates/"+name+".html"))
	}
	return out
}()

// stateBadge is the class of a state's colour.
func stateBadge(s status.State) string {
	switch s {
	case status.Accepted:
		return "good"
	case status.Rejected, status.Exhausted, status.Unknown, status.Expired:
		return "bad"
	case status.Deferred, status.Queued, status.Sending:
		return "wait"
	case status.Canceled:
	}
	return "plain"
}

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05.000 UTC")
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 UTC") }

// span says a duration in at most two units.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 10*time.Millisecond && d > 0:
		return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + " ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < 10*time.Second:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	}
	d = d.Round(time.Second)
	for _, unit := range []struct {
		size, below       time.Duration
		name, smallerName string
	}{
		{24 * time.Hour, time.Hour, "d", "h"}, {time.Hour, time.Minute, "h", "min"}, {time.Minute, time.Second, "min", "s"},
	} {
		if d < unit.size {
			continue
		}
		s := strconv.FormatInt(int64(d/unit.size), 10) + " " + unit.name
		if rest := d % unit.size / unit.below; rest > 0 {
			s += " " + strconv.FormatInt(int64(rest), 10) + " " + unit.smallerName
		}
		return s
	}
	return strconv.FormatInt(int64(d/time.Second), 10) + " s"
}
