package dashboard

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/bcrypt"
)

const password = "correct horse battery"

// line is a user as the configuration has it, with a hash that costs a test little.
func line(t *testing.T, name string) string {
	t.Helper()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
	if err != nil {
		t.Fatal(err)
	}
	return name + ":" + string(hash)
}

// visit asks a gate in front of a page that says who is there.
func visit(t *testing.T, g *gate, remote string, change func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:8080/deliveries", http.NoBody)
	r.RemoteAddr = remote
	if change != nil {
		change(r)
	}
	w := httptest.NewRecorder()
	g.guard(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("hello " + userOf(r.Context()))) })).ServeHTTP(w, r)
	return w
}

func basic(name, password string) func(*http.Request) {
	return func(r *http.Request) { r.SetBasicAuth(name, password) }
}

func header(name string, values ...string) func(*http.Request) {
	return func(r *http.Request) { r.Header[http.CanonicalHeaderKey(name)] = values }
}

func TestTheGateLetsInWhoMaySee(t *testing.T) {
	t.Parallel()
	users := Auth{Users: []string{"# who may see it", "", line(t, "ana"), line(t, "rui")}}
	proxy := Auth{TrustedHeader: "X-Forwarded-User", TrustedProxies: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	both := Auth{Users: users.Users, TrustedHeader: proxy.TrustedHeader, TrustedProxies: proxy.TrustedProxies}
	for name, tc := range map[string]struct {
		auth   Auth
		remote string
		change func(*http.Request)
		code   int
		body   string
	}{
		"nobody is asked on loopback":                   {code: 200, body: "hello "},
		"a host name of another site is not ours":       {change: func(r *http.Request) { r.Host = "evil.example:8080" }, code: 421},
		"localhost is ours":                             {change: func(r *http.Request) { r.Host = "localhost:8080" }, code: 200},
		"IPv6 loopback is ours":                         {change: func(r *http.Request) { r.Host = "[::1]:8080" }, code: 200},
		"no password":                                   {auth: users, code: 401},
		"the right password":                            {auth: users, change: basic("ana", password), code: 200, body: "hello ana"},
		"a user's host name does not matter":            {auth: users, change: func(r *http.Request) { r.SetBasicAuth("ana", password); r.Host = "otpq.example" }, code: 200},
		"a wrong password":                              {auth: users, change: basic("ana", "wrong"), code: 401},
		"another's name":                                {auth: users, change: basic("eva", password), code: 401},
		"an empty password":                             {auth: users, change: basic("ana", ""), code: 401},
		"more than bcrypt looks at":                     {auth: users, change: basic("ana", password+strings.Repeat("x", 100)), code: 401},
		"a header without a proxy says nothing":         {auth: users, change: header("X-Forwarded-User", "ana"), code: 401},
		"a trusted proxy's header":                      {auth: proxy, remote: "10.1.2.3:5000", change: header("X-Forwarded-User", "ana@example.com"), code: 200, body: "hello ana@example.com"},
		"a trusted proxy's header, by IPv6":             {auth: proxy, remote: "[::ffff:10.1.2.3]:5000", change: header("X-Forwarded-User", "ana"), code: 200},
		"the same header from elsewhere":                {auth: proxy, remote: "10.2.2.3:5000", change: header("X-Forwarded-User", "ana"), code: 403},
		"an empty header of a trusted proxy":            {auth: proxy, remote: "10.1.2.3:5000", change: header("X-Forwarded-User", ""), code: 403},
		"two headers: one of them is not the proxy's":   {auth: proxy, remote: "10.1.2.3:5000", change: header("X-Forwarded-User", "ana", "rui"), code: 403},
		"a proxy that says nothing leaves the password": {auth: both, remote: "10.1.2.3:5000", change: basic("rui", password), code: 200, body: "hello rui"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log strings.Builder
			g, err := newGate(tc.auth, zerolog.New(&log), time.Now)
			if err != nil {
				t.Fatal(err)
			}
			if tc.remote == "" {
				tc.remote = "127.0.0.1:5000"
			}
			w := visit(t, g, tc.remote, tc.change)
			if w.Code != tc.code || tc.body != "" && w.Body.String() != tc.body {
				t.Errorf("answer = %d %q, want %d %q", w.Code, w.Body, tc.code, tc.body)
			}
			if (w.Code == 401) != strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("%d has WWW-Authenticate %q", w.Code, w.Header().Get("WWW-Authenticate"))
			}
			if strings.Contains(log.String(), password) || strings.Contains(log.String(), "eva") {
				t.Errorf("the log has what was typed: %s", log.String())
			}
		})
	}
}

