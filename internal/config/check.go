package config

import (
	"encoding/base64"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/otpq/otpq/internal/redisconn"
	"github.com/otpq/otpq/internal/secret"
	"github.com/otpq/otpq/providers"
)

// checkAll finds what a single value's type and bounds do not tell. It runs on
// whatever could be read, so that these problems come with the others.
func (l *loader) checkAll() {
	if err := redisconn.Check(l.config.Redis.URL.Reveal()); err != nil {
		l.at("redis.url", "%s", err)
	}
	if message := checkListen(l.config.Admin.Listen); message != "" {
		l.at("admin.listen", "%s", message)
	}
	l.checkDashboard(l.config.Dashboard)
	if message := checkBaseURL(l.config.Tracing.Endpoint); message != "" {
		l.at("tracing.endpoint", "%s", message)
	}
	l.checkKeys()
	for _, d := range l.defs {
		l.checkProvider(d, l.providers[d.Name])
	}
}

// at reports a problem of the setting at path, with the source of its value.
func (l *loader) at(path, format string, args ...any) {
	source := l.byPath[path].source
	if source == "" {
		source = "default"
	}
	l.problem(path, source, format, args...)
}

func checkListen(listen string) string {
	if listen == "" {
		return ""
	}
	_, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "must be host:port, such as 127.0.0.1:9090, or empty to turn it off"
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "must end with a port between 0 and 65535"
	}
	return ""
}

// headerName is what a header may be called, in any case.
var headerName = regexp.MustCompile(`^[A-Za-z0-9-]{1,64}$`)

// commonHeader are those that clients, and proxies that sign nobody in, send with any
// request: whoever sends one would be let in under whatever stands in it.
var commonHeader = regexp.MustCompile(`(?i)^(?:` +
	`(?:accept|access-control|content|if|sec|transfer|upgrade)(?:-.*)?|` +
	`x-forwarded-(?:by|for|host|method|port|prefix|proto|protocol|scheme|server|ssl|uri)|` +
	`authorization|baggage|cache-control|connection|cookie|date|dnt|expect|forwarded|from|host|keep-alive|max-forwards|` +
	`origin|pragma|priority|proxy-authorization|proxy-connection|range|referer|te|traceparent|tracestate|trailer|user-agent|` +
	`via|warning|x-correlation-id|x-real-ip|x-request-id|x-requested-with)$`)

func (l *loader) checkDashboard(d Dashboard) {
	if d.Listen == "" {
		l.at("dashboard.listen", "is empty: write host:port, such as 127.0.0.1:8080")
	} else if message := checkListen(d.Listen); message != "" {
		l.at("dashboard.listen", "%s", strings.TrimSuffix(strings.ReplaceAll(message, "9090", "8080"), ", or empty to turn it off"))
	}
	if !d.Users.IsZero() && d.UsersFile != "" {
		l.at("dashboard.users_file", "is given together with users (%s): keep one", l.byPath["dashboard.users"].source)
	}
	if d.TrustedHeader != "" && !headerName.MatchString(d.TrustedHeader) {
		l.at("dashboard.trusted_header", "must be a header's name, such as X-Forwarded-User")
	} else if commonHeader.MatchString(d.TrustedHeader) {
		l.at("dashboard.trusted_header", "comes with requests of people whom nobody has signed in: write the header in which the proxy "+
			"names those it has signed in, such as X-Forwarded-User, and have it drop that header from what clients send")
	}
	for _, text := range Items(d.TrustedProxies) {
		if network, err := netip.ParsePrefix(text); err != nil {
			l.at("dashboard.trusted_proxies", "must be networks such as 10.1.2.0/24, or 10.1.2.3/32 for one address")
		} else if network.Bits() == 0 {
			l.at("dashboard.trusted_proxies", "%s is everybody, who could then name themselves: write the proxies' own networks, such as 10.1.2.0/24", network)
		}
	}
	switch {
	case d.TrustedHeader != "" && d.TrustedProxies == "":
		l.at("dashboard.trusted_header", "needs trusted_proxies: anybody can send a header")
	case d.TrustedHeader == "" && d.TrustedProxies != "":
		l.at("dashboard.trusted_proxies", "needs trusted_header: the header in which they name a person")
	}
	if message := checkBaseURL(d.Prometheus); message != "" {
		l.at("dashboard.prometheus", "%s", message)
	}
}

