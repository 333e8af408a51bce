package tasks_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/tasks"
)

// personal are values of fullMessage that name a person.
var personal = []string{"12345678901", "1163cc70-cdf5-4cbb-95d7-9ae7457046fc", "ana@example.com", "login of"}

// fullMessage returns a message with every field of the payload set.
func fullMessage() tasks.Message {
	created := time.Date(2026, 11, 20, 12, 0, 0, 123e6, time.UTC)
	return tasks.Message{
		ID: "019ab5d2-7c1e-7a40-9d5b-3f0e6f1c2a34", Provider: "medsenior", Lane: tasks.Bulk,
		Request:        json.RawMessage(`{"celularId":"1163cc70-cdf5-4cbb-95d7-9ae7457046fc","cpf":"12345678901","primeiroAcesso":false}`),
		IdempotencyKey: "login of ana@example.com",
		CreatedAt:      created, NotAfter: created.Add(5 * time.Minute),
		MaxAttempts: 3, Campaign: "november", ReplayOf: "019ab5d2-0000-7000-8000-000000000001",
	}
}

func encode(t testing.TB, ring *tasks.Keyring, m tasks.Message) []byte {
	t.Helper()
	payload, err := tasks.Encode(ring, m)
	if err != nil {
		t.Fatalf("Encode() = %v, want a payload", err)
	}
	return payload
}

// fields reads a payload as whoever edits it in Redis would.
func fields(t testing.TB, payload []byte) map[string]any {
	t.Helper()
	var out map[string]any
	d := json.NewDecoder(bytes.NewReader(payload))
	d.UseNumber()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("the payload is no JSON object: %v", err)
	}
	return out
}

func payloadOf(t testing.TB, fields map[string]any) []byte {
	t.Helper()
	out, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// checkQuiet ends with an error when err shows what is sealed.
func checkQuiet(t *testing.T, err error) {
	t.Helper()
	for _, p := range personal {
		if err != nil && strings.Contains(err.Error(), p) {
			t.Errorf("the error %q shows %q", err, p)
		}
	}
}

func TestWhatIsEncodedDecodes(t *testing.T) {
	ring := newRing(t, newKey("k"))
	for name, change := range map[string]func(*tasks.Message){
		"every field":             func(*tasks.Message) {},
		"only what is needed":     func(m *tasks.Message) { m.IdempotencyKey, m.MaxAttempts, m.Campaign, m.ReplayOf = "", 0, "", "" },
		"the interactive lane":    func(m *tasks.Message) { m.Lane = tasks.Interactive },
		"a request in Portuguese": func(m *tasks.Message) { m.Request = json.RawMessage(`{"nome":"João & <Ana>"}`) },
		"a campaign that is hard to quote": func(m *tasks.Message) {
			m.Campaign = "a\"b|\\c\u2028<\x00> ção 💬"
		},
		"the first millisecond there is": func(m *tasks.Message) { m.CreatedAt = time.UnixMilli(1).UTC() },
	} {
		t.Run(name, func(t *testing.T) {
			want := fullMessage()
			change(&want)
			got, err := tasks.Decode(ring, encode(t, ring, want))
			if err != nil {
				t.Fatalf("Decode() = %v", err)
			}
			if !jsonEqual(t, want.Request, got.Request) {
				t.Errorf("request %s, want %s", got.Request, want.Request)
			}
			got.Request, want.Request = nil, nil
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Decode(Encode(m)) (-want +got):\n%s", diff)
			}
		})
	}
}

func jsonEqual(t testing.TB, a, b []byte) bool {
	t.Helper()
	var x, y any
	if err := errors.Join(json.Unmarshal(a, &x), json.Unmarshal(b, &y)); err != nil {
		t.Fatal(err)
	}
	return cmp.Equal(x, y)
}

