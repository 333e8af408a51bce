package tasks

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
)

var quickStart = `{"v":` + strconv.Itoa(version)

// quickParse reads a payload that is written exactly as [Encode] writes it, which
// nearly all are, without encoding/json: that is most of the time it takes to read
// one. It reports false of any other, right or wrong; those are for encoding/json.
func quickParse(payload []byte) (w wireV1, ok bool) {
	r := quickReader{rest: payload, ok: true}
	r.expect(quickStart)
	w.Version = version
	r.expect(`,"id":`)
	w.ID = r.text()
	r.expect(`,"provider":`)
	w.Provider = r.text()
	r.expect(`,"lane":`)
	w.Lane = Lane(r.text())
	r.expect(`,"created_ms":`)
	w.CreatedMS = r.number()
	r.expect(`,"not_after_ms":`)
	w.NotAfterMS = r.number()
	if r.has(`,"max_attempts":`) {
		w.MaxAttempts = int(r.number())
	}
	if r.has(`,"campaign":`) {
		w.Campaign = r.text()
	}
	if r.has(`,"replay_of":`) {
		w.ReplayOf = r.text()
	}
	r.expect(`,"key":`)
	w.KeyID = r.text()
	r.expect(`,"sealed":`)
	sealed := r.quoted()
	w.Sealed = make([]byte, base64.StdEncoding.DecodedLen(len(sealed)))
	n, err := base64.StdEncoding.Decode(w.Sealed, sealed)
	w.Sealed = w.Sealed[:n]
	r.expect(`}`)
	return w, r.ok && len(r.rest) == 0 && err == nil
}

// quickRequest takes the request out of what was sealed, when nothing else was.
func quickRequest(plain []byte) (json.RawMessage, bool) {
	const before, after = `{"request":`, `}`
	if len(plain) < len(before)+len(after) || string(plain[:len(before)]) != before {
		return nil, false
	}
	request := plain[len(before) : len(plain)-len(after)]
	// One whole value up to the last brace, so no other member follows it.
	return json.RawMessage(request), plain[len(plain)-1] == '}' && json.Valid(request)
}

// quickReader takes a text apart from its beginning. Once something is not as
// expected, ok is false.
type quickReader struct {
	rest []byte
	ok   bool
}

func (r *quickReader) has(s string) bool {
	if len(r.rest) < len(s) || string(r.rest[:len(s)]) != s {
		return false
	}
	r.rest = r.rest[len(s):]
	return true
}

func (r *quickReader) expect(s string) { r.ok = r.has(s) && r.ok }

// quoted reads a JSON string of printable ASCII in which nothing is escaped.
func (r *quickReader) quoted() []byte {
	r.expect(`"`)
	for i, c := range r.rest {
		switch {
		case c == '"':
			s := r.rest[:i]
			r.rest = r.rest[i+1:]
			return s
		case c == '\\' || c < ' ' || c > '~':
			r.ok = false
			return nil
		}
	}
	r.ok = false
	return nil
}

func (r *quickReader) text() string { return string(r.quoted()) }

// number reads a whole number without a sign, as JSON writes it.
func (r *quickReader) number() int64 {
	n := 0
	for n < len(r.rest) && '0' <= r.rest[n] && r.rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseInt(string(r.rest[:n]), 10, 64)
	r.ok = r.ok && err == nil && (n == 1 || r.rest[0] != '0')
	r.rest = r.rest[n:]
	return v
}
