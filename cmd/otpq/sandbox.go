package main

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/otpq/otpq/providers/all"
	"github.com/otpq/otpq/providers/sandbox"
)

// newSandbox serves every provider's API.
func newSandbox(seed uint64) *sandbox.Server {
	apis := map[string]http.Handler{}
	for _, def := range all.All() {
		apis[def.Name] = def.Sandbox()
	}
	return sandbox.New(sandbox.Options{Providers: apis, Seed: seed})
}

const listenFlag = "--listen"

// listenOn opens the port of an address, which source has named: a flag, or a key.
func listenOn(ctx context.Context, source, addr string) (net.Listener, error) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, usagef("%s must be host:port, such as 127.0.0.1:8089", source)
	}
	if _, err := net.DefaultResolver.LookupPort(ctx, "tcp", port); err != nil {
		return nil, usagef("%s must end with a port between 0 and 65535, not %q", source, port)
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source, err)
	}
	return listener, nil
}

func (a *app) sandboxCommand() *cobra.Command {
	var (
		listen string
		faults []string
		seed   uint64
	)
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Serve the three provider APIs locally, with faults on demand",
		Long: "Serve the three provider APIs locally, as their pages describe them.\n\n" +
			"Faults, by --fault or over HTTP (PUT /_sandbox/faults/PROVIDER; GET /_sandbox/ shows all):\n" +
			sandbox.FaultUsage(),
		Example: "  otpq sandbox --listen 127.0.0.1:8089 --fault medsenior:latency=200ms,jitter=50ms,error_rate=0.1",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			server := newSandbox(seed)
			for _, text := range faults {
				provider, fault, err := sandbox.ParseFault(text)
				if err == nil {
					err = server.SetFault(provider, fault)
				}
				if err != nil {
					return usagef("--fault %s: %w", text, err)
				}
			}
			listener, err := listenOn(cmd.Context(), listenFlag, listen)
			if err != nil {
				return err
			}
			url := "http://" + listener.Addr().String()
			if a.json {
				err = a.printJSON(map[string]string{"url": url})
			} else {
				_, err = fmt.Fprintf(a.out, "sandbox at %s; control at %s/_sandbox/\n", url, url)
			}
			if err != nil {
				return err
			}
			stop := serve(listener, server.Handler(), zerolog.New(a.err))
			<-cmd.Context().Done()
			server.Close()
			stop()
			return nil
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:8089", "`ADDR` to listen on")
	cmd.Flags().StringArrayVar(&faults, "fault", nil, "`PROVIDER:fault=value,…`; may be repeated")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "makes the faults' chances repeatable")
	return cmd
}