func TestTimesHaveMillisecondPrecisionAndNoZone(t *testing.T) {
	ring := newRing(t, newKey("k"))
	m := fullMessage()
	m.CreatedAt = time.Date(2026, 11, 20, 9, 0, 0, 123456789, time.FixedZone("BRT", -3*3600))
	got, err := tasks.Decode(ring, encode(t, ring, m))
	if err != nil {
		t.Fatal(err)
	}
	if want := time.Date(2026, 11, 20, 12, 0, 0, 123e6, time.UTC); got.CreatedAt != want {
		t.Errorf("created at %v, want %v", got.CreatedAt, want)
	}
}

func TestNothingOfARequestIsReadableInItsPayload(t *testing.T) {
	ring := newRing(t, newKey("k"))
	payload := encode(t, ring, fullMessage())
	quarantine, err := tasks.Quarantine(ring, "task", []byte("cpf 12345678901, ana@example.com"))
	if err != nil {
		t.Fatal(err)
	}
	for name, kept := range map[string][]byte{"payload": payload, "quarantine": quarantine} {
		var w struct{ Sealed []byte }
		if err := json.Unmarshal(kept, &w); err != nil || len(w.Sealed) == 0 {
			t.Fatalf("%s has no sealed part: %v", name, err)
		}
		for _, p := range append([]string{"cpf", "primeiroAcesso", "idempotency"}, personal...) {
			if bytes.Contains(kept, []byte(p)) || bytes.Contains(w.Sealed, []byte(p)) {
				t.Errorf("%q is readable in the %s", p, name)
			}
		}
	}
	want := []string{"campaign", "created_ms", "id", "key", "lane", "max_attempts", "not_after_ms", "provider", "replay_of", "sealed", "v"}
	if got := sortedKeys(fields(t, payload)); !cmp.Equal(want, got) {
		t.Errorf("the payload's fields are %v, want %v: a new one may name a person and needs a new version", got, want)
	}
}

func sortedKeys(m map[string]any) []string {
	line, _ := json.Marshal(m) // sorts
	var keys []string
	d := json.NewDecoder(bytes.NewReader(line))
	_, _ = d.Token()
	for d.More() {
		k, _ := d.Token()
		var skip json.RawMessage
		_ = d.Decode(&skip)
		keys = append(keys, k.(string))
	}
	return keys
}

func TestEncodeNamesWhatIsWrong(t *testing.T) {
	ring := newRing(t, newKey("k"))
	for name, tt := range map[string]struct {
		change func(*tasks.Message)
		want   string
	}{
		"no id":                         {func(m *tasks.Message) { m.ID = "" }, "missing id"},
		"an id with a brace":            {func(m *tasks.Message) { m.ID = "a{b}" }, "missing id"},
		"an id of 65 characters":        {func(m *tasks.Message) { m.ID = strings.Repeat("a", 65) }, "missing id"},
		"an id that starts with a dash": {func(m *tasks.Message) { m.ID = "-a" }, "missing id"},
		"no provider":                   {func(m *tasks.Message) { m.Provider = "" }, "provider"},
		"a provider with a colon":       {func(m *tasks.Message) { m.Provider = "a:b" }, "provider"},
		"no lane":                       {func(m *tasks.Message) { m.Lane = "" }, "lane"},
		"an unknown lane":               {func(m *tasks.Message) { m.Lane = "urgent" }, "lane"},
		"no time of creation":           {func(m *tasks.Message) { m.CreatedAt = time.Time{} }, "created_ms"},
		"no deadline":                   {func(m *tasks.Message) { m.NotAfter = time.Time{} }, "not_after_ms"},
		"a negative attempt budget":     {func(m *tasks.Message) { m.MaxAttempts = -1 }, "max_attempts"},
		"a campaign that is no UTF-8":   {func(m *tasks.Message) { m.Campaign = "nov\xff" }, "campaign"},
		"a replay_of that is no UTF-8":  {func(m *tasks.Message) { m.ReplayOf = "\xff" }, "replay_of"},
		"two things wrong":              {func(m *tasks.Message) { m.ID, m.Lane = "", "" }, "id, lane"},
		"a request that is no JSON":     {func(m *tasks.Message) { m.Request = json.RawMessage(`{"cpf":"12345678901"`) }, "request is not JSON"},
		"a campaign as long as a novel": {func(m *tasks.Message) { m.Campaign = strings.Repeat("c", 256<<10) }, "bytes are more than 262144"},
		"a request larger than it can be": {func(m *tasks.Message) {
			m.Request = json.RawMessage(`"` + strings.Repeat("12345678901", 30<<10) + `"`)
		}, "bytes are more than 262144"},
	} {
		t.Run(name, func(t *testing.T) {
			m := fullMessage()
			tt.change(&m)
			payload, err := tasks.Encode(ring, m)
			if payload != nil || !errors.Is(err, tasks.ErrMalformed) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Encode() = %s, %v, want ErrMalformed with %q", payload, err, tt.want)
			}
			checkQuiet(t, err)
		})
	}
}

