package tasks

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/otpq/otpq/internal/secret"
)

// keySize is the size of a sealing secret in bytes: AES-256.
const keySize = 32

// ErrNoKeys is returned where a key is needed and none is configured.
var ErrNoKeys = errors.New("no sealing key is configured: run `otpq keygen` and put what it prints under keys in the configuration")

// keyIDPattern keeps key ids safe to print and to put in a payload.
var keyIDPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Secret is a string that prints as [redacted] everywhere.
type Secret = secret.Text

// Key is one sealing key as it is configured.
type Key struct {
	ID string
	// Secret is the base64 form of 32 random bytes.
	Secret Secret
}

// GenerateSecret returns a new random secret in base64.
func GenerateSecret() Secret {
	b := make([]byte, keySize)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return Secret(base64.StdEncoding.EncodeToString(b))
}

// Keyring seals with its first key and opens with all of them, so that a key
// can be replaced while messages sealed with the old one are still queued.
// It is safe for concurrent use. A nil Keyring has no keys.
type Keyring struct {
	keys []ringKey
}

type ringKey struct {
	id   string
	aead cipher.AEAD
	macs *sync.Pool // of *mac: to key one anew costs more than a fingerprint
}

// mac makes fingerprints, with a key derived from the secret.
type mac struct {
	hash.Hash
	text []byte // what is hashed
	sum  []byte
}

// NewKeyring makes a Keyring. It fails with [ErrNoKeys] when there are no keys,
// and names the key when an id or a secret is malformed.
func NewKeyring(keys ...Key) (*Keyring, error) {
	if len(keys) == 0 {
		return nil, ErrNoKeys
	}
	ring := &Keyring{}
	for i, k := range keys {
		if !keyIDPattern.MatchString(k.ID) {
			// The id is not quoted: it may be the secret, put in the wrong place.
			return nil, fmt.Errorf("the id of key %d must be 1 to 64 letters, digits, '.', '_' or '-'", i+1)
		}
		if ring.find(k.ID) != nil {
			return nil, fmt.Errorf("key id %q is used twice", k.ID)
		}
		rk, err := newRingKey(k)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", k.ID, err)
		}
		ring.keys = append(ring.keys, rk)
	}
	return ring, nil
}

func newRingKey(k Key) (ringKey, error) {
	raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(k.Secret.Reveal(), "="))
	if err != nil || len(raw) != keySize {
		return ringKey{}, fmt.Errorf("the secret must be the base64 of %d bytes, as `otpq keygen` prints it", keySize)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return ringKey{}, err
	}
	// The random nonce is 96 bits, good for 2^32 messages a key: a million a
	// day for eleven years.
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return ringKey{}, err
	}
	derived, err := hkdf.Key(sha256.New, raw, nil, "otpq fingerprint v1", sha256.Size)
	if err != nil {
		return ringKey{}, err
	}
	macs := &sync.Pool{New: func() any { return &mac{Hash: hmac.New(sha256.New, derived)} }}
	return ringKey{id: k.ID, aead: aead, macs: macs}, nil
}

func (k *Keyring) find(id string) *ringKey {
	if k == nil {
		return nil
	}
	for i := range k.keys {
		if k.keys[i].id == id {
			return &k.keys[i]
		}
	}
	return nil
}

// Seal encrypts plain with the first key and returns that key's id. The result
// opens only with the same associated data. It fails with [ErrNoKeys].
func (k *Keyring) Seal(plain, associated []byte) (keyID string, sealed []byte, err error) {
	return k.appendSeal(nil, plain, associated)
}

// appendSeal is Seal into dst, which is nowhere near plain.
func (k *Keyring) appendSeal(dst, plain, associated []byte) (keyID string, sealed []byte, err error) {
	if k == nil || len(k.keys) == 0 {
		return "", nil, ErrNoKeys
	}
	first := &k.keys[0]
	return first.id, first.aead.Seal(dst, nil, plain, associated), nil
}