func TestWhoTriesPasswordsIsSlowedDownAndNobodyElse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g, err := newGate(Auth{Users: []string{line(t, "ana"), line(t, "rui"), line(t, "eva")}}, zerolog.Nop(), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		visits := func(name, password, remote string) int { return visit(t, g, remote, basic(name, password)).Code }
		if got := visits("ana", password, "10.0.0.1:1"); got != 200 {
			t.Fatalf("the right password = %d", got)
		}
		began := time.Now()
		for i := range freeGuesses {
			if got := visits("rui", "wrong", "10.0.0.1:2"); got != 401 {
				t.Fatalf("guess %d = %d, want 401", i+1, got)
			}
		}
		if took := time.Since(began); took < freeGuesses*guessDelay {
			t.Errorf("%d guesses took %s, want %s at least", freeGuesses, took, freeGuesses*guessDelay)
		}
		// Even the right one: whether it is right is what the next guess would tell.
		w := visit(t, g, "10.0.0.1:3", basic("rui", password))
		if w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") == "" {
			t.Errorf("guess %d = %d, want 429 with Retry-After", freeGuesses+1, w.Code)
		}
		if got := visits("ana", password, "10.0.0.1:4"); got != 200 {
			t.Errorf("who has signed in at the same address gets %d, want 200", got)
		}
		if got := visits("rui", password, "10.0.0.2:1"); got != 200 {
			t.Errorf("another address gets %d, want 200", got)
		}
		time.Sleep(2 * time.Second) //nolint:forbidigo // of a clock that is not real
		if got := visits("rui", "wrong", "10.0.0.1:5"); got != 401 {
			t.Errorf("a guess after the wait = %d, want 401", got)
		}
		// The first wait was a second; the next is longer. Eva's password is not remembered.
		time.Sleep(time.Second) //nolint:forbidigo // of a clock that is not real
		if got := visits("eva", password, "10.0.0.1:6"); got != 429 {
			t.Errorf("the right password a second after one more wrong one = %d, want 429", got)
		}
		time.Sleep(maxLock) //nolint:forbidigo // of a clock that is not real
		if got := visits("eva", password, "10.0.0.1:7"); got != 200 {
			t.Errorf("the right password after the longest wait = %d, want 200", got)
		}
	})
}

func TestGuessesAtTheSameTimeCountToo(t *testing.T) {
	t.Parallel()
	var g guesses
	now := time.Now()
	begun := 0
	answers := make(chan bool)
	for range 40 {
		go func() {
			done, _ := g.begin("10.0.0.1:1", now)
			if done != nil {
				canceled, cancel := context.WithCancel(context.Background())
				cancel() // whoever has left is not made to wait
				done(canceled, false, now)
			}
			answers <- done != nil
		}()
	}
	for range 40 {
		if <-answers {
			begun++
		}
	}
	if begun != freeGuesses {
		t.Errorf("%d of 40 guesses at the same time were checked, want %d", begun, freeGuesses)
	}
	if done, _ := g.begin("[2001:db8::1]:1", now); done == nil {
		t.Error("another address has to wait too")
	}
}

func TestANetworkIsWhatAPersonCannotChoose(t *testing.T) {
	t.Parallel()
	for remote, want := range map[string]string{
		"10.0.0.1:80": "10.0.0.1", "[::ffff:10.0.0.1]:80": "10.0.0.1", "[2001:db8:1:2:3::9]:80": "2001:db8:1:2::/64", "@": "@",
	} {
		if got := network(remote); got != want {
			t.Errorf("network(%q) = %q, want %q", remote, got, want)
		}
	}
}

