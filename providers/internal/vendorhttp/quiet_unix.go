//go:build unix

package vendorhttp

import (
	"errors"
	"syscall"
)

// canTell says whether nothingToRead knows.
const canTell = true

// nothingToRead reports whether a connection is open and has nothing to read.
func nothingToRead(c syscall.Conn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	quiet := false
	err = raw.Read(func(fd uintptr) bool {
		var one [1]byte
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		quiet = errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EWOULDBLOCK)
		return true
	})
	return err == nil && quiet
}
