package dashboard

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hibiken/asynqmon"
	"github.com/redis/go-redis/v9"

	"github.com/otpq/otpq/tasks"
)

// asynqmonRoot is where Asynqmon is.
const asynqmonRoot = "/asynqmon"

const (
	// maxPage is the longest list that Asynqmon's own pages ask for.
	maxPage = 100
	// apiAtOnce bounds what all open pages together ask of Redis at a time.
	apiAtOnce = 8
	// metricsAtOnce bounds the questions to a Prometheus, which Asynqmon asks with
	// no time limit.
	metricsAtOnce = 4
)

// connOpt gives Asynqmon, which asks for two clients and closes both, new ones
// with the hook that leaves ghosts out.
type connOpt func() redis.UniversalClient

// MakeRedisClient implements [asynq.RedisConnOpt].
func (o connOpt) MakeRedisClient() any { return o() }

// monitor is Asynqmon behind our own guards.
type monitor struct {
	inner *asynqmon.HTTPHandler
	write bool
	index []byte // Asynqmon's page, rewritten to need nothing from elsewhere
	csp   string
	files map[string]bool // the paths of its scripts and pictures

	api, metrics chan struct{} // a place for each request under way
	overall      map[string]*shared
}

func newMonitor(open func() (redis.UniversalClient, error), prometheus string, write bool) (*monitor, error) {
	hook := &ghosts{now: time.Now}
	var clients []redis.UniversalClient
	for range 2 {
		c, err := open()
		if err != nil {
			return nil, err
		}
		c.AddHook(hook)
		clients = append(clients, c)
	}
	next := 0
	m := &monitor{
		write: write, api: make(chan struct{}, apiAtOnce), metrics: make(chan struct{}, metricsAtOnce),
		overall: map[string]*shared{
			// What these tell is of all queues, and every open page asks every few seconds.
			asynqmonRoot + "/api/queues":      {keep: 2 * time.Second},
			asynqmonRoot + "/api/queue_stats": {keep: 30 * time.Second},
		},
	}
	m.inner = asynqmon.New(asynqmon.Options{
		RootPath: asynqmonRoot,
		RedisConnOpt: connOpt(func() redis.UniversalClient {
			next++
			return clients[next-1]
		}),
		PayloadFormatter:  asynqmon.PayloadFormatterFunc(summarize),
		ResultFormatter:   asynqmon.ResultFormatterFunc(summarizeResult),
		PrometheusAddress: prometheus,
		ReadOnly:          !write,
	})
	if err := m.readUI(); err != nil {
		_ = m.inner.Close()
		return nil, err
	}
	return m, nil
}

// Close ends the connections to Redis.
func (m *monitor) Close() error { return m.inner.Close() }

// Asynqmon's page asks Google for fonts, names a manifest that a browser fetches
// without the password, and has its scripts in the page.
var (
	googleFonts  = regexp.MustCompile(`<link rel="stylesheet" href="https://fonts\.googleapis\.com/[^"]*"/>`)
	manifestLink = regexp.MustCompile(`<link rel="manifest"[^>]*/>`)
	inlineScript = regexp.MustCompile(`(?s)<script>(.*?)</script>`)
	elsewhere    = regexp.MustCompile(`(?:href|src)="(?:https?:)?//`)
)

// readUI takes Asynqmon's page out of it, and the list of the files beside it.
func (m *monitor) readUI() error {
	page, err := m.fetch(asynqmonRoot + "/")
	if err != nil {
		return err
	}
	page = googleFonts.ReplaceAll(page, nil)
	page = manifestLink.ReplaceAll(page, nil)
	page = bytes.Replace(page, []byte("</head>"), []byte(`<link rel="stylesheet" href="`+assetsRoot+`roboto.css"/></head>`), 1)
	if elsewhere.Match(page) {
		return errors.New("asynqmon's page has links that this version of otpq does not know")
	}
	var hashes []string
	for _, s := range inlineScript.FindAllSubmatch(page, -1) {
		sum := sha256.Sum256(s[1])
		hashes = append(hashes, "'sha256-"+base64.StdEncoding.EncodeToString(sum[:])+"'")
	}
	m.index = page
	// The page's components make their style sheets while they run.
	m.csp = "default-src 'none'; script-src 'self' " + strings.Join(hashes, " ") +
		"; style-src 'self' 'unsafe-inline'; font-src 'self'; img-src 'self' data:; connect-src 'self'" +
		"; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

	list, err := m.fetch(asynqmonRoot + "/asset-manifest.json")
	if err != nil {
		return err
	}
	var manifest struct {
		Files map[string]string `json:"files"`
	}
	if err := json.Unmarshal(list, &manifest); err != nil {
		return fmt.Errorf("asynqmon's list of files: %w", err)
	}
	m.files = map[string]bool{}
	for _, file := range manifest.Files {
		file = strings.TrimPrefix(file, "/[[.RootPath]]")
		if strings.HasPrefix(file, "/static/") && !strings.HasSuffix(file, ".map") {
			m.files[asynqmonRoot+file] = true
		}
	}
	for _, icon := range []string{"favicon.ico", "favicon-16x16.png", "favicon-32x32.png", "apple-touch-icon.png"} {
		m.files[asynqmonRoot+"/"+icon] = true
	}
	return nil
}

// fetch asks Asynqmon's handler, without a network.
func (m *monitor) fetch(at string) ([]byte, error) {
	r, err := http.NewRequest(http.MethodGet, at, http.NoBody) //nolint:noctx // of no network
	if err != nil {
		return nil, err
	}
	answer := newCapture()
	m.inner.ServeHTTP(answer, r)
	if answer.code != http.StatusOK {
		return nil, fmt.Errorf("asynqmon answers %d for %s", answer.code, at)
	}
	return answer.body.Bytes(), nil
}

