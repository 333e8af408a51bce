//go:build !unix

package vendorhttp

import "syscall"

// canTell is false: nothingToRead knows nothing here.
const canTell = false

func nothingToRead(syscall.Conn) bool { return true }
