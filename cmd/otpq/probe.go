package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// probeTimeout is longer than what is probed takes: /readyz gives Redis a second.
const probeTimeout = 3 * time.Second

// probeCommand is for a container's health check: the image has no curl.
func (a *app) probeCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "probe URL",
		Short: "Ask a worker or dashboard how it is, and fail when it is not well",
		Long: "Ask a URL, such as http://127.0.0.1:9090/healthz, and fail unless it answers 200. It is\n" +
			"for a container's health check: the image has neither a shell nor curl.",
		Args: exactArgs("URL"),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, err := url.Parse(args[0])
			if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return usagef("URL must be such as http://127.0.0.1:9090/healthz")
			}
			code, said, err := probe(cmd.Context(), u)
			switch {
			case err != nil:
				return fmt.Errorf("no answer from %s: %s", u.Redacted(), err.Error()) // wrapped, it would be taken for one of Redis
			case code != http.StatusOK:
				return fmt.Errorf("%s answers %d: %s", u.Redacted(), code, said)
			case a.json:
				return a.printJSON(map[string]string{"status": "ok"})
			}
			_, err = fmt.Fprintln(a.out, said)
			return err
		},
	}
}

// probe asks once, and returns the beginning of the answer.
func probe(ctx context.Context, u *url.URL) (code int, said string, err error) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return 0, "", err
	}
	// Straight there, whatever proxy the environment names: it is this container.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	const enough = 512 // the answers have about 50 bytes
	text, err := io.ReadAll(io.LimitReader(res.Body, enough))
	return res.StatusCode, strings.TrimSpace(string(text)), err
}
