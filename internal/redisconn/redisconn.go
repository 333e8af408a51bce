// Package redisconn opens Redis: it reads a URL of any topology and makes a
// client whose every wait is bounded. It is not where commands, scripts or
// hooks live; whoever opens a client adds its own.
package redisconn

import (
	"context"
	"crypto/tls"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Defaults, chosen so that a hung Redis costs a caller seconds and not the
// minutes that go-redis's own (dial 5 s, five dials, read 5 s, three retries)
// add up to.
const (
	// DefaultDialTimeout is far above a round trip inside a data centre. A
	// kernel repeats a lost SYN after 1 s, so waiting longer gains little over
	// dialing again.
	DefaultDialTimeout = time.Second
	// DefaultTLSDialTimeout also covers the TLS handshake: two more round
	// trips and a signature.
	DefaultTLSDialTimeout = 2 * time.Second
	// DefaultIOTimeout bounds one read and one write. Redis runs one script at
	// a time, so the longest script of anybody on that Redis has to fit.
	DefaultIOTimeout = 2 * time.Second
	// DefaultMaxRetries is one: enough for a connection that a proxy or a
	// restart closed while it lay idle. Each retry of a script whose reply was
	// lost runs that script again, and asynq's scripts are not idempotent: a
	// repeated enqueue reports a conflict with itself, and a repeated dequeue
	// strands a task for a minute.
	DefaultMaxRetries = 1

	// dialTries and dialPause replace go-redis's five dials: one more dial,
	// after a pause that paces loops which come back at once on an error.
	dialTries = 2
	dialPause = 100 * time.Millisecond
)

// keepAlive notices a peer that vanished without a word in half a minute.
// The kernel's own settings take over two hours.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3}

// Options is what the program wants of its client. Zero fields mean the
// defaults above, or go-redis's own for ClientName and PoolSize. What the URL
// says (?pool_size=50) wins over Options: the operator knows the deployment.
type Options struct {
	// ClientName is shown by CLIENT LIST.
	ClientName string
	// PoolSize is the largest number of connections to each Redis node.
	PoolSize int
	// DialTimeout bounds one dial, its TLS handshake included.
	DialTimeout time.Duration
	// ReadTimeout and WriteTimeout bound one read and one write.
	ReadTimeout, WriteTimeout time.Duration
	// MaxRetries is how often a command is sent again after a network error;
	// -1 means never. A cluster client does not use it: it counts retries and
	// redirects together, and needs go-redis's three to follow a moving slot.
	MaxRetries int
}

// Open makes a client for the Redis that the URL names. It does not connect:
// the first command does. A context's deadline bounds every command, whatever
// the timeouts. Errors never hold the URL's password.
//
// The URL is one of:
//
//	redis://[user:password@]host[:6379][/db]
//	unix://[user:password@]/path/to/redis.sock[?db=0]
//	redis-sentinel://[user:password@]host[:26379],host2…/master[/db]
//	redis-cluster://[user:password@]host[:6379],host2…
//
// The first, third and fourth take TLS with rediss in place of redis. User and
// password are the Redis servers'; Sentinels that want their own get them as
// ?sentinel_username= and ?sentinel_password=. go-redis's own forms,
// redis://…?master_name=mymaster&addr=host2:26379 and redis://…?addr=host2:6379,
// are read exactly as go-redis reads them, and there user and password are the
// Sentinels'. Timeouts, retries and pool settings are parameters by go-redis's
// names (?read_timeout=3s&pool_size=50). With TLS, ca_file, cert_file and
// key_file name PEM files, and skip_verify=true trusts any server.
func Open(rawURL string, o Options) (redis.UniversalClient, error) {
	t, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	switch {
	case t.sentinel != nil:
		f := t.sentinel
		tune(o, t.tls, knobs{&f.ClientName, &f.PoolSize, &f.DialTimeout, &f.ReadTimeout, &f.WriteTimeout, &f.MaxRetries})
		f.ContextTimeoutEnabled = true
		f.DialerRetries, f.DialerRetryTimeout = dialTries, dialPause
		f.Dialer = dialer(f.DialTimeout, t.tls)
		return redis.NewFailoverClient(f), nil
	case t.cluster != nil:
		c := t.cluster
		noRetries := -1 // of each node's client, below the cluster client's own
		tune(o, t.tls, knobs{&c.ClientName, &c.PoolSize, &c.DialTimeout, &c.ReadTimeout, &c.WriteTimeout, &noRetries})
		c.MaxRetries = noRetries
		c.ContextTimeoutEnabled = true
		c.DialerRetries, c.DialerRetryTimeout = dialTries, dialPause
		c.Dialer = dialer(c.DialTimeout, t.tls)
		c.MaintNotificationsConfig = noMaintenance()
		return redis.NewClusterClient(c), nil
	default:
		s := t.standalone
		tune(o, t.tls, knobs{&s.ClientName, &s.PoolSize, &s.DialTimeout, &s.ReadTimeout, &s.WriteTimeout, &s.MaxRetries})
		s.ContextTimeoutEnabled = true
		s.DialerRetries, s.DialerRetryTimeout = dialTries, dialPause
		s.Dialer = dialer(s.DialTimeout, t.tls)
		s.MaintNotificationsConfig = noMaintenance()
		return redis.NewClient(s), nil
	}
}

// Check reports what is wrong with a URL, without connecting. The error never
// holds the password.
func Check(rawURL string) error {
	_, err := parse(rawURL)
	return err
}

// knobs are the settings that go-redis's three kinds of options share.
type knobs struct {
	clientName        *string
	poolSize          *int
	dial, read, write *time.Duration
	maxRetries        *int
}

// tune fills the settings that the URL left open.
func tune(o Options, secure *tls.Config, k knobs) {
	dial := DefaultDialTimeout
	if secure != nil {
		dial = DefaultTLSDialTimeout
	}
	fill(k.clientName, o.ClientName)
	fill(k.poolSize, o.PoolSize)
	fill(k.dial, o.DialTimeout, dial)
	fill(k.read, o.ReadTimeout, DefaultIOTimeout)
	fill(k.write, o.WriteTimeout, DefaultIOTimeout)
	fill(k.maxRetries, o.MaxRetries, DefaultMaxRetries)
}

// fill sets a zero dst to the first of the values that is not zero.
func fill[T comparable](dst *T, values ...T) {
	var zero T
	for _, v := range values {
		if *dst == zero {
			*dst = v
		}
	}
}

// dialer dials under both ctx and the timeout, the TLS handshake included.
// go-redis's own forgets ctx as soon as TLS is used.
func dialer(timeout time.Duration, secure *tls.Config) func(context.Context, string, string) (net.Conn, error) {
	plain := &net.Dialer{Timeout: timeout, KeepAliveConfig: keepAlive}
	if secure == nil {
		return plain.DialContext
	}
	overTLS := &tls.Dialer{NetDialer: plain, Config: secure}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		return overTLS.DialContext(ctx, network, addr)
	}
}

// noMaintenance turns off a managed service's maintenance notices: they cost a
// command on every new connection and, while they last, lengthen the timeouts
// that Open promises.
func noMaintenance() *maintnotifications.Config {
	return &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
}