func TestEncodeWithoutKeysFails(t *testing.T) {
	if _, err := tasks.Encode(nil, fullMessage()); !errors.Is(err, tasks.ErrNoKeys) {
		t.Errorf("Encode(nil, m) = %v, want ErrNoKeys", err)
	}
	if _, err := tasks.Quarantine(nil, "id", nil); !errors.Is(err, tasks.ErrNoKeys) {
		t.Errorf("Quarantine(nil) = %v, want ErrNoKeys", err)
	}
}

func TestTheLargestPayloadDecodes(t *testing.T) {
	ring := newRing(t, newKey("k"))
	const limit = 256 << 10
	m := fullMessage()
	m.Campaign = ""
	m.Campaign = strings.Repeat("c", limit-len(encode(t, ring, m))-len(`"campaign":"",`))
	payload := encode(t, ring, m)
	if len(payload) != limit {
		t.Fatalf("the payload is %d bytes, want %d", len(payload), limit)
	}
	if _, err := tasks.Decode(ring, payload); err != nil {
		t.Errorf("Decode() of %d bytes = %v, want a message", limit, err)
	}
	payload = append(payload, ' ')
	if _, err := tasks.Decode(ring, payload); !errors.Is(err, tasks.ErrMalformed) {
		t.Errorf("Decode() of %d bytes = %v, want ErrMalformed", limit+1, err)
	}
	if _, _, err := tasks.Peek(payload); !errors.Is(err, tasks.ErrMalformed) {
		t.Errorf("Peek() of %d bytes = %v, want ErrMalformed", limit+1, err)
	}
}

// TestTheSealCoversAllThatIsBesideIt edits each clear field to another value
// that would be allowed.
func TestTheSealCoversAllThatIsBesideIt(t *testing.T) {
	ring := newRing(t, newKey("k"))
	edits := map[string]any{
		"id": "019ab5d2-7c1e-7a40-9d5b-3f0e6f1c2a35", "provider": "kinpos", "lane": "interactive",
		"created_ms": 1795176000124, "not_after_ms": 1795176300124, "max_attempts": 4, "campaign": "december", "replay_of": "x",
	}
	covered := map[string]bool{"v": true, "key": true, "sealed": true} // not beside the seal: they open it
	check := func(t *testing.T, edited map[string]any) {
		t.Helper()
		m, err := tasks.Decode(ring, payloadOf(t, edited))
		if !errors.Is(err, tasks.ErrSealBroken) {
			t.Errorf("Decode() = %v, want ErrSealBroken", err)
		}
		if m.Request != nil || m.IdempotencyKey != "" {
			t.Error("Decode() gave the request away all the same")
		}
		checkQuiet(t, err)
	}
	for field, value := range edits {
		covered[field] = true
		t.Run(field+" edited", func(t *testing.T) {
			f := fields(t, encode(t, ring, fullMessage()))
			if fmt.Sprint(f[field]) == fmt.Sprint(value) {
				t.Fatalf("%s is %v already", field, value)
			}
			f[field] = value
			check(t, f)
		})
	}
	for _, field := range []string{"max_attempts", "campaign", "replay_of"} {
		t.Run(field+" removed", func(t *testing.T) {
			f := fields(t, encode(t, ring, fullMessage()))
			delete(f, field)
			check(t, f)
		})
	}
	for field := range fields(t, encode(t, ring, fullMessage())) {
		if !covered[field] {
			t.Errorf("no edit of field %s is tried", field)
		}
	}
	t.Run("sealed part moved from another message", func(t *testing.T) {
		other := fullMessage()
		other.ID = tasks.NewID()
		f := fields(t, encode(t, ring, fullMessage()))
		f["sealed"] = fields(t, encode(t, ring, other))["sealed"]
		check(t, f)
	})
	t.Run("values shifted from one field to the next", func(t *testing.T) {
		m := fullMessage()
		m.Campaign, m.ReplayOf = "a", `b`
		f := fields(t, encode(t, ring, m))
		f["campaign"], f["replay_of"] = `a"|"b`, ""
		check(t, f)
	})
	t.Run("a quarantined payload under a message's fields", func(t *testing.T) {
		q, err := tasks.Quarantine(ring, fullMessage().ID, []byte(`{"request":{}}`))
		if err != nil {
			t.Fatal(err)
		}
		f := fields(t, encode(t, ring, fullMessage()))
		f["sealed"] = fields(t, q)["sealed"]
		check(t, f)
	})
}

