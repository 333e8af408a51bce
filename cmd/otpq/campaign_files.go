package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// newFile is a file that is there under its name when it is whole, and never before.
// Only its owner can read it.
type newFile struct {
	*os.File
	path    string
	replace bool
}

// createFile begins a file. Unless it may replace one, there must be none.
func createFile(path string, replace bool) (*newFile, error) {
	f := &newFile{path: path, replace: replace}
	if _, err := os.Lstat(path); err == nil && !replace {
		return nil, f.exists()
	}
	var err error
	f.File, err = os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return nil, usagef("%s cannot be written: %w", path, errors.Unwrap(err))
	}
	return f, nil
}

func (f *newFile) exists() error {
	return usagef("%s is there already: choose another name, or replace it with --force", f.path)
}

// commit gives the file its name.
func (f *newFile) commit() error {
	defer os.Remove(f.Name()) // gone already when it was renamed
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	if f.replace {
		return os.Rename(f.Name(), f.path)
	}
	// Unlike a rename, this fails when somebody has made the file meanwhile.
	err := os.Link(f.Name(), f.path)
	switch {
	case errors.Is(err, fs.ErrExist):
		return f.exists()
	case err != nil: // a file system without links
		return os.Rename(f.Name(), f.path)
	}
	return nil
}

// abandon leaves nothing behind of a file that was not committed.
func (f *newFile) abandon() {
	_ = f.Close()
	_ = os.Remove(f.Name())
}
