package campaign

import (
	"fmt"
	"strings"
	"time"

	"github.com/otpq/otpq/enqueue"
)

const (
	// DefaultPauseAbove is the share of failures at which a campaign pauses by itself.
	DefaultPauseAbove = 0.2
	// MaxWindow bounds how many messages a campaign may have in the queue: its feeder
	// remembers each.
	MaxWindow = 100_000
)

// Settings are what an operator decides about a campaign.
type Settings struct {
	// ID is its name: up to 56 letters, digits, - and _.
	ID string `json:"id"`
	// Provider is whom its rows are for.
	Provider string `json:"provider"`
	// Rate is the most rows in a second; zero is no limit.
	Rate float64 `json:"rate,omitempty"`
	// Window is the most messages in the queue and in flight at once, up to
	// [MaxWindow]. Zero adapts it to what the workers drain in about a second.
	Window int `json:"window,omitempty"`
	// ValidFor is each message's validity, from when it is queued. Zero means
	// [enqueue.DefaultValidity].
	ValidFor Duration `json:"valid_for"`
	// QuietHours are when nothing is fed.
	QuietHours QuietHours `json:"quiet_hours,omitzero"`
	// PauseAbove is the share of failures among the last results that pauses the
	// campaign, more than 0; at 1 none does. Zero means [DefaultPauseAbove].
	PauseAbove float64 `json:"pause_above"`
}

// QuietHours are a time of day, every day; none when it is zero.
type QuietHours struct {
	From string `json:"from"` // such as 21:00
	To   string `json:"to"`   // such as 08:00, of the next day when it is before From
	Zone string `json:"zone"` // such as America/Sao_Paulo
}

// SettingError says which setting is wrong and why.
type SettingError struct{ Setting, Problem string }

// Error implements error.
func (e *SettingError) Error() string { return e.Setting + " " + e.Problem }

// Duration is a [time.Duration] whose JSON form is text, such as "5m0s".
type Duration time.Duration

// MarshalText implements [encoding.TextMarshaler].
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// check fills in what is not said, and fails with a [SettingError].
func (s *Settings) check() error {
	if s.ValidFor == 0 {
		s.ValidFor = Duration(enqueue.DefaultValidity)
	}
	if s.PauseAbove == 0 {
		s.PauseAbove = DefaultPauseAbove
	}
	switch {
	case !idPattern.MatchString(s.ID):
		return &SettingError{"id", "must be 1 to 56 letters, digits, - or _, the first of them neither"}
	case !(s.Rate >= 0 && s.Rate <= 1e6):
		return &SettingError{"rate", fmt.Sprintf("must be at least 0 and at most 1,000,000 rows a second, not %v", s.Rate)}
	case s.Window < 0 || s.Window > MaxWindow:
		return &SettingError{"window", fmt.Sprintf("must be at least 0 and at most %d messages, not %d", MaxWindow, s.Window)}
	case s.ValidFor < 0 || time.Duration(s.ValidFor) > enqueue.MaxValidity:
		return &SettingError{"validity", fmt.Sprintf("must be more than 0 and at most %s, not %s", enqueue.MaxValidity, time.Duration(s.ValidFor))}
	case !(s.PauseAbove > 0 && s.PauseAbove <= 1):
		return &SettingError{"share of failures that pauses", fmt.Sprintf("must be more than 0 and at most 1, not %v", s.PauseAbove)}
	}
	_, _, err := s.QuietHours.at(time.Now())
	return err
}

// at reports whether t is in the quiet hours, and until when they last then.
func (q QuietHours) at(t time.Time) (until time.Time, quiet bool, err error) {
	if q == (QuietHours{}) {
		return time.Time{}, false, nil
	}
	zone, err := time.LoadLocation(q.Zone)
	if err != nil || q.Zone == "" || strings.EqualFold(q.Zone, "local") {
		return time.Time{}, false, &SettingError{"time zone", fmt.Sprintf("%q is not known: write one such as America/Sao_Paulo", q.Zone)}
	}
	from, err1 := time.Parse("15:04", q.From)
	to, err2 := time.Parse("15:04", q.To)
	if err1 != nil || err2 != nil || from.Equal(to) {
		return time.Time{}, false, &SettingError{"quiet hours", fmt.Sprintf("%q to %q must be two different times of day such as 21:00 and 08:00", q.From, q.To)}
	}
	// By what the clock shows, and not by when they began: where clocks go forward at
	// midnight, that is a time of day which there may not have been.
	t = t.In(zone)
	begin, shows, over := minuteOf(from), minuteOf(t), minuteOf(to)
	overnight := over < begin
	if overnight && over <= shows && shows < begin || !overnight && (shows < begin || over <= shows) {
		return time.Time{}, false, nil
	}
	year, month, date := t.Date()
	if over <= shows {
		date++
	}
	end := time.Date(year, month, date, to.Hour(), to.Minute(), 0, 0, zone)
	if skipped := over - minuteOf(end); skipped != 0 {
		// The clocks pass over it: it would have been as long after what end shows.
		const day = 24 * 60
		if skipped = (skipped + day) % day; skipped < day/2 {
			end = end.Add(time.Duration(skipped) * time.Minute)
		}
	}
	if !end.After(t) { // the clocks went back, and show it a second time
		_, first := end.Zone()
		_, second := t.Zone()
		end = end.Add(time.Duration(first-second) * time.Second)
	}
	return end.UTC(), true, nil
}

func minuteOf(t time.Time) int { return t.Hour()*60 + t.Minute() }
