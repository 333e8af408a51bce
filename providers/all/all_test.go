package all

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/otpq/otpq/internal/secret"
	"github.com/otpq/otpq/providers"
)

func TestAllNamesEveryProviderOnce(t *testing.T) {
	var got []string
	for _, d := range All() {
		got = append(got, d.Name)
	}
	if diff := cmp.Diff([]string{"kinpos", "medsenior", "unimedbh"}, got); diff != "" {
		t.Errorf("All() (-want +got):\n%s", diff)
	}
}

func TestByName(t *testing.T) {
	for _, want := range All() {
		if got, ok := ByName(want.Name); !ok || got.Name != want.Name {
			t.Errorf("ByName(%q) = %q, %v", want.Name, got.Name, ok)
		}
	}
	for _, name := range []string{"", "Medsenior", "other"} {
		if got, ok := ByName(name); ok {
			t.Errorf("ByName(%q) = %q, want none", name, got.Name)
		}
	}
}

func TestWhatOneProviderTakesAnotherRefuses(t *testing.T) {
	for _, d := range All() {
		for _, other := range All() {
			if d.Name == other.Name {
				continue
			}
			p, err := other.New(providers.Settings{BaseURL: "http://127.0.0.1:1", Token: tokenFor(other)})
			if err != nil {
				t.Fatal(err)
			}
			if out := p.Send(t.Context(), d.Example); out.Kind != providers.Rejected || out.HTTPStatus != 0 {
				t.Errorf("%s.Send(%T) = %+v, want rejected", other.Name, d.Example, out)
			}
		}
	}
}

func TestCallersShareNothing(t *testing.T) {
	All()[1].Environments["producao"] = "https://evil.example.com"
	i := slices.IndexFunc(All(), func(d providers.Definition) bool { return d.Name == "medsenior" })
	if got := All()[i].Environments["producao"]; got == "https://evil.example.com" {
		t.Error("All() hands out a map that callers share")
	}
}

func tokenFor(d providers.Definition) secret.Text {
	if d.NeedsToken {
		return "token"
	}
	return ""
}