func TestAPasswordThatWasRightIsHashedOnceInAWhile(t *testing.T) {
	t.Parallel()
	now := time.Now()
	g, err := newGate(Auth{Users: []string{line(t, "ana")}}, zerolog.Nop(), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if g.remembers("ana", password) || g.remembers("", "") {
		t.Error("a password is remembered before it was given")
	}
	visit(t, g, "10.0.0.1:1", basic("ana", password))
	if !g.remembers("ana", password) || g.remembers("ana", password+" ") || g.remembers("an", "a"+password) {
		t.Error("the password is not remembered, or another is")
	}
	now = now.Add(rememberFor)
	if g.remembers("ana", password) {
		t.Error("the password is remembered for good")
	}
}

// Or the time that an answer takes would tell which names there are.
func TestANameThatNobodyHasTakesAsLong(t *testing.T) {
	t.Parallel()
	hash, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost+6)
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGate(Auth{Users: []string{"ana:" + string(hash)}}, zerolog.Nop(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	took := func(name string) time.Duration {
		shortest := time.Hour // of a few: whoever else keeps the machine busy
		for range 3 {
			began := time.Now()
			if g.check(name, "another password") {
				t.Fatalf("%s gets in", name)
			}
			shortest = min(shortest, time.Since(began))
		}
		return shortest
	}
	// A hash is some ten thousand times the rest.
	if known, unknown := took("ana"), took("rui"); unknown < known/10 {
		t.Errorf("a wrong password takes %s, and a name that nobody has %s", known, unknown)
	}
}

func TestFaultyUsersAreNamedAndNotQuoted(t *testing.T) {
	t.Parallel()
	good := line(t, "ana")
	for name, tc := range map[string]struct {
		lines []string
		want  string
	}{
		"no hash":          {[]string{good, "rui:hunter2"}, "user 2: must be NAME:BCRYPT"},
		"no name":          {[]string{"hunter2"}, "user 1: must be NAME:BCRYPT"},
		"a name with more": {[]string{"ana hunter2:" + strings.TrimPrefix(good, "ana:")}, "user 1: a user's name must be"},
		"twice":            {[]string{good, good}, "user 2: ana is there twice"},
		"a very slow hash": {[]string{"ana:$2y$31$" + strings.Repeat("a", 53)}, "user 1: the hash has cost 31"},
		"comments alone":   {[]string{"# hunter2"}, "there is no user among the lines"},
	} {
		_, err := newGate(Auth{Users: tc.lines}, zerolog.Nop(), time.Now)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v, want %q, and no password", name, err, tc.want)
		}
	}
}

func TestAHashOpensWithItsPasswordAlone(t *testing.T) {
	t.Parallel()
	made, err := HashPassword("ana", password)
	if err != nil {
		t.Fatal(err)
	}
	// htpasswd writes 2y where Go writes 2a; they are the same.
	g, err := newGate(Auth{Users: []string{strings.Replace(made, "$2a$", "$2y$", 1)}}, zerolog.Nop(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if !g.check("ana", password) || g.check("ana", password+"x") {
		t.Errorf("%s opens for another password, or not at all", made)
	}
	for name, p := range map[string]string{"": password, "a b": password, "ana": "short", "rui": strings.Repeat("x", 73)} {
		if l, err := HashPassword(name, p); err == nil {
			t.Errorf("HashPassword(%q, %q) = %q, want an error", name, p, l)
		}
	}
}

func TestWhereOthersCanReachItSomebodyHasToSignIn(t *testing.T) {
	t.Parallel()
	users := Auth{Users: []string{"ana:x"}}
	for address, tc := range map[string]struct {
		auth Auth
		ok   bool
	}{
		"127.0.0.1:8080": {Auth{}, true}, "localhost:0": {Auth{}, true}, "[::1]:8080": {Auth{}, true}, "127.8.9.1:80": {Auth{}, true},
		":8080": {Auth{}, false}, "0.0.0.0:8080": {Auth{}, false}, "[::]:80": {Auth{}, false}, "10.0.0.1:80": {Auth{}, false},
		"otpq.example:80": {Auth{}, false}, "0.0.0.0:9": {users, true}, "nonsense": {users, false},
	} {
		err := CheckListen(address, tc.auth)
		if (err == nil) != tc.ok {
			t.Errorf("CheckListen(%q) = %v, want ok %v", address, err, tc.ok)
		}
		if err != nil && address != "nonsense" && !strings.Contains(err.Error(), "otpq dashboard hash") {
			t.Errorf("CheckListen(%q) = %v, want what to do in it", address, err)
		}
	}
}
