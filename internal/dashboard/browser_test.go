package dashboard_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/internal/dashboard"
	"github.com/otpq/otpq/status"
)

const (
	// chromiumEnv names the Chromium to start; without it PATH is searched.
	chromiumEnv = "OTPQ_TEST_CHROMIUM"
	// screenshotsEnv names a folder for pictures of the pages, for people to look at.
	screenshotsEnv = "OTPQ_TEST_SCREENSHOTS"
)

func findChromium(t *testing.T) string {
	t.Helper()
	if path := os.Getenv(chromiumEnv); path != "" {
		return path
	}
	for _, name := range []string{
		"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
		"/Applications/Chromium.app/Contents/MacOS/Chromium", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
	} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("this test needs a real Chromium; run it with `make test`, which installs one")
	return ""
}

// browser is a running Chromium.
type browser struct{ ctx context.Context }

// startBrowser starts a Chromium that ends with the test.
func startBrowser(t *testing.T) browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(findChromium(t)),
		chromedp.NoSandbox, // tests run as root in containers
		chromedp.Flag("disable-gpu", true),
		chromedp.Flag("disable-component-update", true),
		// Whatever the browser itself would like to ask, it finds nobody.
		chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
		chromedp.WSURLReadTimeout(patience),
	)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...) //nolint:usetesting // it outlives the test's own until it has ended
	ctx, cancel := chromedp.NewContext(ctx)
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // asks it to close
		cancel()
		stop() // ends the process and waits for it
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	return browser{ctx}
}

// tab is a page in the browser, and what it did.
type tab struct {
	t    *testing.T
	ctx  context.Context
	root string

	mu       sync.Mutex
	requests []string
	problems []string
}

// tab opens a tab that sends the password along.
func (b browser) tab(t *testing.T, root string) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(b.ctx)
	t.Cleanup(cancel)
	p := &tab{t: t, root: root}
	if err := chromedp.Listen(ctx, p.note); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	// Only now: the tab would end with the context that it is opened with.
	p.ctx, cancel = context.WithTimeout(ctx, 10*patience)
	t.Cleanup(cancel)
	call(p, network.Enable, network.EnableParams{})
	call(p, log.Enable, cdp.Empty{})
	call(p, network.SetExtraHTTPHeaders, network.SetExtraHTTPHeadersParams{Headers: network.Headers{"Authorization": basicHeader}})
	return p
}

// note keeps what the page asked for and complained about.
func (p *tab) note(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *network.EventRequestWillBeSent:
		p.requests = append(p.requests, e.Request.URL)
	case *network.EventResponseReceived:
		if e.Response.Status >= 400 {
			p.problems = append(p.problems, fmt.Sprintf("%d for %s", e.Response.Status, e.Response.URL))
		}
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			p.problems = append(p.problems, e.Entry.Text+" "+e.Entry.URL)
		}
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			for _, a := range e.Args {
				p.problems = append(p.problems, string(a.Value))
			}
		}
	case *runtime.EventExceptionThrown:
		p.problems = append(p.problems, e.ExceptionDetails.Text)
	}
}

// call sends a command to the browser.
func call[P, R any](p *tab, cmd cdp.Command[P, R], params P) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, cmd, params); err != nil {
		p.t.Fatal(err)
	}
}

// run acts in the page.
func run[V any](p *tab, action chromedp.Action[V]) V {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, action)
	if err != nil {
		p.t.Fatal(err)
	}
	return v
}

// eval runs JavaScript in the page.
func eval[V any](p *tab, script string) V {
	p.t.Helper()
	return run(p, chromedp.Evaluate[V](script))
}

// open goes to a page and waits for the words.
func (p *tab) open(at string, words ...string) {
	p.t.Helper()
	run(p, chromedp.Navigate(p.root+at))
	p.wait(words...)
}

// wait waits until the page shows all of the words.
func (p *tab) wait(words ...string) {
	p.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(patience)
	for _, w := range words {
		for {
			// It fails while one page gives way to another.
			text, err := chromedp.Run(p.ctx, chromedp.Evaluate[string]("document.body.innerText"))
			if err == nil && strings.Contains(text, w) {
				break
			}
			if time.Now().After(end) {
				p.t.Fatalf("the page never shows %q: %v\n%s", w, err, text)
			}
			<-tick.C
		}
	}
}

// check fails when the page asked elsewhere, complained or names anybody.
func (p *tab) check(what string) {
	p.t.Helper()
	html := eval[string](p, "document.documentElement.outerHTML")
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, asked := range p.requests {
		if u, err := url.Parse(asked); err != nil || u.Scheme != "data" && u.Hostname() != "127.0.0.1" {
			p.t.Errorf("%s asks %s", what, asked)
		}
	}
	for _, problem := range p.problems {
		p.t.Errorf("%s: the browser complains: %s", what, problem)
	}
	p.requests, p.problems = nil, nil
	for _, name := range personal {
		if strings.Contains(strings.ToLower(html), name) {
			p.t.Errorf("%s names a person (%s)", what, name)
		}
	}
	for _, sealed := range []string{`"sealed"`, "created_ms"} {
		if strings.Contains(html, sealed) {
			p.t.Errorf("%s shows a payload as it is (%s)", what, sealed)
		}
	}
}

