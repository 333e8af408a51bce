package main

import (
	"context"
	"io"
	"os"
)

// openInput opens a file to read. It ends with ctx, and so does reading, even where
// nothing comes: a pipe may have nobody who writes to it.
func openInput(ctx context.Context, path string) (in io.ReadCloser, info os.FileInfo, err error) {
	if info, err = os.Stat(path); err != nil {
		return nil, nil, err
	}
	if info.Mode().IsRegular() || info.IsDir() {
		f, err := os.Open(path)
		return f, info, err
	}
	type opened struct {
		*os.File
		err error
	}
	done := make(chan opened, 1)
	go func() {
		f, err := os.Open(path)
		done <- opened{f, err}
	}()
	select {
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case f := <-done:
		if f.err != nil {
			return nil, nil, f.err
		}
		return struct {
			io.Reader
			io.Closer
		}{until(ctx, f.File), f.File}, info, nil
	}
}

// until is r, which ends with ctx even where nothing comes. What is read after that is
// lost.
func until(ctx context.Context, r io.Reader) io.Reader {
	out, in := io.Pipe()
	context.AfterFunc(ctx, func() { in.CloseWithError(ctx.Err()) })
	go func() {
		_, err := io.Copy(in, r)
		in.CloseWithError(err)
	}()
	return out
}
