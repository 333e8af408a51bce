package dashboard

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/crypto/bcrypt"
)

const (
	// maxCost bounds what one sign-in may cost: a bcrypt of 16 takes some seconds.
	maxCost = 16
	// hashCost is what [HashPassword] uses: a quarter of a second, once in
	// rememberFor for each user.
	hashCost = 12
	// rememberFor is how long a password that was right is not hashed again. Each
	// page of Asynqmon makes several requests every few seconds.
	rememberFor = 10 * time.Minute
	// maxPassword is all that bcrypt looks at.
	maxPassword = 72
)

// Auth says who may see the dashboard. The zero value lets everybody in who
// reaches it on a loopback address.
type Auth struct {
	// Users are lines NAME:BCRYPT, as htpasswd -B prints them. Empty lines and
	// those that begin with # say nothing.
	Users []string
	// TrustedHeader is where a proxy on one of TrustedProxies names the person
	// that it has signed in. From anybody else the header says nothing.
	TrustedHeader  string
	TrustedProxies []netip.Prefix
}

// None reports whether nobody is asked who they are.
func (a Auth) None() bool { return len(a.Users) == 0 && a.TrustedHeader == "" }

// HashPassword returns the line of a user for the configuration. It fails when
// the name or the password cannot be used.
func HashPassword(name, password string) (string, error) {
	if !userName.MatchString(name) {
		return "", errUserName
	}
	switch {
	case len(password) < 12:
		return "", errors.New("the password must have at least 12 characters")
	case len(password) > maxPassword:
		return "", fmt.Errorf("the password must have at most %d bytes: bcrypt looks at no more", maxPassword)
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), hashCost)
	if err != nil {
		return "", err
	}
	return name + ":" + string(hash), nil
}

// userName keeps names safe to log.
var userName = regexp.MustCompile(`^[A-Za-z0-9._@-]{1,64}$`)

var errUserName = errors.New("a user's name must be 1 to 64 letters, digits, '.', '_', '@' or '-'")

// parseUsers reads the lines. No error quotes one: a password may stand there.
func parseUsers(lines []string) (map[string][]byte, error) {
	users := map[string][]byte{}
	for i, line := range lines {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, _ := strings.Cut(line, ":")
		cost, err := bcrypt.Cost([]byte(hash))
		switch {
		case !userName.MatchString(name):
			return nil, fmt.Errorf("user %d: %w", i+1, errUserName)
		case err != nil:
			return nil, fmt.Errorf("user %d: must be NAME:BCRYPT, as `otpq dashboard hash` and `htpasswd -nB` print it", i+1)
		case cost > maxCost:
			return nil, fmt.Errorf("user %d: the hash has cost %d, which takes too long; %d at most", i+1, cost, maxCost)
		case users[name] != nil:
			return nil, fmt.Errorf("user %d: %s is there twice", i+1, name)
		}
		users[name] = []byte(hash)
	}
	return users, nil
}

// gate lets in who may see the dashboard.
type gate struct {
	auth    Auth
	users   map[string][]byte
	nobody  []byte // a hash for names that nobody has, so that they take as long
	guesses guesses
	log     zerolog.Logger
	now     func() time.Time

	// secret keys what is remembered of passwords that were right: one digest a
	// user, so that its size is that of the configuration.
	secret     [32]byte
	mu         sync.Mutex
	remembered map[string]remembered
}

type remembered struct {
	digest [sha256.Size]byte
	until  time.Time
}

func newGate(a Auth, log zerolog.Logger, now func() time.Time) (*gate, error) {
	users, err := parseUsers(a.Users)
	if err != nil {
		return nil, err
	}
	if len(a.Users) > 0 && len(users) == 0 {
		return nil, errors.New("there is no user among the lines")
	}
	g := &gate{auth: a, users: users, log: log, now: now, remembered: map[string]remembered{}}
	_, _ = rand.Read(g.secret[:]) // never fails: crypto/rand ends the process instead
	cost := bcrypt.MinCost
	for _, hash := range users {
		c, _ := bcrypt.Cost(hash) // parseUsers has asked
		cost = max(cost, c)
	}
	if len(users) > 0 {
		if g.nobody, err = bcrypt.GenerateFromPassword(g.secret[:], cost); err != nil {
			return nil, err
		}
	}
	return g, nil
}

type userKey struct{}

