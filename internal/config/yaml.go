package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// document is a YAML text that is being read into a loader. It walks the syntax
// tree instead of decoding into structs, which is what lets it tell every
// problem with its line: decoders stop at the first.
type document struct {
	l       *loader
	name    string // for sources
	dir     string // of relative paths
	anchors map[string]ast.Node
}

// readYAML reads a configuration file's text.
func (l *loader) readYAML(data []byte, name, dir string) {
	d, body := l.parseYAML(data, name, dir)
	if body != nil {
		d.section(l.root, "", body, 0)
	}
}

// parseYAML returns the text's only document, or nil after reporting why not.
func (l *loader) parseYAML(data []byte, name, dir string) (d *document, body ast.Node) {
	d = &document{l: l, name: name, dir: dir, anchors: map[string]ast.Node{}}
	// The parser has been known to panic on malformed text.
	defer func() {
		if recover() != nil {
			body = nil
			l.problem("", name, "is not valid YAML")
		}
	}()
	// Duplicates are found by the walk, which tells both lines and goes on.
	file, err := parser.ParseBytes(data, 0, parser.AllowDuplicateMapKey())
	if err != nil {
		l.problem("", d.errorLine(err), "is not valid YAML: %s", syntaxMessage(err))
		return d, nil
	}
	for _, doc := range file.Docs {
		if doc.Body == nil || doc.Body.Type() == ast.DirectiveType {
			continue
		}
		if body != nil {
			l.problem("", d.at(doc.Body), "starts a second YAML document: keep one in the file")
			return d, nil
		}
		body = doc.Body
		ast.Walk(d, body)
	}
	return d, body
}

// Visit collects anchors. It implements [ast.Visitor].
func (d *document) Visit(n ast.Node) ast.Visitor {
	if a, ok := n.(*ast.AnchorNode); ok && a.Name != nil {
		d.anchors[a.Name.GetToken().Value] = a.Value
	}
	return d
}

// quoted matches the parts of a syntax error that may repeat the file's text.
var quoted = regexp.MustCompile(`"[^"]*"|‘[^’]*’|` + "`[^`]*`")

// syntaxMessage keeps the parser's words and drops what it quotes: the line at
// fault may hold a secret.
func syntaxMessage(err error) string {
	if e, ok := errors.AsType[yaml.Error](err); ok {
		return quoted.ReplaceAllString(e.GetMessage(), "a value")
	}
	return "it cannot be read"
}

func (d *document) errorLine(err error) string {
	if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil && e.GetToken().Position != nil {
		return fmt.Sprintf("%s:%d", d.name, e.GetToken().Position.Line)
	}
	return d.name
}

// at returns the source of a node.
func (d *document) at(n ast.Node) string {
	if t := n.GetToken(); t != nil && t.Position != nil {
		return fmt.Sprintf("%s:%d", d.name, t.Position.Line)
	}
	return d.name
}

// maxDepth bounds aliases that lead to aliases and merges within merges, which
// can go round in a circle. Nobody nests a handful.
const maxDepth = 8

// value follows anchors and aliases to what they stand for; nil when that
// cannot be found.
func (d *document) value(n ast.Node) ast.Node {
	for range maxDepth {
		switch v := n.(type) {
		case *ast.AnchorNode:
			n = v.Value
		case *ast.AliasNode:
			n = d.anchors[v.Value.GetToken().Value]
		default:
			return n
		}
	}
	return nil
}

// entry is one pair of a mapping.
type entry struct {
	name  string
	key   ast.Node
	value ast.Node
	merge bool
}

// entries returns the pairs of a mapping; ok is false for anything else.
func entries(n ast.Node) (pairs []entry, ok bool) {
	var values []*ast.MappingValueNode
	switch v := n.(type) {
	case *ast.MappingNode:
		values = v.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{v}
	default:
		return nil, false
	}
	for _, v := range values {
		_, merge := v.Key.(*ast.MergeKeyNode)
		e := entry{key: v.Key, value: v.Value, merge: merge}
		if text, _, ok := scalar(v.Key); ok {
			e.name = text
		}
		pairs = append(pairs, e)
	}
	return pairs, true
}

