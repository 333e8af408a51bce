//go:build !unix

package vendorhttp

import "syscall"

// nothingToRead cannot tell here.
func nothingToRead(syscall.Conn) bool { return true }
