package providertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/otpq/otpq/internal/secret"
	"github.com/otpq/otpq/providers"
)

func refusedToken(k *kit) error {
	v, err := startVendor(always(answer("401 Unauthorized", "application/json", "{}", `WWW-Authenticate: Bearer error="invalid_token"`)))
	if err != nil {
		return err
	}
	defer v.close()
	reason := providers.ReasonUnexpectedStatus
	if k.Definition.NeedsToken {
		reason = providers.ReasonCredentials
	}
	out, err := k.send(context.Background(), v.url)
	return errors.Join(err, expect(out, providers.RetryLater, reason), v.expectRequests(1))
}

// tokenFile follows a file through the days of a token: written late, emptied,
// replaced while a request with the old one is on its way.
func tokenFile(k *kit) error {
	if !k.Definition.NeedsToken {
		return nil
	}
	const first, second = "first-token", "other-token" // the same length
	path := filepath.Join(k.dir, "token")
	write := func(content string) error { return os.WriteFile(path, []byte(content), 0o600) }

	v, err := startVendor(func(c net.Conn, r recorded) bool {
		if r.header.Get("Authorization") == "Bearer "+second {
			_, _ = c.Write(k.accepted)
			return true
		}
		_ = write(second + "\n") // renewed while the request is on its way
		_, _ = c.Write(answer("401 Unauthorized", "application/json", "{}"))
		return true
	})
	if err != nil {
		return err
	}
	defer v.close()
	log := new(logs)
	p, err := k.provider(v.url, log, func(s *providers.Settings) { s.Token, s.TokenFile = "", path })
	if err != nil {
		return fmt.Errorf("a token file that is not there yet: New() = %w", err)
	}
	for _, step := range []struct {
		content  string // written before the send, unless it is "keep"
		kind     providers.Kind
		reason   providers.Reason
		requests int
	}{
		{"keep", providers.RetryLater, providers.ReasonCredentials, 0}, // there is no file
		{" \n", providers.RetryLater, providers.ReasonCredentials, 0},
		{"two\nlines", providers.RetryLater, providers.ReasonCredentials, 0},
		{"  " + first + "\r\n", providers.RetryLater, providers.ReasonCredentialsRenewed, 1},
		{"keep", providers.Accepted, providers.ReasonNone, 2},
		{strings.Repeat("x", 1<<20), providers.RetryLater, providers.ReasonCredentials, 2},
		{second, providers.Accepted, providers.ReasonNone, 3},
	} {
		if step.content != "keep" {
			if err := write(step.content); err != nil {
				return err
			}
		}
		out := p.Send(context.Background(), k.Definition.Example)
		shown := fmt.Sprintf("%+v %v %s", out, out.Err, log.String())
		if strings.Contains(shown, first) || strings.Contains(shown, second) {
			return fmt.Errorf("the token shows: %s", shown)
		}
		if err := errors.Join(expect(out, step.kind, step.reason), v.expectRequests(step.requests)); err != nil {
			return fmt.Errorf("token file of %.20q: %w", step.content, err)
		}
	}
	return nil
}

func badSettings(k *kit) error {
	const password = "s3cr3t-in-url"
	bad := map[string]func(*providers.Settings){
		"no base URL":             func(s *providers.Settings) { s.BaseURL = "" },
		"a base URL of no scheme": func(s *providers.Settings) { s.BaseURL = "api.example.com" },
		"another scheme":          func(s *providers.Settings) { s.BaseURL = "ftp://api.example.com" },
		"a host beyond ASCII":     func(s *providers.Settings) { s.BaseURL = "https://saúde.example" },
		"a base URL of no host":   func(s *providers.Settings) { s.BaseURL = "https:///path" },
		"a base URL with a query": func(s *providers.Settings) { s.BaseURL = "https://api.example.com/?a=" + password },
		"a password in the URL":   func(s *providers.Settings) { s.BaseURL = "https://u:" + password + "@api.example.com" },
		"no URL at all":           func(s *providers.Settings) { s.BaseURL = "https://%zz" + password },
		"an unknown format":       func(s *providers.Settings) { s.Format = "yaml" },
	}
	if k.Definition.NeedsToken {
		bad["no token"] = func(s *providers.Settings) { s.Token = "" }
		bad["a token and a file"] = func(s *providers.Settings) { s.TokenFile = filepath.Join(k.dir, "token") }
		bad["a token with a line break"] = func(s *providers.Settings) { s.Token = secret.Text("a\r\nX-" + password + ": b") }
		bad["a token with a final line break"] = func(s *providers.Settings) { s.Token = secret.Text(password + "\n") }
		bad["a token with its scheme"] = func(s *providers.Settings) { s.Token = secret.Text("Bearer " + password) }
		bad["a blank token"] = func(s *providers.Settings) { s.Token = "  " }
	} else {
		bad["a token that nobody wants"] = func(s *providers.Settings) { s.Token = secret.Text(password) }
		bad["a token file that nobody wants"] = func(s *providers.Settings) { s.TokenFile = filepath.Join(k.dir, "token") }
	}
	var errs []error
	for name, change := range bad {
		_, err := k.provider("http://127.0.0.1:1", new(logs), change)
		switch {
		case err == nil:
			errs = append(errs, fmt.Errorf("%s: New() takes it", name))
		case strings.Contains(err.Error(), password):
			errs = append(errs, fmt.Errorf("%s: New() = %w, which shows it", name, err))
		case !strings.Contains(err.Error(), k.Definition.Name):
			errs = append(errs, fmt.Errorf("%s: New() = %w, which does not name the provider", name, err))
		}
	}
	return errors.Join(errs...)
}

// sandbox holds two readings of the vendor's page against each other.
func sandbox(k *kit) error {
	srv := httptest.NewServer(k.Definition.Sandbox())
	defer srv.Close()
	out, err := k.send(context.Background(), srv.URL)
	return errors.Join(err, expect(out, providers.Accepted, providers.ReasonNone))
}

// zeroOf is the zero value of r's type.
func zeroOf(r providers.Request) providers.Request {
	return reflect.Zero(reflect.TypeOf(r)).Interface().(providers.Request)
}
