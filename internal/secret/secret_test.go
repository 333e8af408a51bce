package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rs/zerolog"
)

func TestTextIsPrintedNowhere(t *testing.T) {
	const value = "hunter2"
	s := Text(value)
	inside := struct{ Token Text }{s}

	var logged bytes.Buffer
	log := zerolog.New(&logged)
	log.Info().Interface("i", inside).Stringer("s", s).Any("a", s).Msg("")
	asJSON, err := json.Marshal(inside)
	if err != nil {
		t.Fatal(err)
	}
	for how, got := range map[string]string{
		"%v": fmt.Sprintf("%v", s), "%+v": fmt.Sprintf("%+v", inside), "%#v": fmt.Sprintf("%#v", inside),
		"%s": fmt.Sprintf("%s", s), "%q": fmt.Sprintf("%q", s), "%x": fmt.Sprintf("%x", s),
		"json": string(asJSON), "zerolog": logged.String(), "error": fmt.Errorf("bad %v", s).Error(),
	} {
		if strings.Contains(got, value) || strings.Contains(got, fmt.Sprintf("%x", value)) {
			t.Errorf("%s prints the secret: %s", how, got)
		}
	}
	if s.Reveal() != value {
		t.Errorf("Reveal() = %q, want %q", s.Reveal(), value)
	}
	if got := fmt.Sprint(Text("")); got != "" {
		t.Errorf("an empty secret prints as %q, want nothing", got)
	}
}