// section reads a mapping into a section's settings.
func (d *document) section(s *section, path string, n ast.Node, depth int) {
	source := d.at(n)
	value := d.value(n)
	if isNull(value) {
		return // a section whose lines are all comments
	}
	pairs, ok := entries(value)
	if !ok {
		d.l.problem(path, source, "must be a mapping of %s, not %s", listed(s.names), kind(value))
		return
	}
	// What is merged in comes first, so that the mapping's own keys win.
	for _, p := range pairs {
		if !p.merge {
			continue
		}
		if depth >= maxDepth {
			d.l.problem(path, source, "merges mappings too deep")
			return
		}
		d.section(s, path, p.value, depth+1)
	}
	first := map[string]string{}
	for _, p := range pairs {
		if p.merge {
			continue
		}
		at, here := d.at(p.key), strings.TrimPrefix(path+"."+printable(p.name), ".")
		if earlier, again := first[p.name]; again {
			d.l.problem(here, at, "is given twice, first at %s: keep one", earlier)
			continue
		}
		first[p.name] = at
		d.entry(s, here, at, p)
	}
}

// entry reads one pair of a section.
func (d *document) entry(s *section, path, source string, p entry) {
	leaf, sub := s.settings[p.name], s.sections[p.name]
	switch {
	case s == d.l.root && p.name == keysName:
		d.keys(p.value)
	case sub != nil:
		d.section(sub, path, p.value, 0)
	case leaf != nil:
		d.leaf(leaf, source, p.value)
	default:
		d.l.problem(path, source, "%s", d.l.unknownKey(s, p.name))
	}
}

// unknownKey tells what a key that does not exist may have been meant for.
func (l *loader) unknownKey(s *section, name string) string {
	what := "is not a key here"
	if s == l.root.sections["providers"] {
		what = "is not a provider"
	}
	if near := nearest(name, s.names); near != "" {
		return what + "; did you mean " + near + "? Valid here: " + listed(s.names)
	}
	// Perhaps it is right but in the wrong place.
	var elsewhere []string
	l.root.each(func(s *setting) {
		if strings.HasSuffix(s.path, "."+name) && !strings.HasPrefix(s.path, "providers.") {
			elsewhere = append(elsewhere, s.path)
		}
	})
	if len(elsewhere) == 1 {
		return what + "; did you mean " + elsewhere[0] + "?"
	}
	return what + "; valid here: " + listed(s.names)
}

// leaf reads a value.
func (d *document) leaf(s *setting, source string, n ast.Node) {
	value := d.value(n)
	if isNull(value) {
		return // "token:" with nothing behind it is not set
	}
	text, k, ok := scalar(value)
	if list, isList := value.(*ast.SequenceNode); isList && s.tag.Get("list") != "" {
		text, k, ok = d.items(list)
	}
	if !ok || k == "true or false" {
		d.l.problem(s.path, source, "must be %s, not %s", typeName(s), kind(value))
		return
	}
	d.l.set(s, resolve(s, text, d.dir), source)
}

// items reads a list of texts into one, an item a line.
func (d *document) items(list *ast.SequenceNode) (text, kind string, ok bool) {
	var lines []string
	for _, element := range list.Values {
		item, _, ok := scalar(d.value(element))
		if !ok {
			return "", "", false
		}
		lines = append(lines, item)
	}
	return strings.Join(lines, "\n"), "text", true
}

// keys reads the list of sealing keys, in place of any that were read before.
func (d *document) keys(n ast.Node) {
	source := d.at(n)
	value := d.value(n)
	if isNull(value) {
		return
	}
	list, ok := value.(*ast.SequenceNode)
	if !ok {
		d.l.problem(keysName, source, "must be a list of {id, secret}, not %s", kind(value))
		return
	}
	d.l.keys = nil
	for _, element := range list.Values {
		e := d.l.newKey(d.at(element))
		path := fmt.Sprintf("%s[%d]", keysName, len(d.l.keys)-1)
		switch n := d.value(element).(type) {
		case *ast.MappingNode, *ast.MappingValueNode:
			d.section(e.fields, path, element, 0)
		case *ast.NullNode:
			e.broken = true
			d.l.problem(path, e.source, "is empty: write {id, secret}")
		default:
			e.broken = true
			d.l.problem(path, e.source, "must be a mapping of %s, not %s", listed(e.fields.names), kind(n))
		}
	}
}

func isNull(n ast.Node) bool {
	_, null := n.(*ast.NullNode)
	return null
}

// scalar returns a value's text as it is written (007 stays 007, quotes gone)
// and what kind of value it is.
func scalar(n ast.Node) (text, kind string, ok bool) {
	switch v := n.(type) {
	case *ast.StringNode:
		return v.Value, "text", true
	case *ast.LiteralNode:
		return v.Value.Value, "text", true
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, "a number", true
	case *ast.BoolNode:
		return n.GetToken().Value, "true or false", true
	case *ast.TagNode:
		return scalar(v.Value)
	}
	return "", "", false
}

// kind names what stands where something else should.
func kind(n ast.Node) string {
	if _, k, ok := scalar(n); ok {
		return k
	}
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case nil:
		return "an alias of nothing"
	}
	return "this"
}