// picture keeps a screenshot, when somebody wants to look.
func (p *tab) picture(name string) {
	p.t.Helper()
	dir := os.Getenv(screenshotsEnv)
	if dir == "" {
		return
	}
	png := run(p, chromedp.FullScreenshot(100))
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		p.t.Error(err)
	}
}

func (p *tab) size(width, height int64) {
	p.t.Helper()
	run(p, chromedp.EmulateViewport(width, height))
}

func (p *tab) scheme(name string) {
	p.t.Helper()
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}},
	})
}

// focus presses Tab until an element that matches the selector has the focus.
func (p *tab) focus(selector string) {
	p.t.Helper()
	for range 60 {
		run(p, chromedp.KeyEvent(kb.Tab))
		if eval[bool](p, fmt.Sprintf("document.activeElement.matches(%q)", selector)) {
			if eval[string](p, "getComputedStyle(document.activeElement).outlineStyle") == "none" {
				p.t.Errorf("nobody sees that %s has the focus", selector)
			}
			return
		}
	}
	p.t.Fatalf("Tab never reaches %s", selector)
}

// contrasts finds text that is hard to read: WCAG wants 4.5 to 1.
const contrasts = `(() => {
	const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
	const rgb = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
	const light = c => { const [r, g, b] = c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
	const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] === 255) return c; } return [255, 255, 255]; };
	const bad = [];
	for (const e of document.querySelectorAll("body *")) {
		if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || e.closest(".skip, .hidden")) continue;
		const a = light(rgb(getComputedStyle(e).color)), b = light(ground(e));
		const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
		if (ratio < 4.5) bad.push(e.tagName + " " + e.className + " " + ratio.toFixed(2) + " " + e.textContent.trim().slice(0, 30));
	}
	return bad;
})()`

