package redistest

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// masterName is what the Sentinel calls its master.
const masterName = "mymaster"

// Sentinel is a master, its replica and a Sentinel that watches both. Its
// methods end the test when they fail, so call them from the test's own
// goroutine only.
type Sentinel struct {
	// Master and Replica are so named by what they were at the start.
	Master, Replica *Server

	t        testing.TB
	server   *Server
	password string // the Sentinel's own
}

// StartSentinel runs a master with a replica, both with the options, and a
// Sentinel, and returns once the Sentinel could fail over.
func StartSentinel(t testing.TB, opts ...Option) *Sentinel {
	t.Helper()
	opts = append([]Option{Args("--repl-diskless-sync-delay", "0")}, opts...)
	s := &Sentinel{t: t, Master: Start(t, opts...), Replica: Start(t, opts...)}
	replica := s.Replica.Client()
	if err := replica.ReplicaOf(t.Context(), host, strconv.Itoa(s.Master.port)).Err(); err != nil {
		t.Fatalf("make a replica: %v", err)
	}
	// Before the Sentinel starts: it looks again only every ten seconds.
	await(t, "the replica to have the master's data", func(ctx context.Context) bool {
		return strings.Contains(replica.Info(ctx, "replication").Val(), "master_link_status:up")
	})
	s.server = &Server{t: t, config: s.config}
	s.server.start()
	await(t, "the Sentinel to know the replica", func(ctx context.Context) bool {
		known, err := s.client().Replicas(ctx, masterName).Result()
		return err == nil && len(known) == 1 && known[0]["flags"] == "slave" && known[0]["master-link-status"] == "ok"
	})
	return s
}

// config is the Sentinel's configuration.
func (s *Sentinel) config(sentinel *Server) string {
	lines := []string{
		"bind " + host, "port " + strconv.Itoa(sentinel.port), "dir " + sentinel.dir,
		fmt.Sprintf("sentinel monitor %s %s %d 1", masterName, host, s.Master.port),
		// A busy machine makes a master slow to answer: only KillMaster shortens this.
		"sentinel down-after-milliseconds " + masterName + " 60000",
	}
	if s.Master.password != "" {
		lines = append(lines, "sentinel auth-pass "+masterName+" "+strconv.Quote(s.Master.password))
	}
	return strings.Join(lines, "\n") + "\n"
}

// Addr returns the Sentinel's host:port.
func (s *Sentinel) Addr() string { return s.server.addr }

// URL returns the redis-sentinel:// URL of the set, with the passwords it wants.
func (s *Sentinel) URL() string {
	u := "redis-sentinel://" + userinfo(s.Master.password) + s.server.addr + "/" + masterName
	if s.password != "" {
		u += "?sentinel_password=" + url.QueryEscape(s.password)
	}
	return u
}

// SetPassword gives the Sentinel itself a password, or takes it away when it is
// empty. The servers' is an option of [StartSentinel]: see [Password].
func (s *Sentinel) SetPassword(password string) {
	s.t.Helper()
	rule := "nopass"
	if password != "" {
		rule = ">" + password
	}
	c := redis.NewClient(&redis.Options{Addr: s.server.addr, Password: s.password, MaxRetries: -1})
	defer c.Close()
	if err := c.Do(s.t.Context(), "ACL", "SETUSER", "default", "resetpass", rule).Err(); err != nil {
		s.t.Fatalf("set the Sentinel's password: %v", err)
	}
	s.password = password
}

// Sync returns once the replica has every write that the master has made. What a
// crash of the master loses is what its replica has not got.
func (s *Sentinel) Sync() {
	s.t.Helper()
	conn := s.Master.Client().Conn()
	defer conn.Close()
	await(s.t, "the replica to have all writes", func(ctx context.Context) bool {
		// WAIT waits for what was written before the connection's last command.
		if err := conn.Ping(ctx).Err(); err != nil {
			return false
		}
		n, err := conn.Wait(ctx, 1, time.Second).Result()
		return err == nil && n == 1
	})
}

// KillMaster ends the master at once, as a crash would, and returns: the Sentinel
// will notice soon.
func (s *Sentinel) KillMaster() {
	s.t.Helper()
	if err := s.client().Set(s.t.Context(), masterName, "down-after-milliseconds", "200").Err(); err != nil {
		s.t.Fatalf("make the Sentinel impatient: %v", err)
	}
	s.Master.Stop()
}

// AwaitFailover returns once the Sentinel has made a master of the replica.
func (s *Sentinel) AwaitFailover() {
	s.t.Helper()
	sentinel := s.client()
	await(s.t, "the Sentinel to fail over", func(ctx context.Context) bool {
		addr, err := sentinel.GetMasterAddrByName(ctx, masterName).Result()
		return err == nil && len(addr) == 2 && addr[1] == strconv.Itoa(s.Replica.port)
	})
}

// client is a client of the Sentinel, closed when the test ends.
func (s *Sentinel) client() *redis.SentinelClient {
	c := redis.NewSentinelClient(&redis.Options{Addr: s.server.addr, Password: s.password, MaxRetries: -1, ContextTimeoutEnabled: true})
	s.t.Cleanup(func() { _ = c.Close() })
	return c
}

// await returns once the condition holds.
func await(t testing.TB, what string, holds func(context.Context) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited %v in vain for %s", startTimeout, what)
		}
	}
}
