package config

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/otpq/otpq/internal/secret"
)

const (
	envPrefix  = "OTPQ_"
	testPrefix = "OTPQ_TEST_" // for the tests' own switches
)

// variables returns the OTPQ_ variables that are set.
func (l *loader) variables(environ []string) map[string]string {
	env := map[string]string{}
	for _, line := range environ {
		name, value, _ := strings.Cut(line, "=")
		if !strings.HasPrefix(name, envPrefix) || strings.HasPrefix(name, testPrefix) {
			continue
		}
		delete(env, name) // the last one counts, also when it is empty
		if value != "" && !fromKubernetes(name, value) {
			env[name] = value
		}
	}
	return env
}

// These match the variables that Kubernetes puts into every container of a
// namespace that has a Service called otpq or otpq-something.
var (
	serviceLink = regexp.MustCompile(`_SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)$|_PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$`)
	serviceURL  = regexp.MustCompile(`^(tcp|udp|sctp)://`) // the value of …_PORT
)

// fromKubernetes reports whether a variable is Kubernetes's and not ours.
// Without this a Service named otpq would keep every pod from starting.
func fromKubernetes(name, value string) bool {
	return serviceLink.MatchString(name) || strings.HasSuffix(name, "_PORT") && serviceURL.MatchString(value)
}

// keyVariable matches OTPQ_KEYS_0_ID and its like.
var keyVariable = regexp.MustCompile(`^OTPQ_KEYS_([0-9]{1,3})_([A-Z_]+)$`)

// readEnv reads the variables over what the file said.
func (l *loader) readEnv(env map[string]string) {
	byEnv := map[string]*setting{}
	known := []string{FileEnv, envName(keysName)}
	l.root.each(func(s *setting) {
		byEnv[s.env] = s
		known = append(known, s.env)
	})
	if text, ok := env[envName(keysName)]; ok {
		l.readKeyList(text, envName(keysName))
	}
	indexed := map[int][]string{}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		switch m := keyVariable.FindStringSubmatch(name); {
		case name == FileEnv, name == envName(keysName):
		case byEnv[name] != nil:
			l.set(byEnv[name], env[name], name)
		case m != nil:
			i, _ := strconv.Atoi(m[1])
			indexed[i] = append(indexed[i], name)
		default:
			message := "is no setting"
			if near := nearest(name, known); near != "" {
				message += "; did you mean " + near + "?"
			} else {
				message += " of otpq; the names follow the keys of the file, such as OTPQ_REDIS_URL"
			}
			l.problem("", printable(name), "%s", message)
		}
	}
	for _, i := range slices.Sorted(maps.Keys(indexed)) {
		l.readKeyVariables(i, indexed[i], env)
	}
}

// readKeyVariables reads OTPQ_KEYS_i_… over the file's key at that position, or
// adds a key at the end.
func (l *loader) readKeyVariables(i int, names []string, env map[string]string) {
	if i > len(l.keys) {
		l.problem(keysName, names[0], "leaves a gap: there is no key number %d before it; count from 0", i-1)
		return
	}
	if i == len(l.keys) {
		l.newKey(names[0])
	}
	fields := l.keys[i].fields
	for _, name := range names {
		m := keyVariable.FindStringSubmatch(name)
		s := fields.settings[strings.ToLower(m[2])]
		if s == nil {
			l.problem("", name, "is no setting; a key has %s", listed(fields.names))
			continue
		}
		l.set(s, env[name], name)
	}
}

// readKeyList reads all keys from one variable: a YAML or JSON list, or
// id:secret,id:secret.
func (l *loader) readKeyList(text, source string) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "[") || strings.HasPrefix(text, "- ") {
		if d, body := l.parseYAML([]byte(text), source, ""); body != nil {
			d.keys(body)
		}
		return
	}
	l.keys = nil
	for part := range strings.SplitSeq(text, ",") {
		id, value, found := strings.Cut(strings.TrimSpace(part), ":")
		if !found {
			l.problem(keysName, source, `must be id:secret,id:secret or a list [{"id": "…", "secret": "…"}]`)
			return
		}
		e := l.newKey(source)
		l.set(e.fields.settings["id"], id, source)
		l.set(e.fields.settings["secret"], value, source)
	}
}

// typeName names what a setting wants.
func typeName(s *setting) string {
	switch s.value.Interface().(type) {
	case string, secret.Text:
		if s.tag.Get("list") != "" {
			return "a list of texts"
		}
		return "text"
	}
	if s.value.Kind() == reflect.Int64 {
		return `a duration such as "10s"`
	}
	return "a number"
}