// userOf names who makes a request, for the log.
func userOf(ctx context.Context) string {
	name, _ := ctx.Value(userKey{}).(string)
	return name
}

// guard asks who is there before next is.
func (g *gate) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := g.admit(w, r)
		if !ok {
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, name)))
	})
}

// admit returns who is there, or answers the request itself.
func (g *gate) admit(w http.ResponseWriter, r *http.Request) (name string, ok bool) {
	if g.auth.None() {
		// A page of another site whose name was made to lead to this machine would
		// be of our origin, and could read all there is.
		if !isLoopbackHost(r.Host) {
			http.Error(w, "Without users the dashboard answers to localhost and 127.0.0.1 only.", http.StatusMisdirectedRequest)
			return "", false
		}
		return "", true
	}
	if name, ok := g.fromProxy(r); ok {
		return name, true
	}
	if len(g.users) == 0 {
		http.Error(w, "Sign in at the proxy in front of this dashboard.", http.StatusForbidden)
		return "", false
	}
	name, password, given := r.BasicAuth()
	switch {
	case !given:
		return "", challenge(w)
	case g.remembers(name, password):
		return name, true
	}
	done, wait := g.guesses.begin(r.RemoteAddr, g.now())
	if done == nil {
		w.Header().Set("Retry-After", fmt.Sprint(int(wait.Seconds())+1))
		http.Error(w, "Too many wrong passwords; try again later.", http.StatusTooManyRequests)
		return "", false
	}
	right := g.check(name, password)
	done(r.Context(), right, g.now())
	if !right {
		who := "nobody"
		if g.users[name] != nil {
			who = name // and no other: a password may stand where the name should
		}
		g.log.Warn().Str("user", who).Str("remote", r.RemoteAddr).Msg("wrong password for the dashboard")
		return "", challenge(w)
	}
	g.remember(name, password)
	return name, true
}

func challenge(w http.ResponseWriter) bool {
	w.Header().Set("WWW-Authenticate", `Basic realm="otpq", charset="UTF-8"`)
	http.Error(w, "Sign in.", http.StatusUnauthorized)
	return false
}

// fromProxy is the name that a trusted proxy gives.
func (g *gate) fromProxy(r *http.Request) (string, bool) {
	if g.auth.TrustedHeader == "" {
		return "", false
	}
	from, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return "", false
	}
	values := r.Header.Values(g.auth.TrustedHeader)
	for _, network := range g.auth.TrustedProxies {
		// Two values are the proxy's and somebody else's.
		if network.Contains(from.Addr().Unmap()) && len(values) == 1 && values[0] != "" {
			return values[0], true
		}
	}
	return "", false
}

// check compares a password with the user's hash. It takes as long when there is
// no such user.
func (g *gate) check(name, password string) bool {
	hash, known := g.users[name]
	if !known {
		hash = g.nobody
	}
	if len(password) > maxPassword {
		return false
	}
	return bcrypt.CompareHashAndPassword(hash, []byte(password)) == nil && known
}

func (g *gate) digest(name, password string) (out [sha256.Size]byte) {
	mac := hmac.New(sha256.New, g.secret[:])
	fmt.Fprintf(mac, "%d:%s%s", len(name), name, password)
	mac.Sum(out[:0])
	return out
}

func (g *gate) remember(name, password string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.remembered[name] = remembered{g.digest(name, password), g.now().Add(rememberFor)}
}

func (g *gate) remembers(name, password string) bool {
	digest := g.digest(name, password)
	g.mu.Lock()
	defer g.mu.Unlock()
	m, ok := g.remembered[name]
	return subtle.ConstantTimeCompare(digest[:], m.digest[:]) == 1 && ok && g.now().Before(m.until)
}

// isLoopbackHost reports whether a Host header names this machine to itself.
func isLoopbackHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	addr, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback()
}

// CheckListen refuses an address that other machines can reach when nobody would
// be asked who they are. The error says what to do.
func CheckListen(address string, a Auth) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is no host:port", address)
	}
	addr, err := netip.ParseAddr(host)
	if strings.EqualFold(host, "localhost") || err == nil && addr.IsLoopback() || !a.None() {
		return nil
	}
	return fmt.Errorf("%s can be reached from other machines, and nobody would be asked for a password: "+
		"set dashboard.users (`otpq dashboard hash NAME` makes a line for it), dashboard.users_file, "+
		"or dashboard.trusted_header with a proxy that signs people in; or listen on 127.0.0.1", address)
}
