package kinpos

import (
	"path/filepath"
	"testing"

	"github.com/otpq/otpq/providers/providertest"
)

func TestContract(t *testing.T) {
	for _, format := range Definition().Formats {
		t.Run(format, func(t *testing.T) {
			providertest.Run(t, providertest.Harness{
				Definition: Definition(),
				Format:     format,
				Exchanges:  filepath.Join("testdata", "exchanges", format),
			})
		})
	}
}
