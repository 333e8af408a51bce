package medsenior

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/providers"
)

const (
	goodID  = "bed1066b-d8b5-47bc-a67f-2fd70a3c442d"
	goodCPF = "12345678901"
)

func TestValidateTakesWhatThePageAllows(t *testing.T) {
	for name, r := range map[string]Request{
		"both contacts":             {EmailID: goodID, CelularID: goodID, CPF: goodCPF, PrimeiroAcesso: new(false)},
		"an e-mail contact":         {EmailID: goodID, CPF: goodCPF, PrimeiroAcesso: new(false)},
		"a mobile contact":          {CelularID: goodID, CPF: goodCPF, PrimeiroAcesso: new(true)},
		"an id that is no UUID":     {CelularID: "42", CPF: goodCPF, PrimeiroAcesso: new(true)},
		"the longest id":            {CelularID: strings.Repeat("é", maxID), CPF: goodCPF, PrimeiroAcesso: new(true)},
		"a CPF with a leading zero": {CelularID: goodID, CPF: "00000000000", PrimeiroAcesso: new(true)},
	} {
		if err := r.Validate(); err != nil {
			t.Errorf("%s: Validate() = %v", name, err)
		}
	}
}

func TestDecodeNamesEveryBadField(t *testing.T) {
	const rest = `,"cpf":"12345678901","primeiroAcesso":false}`
	const contact = `{"emailId":"` + goodID + `",`
	eleven := "must be 11 digits, without dots or hyphen"
	for name, c := range map[string]struct {
		in   string
		want providers.FieldErrors
	}{
		"nothing at all": {`{}`, providers.FieldErrors{
			{Field: "emailId", Problem: "is required unless celularId is given"},
			{Field: "celularId", Problem: "is required unless emailId is given"},
			{Field: "cpf", Problem: "is required"},
			{Field: "primeiroAcesso", Problem: "is required: true or false"},
		}},
		"empty contacts": {`{"emailId":"","celularId":""` + rest, providers.FieldErrors{
			{Field: "emailId", Problem: "is required unless celularId is given"},
			{Field: "celularId", Problem: "is required unless emailId is given"},
		}},
		"a blank contact":             {`{"emailId":"  "` + rest, providers.FieldErrors{{Field: "emailId", Problem: "must not be blank"}}},
		"a contact with a line break": {`{"celularId":"a\nb"` + rest, providers.FieldErrors{{Field: "celularId", Problem: "must not hold control characters"}}},
		"too long a contact":          {`{"celularId":"` + strings.Repeat("x", maxID+1) + `"` + rest, providers.FieldErrors{{Field: "celularId", Problem: "must have at most 128 characters"}}},
		"a contact that is a number":  {`{"emailId":"x","celularId":7` + rest, providers.FieldErrors{{Field: "celularId", Problem: "must be a string"}}},
		"a misspelt contact":          {`{"emailId":"x","celularID":"y"` + rest, providers.FieldErrors{{Field: "celularID", Problem: "is not a field of medsenior; did you mean celularId?"}}},
		"a CPF with dots":             {contact + `"cpf":"123.456.789-01","primeiroAcesso":false}`, providers.FieldErrors{{Field: "cpf", Problem: eleven}}},
		"a CPF of ten digits":         {contact + `"cpf":"1234567890","primeiroAcesso":false}`, providers.FieldErrors{{Field: "cpf", Problem: eleven}}},
		"a CPF of twelve digits":      {contact + `"cpf":"123456789012","primeiroAcesso":false}`, providers.FieldErrors{{Field: "cpf", Problem: eleven}}},
		"a CPF with a letter":         {contact + `"cpf":"1234567890x","primeiroAcesso":false}`, providers.FieldErrors{{Field: "cpf", Problem: eleven}}},
		"a CPF that climbs the path":  {contact + `"cpf":"../../admin","primeiroAcesso":false}`, providers.FieldErrors{{Field: "cpf", Problem: eleven}}},
		"a CPF with a line break":     {contact + `"cpf":"12345678901\n","primeiroAcesso":false}`, providers.FieldErrors{{Field: "cpf", Problem: eleven}}},
		"a CPF in another script":     {contact + `"cpf":"١٢٣٤٥٦٧٨٩٠١","primeiroAcesso":false}`, providers.FieldErrors{{Field: "cpf", Problem: eleven}}},
		"a CPF that is a number":      {contact + `"cpf":12345678901,"primeiroAcesso":false}`, providers.FieldErrors{{Field: "cpf", Problem: "must be a string"}}},
		"a flag that is text":         {contact + `"cpf":"12345678901","primeiroAcesso":"false"}`, providers.FieldErrors{{Field: "primeiroAcesso", Problem: "must be true or false"}}},
		"a flag that is null":         {contact + `"cpf":"12345678901","primeiroAcesso":null}`, providers.FieldErrors{{Field: "primeiroAcesso", Problem: "is required: true or false"}}},
		"a field given twice":         {contact + `"cpf":"12345678901","cpf":"12345678901","primeiroAcesso":false}`, providers.FieldErrors{{Field: "cpf", Problem: "appears more than once"}}},
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
}

func TestBrokenTextFromGoIsNamed(t *testing.T) {
	err := Request{EmailID: "a\xff", CPF: goodCPF, PrimeiroAcesso: new(true)}.Validate()
	want := providers.FieldErrors{{Field: "emailId", Problem: "is not valid UTF-8"}}
	if diff := cmp.Diff(error(want), err); diff != "" {
		t.Errorf("Validate() (-want +got):\n%s", diff)
	}
}

func TestErrorsHoldNoValue(t *testing.T) {
	_, err := Decode([]byte(`{"emailId":"person@example.com\u0000","cpf":"98765432100x","primeiroAcesso":"98765432100","98765432100":1}`))
	if err == nil {
		t.Fatal("Decode() takes it")
	}
	for _, value := range []string{"person", "98765432100"} {
		if strings.Contains(err.Error(), value) {
			t.Errorf("Decode() = %v, which holds %s", err, value)
		}
	}
}

func TestMaskedRecipientAndPersonal(t *testing.T) {
	for _, c := range []struct {
		r        Request
		masked   string
		personal []string
	}{
		{Request{EmailID: "e", CelularID: "c", CPF: goodCPF}, "*********01", []string{goodCPF, "e", "c"}},
		{Request{CelularID: "c", CPF: goodCPF}, "*********01", []string{goodCPF, "c"}},
		{Request{}, "", nil},
	} {
		if got := c.r.MaskedRecipient(); got != c.masked {
			t.Errorf("MaskedRecipient() = %q, want %q", got, c.masked)
		}
		if diff := cmp.Diff(c.personal, c.r.Personal()); diff != "" {
			t.Errorf("Personal() (-want +got):\n%s", diff)
		}
	}
}

func TestRecipientIsTheBeneficiaryByWhicheverContact(t *testing.T) {
	for _, r := range []Request{
		{EmailID: "e", CPF: goodCPF, PrimeiroAcesso: new(true)},
		{CelularID: "c", CPF: goodCPF, PrimeiroAcesso: new(false)},
		{EmailID: "other", CelularID: "c", CPF: goodCPF},
	} {
		if got := r.Recipient(); got != goodCPF {
			t.Errorf("Recipient() of %+v = %q, want %q", r, got, goodCPF)
		}
	}
	if got := (Request{CelularID: "c", CPF: "12345678902"}).Recipient(); got == goodCPF {
		t.Errorf("Recipient() of another beneficiary = %q as well", got)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"emailId":"a","celularId":"b","cpf":"12345678901","primeiroAcesso":false}`))
	f.Add([]byte(`{"cpf":null,"CPF":1}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		if err := r.Validate(); err != nil {
			t.Fatalf("Decode(%s) takes what Validate() does not: %v", data, err)
		}
		again, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := Decode(again)
		if diff := cmp.Diff(r, back); err != nil || diff != "" {
			t.Errorf("%s comes back as another, %v:\n%s", data, err, diff)
		}
	})
}

func TestRecipientsReadsACPFAsPeopleWriteIt(t *testing.T) {
	for _, text := range []string{"12345678901", "123.456.789-01", " 123 456 789 01\n"} {
		if got := recipients(text); len(got) != 1 || got[0] != (Request{CPF: "12345678901"}).Recipient() {
			t.Errorf("recipients(%q) = %q, want 12345678901", text, got)
		}
	}
	for _, text := range []string{"", "1234567890", "123456789012", "1234567890x", "maria@example.com"} {
		if got := recipients(text); got != nil {
			t.Errorf("recipients(%q) = %q, want nobody", text, got)
		}
	}
}
