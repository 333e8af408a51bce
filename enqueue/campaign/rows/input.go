package rows

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// maxWindow is what a zstd file may ask to be kept of it: as much as zstd itself
// takes when it is not told otherwise.
const maxWindow = 128 << 20

// Digest reads all of r, and returns the SHA-256 of it as [File.Digest] does. It
// fails with r's error, and with ctx's.
func Digest(ctx context.Context, r io.Reader) (string, error) {
	h := &hashed{ctx: ctx, r: r, hash: sha256.New()}
	if _, err := io.Copy(io.Discard, h); err != nil {
		return "", err
	}
	return h.digest(), nil
}

// DigestFile is [Digest] of a file, as it lies there: not uncompressed.
func DigestFile(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // the operator's own choice
	if err != nil {
		return "", err
	}
	defer f.Close()
	return Digest(ctx, f)
}

// hashed passes on what it reads, until ctx ends.
type hashed struct {
	ctx  context.Context //nolint:containedctx // of the one reading
	r    io.Reader
	hash hash.Hash
	err  error // r's, or ctx's
}

// Read implements [io.Reader].
func (h *hashed) Read(p []byte) (int, error) {
	if h.err = h.ctx.Err(); h.err != nil {
		return 0, h.err
	}
	n, err := h.r.Read(p)
	h.hash.Write(p[:n])
	h.err = err
	return n, err
}

func (h *hashed) digest() string { return "sha256:" + hex.EncodeToString(h.hash.Sum(nil)) }

// unpacked is what a compressed input holds.
type unpacked struct {
	io.Reader
	packed *hashed
}

// Read implements [io.Reader].
func (u unpacked) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	return n, u.failure(err)
}

// failure says of an error that is the unpacker's own what it means.
func (u unpacked) failure(err error) error {
	cut := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	broken := u.packed.err != nil && !errors.Is(u.packed.err, io.EOF)
	if err == nil || cut || broken || errors.Is(err, zstd.ErrWindowSizeExceeded) {
		return err
	}
	return fmt.Errorf("the compressed input is damaged, or something else is behind its end: %w", err)
}

// input is a file's text.
type input struct {
	text  io.Reader
	bytes *hashed
	close func()
}

// notText are files that hold no rows as they are, by how they begin.
var notText = []struct{ magic, problem string }{
	{"PK\x03\x04", "is a spreadsheet or a zip archive: save the sheet as CSV, or unpack it"},
	{"\xd0\xcf\x11\xe0", "is a spreadsheet: save the sheet as CSV"},
	{"BZh", "is compressed by bzip2: only gzip and zstd are read"},
	{"\xfd7zXZ", "is compressed by xz: only gzip and zstd are read"},
	{"\xff\xfe", "is UTF-16: save it as UTF-8"},
	{"\xfe\xff", "is UTF-16: save it as UTF-8"},
}

// FormatError says why a file cannot be read at all.
type FormatError struct{ Problem string }

// Error implements error.
func (e *FormatError) Error() string { return "the input " + e.Problem }

// openInput finds out by r's first bytes how it is compressed. An r that ends at once
// is a text of nothing.
func openInput(ctx context.Context, r io.Reader) (*input, error) {
	in := &input{bytes: &hashed{ctx: ctx, r: r, hash: sha256.New()}, close: func() {}}
	raw := bufio.NewReaderSize(in.bytes, fillSize)
	in.text = raw
	magic, err := raw.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	for _, f := range notText {
		if bytes.HasPrefix(magic, []byte(f.magic)) {
			return nil, &FormatError{f.problem}
		}
	}
	switch {
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		z, err := gzip.NewReader(raw)
		if err != nil {
			return nil, unpackError(unpacked{packed: in.bytes}.failure(err))
		}
		in.text = unpacked{z, in.bytes}
	case len(magic) == 4 && (string(magic) == "\x28\xb5\x2f\xfd" || // a frame, or one that pzstd has others skip
		magic[0]&0xf0 == 0x50 && string(magic[1:]) == "\x2a\x4d\x18"):
		// One goroutine: rows are made beside it, and memory stays small.
		z, err := zstd.NewReader(raw, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, unpackError(err)
		}
		in.text, in.close = unpacked{z, in.bytes}, z.Close
	}
	return in, nil
}

// unpackError says in words what most often happened.
func unpackError(err error) error {
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("the input is cut short: %w", io.ErrUnexpectedEOF)
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return fmt.Errorf("the compressed input needs more than %d MiB of memory: %w", maxWindow>>20, err)
	}
	return err
}
