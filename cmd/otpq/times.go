package main

import (
	"errors"
	"time"
)

// Which way a bare duration points.
const (
	ago     = -1
	fromNow = +1
)

// parseTime reads a time as people type it: RFC 3339, a day, or a duration
// before or after now. The error completes "--flag …".
func parseTime(s string, now time.Time, direction time.Duration) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return time.Time{}, errors.New("must not be negative")
		}
		return now.Add(direction * d), nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if t, err := time.ParseInLocation(time.DateOnly, s, time.Local); err == nil {
		return t, nil
	}
	return time.Time{}, errors.New("must be a duration such as 2h, a day such as 2026-11-23 or a time such as 2026-11-23T03:00:00Z")
}
