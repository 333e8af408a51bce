package vendorhttp

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"github.com/otpq/otpq/providers"
)

// maxToken bounds a token file: servers take no longer header.
const maxToken = 16 << 10

// tokenSource gives the bearer token: a fixed one, or what a file holds now. A
// nil tokenSource is that of a vendor that wants no token.
type tokenSource struct {
	path string // empty when the token is fixed

	mu    sync.Mutex
	token string
	info  os.FileInfo // of the file when token was read from it
}

func newTokenSource(needed bool, s providers.Settings) (*tokenSource, error) {
	given := !s.Token.IsZero()
	switch {
	case !needed && (given || s.TokenFile != ""):
		return nil, errors.New("takes no token: remove token and token_file")
	case !needed:
		return nil, nil //nolint:nilnil // a nil tokenSource gives no token
	case given && s.TokenFile != "":
		return nil, errors.New("token and token_file are both set: keep one")
	case !given && s.TokenFile == "":
		return nil, errors.New("needs a token: set token or token_file")
	case s.TokenFile != "":
		return &tokenSource{path: s.TokenFile}, nil
	}
	token := strings.Trim(s.Token.Reveal(), " ")
	if err := checkToken(token); err != nil {
		return nil, fmt.Errorf("token %w", err)
	}
	return &tokenSource{token: token}, nil
}

// checkToken refuses what cannot stand in an Authorization header. A space inside
// is mostly a pasted "Bearer TOKEN".
func checkToken(token string) error {
	if token == "" {
		return errors.New("is empty")
	}
	for _, c := range token {
		if c <= ' ' || c > '~' {
			return errors.New(`must be the token alone, without "Bearer", spaces, line breaks or control characters`)
		}
	}
	return nil
}

// current returns the token to use now. A file is read again when it is another
// file, or has another size or time, than when it was last read.
func (t *tokenSource) current() (string, error) {
	if t == nil {
		return "", nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.path == "" {
		return t.token, nil
	}
	info, err := os.Stat(t.path)
	if err == nil && t.info != nil && os.SameFile(info, t.info) &&
		info.Size() == t.info.Size() && info.ModTime().Equal(t.info.ModTime()) {
		return t.token, nil
	}
	if err := t.read(); err != nil {
		return "", err
	}
	return t.token, nil
}

// renewed reads the file whatever it looks like, for a vendor that has just
// refused the token used, and reports whether it holds another token by now.
func (t *tokenSource) renewed(used string) bool {
	if t == nil || t.path == "" {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.read() == nil && t.token != used
}

// read reads the file. Its errors name the file and hold nothing of it.
func (t *tokenSource) read() error {
	t.token, t.info = "", nil
	f, err := os.Open(t.path)
	if err != nil {
		return fmt.Errorf("token_file: %w", err)
	}
	defer f.Close()
	// The handle's own facts: the name may mean another file a moment later.
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("token_file: %w", err)
	}
	content, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	if err != nil {
		return fmt.Errorf("token_file: %w", err)
	}
	if len(content) > maxToken {
		return fmt.Errorf("token_file %s is larger than %d bytes: not a token", t.path, maxToken)
	}
	token := strings.TrimSpace(string(content))
	if err := checkToken(token); err != nil {
		return fmt.Errorf("token_file %s: its content %w", t.path, err)
	}
	t.token, t.info = token, info
	return nil
}