// ServeHTTP implements [http.Handler].
func (m *monitor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	reading := r.Method == http.MethodGet || r.Method == http.MethodHead
	switch {
	case !reading && !m.write:
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "The dashboard is read-only; it can act when it is started with --write.", http.StatusMethodNotAllowed)
	case strings.HasPrefix(r.URL.Path, asynqmonRoot+"/api/"):
		m.serveAPI(w, r, reading)
	case !reading:
		http.Error(w, "Nothing here takes that.", http.StatusMethodNotAllowed)
	case m.files[r.URL.Path]:
		w.Header().Set("Cache-Control", "private, max-age=86400")
		m.inner.ServeHTTP(&typed{ResponseWriter: w, path: r.URL.Path}, r)
	case strings.Contains(path.Base(r.URL.Path), ".") && strings.HasPrefix(r.URL.Path, asynqmonRoot+"/static/"):
		http.NotFound(w, r)
	default:
		w.Header().Set("Content-Security-Policy", m.csp)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write(m.index)
	}
}

// serveAPI answers Asynqmon's own requests, as far as they do no harm.
func (m *monitor) serveAPI(w http.ResponseWriter, r *http.Request, reading bool) {
	if why := harm(r); why != "" {
		http.Error(w, why, http.StatusForbidden)
		return
	}
	slots, charts := m.api, r.URL.Path == asynqmonRoot+"/api/metrics"
	if charts {
		slots = m.metrics
	}
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
	case <-r.Context().Done():
		return
	}
	if !bounded(r) {
		http.Error(w, "That is no name of a queue.", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	switch s := m.overall[r.URL.Path]; {
	case charts:
		m.serveCharts(w, r)
	case reading && s != nil:
		s.serve(w, r, m.inner)
	default:
		m.inner.ServeHTTP(w, r)
	}
	if !reading {
		m.forget() // what was changed is shown at once
	}
}

// forget has the next who asks see how it is now.
func (m *monitor) forget() {
	for _, s := range m.overall {
		s.mu.Lock()
		s.last = nil
		s.mu.Unlock()
	}
}

// harm says why nobody may do this to a queue of ours; "" when there is no reason.
func harm(r *http.Request) string {
	rest, ok := strings.CutPrefix(r.URL.Path, asynqmonRoot+"/api/queues/")
	queue, what, _ := strings.Cut(rest, "/")
	if _, _, _, ours := tasks.ParseQueue(queue); !ok || !ours {
		return ""
	}
	switch {
	case r.Method == http.MethodDelete || strings.HasSuffix(what, ":batch_delete"):
		return "A deleted task would leave its message queued for good: archive it, which makes it a dead letter, or use otpq cancel."
	case r.Method == http.MethodPost && strings.HasPrefix(what, "active_tasks"): // there is nothing but ways to cancel
		return "Its request is under way, and the provider may have acted: cut off, it would be sent again. It ends by itself, within its timeout."
	}
	return ""
}

var queueNames = regexp.MustCompile(`^[A-Za-z0-9:_.,-]*$`)

// bounded keeps the request's numbers within bounds. It reports false when what
// goes into a query of Prometheus is no list of queues.
func bounded(r *http.Request) bool {
	q := r.URL.Query()
	for name, most := range map[string]int{"size": maxPage, "page": 1 << 20, "duration": 90 * 24 * 3600} {
		if !q.Has(name) {
			continue
		}
		n, err := strconv.Atoi(q.Get(name))
		if err != nil {
			q.Del(name)
			continue
		}
		q.Set(name, strconv.Itoa(min(max(n, 1), most)))
	}
	r.URL.RawQuery = q.Encode()
	return queueNames.MatchString(q.Get("queues"))
}

// shared is an answer that everybody who asks within a while gets.
type shared struct {
	keep time.Duration

	mu   sync.Mutex
	last *capture
	at   time.Time
}

func (s *shared) serve(w http.ResponseWriter, r *http.Request, from http.Handler) {
	s.mu.Lock() // the others wait: they would ask the same
	if s.last == nil || time.Since(s.at) > s.keep || s.last.code != http.StatusOK {
		s.last = newCapture()
		from.ServeHTTP(s.last, r)
		s.at = time.Now()
	}
	answer := s.last
	s.mu.Unlock()
	maps.Copy(w.Header(), answer.header)
	w.WriteHeader(answer.code)
	_, _ = w.Write(answer.body.Bytes())
}

// capture is an answer that is kept.
type capture struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func newCapture() *capture { return &capture{header: http.Header{}, code: http.StatusOK} }

// Header implements [http.ResponseWriter].
func (c *capture) Header() http.Header { return c.header }

// WriteHeader implements [http.ResponseWriter].
func (c *capture) WriteHeader(code int) { c.code = code }

// Write implements [http.ResponseWriter].
func (c *capture) Write(p []byte) (int, error) { return c.body.Write(p) }

// typed names the type of what Asynqmon's handler guesses wrong, which a browser
// that is told not to guess would not show.
type typed struct {
	http.ResponseWriter
	path string
}

// Write implements [http.ResponseWriter].
func (t *typed) Write(p []byte) (int, error) {
	if strings.HasSuffix(t.path, ".svg") {
		t.Header().Set("Content-Type", "image/svg+xml")
	}
	return t.ResponseWriter.Write(p)
}
