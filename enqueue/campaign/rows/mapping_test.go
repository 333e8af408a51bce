package rows_test

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers"
)

func TestParseMapping(t *testing.T) {
	pairs := []string{"cpf=document", " emailId = e-mail da pessoa ", "celularId=3", "primeiroAcesso==false", "auditInfo.ipAddress=a=b", "language== pt=BR"}
	want := rows.Mapping{
		{Field: "cpf", Column: "document"}, {Field: "emailId", Column: "e-mail da pessoa"}, {Field: "celularId", Column: "3"},
		{Field: "primeiroAcesso", Constant: true, Value: "false"}, {Field: "auditInfo.ipAddress", Column: "a=b"}, {Field: "language", Constant: true, Value: " pt=BR"},
	}
	got, err := rows.ParseMapping(pairs)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("ParseMapping() = %v (-want +got):\n%s", err, diff)
	}
	for i, p := range got {
		if again, err := rows.ParseMapping([]string{p.String()}); err != nil || again[0] != got[i] {
			t.Errorf("%q reads back as %+v, %v", p, again, err)
		}
	}
	if got, err := rows.ParseMapping(nil); got != nil || err != nil {
		t.Errorf("ParseMapping(nil) = %v, %v", got, err)
	}
}

func TestAPairThatIsWrongIsNamed(t *testing.T) {
	for pair, problem := range map[string]string{
		"":          "is neither FIELD=COLUMN nor FIELD==VALUE",
		"cpf":       "is neither FIELD=COLUMN nor FIELD==VALUE",
		"=cpf":      "is neither FIELD=COLUMN nor FIELD==VALUE",
		"==x":       "is neither FIELD=COLUMN nor FIELD==VALUE",
		"cpf=":      "names no column",
		"cpf= ":     "names no column",
		"cpf==":     "has no value: leave the field out instead",
		"cpf=0":     "has a number that no column has: the first is 1",
		"cpf=-1":    "has a number that no column has: the first is 1",
		"type=once": "is for a field that another pair is for",
	} {
		_, err := rows.ParseMapping([]string{"type==EMAIL", pair, "username=1"})
		var got *rows.PairError
		if !errors.As(err, &got) || *got != (rows.PairError{Pair: pair, Problem: problem}) {
			t.Errorf("ParseMapping(%q) = %v, want %q", pair, err, problem)
		}
	}
}

func TestFieldsAreThoseOfTheProvidersPage(t *testing.T) {
	for provider, want := range map[string][]string{
		"unimedbh":  {"username", "type"},
		"medsenior": {"emailId", "celularId", "cpf", "primeiroAcesso"},
		"kinpos": {
			"userTypeAltId", "mobileNumber", "internationalPrefix", "emailAddress",
			"auditInfo.ipAddress", "auditInfo.latitude", "auditInfo.longitude", "auditInfo.countryCode",
			"recoveryId", "userRegistrationId", "applicationId", "applicationVersion", "applicationOS", "language",
			"deviceId", "deviceAltId", "ipAddress", "latitude", "longitude", "additionalParameters.*",
		},
	} {
		if diff := cmp.Diff(want, rows.Fields(definitions[provider])); diff != "" {
			t.Errorf("Fields(%s) (-want +got):\n%s", provider, diff)
		}
	}
}

// newcomer is a provider's request that is part of itself, and has what no column can
// fill.
type newcomer struct {
	Who    string    `json:"who"`
	Age    int64     `json:"age"`
	Inner  *newcomer `json:"inner"`
	Flag   bool      `json:"flag"`
	List   []string  `json:"list"`
	Hidden string    `json:"-"`
	Bare   string    //nolint:tagliatelle // has no name on the page
	Deep   struct {
		More map[string]string `json:"more"`
	} `json:"deep"`
}

func (newcomer) ProviderName() string    { return "newcomer" }
func (newcomer) MaskedRecipient() string { return "***" }
func (n newcomer) Recipient() string     { return n.Who }
func (n newcomer) Personal() []string    { return []string{n.Who} }
func (n newcomer) Validate() error {
	if n.Who == "nobody" {
		return errors.New("nobody is at home")
	}
	return nil
}

