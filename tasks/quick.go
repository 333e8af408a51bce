package tasks

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
)

var quickStart = `{"v":` + strconv.Itoa(version)

// quickParse reads a payload that is written exactly as [Encode] writes it, which
// nearly all are, without encoding/json: that is most of the time it takes to read
// one. It reports false of any other, right or wrong; those are for encoding/json.
func quickParse(payload []byte) (w wireV1, ok bool) {
	r := quickReader{rest: string(payload), ok: true} // of which all texts are parts
	r.expect(quickStart)
	w.Version = version
	r.expect(`,"id":`)
	w.ID = r.quoted()
	r.expect(`,"provider":`)
	w.Provider = r.quoted()
	r.expect(`,"lane":`)
	w.Lane = Lane(r.quoted())
	r.expect(`,"created_ms":`)
	w.CreatedMS = r.number()
	r.expect(`,"not_after_ms":`)
	w.NotAfterMS = r.number()
	if r.has(`,"max_attempts":`) {
		w.MaxAttempts = int(r.number())
	}
	if r.has(`,"campaign":`) {
		w.Campaign = r.quoted()
	}
	if r.has(`,"replay_of":`) {
		w.ReplayOf = r.quoted()
	}
	r.expect(`,"key":`)
	w.KeyID = r.quoted()
	r.expect(`,"sealed":`)
	sealed := r.quoted()
	w.Sealed = make([]byte, base64.StdEncoding.DecodedLen(len(sealed)))
	n, err := base64.StdEncoding.Decode(w.Sealed, []byte(sealed))
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
	rest string
	ok   bool
}

func (r *quickReader) has(s string) bool {
	rest, ok := strings.CutPrefix(r.rest, s)
	r.rest = rest
	return ok
}

func (r *quickReader) expect(s string) { r.ok = r.has(s) && r.ok }

// quoted reads a JSON string of printable ASCII in which nothing is escaped.
func (r *quickReader) quoted() string {
	r.expect(`"`)
	for i := range len(r.rest) {
		switch c := r.rest[i]; {
		case c == '"':
			s := r.rest[:i]
			r.rest = r.rest[i+1:]
			return s
		case c == '\\' || c < ' ' || c > '~':
			r.ok = false
			return ""
		}
	}
	r.ok = false
	return ""
}

// number reads a whole number without a sign, as JSON writes it.
func (r *quickReader) number() int64 {
	n := 0
	for n < len(r.rest) && '0' <= r.rest[n] && r.rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseInt(r.rest[:n], 10, 64)
	r.ok = r.ok && err == nil && (n == 1 || r.rest[0] != '0')
	r.rest = r.rest[n:]
	return v
}
