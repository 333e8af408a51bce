package unimedbh

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/providers"
)

func TestValidateTakesWhatThePageAllows(t *testing.T) {
	for name, r := range map[string]Request{
		"the page's example":  {Username: "teste@gmail.com", Type: "EMAIL"},
		"a type not shown":    {Username: "12345678901", Type: "sms"},
		"a name with a space": {Username: "maria da silva", Type: "EMAIL"},
		"the longest of both": {Username: strings.Repeat("é", maxUsername), Type: strings.Repeat("é", maxType)},
	} {
		if err := r.Validate(); err != nil {
			t.Errorf("%s: Validate() = %v", name, err)
		}
	}
}

func TestDecodeNamesEveryBadField(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want providers.FieldErrors
	}{
		"nothing at all": {`{}`, providers.FieldErrors{
			{Field: "username", Problem: "is required"}, {Field: "type", Problem: "is required"},
		}},
		"two wrong types": {`{"username":1,"type":["EMAIL"]}`, providers.FieldErrors{
			{Field: "username", Problem: "must be a string"}, {Field: "type", Problem: "must be a string"},
		}},
		"an empty username":          {`{"username":"","type":"EMAIL"}`, providers.FieldErrors{{Field: "username", Problem: "is required"}}},
		"a blank username":           {`{"username":"\u00a0 ","type":"EMAIL"}`, providers.FieldErrors{{Field: "username", Problem: "must not be blank"}}},
		"too long a username":        {`{"username":"` + strings.Repeat("x", maxUsername+1) + `","type":"EMAIL"}`, providers.FieldErrors{{Field: "username", Problem: "must have at most 254 characters"}}},
		"a username with a NUL":      {`{"username":"a\u0000","type":"EMAIL"}`, providers.FieldErrors{{Field: "username", Problem: "must not hold control characters"}}},
		"a null username":            {`{"username":null,"type":"EMAIL"}`, providers.FieldErrors{{Field: "username", Problem: "is required"}}},
		"no type":                    {`{"username":"a"}`, providers.FieldErrors{{Field: "type", Problem: "is required"}}},
		"a blank type":               {`{"username":"a","type":"\t"}`, providers.FieldErrors{{Field: "type", Problem: "must not be blank"}}},
		"too long a type":            {`{"username":"a","type":"` + strings.Repeat("x", maxType+1) + `"}`, providers.FieldErrors{{Field: "type", Problem: "must have at most 64 characters"}}},
		"a type with a line break":   {`{"username":"a","type":"EMAIL\n"}`, providers.FieldErrors{{Field: "type", Problem: "must not hold control characters"}}},
		"a username in another case": {`{"username":"a","userName":"b","type":"EMAIL"}`, providers.FieldErrors{{Field: "userName", Problem: "is not a field of unimedbh; did you mean username?"}}},
		"another provider's field":   {`{"username":"a","type":"EMAIL","cpf":"1"}`, providers.FieldErrors{{Field: "cpf", Problem: "is not a field of unimedbh"}}},
		"a list":                     {`[{"username":"a","type":"EMAIL"}]`, providers.FieldErrors{{Field: "body", Problem: "must be a JSON object"}}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Decode([]byte(c.in))
			var errs providers.FieldErrors
			if got != nil || !errors.As(err, &errs) {
				t.Fatalf("Decode(%s) = %v, %v, want an error by field", c.in, got, err)
			}
			if diff := cmp.Diff(c.want, errs); diff != "" {
				t.Errorf("Decode(%s) (-want +got):\n%s", c.in, diff)
			}
		})
	}
	want := providers.FieldErrors{{Field: "username", Problem: "is not valid UTF-8"}}
	if diff := cmp.Diff(error(want), Request{Username: "\xff", Type: "EMAIL"}.Validate()); diff != "" {
		t.Errorf("Validate() of broken text (-want +got):\n%s", diff)
	}
}

func TestEveryKindOfUsernameIsMasked(t *testing.T) {
	for username, want := range map[string]string{
		"teste@gmail.com": "t***@***.com",
		"12345678901":     "*********01",
		"5531999990042":   "***********42",
		"mariasilva":      "m***",
		"":                "",
	} {
		r := Request{Username: username, Type: "EMAIL"}
		if got := r.MaskedRecipient(); got != want {
			t.Errorf("MaskedRecipient() of %q = %q, want %q", username, got, want)
		}
		if got := r.Personal(); len(got) != min(1, len(username)) {
			t.Errorf("Personal() of %q = %q", username, got)
		}
	}
}

func TestRecipientIsTheUserHoweverWritten(t *testing.T) {
	for username, want := range map[string]string{
		"teste@gmail.com":    "teste@gmail.com",
		"Teste@Gmail.COM":    "teste@gmail.com",
		" teste@gmail.com\t": "teste@gmail.com",
		"teste2@gmail.com":   "teste2@gmail.com",
		"12345678901":        "12345678901",
		"JOSÉ":               "josé",
	} {
		for _, kind := range []string{"EMAIL", "sms"} {
			if got := (Request{Username: username, Type: kind}).Recipient(); got != want {
				t.Errorf("Recipient() of %q by %s = %q, want %q", username, kind, got, want)
			}
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"username":"teste@gmail.com","type":"EMAIL"}`))
	f.Add([]byte(`{"username":"\ud83d","Type":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(again)
		if diff := cmp.Diff(r, back); err != nil || diff != "" {
			t.Errorf("%s comes back as another, %v:\n%s", data, err, diff)
		}
		if username := r.(Request).Username; strings.Contains(r.MaskedRecipient(), username) && strings.Trim(username, "*@") != "" {
			t.Errorf("MaskedRecipient() = %q shows %q", r.MaskedRecipient(), username)
		}
	})
}

func TestRecipientsReadsAUsername(t *testing.T) {
	for _, text := range []string{"teste@gmail.com", " Teste@Gmail.com\t"} {
		if got := recipients(text); len(got) != 1 || got[0] != (Request{Username: "TESTE@gmail.com"}).Recipient() {
			t.Errorf("recipients(%q) = %q, want teste@gmail.com", text, got)
		}
	}
	if got := recipients("\n "); got != nil {
		t.Errorf("recipients of nothing = %q, want nobody", got)
	}
}
