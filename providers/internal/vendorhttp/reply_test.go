package vendorhttp

import (
	"math"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/otpq/otpq/providers"
)

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"":                                0,
		"30":                              30 * time.Second,
		" 30 ":                            30 * time.Second,
		"0":                               0,
		"-1":                              0,
		"1.5":                             0,
		"1e3":                             0,
		"soon":                            0,
		"3601":                            time.Hour,
		strconv.Itoa(math.MaxInt64):       time.Hour,
		"99999999999999999999999":         time.Hour,
		"-99999999999999999999999":        0,
		"Mon, 23 Nov 2026 12:00:45 GMT":   45 * time.Second,
		"Monday, 23-Nov-26 12:00:45 GMT":  45 * time.Second,
		"Mon Nov 23 12:00:45 2026":        45 * time.Second,
		"Mon, 23 Nov 2026 11:00:00 GMT":   0,
		"Mon, 23 Nov 2099 12:00:00 GMT":   time.Hour,
		"Mon, 23 Nov 9999 12:00:00 GMT":   time.Hour,
		"Mon, 23 Nov 2026 12:00:45 -0300": 0, // not an HTTP date
	} {
		if got := parseRetryAfter(value, now); got != want {
			t.Errorf("parseRetryAfter(%q) = %v, want %v", value, got, want)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	f.Add("30")
	f.Add("Mon, 23 Nov 2026 12:00:45 GMT")
	f.Fuzz(func(t *testing.T, value string) {
		if got := parseRetryAfter(value, now); got < 0 || got > longestWait {
			t.Errorf("parseRetryAfter(%q) = %v, want 0 to %v", value, got, longestWait)
		}
	})
}

func TestUndocumentedNeverAcceptsOrRejects(t *testing.T) {
	for status := range 1000 {
		for _, usesToken := range []bool{false, true} {
			out := Reply{Status: status, usesToken: usesToken}.Undocumented()
			if out.Kind == providers.Accepted || out.Kind == providers.Rejected || out.Reason == "" || out.Err == nil {
				t.Errorf("status %d: Undocumented() = %+v, want a retry or ambiguous with a reason and an error", status, out)
			}
			// What a proxy or a redirect says is no proof that the vendor did not act.
			if safe := out.Kind == providers.RetryLater; safe && (status < 300 || status > 503) {
				t.Errorf("status %d: Undocumented() = %v, want ambiguous", status, out.Kind)
			}
		}
	}
}

func TestIsHTML(t *testing.T) {
	for _, c := range []struct {
		contentType, body string
		want              bool
	}{
		{"text/html; charset=utf-8", "", true},
		{"TEXT/HTML", "{}", true},
		{"", " \r\n<!DocType HTML>", true},
		{"application/json", "<html lang=pt>", true},
		{"", "<Error><Message>x</Message></Error>", false},
		{"application/xml", `<?xml version="1.0"?><GenericResult/>`, false},
		{"application/json", `{"a":"<html>"}`, false},
		{"", "", false},
	} {
		r := Reply{Header: http.Header{"Content-Type": {c.contentType}}, Body: []byte(c.body)}
		if got := r.IsHTML(); got != c.want {
			t.Errorf("IsHTML() of %q as %q = %v, want %v", c.body, c.contentType, got, c.want)
		}
	}
}