func TestANewProviderNeedsNothingHere(t *testing.T) {
	def := providers.Definition{Name: "newcomer", Example: newcomer{}}
	const in = "who,age,inner.who,flag,deep.more.x\nana,7,bia,true,y\nnobody,,,,\n"
	f, err := rows.Open(t.Context(), strings.NewReader(in), def, rows.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var got []rows.Row
	for row, err := range f.Rows() {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, row)
	}
	want := newcomer{Who: "ana", Age: 7, Inner: &newcomer{Who: "bia"}, Flag: true}
	want.Deep.More = map[string]string{"x": "y"}
	if diff := cmp.Diff([]rows.Row{
		{Line: 2, Request: want},
		{Line: 3, Problems: []providers.FieldError{{Field: "row", Problem: "is not what the provider takes"}}}, // and nothing of the error
	}, got); diff != "" {
		t.Errorf("Rows() (-want +got):\n%s", diff)
	}
	for _, no := range []string{"list", "hidden", "Hidden", "Bare", "", "deep", "deep.more", "inner.inner.inner.inner.who"} {
		m := rows.Mapping{{Field: no, Column: "1"}}
		if _, err := rows.Open(t.Context(), strings.NewReader(in), def, rows.FileOptions{Map: m}); err == nil {
			t.Errorf("a column can be mapped to %q", no)
		}
	}
	for _, example := range []providers.Request{nil, &newcomer{}} {
		def.Example = example
		if _, err := rows.Open(t.Context(), strings.NewReader(in), def, rows.FileOptions{}); err == nil {
			t.Errorf("Open() of a provider whose example is %T is no error", example)
		}
	}
}

func TestRequestsOfOtherRowsAreNotChanged(t *testing.T) {
	const in = "cpf,celularId,primeiroAcesso\n12345678901,a,true\n12345678902,b,false\n12345678903,,true\n12345678904,d,true\n"
	f, err := rows.Open(t.Context(), strings.NewReader(in), definitions["medsenior"], rows.FileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var kept []rows.Row
	for row, err := range f.Rows() {
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, row)
	}
	var got []string
	for _, row := range kept {
		got = append(got, shown(row))
	}
	want := []string{
		"2 12345678901 /a true", "3 12345678902 /b false",
		"4: emailId is required unless celularId is given; celularId is required unless emailId is given", "5 12345678904 /d true",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("rows that were kept (-want +got):\n%s", diff)
	}
}

func TestProblemsHoldNoValue(t *testing.T) {
	for _, in := range []string{
		"username,type\nmaria\x01987654321,x\nmaria987654321\n\"maria987654321\n\"maria987654321\"x,\nmar\"ia987654321,y\n",
		"cpf,primeiroAcesso\nmaria987654321,maria987654321\n",
		"mobileNumber,deviceId,additionalParameters.a\nmaria987654321,maria987654321,\xffmaria987654321\n",
		"maria,987654321\n",
		`{"username":"maria\u0000987654321","maria987654321":1,"type":7}` + "\n{maria987654321\n",
	} {
		for name, def := range definitions {
			f, err := rows.Open(t.Context(), strings.NewReader(in), def, rows.FileOptions{})
			said := ""
			if err != nil {
				said = err.Error()
			} else {
				for row, err := range f.Rows() {
					if row.Problems == nil || err != nil {
						t.Errorf("%s: row %+v, %v of %q, want problems", name, row, err, in)
					}
					said += shown(row) + "\n"
				}
			}
			for _, value := range []string{"maria", "987654321"} {
				if strings.Contains(said, value) {
					t.Errorf("%s: %s is told of what is wrong with %q", name, said, in)
				}
			}
		}
	}
}

func TestBadRowsAreWrittenAsCSV(t *testing.T) {
	var out bytes.Buffer
	b := rows.NewBadRows(&out)
	b.Add(3, []providers.FieldError{{Field: "cpf", Problem: "must be 11 digits, without dots or hyphen"}, {Field: "emailId", Problem: "is required"}})
	b.Add(4, nil)
	b.Add(70, []providers.FieldError{{Field: "row", Problem: "is longer than 256 KiB"}})
	if err := b.Flush(); err != nil || b.Rows() != 2 {
		t.Errorf("Flush() = %v after %d rows, want 2", err, b.Rows())
	}
	const want = "line,field,problem\n3,cpf,\"must be 11 digits, without dots or hyphen\"\n3,emailId,is required\n70,row,is longer than 256 KiB\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("bad rows (-want +got):\n%s", diff)
	}
	b = rows.NewBadRows(full{})
	b.Add(1, []providers.FieldError{{Field: "row", Problem: strings.Repeat("x", 100_000)}})
	if err := b.Flush(); !errors.Is(err, os.ErrPermission) {
		t.Errorf("Flush() = %v, want that of the disk", err)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, os.ErrPermission }
