package redisconn

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/otpq/otpq/internal/redistest"
)

func TestMain(m *testing.M) {
	LogTo(zerolog.Nop()) // failed dials are what some tests are about
	os.Exit(m.Run())
}

// open opens the URL or ends the test.
func open(t *testing.T, rawURL string, o Options) redis.UniversalClient {
	t.Helper()
	c, err := Open(rawURL, o)
	if err != nil {
		t.Fatalf("Open() = %v, want a client", err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// roundTrip writes and reads a key of its own.
func roundTrip(t *testing.T, c redis.UniversalClient) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := c.Set(ctx, "roundtrip:"+t.Name(), "42", time.Minute).Err(); err != nil {
		t.Fatalf("SET: %v", err)
	}
	if got, err := c.Get(ctx, "roundtrip:"+t.Name()).Result(); err != nil || got != "42" {
		t.Fatalf("GET = %q, %v, want 42", got, err)
	}
}

// wait returns once the condition holds.
func wait(t *testing.T, what string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("waited 20s in vain for %s", what)
		}
	}
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func TestOpenStandalone(t *testing.T) {
	const password = "p@ss/w:rd#?"
	dir := shortDir(t)
	socket := filepath.Join(dir, "redis.sock")
	server := redistest.Start(t, redistest.Args("--unixsocket", socket))
	acl := server.Client()
	err := acl.Do(t.Context(), "ACL", "SETUSER", "otpq", "on", ">"+password, "~*", "&*", "+@all").Err()
	if err != nil {
		t.Fatal(err)
	}
	user := "otpq:" + url.QueryEscape(password) + "@"

	tests := map[string]struct {
		url    string
		wantDB string
	}{
		"plain":                             {"redis://" + server.Addr(), "db=0"},
		"a database in the path":            {"redis://" + server.Addr() + "/3", "db=3"},
		"an ACL user":                       {"redis://" + user + server.Addr() + "/1", "user=otpq"},
		"a Unix socket":                     {"unix://" + socket, "db=0"},
		"a Unix socket with a user and db":  {"unix://" + user + socket + "?db=2", "db=2"},
		"spaces around it, as a file's end": {" redis://" + server.Addr() + "\n", "db=0"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := open(t, tt.url, Options{ClientName: "otpq-test"})
			roundTrip(t, c)
			info, err := c.(*redis.Client).ClientInfo(t.Context()).Result()
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprintf("name=%s db=%d user=%s", info.Name, info.DB, info.User)
			if !strings.Contains(got, tt.wantDB) || !strings.Contains(got, "name=otpq-test") {
				t.Errorf("the server sees %q, want %q by name otpq-test in it", got, tt.wantDB)
			}
		})
	}

	t.Run("a wrong password is refused and not told", func(t *testing.T) {
		c := open(t, "redis://otpq:wrongwrong@"+server.Addr(), Options{})
		err := c.Ping(t.Context()).Err()
		if err == nil || !strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), "wrongwrong") {
			t.Errorf("PING = %v, want WRONGPASS without the password", err)
		}
	})
}

// shortDir is a directory whose name leaves room for a socket's: a Unix address
// holds 108 bytes, and [testing.T.TempDir] spends many on the test's name.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "otpq")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestOpenTLS(t *testing.T) {
	ca, cert, key := redistest.Certificate(t)
	base := redistest.StartTLS(t, ca, cert, key)
	port := base[strings.LastIndex(base, ":")+1:]
	mutual := "&cert_file=" + url.QueryEscape(cert) + "&key_file=" + url.QueryEscape(key)

	t.Run("a private CA and a client certificate", func(t *testing.T) {
		roundTrip(t, open(t, base+"?ca_file="+url.QueryEscape(ca)+mutual, Options{}))
	})
	t.Run("skip_verify trusts any server", func(t *testing.T) {
		roundTrip(t, open(t, base+"?skip_verify=true"+mutual, Options{}))
	})
	for name, params := range map[string]string{
		"a server that the system does not trust is refused": "?skip_verify=false" + mutual,
		"a client without a certificate is refused":          "?ca_file=" + url.QueryEscape(ca),
	} {
		t.Run(name, func(t *testing.T) {
			if err := open(t, base+params, Options{}).Ping(t.Context()).Err(); err == nil {
				t.Error("PING worked, want an error")
			}
		})
	}
	t.Run("a server with another name is refused", func(t *testing.T) {
		c := open(t, "rediss://localhost:"+port+"?ca_file="+url.QueryEscape(ca)+mutual, Options{})
		if err := c.Ping(t.Context()).Err(); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("PING = %v, want a certificate error", err)
		}
	})
}

