// Package config reads otpq's configuration: defaults, then a YAML file, then
// OTPQ_ variables. It is not where settings are judged together (the worker
// knows which timeouts must fit into which) and it knows no provider by name.
package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/otpq/otpq/internal/secret"
	"github.com/otpq/otpq/providers"
)

// Config is the whole configuration, valid value by value. It prints safely:
// whatever may hold a secret is a [secret.Text].
//
// The tags are the only place where keys, defaults, limits and descriptions
// are written: the reader, the variables and [Reference] follow them. A key
// "min" or "max" bounds a number or a duration, "above" excludes the bound
// itself, "file" marks a path, "list" a text of several items; see [Items].
type Config struct {
	Redis     Redis               `key:"redis"`
	Keys      []Key               `key:"keys"`
	Admin     Admin               `key:"admin"`
	Status    Status              `key:"status"`
	Enqueue   Enqueue             `key:"enqueue"`
	Campaigns Campaigns           `key:"campaigns"`
	Worker    Worker              `key:"worker"`
	Dashboard Dashboard           `key:"dashboard"`
	Log       Log                 `key:"log"`
	Tracing   Tracing             `key:"tracing"`
	Providers map[string]Provider `key:"providers"`
}

// Redis says which Redis holds the queues and the records.
type Redis struct {
	// URL is secret because it may hold a password.
	URL secret.Text `key:"url" default:"redis://127.0.0.1:6379/0" doc:"Redis to use: redis://, rediss:// (TLS), unix://, redis-sentinel:// or redis-cluster://."`
}

// Key is one sealing key. The first of the list seals, all of them open.
type Key struct {
	ID string `key:"id" doc:"Name of the sealing key: letters, digits, dot, dash and underscore, at most 64. The first key seals, all open."`
	// Secret is base64 of 32 bytes; after Load it is set, even if it came
	// from SecretFile.
	Secret     secret.Text `key:"secret" doc:"Base64 of 32 random bytes, as otpq keygen prints it."`
	SecretFile string      `key:"secret_file" file:"true" doc:"File that holds the secret, read once at start. A relative path starts at the configuration file's folder."`
}

// Admin is the worker's own HTTP server.
type Admin struct {
	Listen string `key:"listen" default:"127.0.0.1:9090" doc:"Address of /healthz, /readyz and /metrics; empty in the file turns them off."`
}

// Status says how long records stay readable.
type Status struct {
	Retention     time.Duration `key:"retention" default:"72h" min:"1s" doc:"How long the record of a finished message is kept."`
	DeadRetention time.Duration `key:"dead_retention" default:"720h" min:"1s" doc:"How long a dead letter is kept."`
}

// Enqueue is about accepting messages.
type Enqueue struct {
	IdempotencyWindow time.Duration `key:"idempotency_window" default:"24h" min:"1s" doc:"How long an idempotency key leads to the message it first made."`
}

// Campaigns are about sending to many.
type Campaigns struct {
	Retention time.Duration `key:"retention" default:"168h" min:"1s" doc:"How long a campaign is kept after its end, rows and report included."`
}

// Worker is about the process that sends.
type Worker struct {
	ShutdownTimeout time.Duration `key:"shutdown_timeout" default:"30s" min:"1s" doc:"How long a stopping worker waits for what is in flight."`
}

// Dashboard is the HTTP server of `otpq dashboard`, and who may see it.
type Dashboard struct {
	Listen string `key:"listen" default:"127.0.0.1:8080" doc:"Address of the dashboard. Other than on loopback it asks who is there: set users, users_file or trusted_header."`
	// Users is secret because a hash can be guessed at.
	Users          secret.Text `key:"users" list:"true" doc:"Who may sign in: NAME:BCRYPT, as otpq dashboard hash and htpasswd -B print it. A list, or one text with commas."`
	UsersFile      string      `key:"users_file" file:"true" doc:"File with a line NAME:BCRYPT for each user, read once at start. A relative path starts at the configuration file's folder."`
	TrustedHeader  string      `key:"trusted_header" doc:"Header in which a proxy names the person it has signed in, such as X-Forwarded-User."`
	TrustedProxies string      `key:"trusted_proxies" list:"true" doc:"Networks of the proxies whose trusted_header is believed, such as 10.1.2.0/24. A list, or one text with commas."`
	Prometheus     string      `key:"prometheus" doc:"Address of the Prometheus that Asynqmon's metrics view asks, such as http://prometheus:9090; empty for no such view."`
}

// Log is about the log on stderr.
type Log struct {
	Level  string `key:"level" default:"info" oneof:"trace|debug|info|warn|error" doc:"Least severe line that is written."`
	Format string `key:"format" default:"auto" oneof:"auto|json|console" doc:"How a line looks; auto is console on a terminal and JSON elsewhere."`
}

