package providertest

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/otpq/otpq/providers"
)

var update = flag.Bool("update", false, "write the requests of the exchange files anew")

// exchange is one file: what a vendor answers, and what that means.
//
//	Any words about it, up to the first marker.
//	-- input --      (optional) the request's JSON; the Definition's Example when absent
//	-- outcome --    accepted [VALIDITY], or KIND REASON [RETRY_AFTER]
//	-- response --   the reply, from the status line on
//	-- request --    what the vendor is sent; written by go test -update
type exchange struct {
	name     string
	path     string
	archive  *txtar.Archive
	input    []byte
	outcome  providers.Outcome
	response []byte
}

func readExchanges(dir string) ([]exchange, error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil {
		return nil, err
	}
	var xs []exchange
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		x, err := parseExchange(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		x.path, x.name = path, strings.TrimSuffix(filepath.Base(path), ".txt")
		xs = append(xs, x)
	}
	if len(xs) == 0 {
		return nil, fmt.Errorf("no exchanges in %s", dir)
	}
	return xs, nil
}

func parseExchange(data []byte) (exchange, error) {
	x := exchange{archive: txtar.Parse(data)}
	if len(bytes.TrimSpace(x.archive.Comment)) == 0 {
		return x, errors.New("says nothing before its first marker")
	}
	for _, f := range x.archive.Files {
		var err error
		switch f.Name {
		case "input":
			x.input = f.Data
		case "outcome":
			x.outcome, err = parseOutcome(string(f.Data))
		case "response":
			x.response, err = parseResponse(f.Data)
		case "request":
		default:
			err = fmt.Errorf("section %q is none of input, outcome, response, request", f.Name)
		}
		if err != nil {
			return x, err
		}
	}
	if x.response == nil || x.section("outcome") == nil {
		return x, errors.New("needs the sections outcome and response")
	}
	_, status, _ := strings.Cut(string(x.response), " ")
	code, err := strconv.Atoi(status[:min(3, len(status))])
	if err != nil {
		return x, errors.New("response has no status of three digits")
	}
	x.outcome.HTTPStatus = code
	return x, nil
}

// section returns the content of a section, nil when it is not there.
func (x exchange) section(name string) []byte {
	for _, f := range x.archive.Files {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

func parseOutcome(line string) (out providers.Outcome, err error) {
	words := strings.Fields(line)
	kinds := map[string]providers.Kind{}
	for _, k := range []providers.Kind{providers.Accepted, providers.Rejected, providers.RetryLater, providers.Ambiguous} {
		kinds[k.String()] = k
	}
	if len(words) == 0 {
		return out, errors.New("outcome is empty")
	}
	kind, ok := kinds[words[0]]
	if !ok {
		return out, fmt.Errorf("outcome %q is no kind", words[0])
	}
	out.Kind = kind
	words = words[1:]
	wait := &out.ExpiresIn
	if kind != providers.Accepted {
		if len(words) == 0 {
			return out, errors.New("outcome has no reason")
		}
		out.Reason, words, wait = providers.Reason(words[0]), words[1:], &out.RetryAfter
	}
	if len(words) > 1 {
		return out, errors.New("outcome says too much")
	}
	if len(words) == 1 {
		*wait, err = time.ParseDuration(words[0])
	}
	return out, err
}

// parseResponse turns the text of a reply into what goes over the wire: CRLF in
// the head, and a length unless the text gives one.
func parseResponse(text []byte) ([]byte, error) {
	head, body, ok := strings.Cut(string(text), "\n\n")
	if !ok {
		head, body = strings.TrimRight(string(text), "\n"), ""
	}
	body = strings.TrimSuffix(body, "\n")
	lines := strings.Split(head, "\n")
	if !strings.HasPrefix(lines[0], "HTTP/1.1 ") {
		return nil, errors.New("response does not start with HTTP/1.1")
	}
	if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, "Content-Length:") }) {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return []byte(strings.Join(lines, "\r\n") + "\r\n\r\n" + body), nil
}

// exchange plays one file.
func (k *kit) exchange(x exchange, update bool) error {
	v, err := startVendor(always(x.response))
	if err != nil {
		return err
	}
	defer v.close()
	r := k.Definition.Example
	if x.input != nil {
		if r, err = k.Definition.Decode(x.input); err != nil {
			return fmt.Errorf("Decode(input) = %w", err)
		}
	}
	got, err := k.sendRequest(context.Background(), v.url, r)
	if err != nil {
		return err
	}
	got.Err = nil // its words are nobody's contract
	if diff := cmp.Diff(x.outcome, got); diff != "" {
		return fmt.Errorf("outcome (-want +got):\n%s", diff)
	}
	if err := v.expectRequests(1); err != nil {
		return err
	}
	request := v.got()[0].String()
	if update {
		return x.write(request)
	}
	if diff := cmp.Diff(string(x.section("request")), request); diff != "" {
		return fmt.Errorf("request (-want +got; go test -update writes it):\n%s", diff)
	}
	return nil
}

// write puts the request that was made into the file.
func (x exchange) write(request string) error {
	x.archive.Files = slices.DeleteFunc(x.archive.Files, func(f txtar.File) bool { return f.Name == "request" })
	x.archive.Files = append(x.archive.Files, txtar.File{Name: "request", Data: []byte(request)})
	return os.WriteFile(x.path, txtar.Format(x.archive), 0o644)
}
