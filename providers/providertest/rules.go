package providertest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/otpq/otpq/providers"
)

// rule is one thing that every provider does, whatever its vendor documents.
type rule struct {
	name  string
	check func(k *kit) error
}

// rules starts with what no reply means, goes on with replies that mean nothing,
// and ends with how a provider is made.
var rules = []rule{
	{"a refused connection is a retry, since nothing left", refused},
	{"a TLS handshake that fails is a retry, since nothing left", brokenTLS},
	{"a context that has ended makes no request", alreadyEnded},
	{"a connection cut while the request leaves is ambiguous", cutRequest},
	{"a reply that is lost is ambiguous", lostReply},
	{"a reply that is no HTTP is ambiguous", gibberish},
	{"a reply whose length is wrong means what arrived of it", wrongLength},
	{"a vendor that says nothing more yields to the context", silence},
	{"a reply that drips yields to the context", drips},
	{"a reply that comes too late answers nobody", lateReply},
	{"what a reply leaves behind answers nobody", leftover},
	{"a connection that dies idle costs no second request", deadIdle},
	{"twenty sends at once make twenty requests", concurrent},
	{"what does not say success is never accepted", notSuccess},
	{"a success with another 2xx status is not accepted", otherSuccess},
	{"a redirect is never followed, nor a loop of them", redirects},
	{"a reply without end is bounded and not accepted", endless},
	{"a status that the page does not list has one meaning", statuses},
	{"Retry-After is obeyed as seconds and as a date", retryAfter},
	{"a vendor that echoes the request leaks nothing", echo},
	{"an unfit request is rejected without a request", unfit},
	{"refused credentials are not the message's fault", refusedToken},
	{"a token file is read again when it changes", tokenFile},
	{"settings that cannot work are refused", badSettings},
	{"the definition is whole", definition},
	{"a recipient is one person, and shown by no error", recipient},
	{"the sandbox takes the example", sandbox},
}

func refused(k *kit) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	url := "http://" + l.Addr().String()
	l.Close()
	out, err := k.send(context.Background(), url)
	return errors.Join(err, expect(out, providers.RetryLater, providers.ReasonConnection))
}

func alreadyEnded(k *kit) error {
	v, err := startVendor(always(k.accepted))
	if err != nil {
		return err
	}
	defer v.close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	out, err := k.send(ctx, v.url)
	return errors.Join(err, expect(out, providers.RetryLater, providers.ReasonConnection), v.expectRequests(0))
}

func lostReply(k *kit) error {
	return errors.Join(
		k.lose(func(net.Conn, recorded) bool { return false }),
		k.lose(func(c net.Conn, _ recorded) bool {
			_ = c.(*net.TCPConn).SetLinger(0) // a reset, as a crashed vendor sends
			return false
		}),
		k.lose(always([]byte("HTTP/1.1 200 OK\r\nContent-Ty"))),
	)
}

func gibberish(k *kit) error {
	return k.lose(always([]byte("SSH-2.0-" + token + "\r\n\r\n")))
}

func (k *kit) lose(reply func(net.Conn, recorded) bool) error {
	v, err := startVendor(reply)
	if err != nil {
		return err
	}
	defer v.close()
	out, err := k.send(context.Background(), v.url)
	return errors.Join(err, expect(out, providers.Ambiguous, providers.ReasonConnectionLost), v.expectRequests(1))
}

func deadIdle(k *kit) error {
	// Each connection serves one request and closes without having said so.
	v, err := startVendor(always(k.accepted))
	if err != nil {
		return err
	}
	defer v.close()
	p, err := k.provider(v.url, new(logs), nil)
	if err != nil {
		return err
	}
	const sends = 5
	held := 0
	for range sends {
		out := p.Send(context.Background(), k.Definition.Example)
		// The close may be seen in time, just before the request leaves, or cross with it.
		switch {
		case out.Kind == providers.Accepted:
		case out.Kind == providers.RetryLater && out.Reason == providers.ReasonConnection:
			held++
		default:
			if err := expect(out, providers.Ambiguous, providers.ReasonConnectionLost); err != nil {
				return err
			}
		}
	}
	if got := len(v.got()); got > sends-held {
		return fmt.Errorf("%d sends, %d of which say that nothing left, made %d requests", sends, held, got)
	}
	return nil
}

