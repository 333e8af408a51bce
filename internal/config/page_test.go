package config

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/otpq/otpq/providers/all"
)

const pageFile = "../../docs/configuration.md"

// TestTheConfigurationPageIsWhatTheCodeSays keeps docs/configuration.md, which is
// written by this test with -update, from telling of other settings than there are.
func TestTheConfigurationPageIsWhatTheCodeSays(t *testing.T) {
	want := page()
	if *update {
		if err := os.WriteFile(pageFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	got, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("%s is not what the code says: run `go test ./internal/config -run TestTheConfigurationPage -update`", pageFile)
	}
}

// TestEverySettingIsExplained finds a key that was added without words or bounds.
func TestEverySettingIsExplained(t *testing.T) {
	for _, f := range Reference() {
		if !strings.HasSuffix(f.Doc, ".") {
			t.Errorf("%s has no description that ends with a full stop: %q", f.Path, f.Doc)
		}
		if strings.ContainsAny(f.Doc+f.Valid+f.Default, "|\n") {
			t.Errorf("%s has words that break the table: %+v", f.Path, f)
		}
	}
}

// sectionWords say what a section is about, in the order of the file.
var sectionWords = map[string]string{
	"redis": "Redis", "keys": "Sealing keys", "admin": "The worker's own HTTP server", "status": "How long records are kept",
	"enqueue": "Accepting messages", "campaigns": "Campaigns", "worker": "The worker's process", "dashboard": "The dashboard",
	"log": "The log", "tracing": "Traces", "providers": "Each provider",
}

func page() string {
	var b strings.Builder
	b.WriteString(pageHead + fileTable() + pageFoot)
	section := ""
	for _, f := range Reference() {
		name, _, _ := strings.Cut(f.Path, ".")
		name = strings.TrimSuffix(name, "[N]")
		if name != section {
			section = name
			words := sectionWords[name]
			if words == "" {
				words = name
			}
			fmt.Fprintf(&b, "\n## %s\n\n", words)
			if name == "providers" {
				b.WriteString(providerWords())
			}
			b.WriteString("| key | type | default | bounds | meaning | variable |\n|---|---|---|---|---|---|\n")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | `%s` |\n", f.Path, f.Type, code(f.Default), f.Valid, f.Doc, f.Env)
	}
	return b.String()
}

// fileTable lists what can be in a file of its own.
func fileTable() string {
	var b strings.Builder
	b.WriteString("| in place of | give | read |\n|---|---|---|\n")
	fields := Reference()
	for _, f := range fields {
		file := f.Path + "_file"
		if !slices.ContainsFunc(fields, func(other Field) bool { return other.Path == file }) {
			continue
		}
		read := "once, at the start"
		if f.Path == "providers.NAME.token" {
			read = "again when it changes, and after a 401"
		}
		fmt.Fprintf(&b, "| `%s` | `%s` | %s |\n", f.Path, file, read)
	}
	b.WriteString("| a password in `redis.url` | `OTPQ_REDIS_URL`, from your secret store | once, at the start |\n")
	return b.String()
}

func code(text string) string {
	if text == "" {
		return ""
	}
	return "`" + text + "`"
}

// providerWords tell what is valid for each provider.
func providerWords() string {
	var b strings.Builder
	b.WriteString("`NAME` is a provider of this list. One without a base URL, or without a token where it needs one, is off and says so; the others run.\n\n" +
		"| provider | `environment` | `format` | token |\n|---|---|---|---|\n")
	for _, d := range all.All() {
		environments := "none: set `base_url`"
		if len(d.Environments) > 0 {
			names := slices.Sorted(maps.Keys(d.Environments))
			for i, n := range names {
				names[i] = code(n)
			}
			environments = strings.Join(names, ", ") + "; " + code(d.DefaultEnvironment) + " when not set"
		}
		formats := "one, nothing to set"
		if len(d.Formats) > 0 {
			var names []string
			for _, f := range d.Formats {
				names = append(names, code(f))
			}
			formats = strings.Join(names, ", ") + "; the first when not set"
		}
		token := "takes none"
		if d.NeedsToken {
			token = "needs one"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", d.Name, environments, formats, token)
	}
	b.WriteString("\n`otpq check` tells which timeouts do not fit under each other (`timeout` is 17 s at most, and `worker.shutdown_timeout` eight\n" +
		"seconds more than the longest): `cmd/otpq.TestCheckTellsWhatToDo`.\n\n")
	return b.String()
}

const pageHead = `# Configuration

<!-- Written by ` + "`go test ./internal/config -run TestTheConfigurationPage -update`" + ` from the code. -->

Defaults, then a YAML file (` + "`--config FILE`, or `OTPQ_CONFIG`" + `), then variables; the last one wins. An unknown or wrong key is an error
that names the line and the key, and all that is wrong is told at once. An empty variable is not set. ` + "`otpq check`" + ` reads it all
and says what is wrong.

A path's variable is the path in upper case, joined by ` + "`_`: `redis.url` is `OTPQ_REDIS_URL`" + `. A duration is written ` + "`10s`, `500ms`" + `
or ` + "`24h`" + `; a number alone is an error.

## The list of sealing keys

` + "`keys`" + ` is a list. **The first key seals, all of them open.** ` + "`otpq keygen`" + ` prints one. Producers and workers need the same list;
[operations.md](operations.md#replace-a-sealing-key) says in which order it changes. There is no default key: without one nothing
is sealed, and ` + "`otpq send`, `otpq worker`" + ` and campaigns do not start.

` + "```yaml" + `
keys:
  - {id: "2026-11", secret: "…"}          # seals
  - {id: "2026-05", secret_file: old.key} # opens what is still sealed with it
` + "```" + `

As variables, the whole list in one, or a key at a time:

` + "```sh" + `
OTPQ_KEYS='2026-11:SECRET,2026-05:SECRET'                 # or a JSON list of {"id", "secret"}
OTPQ_KEYS_0_ID=2026-11 OTPQ_KEYS_0_SECRET_FILE=/run/secrets/otpq
` + "```" + `

` + "`OTPQ_KEYS`" + ` takes the place of the file's list. ` + "`OTPQ_KEYS_N_…`" + ` changes the key at that position, counted from 0, or adds the next.

## Secrets in files

A key of type *secret* may hold a password, a token or a key; it is printed nowhere (` + "`internal/config.TestAConfigPrintsWithoutSecrets`" + `).
To keep it out of the configuration and of the environment, give a file:

`

const pageFoot = `
White space around a file's content is taken off. A relative path starts at the folder of the configuration file, in a variable
at the folder where otpq runs. Both a value and a file for the same thing is an error.
`
