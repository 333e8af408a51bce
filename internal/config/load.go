package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/otpq/otpq/providers"
)

// FileEnv names the configuration file when no flag does.
const FileEnv = "OTPQ_CONFIG"

// maxFile is twenty times a configuration with every key written out. It keeps
// a wrong path (a log, a dump) away from the parser, whose time grows with the
// square of the nesting.
const maxFile = 64 << 10

// Options says where the configuration comes from.
type Options struct {
	// File is the YAML file. Empty means the one that OTPQ_CONFIG names, or
	// none at all.
	File string
	// Environ holds the variables as [os.Environ] gives them. Those that do
	// not start with OTPQ_ are not looked at, and an empty one is not set.
	Environ []string
	// Definitions are the providers there are.
	Definitions []providers.Definition
}

// Load reads the configuration. All that is wrong is reported at once, as an
// [*Error]; the Config is then empty. A provider that lacks what it needs is no
// error ([Provider.OffReason]), and neither is a lack of sealing keys.
func Load(o Options) (Config, error) {
	l := newLoader(o.Definitions)
	env := l.variables(o.Environ)
	file := o.File
	if file == "" {
		file = env[FileEnv]
	}
	if file != "" {
		l.readFile(file)
	}
	l.readEnv(env)
	l.checkAll()
	if len(l.problems) > 0 {
		return Config{}, &Error{Problems: l.problems}
	}
	return l.result(), nil
}

// loader holds a configuration that is being read.
type loader struct {
	defs      []providers.Definition
	config    Config
	providers map[string]*Provider
	keys      []*keyEntry
	root      *section
	byPath    map[string]*setting
	problems  []Problem
}

// keyEntry is one sealing key with its settings.
type keyEntry struct {
	key    Key
	fields *section
	source string // where the entry was first seen
	broken bool   // it was no mapping, which has been reported
}

func newLoader(defs []providers.Definition) *loader {
	l := &loader{defs: defs, providers: map[string]*Provider{}, byPath: map[string]*setting{}}
	names := make([]string, len(defs))
	for i, d := range defs {
		names[i] = d.Name
	}
	l.root = newSection(reflect.ValueOf(&l.config).Elem(), "", names, l.providers)
	l.root.each(func(s *setting) { l.byPath[s.path] = s })
	return l
}

// newKey adds an empty sealing key at the end of the list.
func (l *loader) newKey(source string) *keyEntry {
	e := &keyEntry{source: source}
	path := fmt.Sprintf("%s[%d]", keysName, len(l.keys))
	e.fields = newSection(reflect.ValueOf(&e.key).Elem(), path, nil, nil)
	l.keys = append(l.keys, e)
	return e
}

func (l *loader) problem(key, source, format string, args ...any) {
	p := Problem{Key: key, Source: source, Message: fmt.Sprintf(format, args...)}
	if !slices.Contains(l.problems, p) { // an alias can lead to the same line twice
		l.problems = append(l.problems, p)
	}
}

// set gives a setting a value from the file or a variable.
func (l *loader) set(s *setting, text, source string) {
	if message := s.set(text, source); message != "" {
		l.problem(s.path, source, "%s", message)
	}
}

// readFile reads the YAML file.
func (l *loader) readFile(path string) {
	data, err := readLimited(path)
	if err != nil {
		l.problem("", path, "the configuration file cannot be read: %s", fileCause(err))
		return
	}
	if !utf8.Valid(data) {
		l.problem("", path, "the configuration file is not UTF-8 text: save it as UTF-8")
		return
	}
	l.readYAML(data, path, filepath.Dir(path))
}

var errTooLarge = fmt.Errorf("it is larger than %d KiB", maxFile>>10)

// readLimited reads a file of at most maxFile bytes.
func readLimited(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // nothing was written
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errTooLarge
	}
	return data, err
}

// fileCause is the reason of a file error, without the path.
func fileCause(err error) string {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		err = p.Err
	}
	return err.Error()
}

// result returns what was read.
func (l *loader) result() Config {
	c := l.config
	c.Providers = make(map[string]Provider, len(l.providers))
	for _, d := range l.defs {
		p := *l.providers[d.Name]
		if p.Environment == "" {
			p.Environment = d.DefaultEnvironment
		}
		if p.Format == "" && len(d.Formats) > 0 {
			p.Format = d.Formats[0]
		}
		c.Providers[d.Name] = p
	}
	for _, e := range l.keys {
		c.Keys = append(c.Keys, e.key)
	}
	return c
}

// resolve makes a path that a file gave relative to that file's folder.
func resolve(s *setting, text, dir string) string {
	if s.tag.Get("file") == "" || text == "" || filepath.IsAbs(text) {
		return text
	}
	return filepath.Join(dir, text)
}

// Items are the parts of a setting that is a list: what commas, spaces and line
// breaks divide.
func Items(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || unicode.IsSpace(r) })
}

// listed joins names for a message.
func listed(names []string) string { return strings.Join(names, ", ") }