func TestDecode(t *testing.T) {
	oldKey, key := newKey("old"), newKey("new")
	writer := newRing(t, oldKey)
	edit := func(field string, value any) func(*testing.T) []byte {
		return func(t *testing.T) []byte {
			t.Helper()
			f := fields(t, encode(t, writer, fullMessage()))
			f[field] = value
			if value == nil {
				delete(f, field)
			}
			return payloadOf(t, f)
		}
	}
	text := func(s string) func(*testing.T) []byte { return func(*testing.T) []byte { return []byte(s) } }
	good := func(t *testing.T) []byte { t.Helper(); return encode(t, writer, fullMessage()) }
	sealedText := func(plain string) func(*testing.T) []byte {
		return func(t *testing.T) []byte {
			t.Helper()
			// What associated() makes of these fields, spelled out: it may not
			// change within a version.
			id, sealed, err := writer.Seal([]byte(plain), []byte(`otpq/1|"a"|"kinpos"|"bulk"|1|2|0|""|""`))
			if err != nil {
				t.Fatal(err)
			}
			return payloadOf(t, map[string]any{
				"v": 1, "id": "a", "provider": "kinpos", "lane": "bulk", "created_ms": 1, "not_after_ms": 2, "key": id, "sealed": sealed,
			})
		}
	}
	for name, tt := range map[string]struct {
		payload func(*testing.T) []byte
		ring    *tasks.Keyring
		want    error
		detail  string
	}{
		"the writer's key":                       {payload: good, ring: writer},
		"a new first key, the old one behind it": {payload: good, ring: newRing(t, key, oldKey)},
		"the key was removed":                    {good, newRing(t, key), tasks.ErrKeyUnknown, `"old"`},
		"another secret under the same id":       {good, newRing(t, newKey("old")), tasks.ErrSealBroken, ""},
		"no keyring":                             {good, nil, tasks.ErrKeyUnknown, ""},
		"nothing":                                {text(""), writer, tasks.ErrMalformed, ""},
		"text":                                   {text("12345678901"), writer, tasks.ErrMalformed, ""},
		"a JSON string":                          {text(`"ana@example.com"`), writer, tasks.ErrMalformed, ""},
		"null":                                   {text("null"), writer, tasks.ErrMalformed, ""},
		"an empty object":                        {text("{}"), writer, tasks.ErrMalformed, ""},
		"another system's JSON":                  {text(`{"email":"ana@example.com"}`), writer, tasks.ErrMalformed, ""},
		"only a version":                         {text(`{"v":1}`), writer, tasks.ErrMalformed, "id, provider, lane, created_ms, not_after_ms"},
		"a cut payload":                          {func(t *testing.T) []byte { t.Helper(); p := good(t); return p[:len(p)/2] }, writer, tasks.ErrMalformed, ""},
		"version 0":                              {edit("v", 0), writer, tasks.ErrMalformed, ""},
		"a negative version":                     {edit("v", -1), writer, tasks.ErrMalformed, ""},
		"no version":                             {edit("v", nil), writer, tasks.ErrMalformed, ""},
		"a version that is a word":               {edit("v", "1"), writer, tasks.ErrMalformed, ""},
		"the next version":                       {edit("v", 2), writer, tasks.ErrVersion, "version 2, known up to 1"},
		"a far version without version 1's parts": {text(`{"v":99,"id":"abc","body":"ana@example.com"}`), writer, tasks.ErrVersion, "version 99"},
		"a field of the wrong type":               {edit("max_attempts", "ana@example.com"), writer, tasks.ErrMalformed, ""},
		"a negative attempt budget":               {edit("max_attempts", -1), writer, tasks.ErrMalformed, "max_attempts"},
		"an id that could move a Redis key":       {edit("id", "{ana@example.com}"), writer, tasks.ErrMalformed, "id"},
		"an unknown lane":                         {edit("lane", "ana@example.com"), writer, tasks.ErrMalformed, "lane"},
		"no sealed part":                          {edit("sealed", nil), writer, tasks.ErrSealBroken, ""},
		"a sealed part that is no base64":         {edit("sealed", "12345678901!"), writer, tasks.ErrMalformed, ""},
		"a short sealed part":                     {edit("sealed", "AAAA"), writer, tasks.ErrSealBroken, ""},
		"no key id":                               {edit("key", nil), writer, tasks.ErrKeyUnknown, ""},
		"a sealed message without more":           {payload: sealedText(`{"request":{}}`), ring: writer},
		"a seal around something else":            {sealedText(`ana@example.com 12345678901`), writer, tasks.ErrMalformed, ""},
		"a seal around the wrong types":           {sealedText(`{"idempotency_key":12345678901}`), writer, tasks.ErrMalformed, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := tasks.Decode(tt.ring, tt.payload(t))
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.detail) {
				t.Errorf("Decode() = %v, want %v with %q", err, tt.want, tt.detail)
			}
			if err != nil && (m.Request != nil || m.IdempotencyKey != "") {
				t.Error("Decode() failed and gave the request away all the same")
			}
			checkQuiet(t, err)
		})
	}
}