func TestInARealBrowser(t *testing.T) {
	prometheus := fakePrometheus(t, func(string) string { return twoProcesses })
	r := newRig(t, withWrite, withAuth(oneUser(t)), func(_ *rig, c *dashboard.Config) { c.Prometheus = prometheus })
	pending := r.send(enqueue.Campaign("november"))
	dead := r.bury("unimedbh", status.Unknown, "timeout", time.Now())
	r.bury("kinpos", status.Rejected, "recipient_unknown", time.Now())
	r.foreign("mails")
	r.haunt()
	r.addCampaign("november", 3)
	r.addCampaign(strings.Repeat("w", 56), 3)
	if err := errors.Join(r.campaigns.Start(t.Context(), "november", true), r.campaigns.Pause(t.Context(), "november")); err != nil {
		t.Fatal(err)
	}
	chromium := startBrowser(t)

	ours := map[string][]string{
		"/deliveries":                              {"unimedbh", "breaker unknown"},
		"/deliveries/message?id=" + pending:        {"Why is it waiting?", pending},
		"/deliveries/message?id=" + dead:           {"It is a dead letter", "Timeline"},
		"/deliveries/dead":                         {dead, masked},
		"/deliveries/act?do=replay&id=" + dead:     {"Replay this dead letter?"},
		"/deliveries/dead?state=rejected":          {"recipient_unknown"},
		"/deliveries/campaigns?refresh=3":          {"november", "Somebody paused it", "0 of 4"},
		"/deliveries?refresh=10":                   {"Stop reloading"},
		"/deliveries/dead?provider=medsenior":      {"There are none like that"},
		"/deliveries/act?do=discard&id=" + dead:    {"Discard this dead letter?"},
		"/deliveries/message?refresh=3&id=" + dead: {"Timeline"},
	}

	t.Run("our pages load, need nothing from elsewhere and name nobody", func(t *testing.T) {
		p := chromium.tab(t, r.server.URL)
		for at, words := range ours {
			p.open(at, words...)
			p.check(at)
		}
	})

	t.Run("Asynqmon works with no internet, and shows summaries", func(t *testing.T) {
		p := chromium.tab(t, r.server.URL)
		p.size(1300, 900)
		for i, page := range []struct {
			at    string
			words []string
		}{
			{"/asynqmon/", []string{queue, "Tasks Processed", "mails"}},
			{"/asynqmon/queues/" + queue + "?status=pending", []string{"unimedbh, interactive", "sealed with key 2026-11", "campaign november"}},
			{"/asynqmon/queues/" + queue + "?status=retry", []string{"Queue state"}},
			{"/asynqmon/queues/" + queue + "/tasks/" + pending, []string{"sealed with key 2026-11"}},
			{"/asynqmon/queues/mails?status=pending", []string{"not an otpq message"}},
			{"/asynqmon/servers", []string{"Servers"}},
			{"/asynqmon/schedulers", []string{"Schedulers"}},
			{"/asynqmon/redis", []string{"Redis Info"}},
			{"/asynqmon/settings", []string{"Settings", "Polling Interval"}},
			{"/asynqmon/q/metrics", []string{"Tasks Processed", "Archived Tasks"}},
		} {
			p.open(page.at, page.words...)
			p.check(page.at)
			if !eval[bool](p, `[...document.fonts].some(f => f.family === "Roboto" && f.status === "loaded")`) {
				t.Errorf("%s does not show in the font that it is made for", page.at)
			}
			if i < 3 {
				p.picture(fmt.Sprintf("asynqmon-%d", i))
			}
		}
		// Nine charts, and a and b in each once.
		if got := eval[int](p, `document.querySelectorAll(".recharts-legend-item").length`); got != 9*2 {
			t.Errorf("the metrics view names %d curves, want 18", got)
		}
		if !eval[bool](p, `[...document.images].every(i => i.complete && i.naturalWidth > 0)`) {
			t.Error("a picture is not shown")
		}
	})

	t.Run("our pages can be used at 400 pixels, by day and by night", func(t *testing.T) {
		p := chromium.tab(t, r.server.URL)
		i := 0
		for at, words := range ours {
			i++
			for _, scheme := range []string{"light", "dark"} {
				p.scheme(scheme)
				for _, width := range []int64{400, 1200} {
					p.size(width, 800)
					p.open(at, words...)
					if got := eval[int64](p, "document.documentElement.scrollWidth"); got > width {
						t.Errorf("%s is %d pixels wide at %d", at, got, width)
					}
					p.picture(fmt.Sprintf("%s-%s-%d", strings.NewReplacer("/", "_", "?", "_", "&", "_", dead, "dead", pending, "pending").Replace(at), scheme, width))
				}
				if bad := eval[[]string](p, contrasts); len(bad) > 0 {
					t.Errorf("%s, %s: hard to read: %q", at, scheme, bad)
				}
				dark := eval[bool](p, `getComputedStyle(document.documentElement).backgroundColor.match(/\d+/)[0] < 100`)
				if dark != (scheme == "dark") {
					t.Errorf("%s is dark %v where people want it %s", at, dark, scheme)
				}
			}
			p.check(at)
		}
	})

	t.Run("a dead letter is replayed by keyboard alone", func(t *testing.T) {
		p := chromium.tab(t, r.server.URL)
		p.open("/deliveries/dead", dead)
		p.focus(`a.skip`) // the first, for those who hear the page
		p.focus(`input[type=checkbox][value="` + dead + `"]`)
		run(p, chromedp.KeyEvent(" "))
		p.focus(`button[value=replay]`)
		run(p, chromedp.KeyEvent(kb.Enter))
		p.wait("Replay this dead letter?", "may have been sent already")
		p.focus(`button.primary`)
		run(p, chromedp.KeyEvent(kb.Enter))
		p.wait("Replay of", "Why is it waiting?")
		p.check("the replay")
	})

	t.Run("somebody's messages are found by keyboard alone", func(t *testing.T) {
		p := chromium.tab(t, r.server.URL)
		p.size(400, 800)
		p.open("/deliveries", "Find a recipient's messages")
		p.focus(`select[name=provider]`)
		run(p, chromedp.KeyEvent("u")) // as in unimedbh
		p.focus(`input[name=recipient]`)
		run(p, chromedp.KeyEvent(person))
		run(p, chromedp.KeyEvent(kb.Enter))
		p.wait("found among the", pending, masked)
		for _, scheme := range []string{"light", "dark"} {
			p.scheme(scheme)
			if got := eval[int64](p, "document.documentElement.scrollWidth"); got > 400 {
				t.Errorf("the page is %d pixels wide at 400", got)
			}
			if bad := eval[[]string](p, contrasts); len(bad) > 0 {
				t.Errorf("%s: hard to read: %q", scheme, bad)
			}
			p.picture("found-" + scheme)
		}
		if at := eval[string](p, "location.href"); at != r.server.URL+"/deliveries/find" {
			t.Errorf("the address is %s", at)
		}
		p.check("the messages found")
		p.focus(`main a[href="/deliveries/message?id=` + pending + `"]`)
		run(p, chromedp.KeyEvent(kb.Enter))
		p.wait("Why is it waiting?", pending)
		p.check("the message found")
	})

	t.Run("the pages of a read-only dashboard offer nothing that changes anything", func(t *testing.T) {
		readOnly := r.serve(withAuth(oneUser(t)))
		p := chromium.tab(t, readOnly.URL)
		p.open("/deliveries/dead", "kinpos")
		if got := eval[int](p, `document.querySelectorAll("input[type=checkbox], button[name=do]").length`); got != 0 {
			t.Errorf("there are %d things to act with", got)
		}
		p.open("/asynqmon/", queue)
		p.check("the read-only pages")
	})
}

func TestChromiumEndsWithItsTest(t *testing.T) {
	var process *os.Process
	t.Run("a test", func(t *testing.T) {
		process = chromedp.FromContext(startBrowser(t).ctx).Browser.Process()
	})
	if err := process.Signal(os.Interrupt); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Chromium (pid %d) still runs: %v", process.Pid, err)
	}
}

const basicHeader = "Basic YW5hOmNvcnJlY3QgaG9yc2UgYmF0dGVyeQ==" // ana:correct horse battery