func TestOpenSentinel(t *testing.T) {
	set := redistest.StartSentinel(t, redistest.Password("masterpass"))
	sentinel, dead := set.Addr(), "127.0.0.1:"+freePort(t)
	for name, rawURL := range map[string]string{
		"user and password are the servers'":    "redis-sentinel://:masterpass@" + dead + "," + sentinel + "/mymaster/2",
		"the Sentinels' own password":           "redis-sentinel://:masterpass@" + sentinel + "/mymaster/2?sentinel_password=sentinelpass",
		"go-redis's form, with a second host":   "redis://" + dead + "/2?master_name=mymaster&addr=" + sentinel + "&password=masterpass",
		"go-redis's form, Sentinels' user info": "redis://:sentinelpass@" + sentinel + "?db=2&master_name=mymaster&password=masterpass",
	} {
		t.Run(name, func(t *testing.T) {
			set.SetPassword("")
			if strings.Contains(rawURL, "sentinelpass") {
				set.SetPassword("sentinelpass")
			}
			c := open(t, rawURL, Options{})
			roundTrip(t, c)
			info, err := c.(*redis.Client).ClientInfo(t.Context()).Result()
			if err != nil || info.DB != 2 {
				t.Errorf("CLIENT INFO = db %v, %v, want db 2", info, err)
			}
		})
	}
	t.Run("a master that fails is followed", func(t *testing.T) {
		c := open(t, set.URL(), Options{})
		roundTrip(t, c)
		set.KillMaster()
		set.AwaitFailover()
		wait(t, "the client to write to the new master", func() bool { return c.Set(t.Context(), "k", "v", 0).Err() == nil })
	})
}

func TestOpenCluster(t *testing.T) {
	cluster := redistest.StartCluster(t, redistest.Password("clusterpass"))
	addrs, dead := cluster.Addrs(), "127.0.0.1:"+freePort(t)
	for name, rawURL := range map[string]string{
		"all nodes":                        cluster.URL(),
		"one node, which names the others": "redis-cluster://:clusterpass@" + addrs[0],
		"a dead node and a live one":       "redis-cluster://:clusterpass@" + dead + "," + addrs[1] + "/0",
		"go-redis's form":                  "redis://:clusterpass@" + addrs[0] + "?addr=" + addrs[1] + "&addr=" + addrs[2],
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, rawURL, Options{})
			if _, ok := c.(*redis.ClusterClient); !ok {
				t.Fatalf("Open() = %T, want a cluster client", c)
			}
			for i := range 20 { // keys of all three nodes
				if err := c.Set(t.Context(), fmt.Sprint("k", i), i, 0).Err(); err != nil {
					t.Fatalf("SET: %v", err)
				}
			}
			roundTrip(t, c)
		})
	}
}

