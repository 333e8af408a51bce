package vendorhttp

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRedact(t *testing.T) {
	personal := []string{"123.456.789-01", "Teste@Gmail.com", "maria", "maria silva", "élise/1"}
	for name, c := range map[string]struct{ in, want string }{
		"plain words stay":            {`{"message":"sem sessão","sended":false}`, `{"message":"sem sessão","sended":false}`},
		"field names stay":            {`tempoExpiracaoCodigoValidacaoEmSegundos`, `tempoExpiracaoCodigoValidacaoEmSegundos`},
		"short numbers stay":          {`status 404, after 30 s`, `status 404, after 30 s`},
		"a value in another case":     {`user TESTE@gmail.COM`, `user [redacted]`},
		"the longer value first":      {`a MARIA SILVA b`, `a [redacted] b`},
		"a value without separators":  {`cpf 12345678901`, `cpf [redacted]`},
		"a value with others":         {`cpf 123 456 789/01`, `cpf [redacted]`},
		"an address without domain":   {`uri=/ teste`, `uri=/ [redacted]`},
		"a JSON escape":               {`"teste\u0040gmail.com"`, `"[redacted]"`},
		"a JSON escape in JSON":       {`"{\"u\":\"teste\\u0040gmail.com\"}"`, `"{"u":"[redacted]"}"`},
		"an escaped slash":            {`\u00c9lise\/1`, `[redacted]`},
		"a percent escape":            {`user=teste%40gmail%2Ecom&x=1`, `user=[redacted]&x=1`},
		"an escaped percent escape":   {`teste%2540gmail.com`, `[redacted]`},
		"an HTML entity":              {`teste&#64;gmail.com`, `[redacted]`},
		"another person's address":    {`to "outra@exemplo.com.br".`, `to "[redacted]".`},
		"a code":                      {`code 9041`, `code [redacted]`},
		"a grouped phone":             {`+55 (31) 9 8888-7777`, `+[redacted]`},
		"digits of another script":    {"٠١٢٣٤", `[redacted]`},
		"a UUID":                      {`id bed1066b-d8b5-47bc-a67f-aaaaaaaaaaaa!`, `id [redacted]!`},
		"hex":                         {`x deadbeefdeadbeefcafe1a y`, `x [redacted] y`},
		"base64 without a digit":      {strings.Repeat("abcdefgh", 8), `[redacted]`},
		"a JWT":                       {`Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc_def-ghi`, `Bearer [redacted]`},
		"the token":                   {`you sent S3-TOKEN-x`, `you sent [redacted]`},
		"a token in upper case":       {`you sent s3-token-X`, `you sent [redacted]`},
		"bytes that are not text":     {"\xff\xfe maria", "\uFFFD [redacted]"},
		"a percent sign that is none": {`100% of %zz`, `100% of %zz`},
	} {
		t.Run(name, func(t *testing.T) {
			if got := redact(c.in, personal, "s3-TOKEN-x"); got != c.want {
				t.Errorf("redact(%q) = %q, want %q", c.in, got, c.want)
			}
		})
	}
}

func TestRedactIsShort(t *testing.T) {
	got := redact(strings.Repeat("é", 10_000), nil, "")
	if len(got) > maxLogged || len(got) < maxLogged-utf8.UTFMax || !utf8.ValidString(got) {
		t.Errorf("redact() of 20,000 bytes has %d bytes, valid %v; want at most %d, whole characters", len(got), utf8.ValidString(got), maxLogged)
	}
}

func FuzzRedact(f *testing.F) {
	f.Add("user ", "teste@gmail.com", " unknown")
	f.Add(`{"a":"\u00`, "12345678901", `","b":1}`)
	f.Add("%4", "maria", "%")
	f.Fuzz(func(t *testing.T, before, value, after string) {
		// What is no text, or text that escaping changes, is not what people are called.
		if len(value) < 5 || !utf8.ValidString(value) || strings.ContainsAny(value, `\%&;`) || strings.Contains("[redacted]", value) {
			return
		}
		got := redact(before+" "+value+" "+after, []string{value}, "")
		if strings.Contains(got, value) {
			t.Errorf("redact() = %q, which holds %q", got, value)
		}
		if len(got) > maxLogged || !utf8.ValidString(got) {
			t.Errorf("redact() has %d bytes, valid %v", len(got), utf8.ValidString(got))
		}
	})
}
