package dashboard

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/otpq/otpq/providers"
	"github.com/otpq/otpq/status"
)

const findPath = deliveriesRoot + "/find"

const (
	// maxRecipient is longer than any recipient, in bytes.
	maxRecipient = 300
	// findKeys and findTime bound what a page looks at: some two seconds' work.
	findKeys = 250_000
	findTime = 3 * time.Second
)

// findForm is what the form for a recipient shows.
type findForm struct {
	Providers []findProvider // none when there are no keys
	Chosen    string
}

type findProvider struct{ Name, Hint string }

func (d *Dashboard) findForm(chosen string) findForm {
	f := findForm{Chosen: chosen}
	if d.cfg.Keys.SealingKey() == "" {
		return f
	}
	for _, def := range d.cfg.Definitions {
		if def.Lookup.Recipients != nil {
			f.Providers = append(f.Providers, findProvider{def.Name, def.Lookup.Hint})
		}
	}
	return f
}

// foundData is what the page of a search shows. What was looked for is in it as
// fingerprints alone.
type foundData struct {
	Provider string
	Records  []status.Record
	// Looked is how many records the search has looked at; with Next it goes on for
	// Prints.
	Looked       int
	Next, Prints string
	Find         findForm
}

// findRecipient searches for a recipient's messages, or goes on with that.
func (d *Dashboard) findRecipient(ctx context.Context, r *http.Request) (view, error) {
	if d.cfg.Keys.SealingKey() == "" {
		return failed(http.StatusNotFound, "This dashboard has no sealing keys.", "Without them it cannot tell whose a record is."), nil
	}
	r.Body = http.MaxBytesReader(nil, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		// The error may repeat what was written.
		return failed(http.StatusBadRequest, "The form cannot be read.", ""), nil
	}
	form := r.PostForm // what is in an address is not looked at
	def, ok := d.definition(form.Get("provider"))
	if !ok {
		return failed(http.StatusBadRequest, "There is no such provider.", ""), nil
	}
	var prints []string
	from := form.Get("from")
	if from != "" {
		prints = parsePrints(form.Get("prints"))
	} else if text := form.Get("recipient"); len(text) <= maxRecipient {
		for _, who := range def.Lookup.Recipients(text) {
			prints = append(prints, d.cfg.Keys.RecipientPrints(def.Name, who)...)
		}
	}
	if len(prints) == 0 {
		return failed(http.StatusBadRequest, "That is no recipient of "+def.Name+"'s.", "Write this: "+def.Lookup.Hint+"."), nil
	}
	data := foundData{Provider: def.Name, Prints: formatPrints(prints), Find: d.findForm(def.Name)}
	if n, err := strconv.Atoi(form.Get("looked")); err == nil && n > 0 && from != "" {
		data.Looked = n
	}
	ctx, cancel := context.WithTimeout(ctx, findTime)
	defer cancel()
	found, err := d.cfg.Records.FindRecipient(ctx, prints, from, findKeys)
	if errors.Is(err, status.ErrSearchLost) {
		return failed(http.StatusConflict, "The search cannot go on.", "Redis was started anew, or a cluster's nodes have changed: search again from the beginning."), nil
	}
	if err != nil {
		return view{}, err
	}
	data.Records, data.Next = found.Records, found.Next
	data.Looked += found.Looked
	return view{template: "found", Title: "A recipient's messages", Data: data}, nil
}

// definition returns the provider of that name, if its recipients can be read.
func (d *Dashboard) definition(name string) (providers.Definition, bool) {
	for _, def := range d.cfg.Definitions {
		if def.Name == name && def.Lookup.Recipients != nil {
			return def, true
		}
	}
	return providers.Definition{}, false
}

// formatPrints writes fingerprints for a field of a form. They are keyed: they say
// nothing of anybody.
func formatPrints(prints []string) string {
	texts := make([]string, len(prints))
	for i, p := range prints {
		texts[i] = hex.EncodeToString([]byte(p))
	}
	return strings.Join(texts, ",")
}

// parsePrints reads what formatPrints wrote, and nothing of anything else.
func parsePrints(text string) []string {
	texts := strings.Split(text, ",")
	prints := make([]string, len(texts))
	for i, t := range texts {
		one, err := hex.DecodeString(t)
		if err != nil || len(one) == 0 {
			return nil
		}
		prints[i] = string(one)
	}
	return prints
}