func TestACommandEndsWithItsContext(t *testing.T) {
	const patience = 200 * time.Millisecond
	hung, full := redistest.Hung(t), fullBacklog(t)
	for name, rawURL := range map[string]string{
		"a server that never answers":              "redis://" + hung,
		"a server that never answers, with TLS":    "rediss://" + hung,
		"a server that takes no connection":        "redis://" + full,
		"a server that takes no connection, TLS":   "rediss://" + full,
		"a Sentinel that never answers":            "redis-sentinel://" + hung + "/mymaster",
		"a Sentinel that takes no connection":      "redis-sentinel://" + full + "/mymaster",
		"a cluster node that never answers":        "redis-cluster://" + hung,
		"a cluster node that takes no connection":  "redis-cluster://" + full,
		"go-redis's own switch cannot turn it off": "redis://" + hung + "?master_name=m&context_timeout_enabled=false",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, rawURL, Options{})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			start := time.Now()
			err := c.Ping(ctx).Err()
			if took := time.Since(start); err == nil || took > time.Second {
				t.Errorf("PING = %v after %v, want an error within 1s", err, took.Round(time.Millisecond))
			}
		})
	}
}

func TestACommandWithoutADeadlineEndsToo(t *testing.T) {
	hung, full := redistest.Hung(t), fullBacklog(t)
	for name, tt := range map[string]struct {
		url  string
		most time.Duration
	}{
		// With one retry: twice the read timeout, or twice two dials.
		"a server that never answers":       {"redis://" + hung + "?read_timeout=300ms", 2 * time.Second},
		"a server that takes no connection": {"redis://" + full + "?dial_timeout=300ms", 3 * time.Second},
		"a TLS handshake that never ends":   {"rediss://" + hung + "?dial_timeout=300ms", 3 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := open(t, tt.url, Options{})
			start := time.Now()
			err := c.Ping(context.Background()).Err()
			if took := time.Since(start); err == nil || took > tt.most {
				t.Errorf("PING = %v after %v, want an error within %v", err, took.Round(time.Millisecond), tt.most)
			}
		})
	}
}

// TestATLSDialEndsWithItsContext asks the dialer itself: go-redis's pool lets
// its caller go in time, but leaves a dial that forgets ctx behind.
func TestATLSDialEndsWithItsContext(t *testing.T) {
	dial := dialer(30*time.Second, &tls.Config{ServerName: "127.0.0.1"})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	conn, err := dial(ctx, "tcp", redistest.Hung(t))
	if err == nil {
		_ = conn.Close()
	}
	if took := time.Since(start); err == nil || took > 5*time.Second {
		t.Errorf("dial = %v after %v, want an error when ctx ends", err, took.Round(time.Millisecond))
	}
}

// fullBacklog returns the address of a listener whose queue is full: the kernel
// drops further SYNs, as a firewall or a dead host does.
func fullBacklog(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*syscall.SockaddrInet4).Port)
	for range 10 {
		conn, err := (&net.Dialer{Timeout: 200 * time.Millisecond}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the listener's queue does not fill")
	return ""
}

func TestGoRedisLogsGoToOurLog(t *testing.T) {
	var out bytes.Buffer
	LogTo(zerolog.New(&out))
	adapter{}.Printf(t.Context(), "redis: connection %s: lost\n", "pool")
	want := `{"level":"warn","component":"redis","message":"connection pool: lost"}` + "\n"
	if out.String() != want {
		t.Errorf("logged %s, want %s", out.String(), want)
	}

	lines := make(chan string, 16)
	LogTo(zerolog.New(lineWriter(lines)))
	t.Cleanup(func() { LogTo(zerolog.Nop()) })
	c := open(t, "redis://127.0.0.1:"+freePort(t), Options{})
	if err := c.Ping(t.Context()).Err(); err == nil {
		t.Fatal("PING of nothing worked")
	}
	select {
	case line := <-lines:
		if !strings.Contains(line, "failed to dial") {
			t.Errorf("logged %s, want the failed dial", line)
		}
	case <-time.After(5 * time.Second):
		t.Error("nothing was logged of a failed dial")
	}
}

// lineWriter passes lines on and drops those that nobody waits for.
type lineWriter chan string

func (w lineWriter) Write(p []byte) (int, error) {
	select {
	case w <- string(p):
	default:
	}
	return len(p), nil
}
