package providertest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/otpq/otpq/providers"
)

// recipient holds [providers.Request.Recipient] to what campaigns build on it: who gets
// a code twice, or none, is told by it alone.
func recipient(k *kit) error {
	d := k.Definition
	want := d.Example.Recipient()
	if strings.TrimSpace(want) == "" {
		return errors.New("Recipient() of the example is empty")
	}
	data, err := json.Marshal(d.Example)
	if err != nil {
		return err
	}
	var errs []error
	var indented bytes.Buffer
	if err := json.Indent(&indented, data, "", "\t"); err != nil {
		return err
	}
	for _, same := range [][]byte{data, data, indented.Bytes()} {
		r, err := d.Decode(same)
		if err != nil {
			return fmt.Errorf("the example's own JSON: Decode() = %w", err)
		}
		if r.Recipient() != want || d.Example.Recipient() != want {
			errs = append(errs, errors.New("Recipient() is not the same each time for the same person"))
			break
		}
	}
	if d.Lookup.Hint == "" || d.Lookup.Recipients == nil {
		errs = append(errs, errors.New("the Lookup is not whole: nobody's messages can be found"))
	} else {
		if !slices.Contains(d.Lookup.Recipients("\t "+want+" "), want) {
			errs = append(errs, errors.New("Lookup.Recipients() does not find Recipient(), with spaces around it"))
		}
		if len(d.Lookup.Recipients(" ")) != 0 {
			errs = append(errs, errors.New("Lookup.Recipients() finds somebody for nothing"))
		}
	}
	// Where a made-up person is no valid one, as with check digits, nothing is told.
	if r, err := d.Decode(changed(data, d.Example, another)); err == nil && r.Recipient() == want {
		errs = append(errs, errors.New("Recipient() is the same for another person, who would get no code"))
	}
	for _, spoil := range []func(string) string{
		func(v string) string { return v + "\x01" },
		func(v string) string { return v + strings.Repeat("x", 1000) },
	} {
		r, err := d.Decode(changed(data, d.Example, spoil))
		if err != nil && shows(err.Error(), want) {
			errs = append(errs, errors.New("an error of Decode() shows Recipient()"))
		}
		if err == nil && r.Recipient() == "" {
			errs = append(errs, errors.New("Recipient() is empty for what is valid"))
		}
	}
	return errors.Join(errs...)
}

// changed is a request's JSON with the texts that name its person changed.
func changed(data []byte, r providers.Request, change func(string) string) []byte {
	for _, v := range r.Personal() {
		old, err := json.Marshal(v)
		if err != nil {
			continue
		}
		text, err := json.Marshal(change(v))
		if err != nil {
			continue
		}
		data = bytes.ReplaceAll(data, old, text)
	}
	return data
}

// another is a text of the same form: its first digit or letter is the next one.
func another(text string) string {
	b := []byte(text)
	for i, c := range b {
		switch {
		case c == '9', c == 'z', c == 'Z':
			b[i] = map[byte]byte{'9': '0', 'z': 'a', 'Z': 'A'}[c]
		case '0' <= c && c < '9', 'a' <= c && c < 'z', 'A' <= c && c < 'Z':
			b[i]++
		default:
			continue
		}
		break
	}
	return string(b)
}

// shows reports whether a text holds another, in whatever case.
func shows(text, what string) bool {
	return strings.Contains(strings.ToLower(text), strings.ToLower(what))
}
