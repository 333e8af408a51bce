package rows

import (
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/otpq/otpq/providers"
)

// field is one field of a provider's requests that a text can be put into.
type field struct {
	name string
	path []int // through structs, and pointers to them
	key  string
	kind reflect.Type
}

// fields are the fields of a provider's requests, as its request type has them.
type fields struct {
	provider string
	request  reflect.Type
	list     []field
}

// Fields returns the fields of a provider's requests that columns can be mapped to, as
// its page spells them. Below one that ends in ".*" any name will do.
func Fields(def providers.Definition) []string { return fieldsOf(def).names() }

func fieldsOf(def providers.Definition) fields {
	f := fields{provider: def.Name, request: reflect.TypeOf(def.Example)}
	f.add(f.request, "", nil)
	return f
}

// maxDepth bounds structs in structs: a type may be part of itself.
const maxDepth = 4

func (f *fields) add(t reflect.Type, prefix string, path []int) {
	if t == nil || t.Kind() != reflect.Struct || len(path) >= maxDepth {
		return
	}
	for i := range t.NumField() {
		member := t.Field(i)
		name, _, _ := strings.Cut(member.Tag.Get("json"), ",")
		if name == "" || name == "-" || !member.IsExported() {
			continue
		}
		name = prefix + name
		at := append(slices.Clone(path), i)
		kind := member.Type
		if kind.Kind() == reflect.Pointer {
			kind = kind.Elem()
		}
		switch {
		case kind.Kind() == reflect.Struct:
			f.add(kind, name+".", at)
		case member.Type.Kind() == reflect.Map && kind.Key().Kind() == reflect.String && kind.Elem().Kind() == reflect.String:
			f.list = append(f.list, field{name: name + ".*", path: at, kind: kind})
		case slices.Contains([]reflect.Kind{reflect.String, reflect.Bool, reflect.Int64}, kind.Kind()):
			f.list = append(f.list, field{name: name, path: at, kind: kind})
		}
	}
}

func (f fields) names() []string {
	names := make([]string, len(f.list))
	for i, one := range f.list {
		names[i] = one.name
	}
	return names
}

// find returns the field of that name.
func (f fields) find(name string) (field, bool) {
	for _, one := range f.list {
		if one.name == name && one.kind.Kind() != reflect.Map {
			return one, true
		}
		prefix, isMap := strings.CutSuffix(one.name, "*")
		if key, ok := strings.CutPrefix(name, prefix); isMap && ok && key != "" {
			one.name, one.key = name, key
			return one, true
		}
	}
	return field{}, false
}

// similar returns the field that a name was most likely to be, or "".
func (f fields) similar(name string) string {
	for _, one := range f.list {
		if alike(one.name) == alike(name) {
			return one.name
		}
	}
	return ""
}

// alike maps the usual misspellings of a name to one form: CPF is cpf, and celular_id
// is celularId.
func alike(name string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(name))
}

// unknown says that a name is no field.
func (f fields) unknown(name string) string {
	if s := f.similar(name); s != "" {
		return "is not a field of " + f.provider + "; did you mean " + s + "?"
	}
	return "is not a field of " + f.provider + " (" + strings.Join(f.names(), ", ") + ")"
}

// set puts a text into the field of a request. It returns what is wrong with the text.
func (f *field) set(request reflect.Value, text string) (problem string) {
	v := request
	for _, i := range f.path {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	if f.kind.Kind() == reflect.Map {
		if v.IsNil() {
			v.Set(reflect.MakeMap(f.kind))
		}
		v.SetMapIndex(reflect.ValueOf(f.key).Convert(f.kind.Key()), reflect.ValueOf(text).Convert(f.kind.Elem()))
		return ""
	}
	if v.Kind() != reflect.Pointer {
		return setText(v, text)
	}
	target := reflect.New(f.kind)
	if problem = setText(target.Elem(), text); problem == "" {
		v.Set(target)
	}
	return problem
}

func setText(v reflect.Value, text string) (problem string) {
	switch v.Kind() {
	case reflect.Bool:
		b, ok := truth(text)
		if !ok {
			return "must be true or false"
		}
		v.SetBool(b)
	case reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return "must be a whole number of at most 64 bits"
		}
		v.SetInt(n)
	default:
		v.SetString(text)
	}
	return ""
}

// truth reads a word as spreadsheets and databases write it.
func truth(text string) (value, ok bool) {
	switch {
	case text == "1" || strings.EqualFold(text, "true"):
		return true, true
	case text == "0" || strings.EqualFold(text, "false"):
		return false, true
	}
	return false, false
}
