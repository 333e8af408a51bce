// Package clock reads the clock that all processes of a benchmark share. It does
// not tell the time of day.
package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// start and base are the same moment, on Go's clock and on the kernel's.
var start, base = anchor()

// anchor takes the closest of a few pairs of readings: the process may be
// interrupted between the two of a pair.
func anchor() (time.Time, int64) {
	var (
		closest = time.Hour
		at      time.Time
		kernel  int64
	)
	for range 16 {
		before := time.Now()
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			panic("clock: " + err.Error()) // every Linux has it
		}
		if gap := time.Since(before); gap < closest {
			closest, at, kernel = gap, before.Add(gap/2), ts.Nano()
		}
	}
	return at, kernel
}

// Now is CLOCK_MONOTONIC in nanoseconds: the same in every process, Node.js's
// process.hrtime too. It costs no system call.
func Now() int64 { return base + int64(time.Since(start)) }

// Wall is the time of day of a reading of [Now].
func Wall(at int64) time.Time { return start.Add(time.Duration(at - base)) }
