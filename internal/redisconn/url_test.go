package redisconn

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
)

func TestParse(t *testing.T) {
	type seen struct {
		Kind       string
		Addrs      []string
		User, Pass string
		Sentinel   string // user:password
		Master     string
		DB         int
		TLS        string // the name that is verified; "any" for each node's own
	}
	tests := map[string]seen{
		"redis://h":                {Kind: "standalone", Addrs: []string{"h:6379"}},
		"REDIS://h":                {Kind: "standalone", Addrs: []string{"h:6379"}},
		"redis://[::1]:1/2":        {Kind: "standalone", Addrs: []string{"[::1]:1"}, DB: 2},
		"redis://[::1]":            {Kind: "standalone", Addrs: []string{"[::1]:6379"}},
		"rediss://u:p%40@h:1?db=4": {Kind: "standalone", Addrs: []string{"h:1"}, User: "u", Pass: "p@", DB: 4, TLS: "h"},
		"unix:///run/r.sock":       {Kind: "standalone", Addrs: []string{"/run/r.sock"}},
		"unix://:p@/run/a@b.sock":  {Kind: "standalone", Addrs: []string{"/run/a@b.sock"}, Pass: "p"},
		"redis-sentinel://s/m":     {Kind: "sentinel", Addrs: []string{"s:26379"}, Master: "m"},
		"redis-sentinel://u:p@a,b:2/m/3": {
			Kind: "sentinel", Addrs: []string{"a:26379", "b:2"}, User: "u", Pass: "p", Master: "m", DB: 3,
		},
		"rediss-sentinel://:p@a,b/m?sentinel_username=su&sentinel_password=sp": {
			Kind: "sentinel", Addrs: []string{"a:26379", "b:26379"}, Pass: "p", Sentinel: "su:sp", Master: "m", TLS: "any",
		},
		"redis://su:sp@a:1/2?master_name=m&addr=b:2&username=u&password=p": {
			Kind: "sentinel", Addrs: []string{"a:1", "b:2"}, User: "u", Pass: "p", Sentinel: "su:sp", Master: "m", DB: 2,
		},
		"redis-cluster://u:p@a,b:2,[::1]": {
			Kind: "cluster", Addrs: []string{"a:6379", "b:2", "[::1]:6379"}, User: "u", Pass: "p",
		},
		"rediss-cluster://a":              {Kind: "cluster", Addrs: []string{"a:6379"}, TLS: "a"},
		"rediss://a?addr=b:2&addr=c:3":    {Kind: "cluster", Addrs: []string{"a:6379", "b:2", "c:3"}, TLS: "any"},
		"redis-cluster://a/0?pool_size=7": {Kind: "cluster", Addrs: []string{"a:6379"}},
	}
	for rawURL, want := range tests {
		t.Run(rawURL, func(t *testing.T) {
			p, err := parse(rawURL)
			if err != nil {
				t.Fatalf("parse() = %v", err)
			}
			var got seen
			switch {
			case p.standalone != nil:
				o := p.standalone
				got = seen{Kind: "standalone", Addrs: []string{o.Addr}, User: o.Username, Pass: o.Password, DB: o.DB}
			case p.sentinel != nil:
				o := p.sentinel
				got = seen{Kind: "sentinel", Addrs: o.SentinelAddrs, User: o.Username, Pass: o.Password, Master: o.MasterName, DB: o.DB}
				if o.SentinelPassword != "" {
					got.Sentinel = o.SentinelUsername + ":" + o.SentinelPassword
				}
			default:
				o := p.cluster
				got = seen{Kind: "cluster", Addrs: o.Addrs, User: o.Username, Pass: o.Password}
			}
			if p.tls != nil {
				got.TLS = p.tls.ServerName
				if got.TLS == "" {
					got.TLS = "any"
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("parse() (-want +got):\n%s", diff)
			}
		})
	}
}

func TestABadURLIsExplainedWithoutItsPassword(t *testing.T) {
	tests := map[string]string{ // the URL, and what the error says
		"":                                            "no scheme",
		"127.0.0.1:6379":                              "no scheme",
		"http://h":                                    "scheme is not known",
		"redis-socket:///hunter2":                     "scheme is not known",
		"redis://":                                    "a host is missing",
		"redis://:hunter2@":                           "a host is missing",
		"redis://:hunter2@h:port":                     "not host:port",
		"redis://:hunter2@h:99999":                    "between 1 and 65535",
		"redis://:hunter2@a,b":                        "redis-sentinel:// or redis-cluster://",
		"redis://:hunter2@h/main":                     "not a database number",
		"redis://:hunter2@h/-1":                       "not a database number",
		"redis://:hunter2@h?db=hunter2":               "db is not a database number",
		"redis://user:hunter2/x@h":                    "%2F",
		"redis://user:hunter2?x@h":                    "%3F",
		"redis://user:x#hunter2@h":                    "%23",
		"redis://:hun%ter2@h":                         "percent-encode",
		"redis://hunter2/0/1":                         "not a database number",
		"redis://h?password=hunter2":                  "does not know here: password",
		"redis://h?x=hunter2&y=1":                     "does not know here: x, y",
		"redis://h?hunter2!":                          "cannot be read",
		"redis://h?pool_size=hunter2":                 "pool_size is not a number",
		"redis://h?read_timeout=hunter2":              "read_timeout is not a duration",
		"redis://h?pool_fifo=hunter2":                 "pool_fifo is not a boolean",
		"redis://h?read_timeout=0":                    "read_timeout must be more than zero",
		"redis-cluster://h?write_timeout=-1s":         "write_timeout must be more than zero",
		"redis-sentinel://h/m?dial_timeout=0":         "dial_timeout must be more than zero",
		"unix://:hunter2@h/run/redis.sock":            "three slashes",
		"unix://run":                                  "three slashes",
		"redis-sentinel://:hunter2@h":                 "master's name is missing",
		"redis-sentinel://h/m/hunter2":                "not a database number",
		"redis-sentinel://h?master_name=m":            "write the name as the path",
		"redis-sentinel://h/m?addr=h2:1":              "list the hosts with commas",
		"redis://h?master_name=m&addr=hunter2":        "not host:port",
		"redis://h?addr=u:hunter2@h:1":                "%40",
		"redis-cluster://:hunter2@a,b/1":              "database 0 only",
		"redis-cluster://a,,b":                        "a host is missing",
		"redis-cluster://a?route_randomly=1":          "reads from replicas",
		"redis://a?master_name=m&replica_only=true":   "reads from replicas",
		"redis://h?skip_verify=true":                  "say rediss",
		"rediss://h?skip_verify=hunter2":              "neither true nor false",
		"rediss://h?ca_file=/nowhere":                 "ca_file cannot be read: no such file",
		"rediss://h?ca_file=url_test.go":              "no PEM certificate",
		"rediss://h?cert_file=/nowhere":               "go together",
		"rediss://h?cert_file=url.go&key_file=url.go": "do not hold",
	}
	for rawURL, want := range tests {
		t.Run(rawURL, func(t *testing.T) {
			c, err := Open(rawURL, Options{})
			if err == nil {
				_ = c.Close()
				t.Fatalf("Open() = nil, want an error with %q", want)
			}
			if !strings.Contains(err.Error(), want) {
				t.Errorf("Open() = %v, want %q in it", err, want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Open() tells the password: %v", err)
			}
			if !strings.Contains(err.Error(), "redis-cluster://[user:password@]") {
				t.Errorf("Open() = %v, want the valid forms in it", err)
			}
			if Check(rawURL) == nil {
				t.Error("Check() = nil, want what Open says")
			}
		})
	}
}

func TestTheURLWinsOverTheProgramAndTheProgramOverDefaults(t *testing.T) {
	tests := map[string]struct {
		url  string
		o    Options
		want []any // pool, dial, read, write, retries
	}{
		"defaults":        {"redis://h", Options{PoolSize: 3}, []any{3, time.Second, 2 * time.Second, 2 * time.Second, 1}},
		"defaults of TLS": {"rediss://h", Options{PoolSize: 3}, []any{3, 2 * time.Second, 2 * time.Second, 2 * time.Second, 1}},
		"the program's":   {"redis://h", Options{PoolSize: 9, DialTimeout: 3, ReadTimeout: 4, WriteTimeout: 5, MaxRetries: 6}, []any{9, time.Duration(3), time.Duration(4), time.Duration(5), 6}},
		"no retries":      {"redis://h", Options{PoolSize: 3, MaxRetries: -1}, []any{3, time.Second, 2 * time.Second, 2 * time.Second, 0}},
		"the URL's":       {"redis://h?pool_size=5&read_timeout=7s&max_retries=2", Options{PoolSize: 9, ReadTimeout: 4, MaxRetries: 6}, []any{5, time.Second, 7 * time.Second, 2 * time.Second, 2}},
	}
	for name, tt := range tests {
		for _, kind := range []string{"", "-sentinel"} {
			t.Run(name+kind, func(t *testing.T) {
				rawURL := tt.url
				if kind != "" {
					scheme, rest, _ := strings.Cut(rawURL, "://")
					host, query, _ := strings.Cut(rest, "?")
					rawURL = scheme + kind + "://" + host + "/m?" + query
				}
				o := open(t, rawURL, tt.o).(*redis.Client).Options()
				got := []any{o.PoolSize, o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.MaxRetries}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Errorf("pool, dial, read, write, retries (-want +got):\n%s", diff)
				}
				if !o.ContextTimeoutEnabled {
					t.Error("a context's deadline is not obeyed")
				}
			})
		}
	}
}

func TestDescribe(t *testing.T) {
	for rawURL, want := range map[string]string{
		"redis://u:hunter2@h:1/2?password=hunter2": "redis://h:1/2",
		"rediss-sentinel://u:hunter2@a,b/m":        "rediss-sentinel://a:26379,b:26379/m",
		"unix://u:hunter2@/run/redis.sock?db=2":    "unix:///run/redis.sock",
		"redis://:hunter2#@h":                      "a Redis URL that cannot be read",
		"hunter2":                                  "a Redis URL that cannot be read",
	} {
		if got := Describe(rawURL); got != want {
			t.Errorf("Describe(%q) = %q, want %q", rawURL, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"redis://u:p@h:1/2?addr=b:2", "rediss-sentinel://a,b/m/3", "unix:///x?db=1", "redis-cluster://[::1],h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rawURL string) {
		p, err := parse(rawURL)
		set := 0
		for _, is := range []bool{p.standalone != nil, p.sentinel != nil, p.cluster != nil} {
			if is {
				set++
			}
		}
		if err == nil && set != 1 {
			t.Errorf("parse(%q) = %d kinds, nil, want one", rawURL, set)
		}
		Describe(rawURL)
	})
}