// Open decrypts what [Keyring.Seal] made. It fails with [ErrKeyUnknown] when
// the key is not on the ring and with [ErrSealBroken] when the data or the
// associated data were changed.
func (k *Keyring) Open(keyID string, sealed, associated []byte) ([]byte, error) {
	key := k.find(keyID)
	if key == nil {
		return nil, fmt.Errorf("%w (id %q)", ErrKeyUnknown, keyID)
	}
	plain, err := key.aead.Open(nil, nil, sealed, associated)
	if err != nil {
		return nil, ErrSealBroken
	}
	return plain, nil
}

// Fingerprints returns a keyed hash of value under every key, the sealing key's
// first: an index by a value that must not be readable where it is stored. A
// reader that looks under all of them finds what was written before a rotation.
// purpose keeps the fingerprints of different uses apart.
func (k *Keyring) Fingerprints(purpose, value string) []string {
	if k == nil {
		return nil
	}
	out := make([]string, len(k.keys))
	for i := range k.keys {
		out[i] = hex.EncodeToString(k.keys[i].fingerprint(purpose, value)[:20])
	}
	return out
}

// Fingerprint is the 32 bytes of one of [Keyring.Fingerprints], that of the key of
// that id: for who has to find the same one after a rotation. It fails with
// [ErrKeyUnknown].
func (k *Keyring) Fingerprint(keyID, purpose, value string) ([]byte, error) {
	key := k.find(keyID)
	if key == nil {
		return nil, fmt.Errorf("%w (id %q)", ErrKeyUnknown, keyID)
	}
	return key.fingerprint(purpose, value), nil
}

// SealingKey is the id of the key that seals, or "" when there is none.
func (k *Keyring) SealingKey() string {
	if k == nil || len(k.keys) == 0 {
		return ""
	}
	return k.keys[0].id
}

// recipientPrint is the size in bytes of what finds a recipient's messages. One in a
// million million million of other people's has the same.
const recipientPrint = 10

const recipientPurpose = "recipient "

// RecipientPrint is a keyed hash of a provider's recipient, 10 bytes under the sealing
// key, by which the recipient's messages are found where nobody may be named. It is
// empty when there is no key, or no recipient.
func (k *Keyring) RecipientPrint(provider, recipient string) string {
	if k == nil || len(k.keys) == 0 || recipient == "" {
		return ""
	}
	return k.keys[0].recipientPrint(provider, recipient)
}

// RecipientPrints are [Keyring.RecipientPrint] under every key: those of messages
// queued before a rotation too.
func (k *Keyring) RecipientPrints(provider, recipient string) []string {
	if k == nil || recipient == "" {
		return nil
	}
	out := make([]string, len(k.keys))
	for i := range k.keys {
		out[i] = k.keys[i].recipientPrint(provider, recipient)
	}
	return out
}

func (k *ringKey) recipientPrint(provider, recipient string) string {
	return string(k.appendFingerprint(make([]byte, 0, sha256.Size), recipientPurpose, provider, recipient)[:recipientPrint])
}

func (k *ringKey) fingerprint(purpose, value string) []byte {
	return k.appendFingerprint(nil, purpose, "", value)
}

// appendFingerprint appends the 32 bytes of a fingerprint to dst. The purpose is in two
// parts.
func (k *ringKey) appendFingerprint(dst []byte, purpose, detail, value string) []byte {
	m, _ := k.macs.Get().(*mac)
	// The length keeps ("a", "bc") and ("ab", "c") apart.
	m.text = append(strconv.AppendInt(m.text[:0], int64(len(purpose)+len(detail)), 10), ':')
	m.text = append(append(append(m.text, purpose...), detail...), value...)
	m.Reset()
	_, _ = m.Write(m.text) // never fails
	m.sum = m.Sum(m.sum[:0])
	dst = append(dst, m.sum...)
	clear(m.text) // it names somebody
	if cap(m.text) <= maxMACText {
		k.macs.Put(m)
	}
	return dst
}

// maxMACText is how much room for a text is kept: recipients and idempotency keys are
// shorter.
const maxMACText = 1 << 10