func (l *loader) checkProvider(d providers.Definition, p *Provider) {
	path := "providers." + d.Name
	switch {
	case p.Environment == "":
	case len(d.Environments) == 0:
		l.at(path+".environment", "means nothing here: %s documents no host; set base_url instead", d.Name)
	default:
		if message := choice(p.Environment, slices.Sorted(maps.Keys(d.Environments))); message != "" {
			l.at(path+".environment", "%s", message)
		}
	}
	switch {
	case p.Format == "":
	case len(d.Formats) == 0:
		l.at(path+".format", "means nothing here: %s has one format; take it out", d.Name)
	default:
		if message := choice(p.Format, d.Formats); message != "" {
			l.at(path+".format", "%s", message)
		}
	}
	if message := checkBaseURL(p.BaseURL); message != "" {
		l.at(path+".base_url", "%s", message)
	}
	l.checkToken(d, p)
	if p.Retry.Initial > p.Retry.Max {
		l.at(path+".retry.initial", "must not be more than retry.max (%s)", p.Retry.Max)
	}
}

func (l *loader) checkToken(d providers.Definition, p *Provider) {
	path := "providers." + d.Name
	if !d.NeedsToken {
		if !p.Token.IsZero() {
			l.at(path+".token", "means nothing here: %s takes no token; take it out", d.Name)
		}
		if p.TokenFile != "" {
			l.at(path+".token_file", "means nothing here: %s takes no token; take it out", d.Name)
		}
		return
	}
	if !p.Token.IsZero() && p.TokenFile != "" {
		l.at(path+".token_file", "is given together with token (%s): keep one", l.byPath[path+".token"].source)
	}
	// Anything else breaks the header that carries it, with every request.
	if strings.ContainsFunc(p.Token.Reveal(), func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
		l.at(path+".token", "holds a space, a line break or another character that no token has")
	}
}

func checkBaseURL(text string) string {
	if text == "" {
		return ""
	}
	u, err := url.Parse(text)
	switch {
	case err != nil, u.Hostname() == "", u.Scheme != "http" && u.Scheme != "https":
		return "must be an absolute URL: https://host or https://host/path"
	case strings.ContainsFunc(u.Host, func(r rune) bool { return r > unicode.MaxASCII }):
		return "must name its host in ASCII: write the xn-- form of the name"
	case u.User != nil:
		return "must not hold a user or password"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(text, "#"):
		return "must end with the path: take out what follows ? or #"
	}
	return ""
}

var keyID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

func (l *loader) checkKeys() {
	first := map[string]int{}
	for i, e := range l.keys {
		if e.broken {
			continue
		}
		id, text, file := e.fields.settings["id"], e.fields.settings["secret"], e.fields.settings["secret_file"]
		at := func(s *setting, format string, args ...any) {
			source := s.source
			if source == "" {
				source = e.source
			}
			l.problem(s.path, source, format, args...)
		}
		switch earlier, again := first[e.key.ID]; {
		case e.key.ID == "":
			at(id, `is missing: give each key a name, such as "2026-11"`)
		case !keyID.MatchString(e.key.ID):
			at(id, "must be 1 to 64 letters, digits, dots, dashes and underscores")
		case again:
			at(id, "is the same as keys[%d].id: what either sealed could not be told apart", earlier)
		default:
			first[e.key.ID] = i
		}
		switch {
		case !e.key.Secret.IsZero() && e.key.SecretFile != "":
			at(file, "is given together with secret (%s): keep one", text.source)
		case !e.key.Secret.IsZero():
			if message := checkSecret(e.key.Secret); message != "" {
				at(text, "%s", message)
			}
		case e.key.SecretFile != "":
			data, err := readLimited(e.key.SecretFile)
			if err != nil {
				at(file, "cannot be read: %s", fileCause(err))
				continue
			}
			e.key.Secret = secret.Text(strings.TrimSpace(string(data)))
			if message := checkSecret(e.key.Secret); message != "" {
				at(file, "holds what %s", message)
			}
		default:
			at(text, "is missing: set secret or secret_file; otpq keygen prints one")
		}
	}
}

// secretSize is the key size of the cipher that seals: 256 bits.
const secretSize = 32

func checkSecret(s secret.Text) string {
	data, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(s.Reveal(), "="))
	if err != nil || len(data) != secretSize {
		return "is not base64 of 32 bytes; otpq keygen prints such a secret"
	}
	return ""
}
