// Package all is the one list of the providers. It is not a registry: nothing
// adds itself, and a new provider is a new line here.
package all

import (
	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/providers/kinpos"
	"github.com/otpq/otpq/providers/medsenior"
	"github.com/otpq/otpq/providers/unimedbh"
)

// All returns the definition of every provider, by name.
func All() []providers.Definition {
	return []providers.Definition{
		kinpos.Definition(),
		medsenior.Definition(),
		unimedbh.Definition(),
	}
}

// ByName returns the definition of one provider.
func ByName(name string) (providers.Definition, bool) {
	for _, d := range All() {
		if d.Name == name {
			return d, true
		}
	}
	return providers.Definition{}, false
}
