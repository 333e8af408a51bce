package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/otpq/otpq/tasks"
)

// buildVersion is set by the linker (-X main.buildVersion=…).
var buildVersion string

func version() string {
	if buildVersion != "" {
		return buildVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			if a.json {
				return a.printJSON(map[string]string{"version": version(), "go": runtime.Version()})
			}
			_, err := fmt.Fprintf(a.out, "otpq %s (%s)\n", version(), runtime.Version())
			return err
		},
	}
}

// newKeyID names a key for its month. Two keys of one month must not share a name:
// whoever has the wrong one of them could not tell.
func newKeyID() string {
	var suffix [2]byte
	_, _ = rand.Read(suffix[:]) // never fails: crypto/rand ends the process instead
	return time.Now().Format("2006-01-") + hex.EncodeToString(suffix[:])
}

func (a *app) keygenCommand() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Print a new sealing key",
		Long: "Print a new sealing key as a line for `keys:` in the configuration.\n\n" +
			"To replace a key: add the new one as the last key everywhere, then move it to the\n" +
			"first place, and take the old one out when nothing sealed with it is left.",
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			key := tasks.Key{ID: id, Secret: tasks.GenerateSecret()}
			if _, err := tasks.NewKeyring(key); err != nil {
				return usagef("--id: %w", err)
			}
			if a.json {
				return a.printJSON(map[string]string{"id": key.ID, "secret": key.Secret.Reveal()})
			}
			fmt.Fprintf(a.err, "Put this under keys: in the configuration, or set OTPQ_KEYS='%s:SECRET'.\n"+
				"Producers and workers need the same; whoever has it can read every request.\n", key.ID)
			_, err := fmt.Fprintf(a.out, "- {id: %q, secret: %q}\n", key.ID, key.Secret.Reveal())
			return err
		},
	}
	cmd.Flags().StringVar(&id, "id", newKeyID(), "`NAME` of the key, visible in every message")
	return cmd
}