func concurrent(k *kit) error {
	v, err := startVendor(func(c net.Conn, _ recorded) bool {
		_, err := c.Write(k.accepted)
		return err == nil
	})
	if err != nil {
		return err
	}
	defer v.close()
	p, err := k.provider(v.url, new(logs), nil)
	if err != nil {
		return err
	}
	const sends = 20
	errs := make([]error, sends)
	var wait sync.WaitGroup
	for i := range sends {
		wait.Go(func() {
			errs[i] = expect(p.Send(context.Background(), k.Definition.Example), providers.Accepted, providers.ReasonNone)
		})
	}
	wait.Wait()
	return errors.Join(errors.Join(errs...), v.expectRequests(sends))
}

// reply sends once to a vendor that answers so.
func (k *kit) reply(response []byte) (providers.Outcome, error) {
	v, err := startVendor(always(response))
	if err != nil {
		return providers.Outcome{}, err
	}
	defer v.close()
	out, err := k.send(context.Background(), v.url)
	return out, errors.Join(err, v.expectRequests(1))
}

func notSuccess(k *kit) error {
	_, success := parts(k.accepted)
	ok := string(success)
	var errs []error
	for name, body := range map[string]string{
		"a captive portal's page":  "<!DOCTYPE html><html><body>Bem-vindo</body></html>",
		"nothing":                  "",
		"white space":              "\n \n",
		"null":                     "null",
		"an empty list":            "[]",
		"a list with the success":  "[" + ok + "]",
		"an empty object":          "{}",
		"true":                     "true",
		"a string":                 `"ok"`,
		"a success and a half":     ok + ok[:1],
		"two successes":            ok + "\n" + ok,
		"a success cut short":      ok[:len(ok)-1],
		"a success after garbage":  ")]}'" + ok,
		"a compressed reply":       "\x1f\x8b\x08\x00\x00\x00\x00\x00",
		"an error":                 `{"error":"internal error"}`,
		"an error by number":       `{"status":500,"title":"Internal Server Error"}`,
		"an error in .NET's words": `{"Message":"An error has occurred."}`,
		"an error in XML":          "<Error><Message>An error has occurred.</Message></Error>",
		"a nest":                   strings.Repeat(`{"a":`, 10_000),
		"a nest of tags":           strings.Repeat("<a>", 10_000),
	} {
		for _, contentType := range []string{"application/json", "text/html", ""} {
			out, err := k.reply(answer("200 OK", contentType, body))
			err = errors.Join(err, expect(out, providers.Ambiguous, providers.ReasonUnclassified))
			if err == nil && out.HTTPStatus != http.StatusOK {
				err = fmt.Errorf("HTTPStatus = %d, want 200", out.HTTPStatus)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s as %q: %w", name, contentType, err))
			}
		}
	}
	return errors.Join(errs...)
}

func otherSuccess(k *kit) error {
	_, body := parts(k.accepted)
	var errs []error
	for _, status := range []string{"201 Created", "202 Accepted", "206 Partial Content"} {
		out, err := k.reply(answer(status, "application/json", string(body)))
		errs = append(errs, err, expect(out, providers.Ambiguous, providers.ReasonUnclassified))
	}
	out, err := k.reply([]byte("HTTP/1.1 204 No Content\r\n\r\n"))
	return errors.Join(append(errs, err, expect(out, providers.Ambiguous, providers.ReasonUnclassified))...)
}

func redirects(k *kit) error {
	target, err := startVendor(always(k.accepted))
	if err != nil {
		return err
	}
	defer target.close()
	errs := []error{}
	for status, kind := range map[string]providers.Kind{
		"301 Moved Permanently":  providers.Ambiguous,
		"302 Found":              providers.Ambiguous,
		"303 See Other":          providers.Ambiguous,
		"307 Temporary Redirect": providers.RetryLater,
		"308 Permanent Redirect": providers.RetryLater,
	} {
		// To another host, and, as a loop, to where the request went.
		for _, location := range []string{target.url + "/", "?again"} {
			out, err := k.reply(answer(status, "text/plain", "", "Location: "+location))
			errs = append(errs, err, expect(out, kind, providers.ReasonRedirect))
		}
	}
	return errors.Join(append(errs, target.expectRequests(0))...)
}