func TestPeek(t *testing.T) {
	payload := encode(t, newRing(t, newKey("2026-11")), fullMessage())
	want := fullMessage()
	want.Request, want.IdempotencyKey = nil, ""
	m, keyID, err := tasks.Peek(payload)
	if err != nil || keyID != "2026-11" {
		t.Errorf("Peek() = key %q, %v, want key 2026-11", keyID, err)
	}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Errorf("Peek() (-want +got):\n%s", diff)
	}
	if _, _, err := tasks.Peek([]byte("{}")); !errors.Is(err, tasks.ErrMalformed) {
		t.Errorf("Peek({}) = %v, want ErrMalformed", err)
	}
}

func TestAMessageOfANewerVersionKeepsItsID(t *testing.T) {
	payload := []byte(`{"v":2,"id":"019ab5d2-7c1e-7a40-9d5b-3f0e6f1c2a34","lane":["of","another","shape"]}`)
	want := tasks.Message{ID: "019ab5d2-7c1e-7a40-9d5b-3f0e6f1c2a34"}
	decoded, err := tasks.Decode(newRing(t, newKey("k")), payload)
	if diff := cmp.Diff(want, decoded); diff != "" || !errors.Is(err, tasks.ErrVersion) {
		t.Errorf("Decode() = %v, want ErrVersion (-want +got):\n%s", err, diff)
	}
	peeked, _, err := tasks.Peek(payload)
	if diff := cmp.Diff(want, peeked); diff != "" || !errors.Is(err, tasks.ErrVersion) {
		t.Errorf("Peek() = %v, want ErrVersion (-want +got):\n%s", err, diff)
	}
}

