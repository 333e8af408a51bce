package vendorhttp

import (
	"html"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/otpq/otpq/internal/secret"
)

// maxLogged bounds what a log line shows of a reply.
const maxLogged = 512

var (
	jsonEscape    = regexp.MustCompile(`\\u[0-9a-fA-F]{4}`)
	percentEscape = regexp.MustCompile(`(?:%[0-9a-fA-F]{2})+`)
	email         = regexp.MustCompile(`[^\s@<>"',;:=&]+@[^\s@<>"',;&]+`)
	// A code, a CPF, a phone number: four digits or more, however grouped.
	digits = regexp.MustCompile(`\p{Nd}(?:[ .\-/()]{0,3}\p{Nd}){3,}`)
	// UUID, hex, base64, JWT: long, and with a digit in it where it could be a name.
	longToken = regexp.MustCompile(`[A-Za-z0-9+/_=.\-]{16,}`)
)

// redact makes a reply fit for the log: without what names the person, without
// codes and tokens, and short. Vendors echo what they were sent, in whatever
// escaping, so escapes are undone first.
func redact(text string, personal []string, bearer string) string {
	for range 3 { // JSON in JSON in a query string is as deep as it gets
		plain := unescape(text)
		if plain == text {
			break
		}
		text = plain
	}
	for _, value := range personal {
		// An address may come back without its domain. Three letters would
		// black out half of any text.
		if local, _, ok := strings.Cut(value, "@"); ok && len(local) > 3 {
			personal = append(personal[:len(personal):len(personal)], local)
		}
	}
	known := slices.DeleteFunc(append(slices.Clone(personal), bearer), func(s string) bool { return s == "" })
	// The longest first: a part of a value must not hide the rest of it.
	slices.SortFunc(known, func(a, b string) int { return len(b) - len(a) })
	for _, value := range known {
		text = literal(value).ReplaceAllLiteralString(text, secret.Redacted)
	}
	text = email.ReplaceAllLiteralString(text, secret.Redacted)
	text = longToken.ReplaceAllStringFunc(text, func(s string) string {
		if len(s) < 48 && !strings.ContainsFunc(s, unicode.IsDigit) {
			return s
		}
		return secret.Redacted
	})
	text = digits.ReplaceAllLiteralString(text, secret.Redacted)
	if len(text) > maxLogged {
		cut := maxLogged
		for !utf8.RuneStart(text[cut]) {
			cut--
		}
		text = text[:cut]
	}
	return text
}

// literal matches a value in any case and, when it is mostly digits, with any
// separators between them.
func literal(value string) *regexp.Regexp {
	number := strings.Map(func(c rune) rune {
		if unicode.IsDigit(c) {
			return c
		}
		return -1
	}, value)
	pattern := regexp.QuoteMeta(value)
	if len(number) >= 3 && strings.Trim(value, "0123456789 .-/()+") == "" {
		pattern += "|" + strings.Join(strings.Split(number, ""), `[ .\-/()]{0,3}`)
	}
	return regexp.MustCompile("(?i)" + pattern)
}

func unescape(text string) string {
	text = jsonEscape.ReplaceAllStringFunc(text, func(s string) string {
		unit, _ := strconv.ParseUint(s[2:], 16, 16) // the pattern matched four hex digits
		return string(rune(unit))
	})
	text = strings.NewReplacer(`\/`, `/`, `\"`, `"`, `\\`, `\`).Replace(text)
	text = percentEscape.ReplaceAllStringFunc(text, func(s string) string {
		var plain strings.Builder
		for i := 0; i < len(s); i += 3 {
			b, _ := strconv.ParseUint(s[i+1:i+3], 16, 8) // two hex digits, as above
			plain.WriteByte(byte(b))
		}
		return plain.String()
	})
	return strings.ToValidUTF8(html.UnescapeString(text), "\uFFFD")
}
