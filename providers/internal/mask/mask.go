// Package mask shortens what names a person to a form that someone who knows the
// person recognises and nobody else can use. It is not redaction: a mask is made
// to be stored and shown.
package mask

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	hidden    = "***"
	mostStars = 48 // a mask says how long a number is, within reason
)

// Digits masks a CPF or a phone number: its last two digits stay. What has fewer
// than five digits is hidden whole, since two of four are half of it.
func Digits(s string) string {
	var digits []rune
	for _, c := range s {
		if unicode.IsDigit(c) {
			digits = append(digits, c)
		}
	}
	if s == "" {
		return ""
	}
	if len(digits) < 5 {
		return hidden
	}
	last := len(digits) - 2
	return strings.Repeat("*", min(last, mostStars)) + string(digits[last:])
}

// Email masks an address: the first letter of a local part of four characters or
// more and the last label of the domain stay.
func Email(s string) string {
	at := strings.LastIndexByte(s, '@')
	if at < 0 {
		return first(s)
	}
	domain := s[at+1:]
	label := domain[strings.LastIndexByte(domain, '.')+1:]
	if label == domain || len(label) > 6 || !letters(label) {
		return first(s[:at]) + "@" + hidden
	}
	return first(s[:at]) + "@" + hidden + "." + label
}

// Username masks what may be a CPF, a phone number, an address or a mere name.
func Username(s string) string {
	switch {
	case s == "":
		return ""
	case strings.Contains(s, "@"):
		return Email(s)
	case strings.Trim(s, "0123456789.-/ ()+") == "":
		return Digits(s)
	}
	return first(s)
}

// first keeps the first character of what has at least four.
func first(s string) string {
	c, _ := utf8.DecodeRuneInString(s)
	if utf8.RuneCountInString(s) < 4 || !unicode.IsLetter(c) || c == utf8.RuneError {
		return hidden
	}
	return string(c) + hidden
}

func letters(s string) bool {
	for _, c := range s {
		if c > unicode.MaxASCII || !unicode.IsLetter(c) {
			return false
		}
	}
	return s != ""
}
