package redisconn

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// forms ends every error about a URL.
const forms = "valid forms: redis://[user:password@]host:6379/0, unix://[user:password@]/path/redis.sock?db=0, " +
	"redis-sentinel://[user:password@]host:26379,host2:26379/master/0, redis-cluster://[user:password@]host:6379,host2:6379; " +
	"rediss… for TLS"

// target is a URL understood: exactly one of the three is set.
type target struct {
	standalone *redis.Options
	sentinel   *redis.FailoverOptions
	cluster    *redis.ClusterOptions
	tls        *tls.Config // nil without TLS
}

// address is a URL taken apart. net/url does not do it alone, because it
// refuses a list of hosts.
type address struct {
	scheme string
	user   *url.Userinfo
	hosts  []string // host:port each, never empty
	path   string
	query  url.Values
}

// parse understands a URL. No text of the URL's own goes into an error, save
// names of parameters: half of a password that was not percent-encoded can end
// up in any part of it.
func parse(rawURL string) (target, error) {
	t, err := parseForms(strings.TrimSpace(rawURL))
	if err != nil {
		return target{}, fmt.Errorf("redis URL: %w; %s", err, forms)
	}
	return t, nil
}

func parseForms(rawURL string) (target, error) {
	a, err := split(rawURL)
	if err != nil {
		return target{}, err
	}
	if err := refuse(a); err != nil {
		return target{}, err
	}
	t := target{}
	if t.tls, err = takeTLS(a); err != nil {
		return target{}, err
	}
	switch kind, _ := strings.CutPrefix(strings.Replace(a.scheme, "rediss", "redis", 1), "redis"); {
	case kind == "-sentinel":
		err = t.parseSentinel(a)
	case kind == "-cluster":
		err = t.parseCluster(a)
	case a.query.Has("master_name"):
		if err = checkDB(a.path); err == nil {
			t.sentinel, err = redis.ParseFailoverURL(a.String())
		}
	case a.query.Has("addr"):
		err = t.parseCluster(a)
	default:
		err = t.parseStandalone(a)
	}
	if err != nil {
		return target{}, explain(err)
	}
	return t, t.checkTimeouts()
}

var schemes = map[string]string{ // default ports
	"redis": "6379", "rediss": "6379", "unix": "",
	"redis-sentinel": "26379", "rediss-sentinel": "26379",
	"redis-cluster": "6379", "rediss-cluster": "6379",
}

// split takes a URL apart, with one host or several.
func split(rawURL string) (address, error) {
	scheme, rest, found := strings.Cut(rawURL, "://")
	if !found {
		return address{}, problem("it has no scheme")
	}
	scheme = strings.ToLower(scheme)
	port, known := schemes[scheme]
	if !known {
		return address{}, problem("its scheme is not known")
	}
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	authority, tail := rest[:end], rest[end:]
	userinfo, list := "", authority
	if i := strings.LastIndexByte(authority, '@'); i >= 0 {
		userinfo, list = authority[:i+1], authority[i+1:]
	}
	if (scheme != "unix" && strings.Contains(tail, "@")) || strings.ContainsAny(tail, "#") {
		return address{}, problem("an @ or # stands after the host: in a user or password write @ as %%40, / as %%2F, # as %%23, ? as %%3F, : as %%3A")
	}
	u, err := url.Parse("redis://" + userinfo + "host" + tail)
	if err != nil {
		return address{}, problem("it cannot be read: percent-encode what is special in the user and password")
	}
	a := address{scheme: scheme, user: u.User, path: u.Path}
	if a.query, err = url.ParseQuery(u.RawQuery); err != nil {
		return address{}, problem("its parameters cannot be read: percent-encode what is special in them")
	}
	if scheme == "unix" {
		if list != "" || len(a.path) < 2 {
			return address{}, problem("a Unix socket needs an absolute path: unix:///path/redis.sock, three slashes")
		}
		return a, nil
	}
	for host := range strings.SplitSeq(list, ",") {
		hostPort, err := withPort(host, port)
		if err != nil {
			return address{}, err
		}
		a.hosts = append(a.hosts, hostPort)
	}
	for _, host := range a.query["addr"] {
		if hostPort, err := withPort(host, ""); err != nil || hostPort != host {
			return address{}, problem("an addr parameter is not host:port")
		}
	}
	return a, nil
}