// Tracing is about OpenTelemetry spans. They name no person.
type Tracing struct {
	Endpoint    string  `key:"endpoint" doc:"Collector that takes OTLP over HTTP, such as http://127.0.0.1:4318; without a path, /v1/traces is asked. Empty turns tracing off."`
	SampleRatio float64 `key:"sample_ratio" default:"1" min:"0" max:"1" doc:"Share of messages that are traced when their app has not decided that."`
}

// Provider is one provider's part. Every provider of the definitions has one.
type Provider struct {
	Environment string        `key:"environment" doc:"Which of the vendor's documented environments to call; empty means the test environment."`
	BaseURL     string        `key:"base_url" doc:"Where the vendor's paths start, in place of the environment's address."`
	Token       secret.Text   `key:"token" doc:"Bearer token."`
	TokenFile   string        `key:"token_file" file:"true" doc:"File that holds the bearer token, read again when it changes and after a 401. A relative path starts at the configuration file's folder."`
	Format      string        `key:"format" doc:"Body format, where the vendor takes several; empty means the vendor's first."`
	Timeout     time.Duration `key:"timeout" default:"10s" min:"1ms" doc:"How long one request may take."`
	Concurrency Concurrency   `key:"concurrency"`
	Queues      int           `key:"queues" default:"1" min:"1" max:"64" doc:"How many queues each lane has. On a Redis Cluster one queue is on one node; producers spread messages over all."`
	RateLimit   RateLimit     `key:"rate_limit"`
	Breaker     Breaker       `key:"breaker"`
	Retry       Retry         `key:"retry"`
}

// Concurrency is how many requests a worker process has in flight.
type Concurrency struct {
	// Asynq searches a list of all that is in flight at each acknowledgement,
	// which costs Redis too much beyond about 2,000 a queue.
	Interactive int `key:"interactive" default:"64" min:"1" max:"2000" doc:"Most requests in flight in one worker for interactive messages, from all queues together."`
	Bulk        int `key:"bulk" default:"16" min:"1" max:"2000" doc:"Most requests in flight in one worker for bulk messages, from all queues together."`
}

// RateLimit is shared by all workers.
type RateLimit struct {
	Limit  int           `key:"limit" default:"0" min:"0" doc:"Most requests in each period, by all workers together; 0 is no limit."`
	Period time.Duration `key:"period" default:"1s" min:"1ms" doc:"Period of the limit."`
}

// Breaker says when a failing vendor is left alone, and for how long.
type Breaker struct {
	ConsecutiveFailures int           `key:"consecutive_failures" default:"5" min:"1" doc:"Failures in a row that open the breaker."`
	FailureRatio        float64       `key:"failure_ratio" default:"0.5" above:"0" max:"1" doc:"Share of failures that opens the breaker, once there are enough requests."`
	MinimumRequests     int           `key:"minimum_requests" default:"20" min:"1" doc:"Requests before the share of failures counts."`
	OpenFor             time.Duration `key:"open_for" default:"30s" min:"1ms" doc:"How long an open breaker waits before it tries the vendor again."`
}

// What a worker does about a request that the vendor may have acted on.
const (
	ResendOnce = "resend_once"
	Stop       = "stop"
)

// Retry says how often and how fast a message is attempted again.
type Retry struct {
	MaxAttempts int           `key:"max_attempts" default:"5" min:"1" doc:"Requests for one message, the first included."`
	Initial     time.Duration `key:"initial" default:"1s" min:"1ms" doc:"Wait before the second attempt; it doubles from there."`
	Max         time.Duration `key:"max" default:"30s" min:"1ms" doc:"Longest wait between two attempts."`
	OnAmbiguous string        `key:"on_ambiguous" default:"resend_once" oneof:"resend_once|stop" doc:"What to do when the vendor may have sent the code: send it once more, or stop."`
}

// URL returns where the vendor's paths start, without a slash at its end, or
// "" when neither the configuration nor the vendor's page says.
func (p Provider) URL(d providers.Definition) string {
	base := p.BaseURL
	if base == "" {
		environment := p.Environment
		if environment == "" {
			environment = d.DefaultEnvironment
		}
		base = d.Environments[environment]
	}
	return strings.TrimRight(base, "/")
}

// OffReason says why the provider cannot be used and what to do about it; ""
// when it can. To be off is no error: the other providers run.
func (p Provider) OffReason(d providers.Definition) string {
	var missing []string
	path := "providers." + d.Name
	if p.URL(d) == "" {
		missing = append(missing, fmt.Sprintf("needs a base URL: set %s.base_url or %s", path, envName(path+".base_url")))
	}
	if d.NeedsToken && p.Token.IsZero() && p.TokenFile == "" {
		missing = append(missing, fmt.Sprintf("needs a token: set %[1]s.token or %[1]s.token_file, or %s", path, envName(path+".token")))
	}
	return strings.Join(missing, "; ")
}
