package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// newFile is a file that is there under its name when it is whole, and never before.
// Only its owner can read it. What is no file, such as a pipe or /dev/stdout, stays what
// it is and is written to at once.
type newFile struct {
	*os.File
	path    string // as it was named
	place   string // the same, with links followed
	replace bool
	direct  bool
}

// createFile begins a file. Unless it may replace one, there must be none.
func createFile(path string, replace bool) (f *newFile, err error) {
	f = &newFile{path: path, place: path, replace: replace}
	there, err := os.Stat(path)
	switch {
	case err == nil && there.IsDir():
		return nil, usagef("%s is a folder: name a file", path)
	case err != nil && !errors.Is(err, fs.ErrNotExist): // links that lead to themselves, say
		return nil, usagef("%s cannot be written: %w", path, errors.Unwrap(err))
	case err == nil && !there.Mode().IsRegular():
		f.direct = true
		f.File, err = os.OpenFile(path, os.O_WRONLY, 0)
	default:
		if _, err := os.Lstat(path); err == nil && !replace {
			return nil, f.exists()
		}
		if to, err := filepath.EvalSymlinks(path); err == nil {
			f.place = to
		}
		f.File, err = os.CreateTemp(filepath.Dir(f.place), "."+filepath.Base(f.place)+".*") // mode 0600
	}
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
	defer f.remove() // gone already when it was renamed
	if err := f.Close(); err != nil {
		return fmt.Errorf("write %s: %w", f.path, err)
	}
	if f.direct {
		return nil
	}
	if f.replace {
		return os.Rename(f.Name(), f.place)
	}
	// Unlike a rename, this fails when somebody has made the file meanwhile.
	err := os.Link(f.Name(), f.place)
	switch {
	case errors.Is(err, fs.ErrExist):
		return f.exists()
	case err != nil: // a file system without links
		return os.Rename(f.Name(), f.place)
	}
	return nil
}

// abandon leaves nothing behind of a file that was not committed.
func (f *newFile) abandon() {
	_ = f.Close()
	f.remove()
}

// remove takes away what has no name yet.
func (f *newFile) remove() {
	if !f.direct {
		_ = os.Remove(f.Name())
	}
}