// withPort returns host:port, with the default port when host has none.
func withPort(host, port string) (string, error) {
	u, err := url.Parse("redis://" + host)
	if err != nil || u.Hostname() == "" || u.User != nil || u.Path != "" {
		return "", problem("a host is missing or is not host:port")
	}
	if u.Port() != "" {
		port = u.Port()
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", problem("a port is not between 1 and 65535")
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// replicaReads are go-redis's parameters that send reads to replicas. A replica
// lags: a status would not be readable the moment it was written. Two of them
// also make go-redis panic.
var replicaReads = []string{
	"replica_only", "read_only", "route_by_latency", "route_by_latency_tolerance", "route_randomly", "use_disconnected_replicas",
}

func refuse(a address) error {
	for _, name := range replicaReads {
		if a.query.Has(name) {
			return problem("%s reads from replicas, which lag behind: take it out", name)
		}
	}
	sentinelOrCluster := strings.Contains(a.scheme, "-") || a.query.Has("master_name") || a.query.Has("addr")
	if len(a.hosts) > 1 && !sentinelOrCluster {
		return problem("it names several hosts: say redis-sentinel:// or redis-cluster://")
	}
	if strings.Contains(a.scheme, "-") && a.query.Has("addr") {
		return problem("addr belongs to redis://; list the hosts with commas: host,host2")
	}
	if strings.Contains(a.scheme, "-") && a.query.Has("master_name") {
		return problem("master_name belongs to redis://; write the name as the path: redis-sentinel://host/mymaster")
	}
	if a.query.Has("db") {
		if n, err := strconv.Atoi(a.query.Get("db")); err != nil || n < 0 {
			return problem("db is not a database number")
		}
	}
	return nil
}

// String writes the address as one of the URLs that go-redis reads. Further
// hosts become addr parameters.
func (a address) String() string {
	u := url.URL{Scheme: strings.TrimSuffix(strings.TrimSuffix(a.scheme, "-cluster"), "-sentinel"), User: a.user, Path: a.path}
	query := url.Values{}
	for name, values := range a.query {
		query[name] = values
	}
	if len(a.hosts) > 0 {
		u.Host = a.hosts[0]
		query["addr"] = append(append([]string(nil), a.hosts[1:]...), query["addr"]...)
	}
	u.RawQuery = query.Encode()
	return u.String()
}

func (t *target) parseStandalone(a address) (err error) {
	if a.scheme != "unix" {
		if err := checkDB(a.path); err != nil {
			return err
		}
	}
	t.standalone, err = redis.ParseURL(a.String())
	return err
}

func (t *target) parseCluster(a address) (err error) {
	if db := strings.Trim(a.path, "/"); db != "" && db != "0" {
		return problem("a cluster has database 0 only: take the path out")
	}
	a.path = ""
	t.cluster, err = redis.ParseClusterURL(a.String())
	return err
}

// parseSentinel turns otpq's form into go-redis's, where user and password of
// the Redis servers are parameters and those of the Sentinels come first.
func (t *target) parseSentinel(a address) (err error) {
	name, db, _ := strings.Cut(strings.Trim(a.path, "/"), "/")
	if name == "" {
		return problem("the master's name is missing: redis-sentinel://host/mymaster")
	}
	if err := checkDB(db); err != nil {
		return err
	}
	a.path = "/" + db
	a.query.Set("master_name", name)
	if a.user != nil {
		password, _ := a.user.Password()
		a.query.Set("username", a.user.Username())
		a.query.Set("password", password)
	}
	a.user = nil
	if a.query.Has("sentinel_username") || a.query.Has("sentinel_password") {
		a.user = url.UserPassword(a.query.Get("sentinel_username"), a.query.Get("sentinel_password"))
		a.query.Del("sentinel_username")
		a.query.Del("sentinel_password")
	}
	t.sentinel, err = redis.ParseFailoverURL(a.String())
	return err
}

func checkDB(path string) error {
	db := strings.Trim(path, "/")
	if db == "" {
		return nil
	}
	if n, err := strconv.Atoi(db); err != nil || n < 0 {
		return problem("its path is not a database number")
	}
	return nil
}

// checkTimeouts refuses go-redis's way to wait for ever (?read_timeout=0).
func (t target) checkTimeouts() error {
	var dial, read, write time.Duration
	switch {
	case t.standalone != nil:
		dial, read, write = t.standalone.DialTimeout, t.standalone.ReadTimeout, t.standalone.WriteTimeout
	case t.sentinel != nil:
		dial, read, write = t.sentinel.DialTimeout, t.sentinel.ReadTimeout, t.sentinel.WriteTimeout
	default:
		dial, read, write = t.cluster.DialTimeout, t.cluster.ReadTimeout, t.cluster.WriteTimeout
	}
	for name, d := range map[string]time.Duration{"dial_timeout": dial, "read_timeout": read, "write_timeout": write} {
		if d < 0 {
			return problem("%s must be more than zero, or a Redis that hangs would hang otpq", name)
		}
	}
	return nil
}

// problemError is a text that is known to hold nothing of the URL's values.
type problemError string

func (e problemError) Error() string { return string(e) }

func problem(format string, args ...any) error { return problemError(fmt.Sprintf(format, args...)) }

var (
	badValue  = regexp.MustCompile(`^redis: invalid ([a-z_]+) (number|duration|boolean)\b`)
	badOption = regexp.MustCompile(`^redis: unexpected option: ([A-Za-z_, ]+)$`)
)

// explain keeps of go-redis's error what cannot hold a password.
func explain(err error) error {
	var p problemError
	if errors.As(err, &p) {
		return err
	}
	if m := badValue.FindStringSubmatch(err.Error()); m != nil {
		return problem("parameter %s is not a %s", m[1], m[2])
	}
	if m := badOption.FindStringSubmatch(err.Error()); m != nil {
		return problem("it has parameters that go-redis does not know here: %s", m[1])
	}
	return problem("its parameters cannot be read")
}

// Describe names the Redis of a URL for people: scheme, hosts and path, with
// neither user, password nor parameters.
func Describe(rawURL string) string {
	a, err := split(strings.TrimSpace(rawURL))
	if err != nil {
		return "a Redis URL that cannot be read"
	}
	return a.scheme + "://" + strings.Join(a.hosts, ",") + a.path
}