// TestAnUnreadablePayloadHasNoTimes: 1970 would be taken for a time.
func TestAnUnreadablePayloadHasNoTimes(t *testing.T) {
	for _, payload := range []string{"", "{}", `{"v":1}`, `{"v":2}`, `{"v":1,"created_ms":-5,"not_after_ms":0}`} {
		m, err := tasks.Decode(newRing(t, newKey("k")), []byte(payload))
		if err == nil || !m.CreatedAt.IsZero() || !m.NotAfter.IsZero() {
			t.Errorf("Decode(%s) = created at %v, not after %v, %v; want no times and an error", payload, m.CreatedAt, m.NotAfter, err)
		}
	}
}

func TestQuarantine(t *testing.T) {
	oldKey := newKey("old")
	ring := newRing(t, oldKey)
	unreadable := []byte("cpf 12345678901, \x00\xff not JSON")
	quarantine := func(t *testing.T) map[string]any {
		t.Helper()
		q, err := tasks.Quarantine(ring, "task 7", unreadable)
		if err != nil {
			t.Fatalf("Quarantine() = %v", err)
		}
		return fields(t, q)
	}
	for name, tt := range map[string]struct {
		ring *tasks.Keyring
		edit func(map[string]any)
		want error
	}{
		"what was sealed comes back":       {ring: ring},
		"after a rotation too":             {ring: newRing(t, newKey("new"), oldKey)},
		"the key was removed":              {ring: newRing(t, newKey("new")), want: tasks.ErrKeyUnknown},
		"another secret under the same id": {ring: newRing(t, newKey("old")), want: tasks.ErrSealBroken},
		"under another task's name":        {ring: ring, edit: func(f map[string]any) { f["quarantined"] = "task 8" }, want: tasks.ErrSealBroken},
		"without a task's name":            {ring: ring, edit: func(f map[string]any) { delete(f, "quarantined") }, want: tasks.ErrMalformed},
		"without a sealed part":            {ring: ring, edit: func(f map[string]any) { delete(f, "sealed") }, want: tasks.ErrSealBroken},
	} {
		t.Run(name, func(t *testing.T) {
			f := quarantine(t)
			if tt.edit != nil {
				tt.edit(f)
			}
			got, err := tasks.Release(tt.ring, payloadOf(t, f))
			if !errors.Is(err, tt.want) {
				t.Fatalf("Release() = %v, want %v", err, tt.want)
			}
			if tt.want == nil && !bytes.Equal(got, unreadable) {
				t.Errorf("Release() = %q, want %q", got, unreadable)
			}
			checkQuiet(t, err)
		})
	}
	t.Run("whatever the bytes are", func(t *testing.T) {
		for _, payload := range []string{"", "{}", "null", "\x00\xff", strings.Repeat("x", 300<<10)} {
			kept, err := tasks.Quarantine(ring, "task", []byte(payload))
			if err != nil || !json.Valid(kept) {
				t.Fatalf("Quarantine() = %v, want JSON", err)
			}
			if got, err := tasks.Release(ring, kept); err != nil || string(got) != payload {
				t.Errorf("Release() = %d bytes, %v, want the %d bytes that were sealed", len(got), err, len(payload))
			}
		}
	})
	t.Run("a message is no quarantine", func(t *testing.T) {
		if _, err := tasks.Release(ring, encode(t, ring, fullMessage())); !errors.Is(err, tasks.ErrMalformed) {
			t.Errorf("Release() of a message = %v, want ErrMalformed", err)
		}
	})
	t.Run("a quarantine is no message", func(t *testing.T) {
		if _, err := tasks.Decode(ring, payloadOf(t, quarantine(t))); !errors.Is(err, tasks.ErrMalformed) {
			t.Errorf("Decode() of a quarantine = %v, want ErrMalformed", err)
		}
	})
}
