package redisconn

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
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
	ca, cert, key := certificate(t)
	port := freePort(t)
	redistest.Start(t, redistest.Args("--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca))
	base := "rediss://127.0.0.1:" + port
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

// certificate writes a certificate for 127.0.0.1, signed by itself, and its key.
func certificate(t *testing.T) (ca, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "otpq test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	privateDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name, kind string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	cert = write("cert.pem", "CERTIFICATE", der)
	return cert, cert, write("key.pem", "PRIVATE KEY", privateDER)
}

func TestOpenSentinel(t *testing.T) {
	master := redistest.Start(t)
	if err := master.Client().ConfigSet(t.Context(), "requirepass", "masterpass").Err(); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(master.Addr())
	sentinel := startSentinel(t, port)

	dead := "127.0.0.1:" + freePort(t)
	for name, rawURL := range map[string]string{
		"user and password are the servers'":    "redis-sentinel://:masterpass@" + dead + "," + sentinel + "/mymaster/2",
		"the Sentinels' own password":           "redis-sentinel://:masterpass@" + sentinel + "/mymaster/2?sentinel_password=sentinelpass",
		"go-redis's form, with a second host":   "redis://" + dead + "/2?master_name=mymaster&addr=" + sentinel + "&password=masterpass",
		"go-redis's form, Sentinels' user info": "redis://:sentinelpass@" + sentinel + "?db=2&master_name=mymaster&password=masterpass",
	} {
		t.Run(name, func(t *testing.T) {
			withPassword := strings.Contains(rawURL, "sentinelpass")
			setSentinelPassword(t, sentinel, withPassword)
			c := open(t, rawURL, Options{})
			roundTrip(t, c)
			info, err := c.(*redis.Client).ClientInfo(t.Context()).Result()
			if err != nil || info.DB != 2 {
				t.Errorf("CLIENT INFO = db %v, %v, want db 2", info, err)
			}
		})
	}
}

// startSentinel runs a Sentinel that watches the Redis on the port.
func startSentinel(t *testing.T, masterPort string) (addr string) {
	t.Helper()
	binary := os.Getenv(redistest.BinaryEnv)
	if binary == "" {
		binary = "redis-server"
	}
	dir, port := t.TempDir(), freePort(t)
	conf := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("port %s\nbind 127.0.0.1\ndir %s\nsentinel monitor mymaster 127.0.0.1 %s 1\nsentinel auth-pass mymaster masterpass\n",
		port, dir, masterPort)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, conf, "--sentinel")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	addr = "127.0.0.1:" + port
	c := redis.NewSentinelClient(&redis.Options{Addr: addr, MaxRetries: -1})
	defer func() { _ = c.Close() }()
	wait(t, "the Sentinel to know the master", func() bool {
		got, err := c.GetMasterAddrByName(t.Context(), "mymaster").Result()
		return err == nil && len(got) == 2 && got[1] == masterPort
	})
	return addr
}

// setSentinelPassword gives the Sentinel a password or takes it away.
func setSentinelPassword(t *testing.T, addr string, on bool) {
	t.Helper()
	for _, password := range []string{"", "sentinelpass"} {
		c := redis.NewClient(&redis.Options{Addr: addr, Password: password, MaxRetries: -1})
		args := []any{"ACL", "SETUSER", "default", "reset", "on", "nopass", "+@all", "allchannels", "allkeys"}
		if on {
			args[5] = ">sentinelpass"
		}
		err := c.Do(t.Context(), args...).Err()
		_ = c.Close()
		if err == nil {
			return
		}
	}
	t.Fatal("the Sentinel's password could not be set")
}

func TestOpenCluster(t *testing.T) {
	const nodes = 3
	var addrs []string
	var clients []*redis.Client
	var bus []string
	for i := range nodes {
		// The bus port is ours to choose: a free port plus the usual 10000 may
		// be no port at all.
		busPort := freePort(t)
		s := redistest.Start(t, redistest.Args("--cluster-enabled", "yes", "--cluster-port", busPort,
			"--cluster-config-file", filepath.Join(t.TempDir(), "nodes.conf"), "--cluster-node-timeout", "2000"))
		c := s.Client()
		first, last := i*16384/nodes, (i+1)*16384/nodes-1
		if err := c.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", first, last).Err(); err != nil {
			t.Fatal(err)
		}
		addrs, clients, bus = append(addrs, s.Addr()), append(clients, c), append(bus, busPort)
	}
	for i := 1; i < nodes; i++ {
		host, port, _ := net.SplitHostPort(addrs[i])
		if err := clients[0].Do(t.Context(), "CLUSTER", "MEET", host, port, bus[i]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range clients {
		wait(t, "the cluster to be whole", func() bool {
			info, err := c.ClusterInfo(t.Context()).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_known_nodes:3")
		})
	}

	dead := "127.0.0.1:" + freePort(t)
	for name, rawURL := range map[string]string{
		"one node, which names the others": "redis-cluster://" + addrs[0],
		"a dead node and a live one":       "redis-cluster://" + dead + "," + addrs[1] + "/0",
		"go-redis's form":                  "redis://" + addrs[0] + "?addr=" + addrs[1] + "&addr=" + addrs[2],
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
