package campaign

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/otpq/otpq/enqueue"
	"github.com/otpq/otpq/status"
)

func TestQuietHours(t *testing.T) {
	night := QuietHours{"21:00", "08:00", "America/Sao_Paulo"} // UTC-3
	noon := QuietHours{"12:00", "13:30", "America/Sao_Paulo"}
	clocks := QuietHours{"01:30", "03:30", "Europe/Lisbon"} // the clocks go forward at 01:00 UTC on 2026-03-29
	// There they go forward at midnight, 04:00 UTC on 2026-09-06, and back at the midnight
	// before, 03:00 UTC on 2026-04-05.
	south := QuietHours{"22:00", "08:00", "America/Santiago"}
	short := QuietHours{"22:00", "00:30", "America/Santiago"}
	early := QuietHours{"21:00", "23:30", "America/Santiago"}
	for _, tc := range []struct {
		q        QuietHours
		at, want string
	}{
		{night, "2026-11-23T23:59:59Z", ""},
		{night, "2026-11-24T00:00:00Z", "2026-11-24T11:00:00Z"},
		{night, "2026-11-24T05:00:00Z", "2026-11-24T11:00:00Z"},
		{night, "2026-11-24T10:59:59Z", "2026-11-24T11:00:00Z"},
		{night, "2026-11-24T11:00:00Z", ""},
		{noon, "2026-11-24T14:59:00Z", ""},
		{noon, "2026-11-24T15:00:00Z", "2026-11-24T16:30:00Z"},
		{noon, "2026-11-24T16:30:00Z", ""},
		{clocks, "2026-03-29T02:00:00Z", "2026-03-29T02:30:00Z"},
		{south, "2026-09-06T03:59:59Z", "2026-09-06T11:00:00Z"}, // 23:59:59
		{south, "2026-09-06T04:00:00Z", "2026-09-06T11:00:00Z"}, // 01:00
		{south, "2026-09-07T02:59:59Z", "2026-09-07T11:00:00Z"}, // 23:59:59, of the day that began at 01:00
		{south, "2026-09-07T03:30:00Z", "2026-09-07T11:00:00Z"}, // 00:30, of the day after
		{south, "2026-09-07T11:00:00Z", ""},
		{short, "2026-09-06T03:45:00Z", "2026-09-06T04:30:00Z"}, // 23:45; there is no 00:30
		{short, "2026-09-06T04:30:00Z", ""},
		{early, "2026-04-05T02:29:00Z", "2026-04-05T02:30:00Z"}, // 23:29, for the first time
		{early, "2026-04-05T03:29:00Z", "2026-04-05T03:30:00Z"}, // and for the second
		{early, "2026-04-05T03:30:00Z", ""},
		{QuietHours{}, "2026-03-29T01:00:00Z", ""},
	} {
		at, err := time.Parse(time.RFC3339, tc.at)
		if err != nil {
			t.Fatal(err)
		}
		until, quiet, err := tc.q.at(at)
		got := ""
		if quiet {
			got = until.Format(time.RFC3339)
		}
		if err != nil || got != tc.want {
			t.Errorf("%v at %s: until %q, %v; want until %q", tc.q, tc.at, got, err, tc.want)
		}
	}
}

func TestAWrongSettingIsNamed(t *testing.T) {
	for want, change := range map[string]func(*Settings){
		"id must be":                               func(s *Settings) { s.ID = "a b" },
		"id must":                                  func(s *Settings) { s.ID = "a{b}" },
		"id must not have a dot":                   func(s *Settings) { s.ID = "a.2" },
		`provider "nobody"`:                        func(s *Settings) { s.Provider = "nobody" },
		"rate must be":                             func(s *Settings) { s.Rate = -1 },
		"window must be":                           func(s *Settings) { s.Window = MaxWindow + 1 },
		"validity must be":                         func(s *Settings) { s.ValidFor = Duration(enqueue.MaxValidity + 1) },
		"share of failures that pauses must be":    func(s *Settings) { s.PauseAbove = 1.5 },
		`time zone "" is not known`:                func(s *Settings) { s.QuietHours = QuietHours{From: "21:00", To: "08:00"} },
		`time zone "Mars/North" is not known`:      func(s *Settings) { s.QuietHours = QuietHours{"21:00", "08:00", "Mars/North"} },
		`quiet hours "25:00" to "08:00" must be`:   func(s *Settings) { s.QuietHours = QuietHours{"25:00", "08:00", "UTC"} },
		`quiet hours "08:00" to "08:00" must be`:   func(s *Settings) { s.QuietHours = QuietHours{"08:00", "08:00", "UTC"} },
		"window must be at least 0 and at most 10": func(s *Settings) { s.Window = -1 },
	} {
		s := settings("wrong")
		change(&s)
		c := &Campaigns{}
		_, _, err := c.Create(t.Context(), s, source(), CreateOptions{})
		var setting *SettingError
		if !errors.As(err, &setting) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("Create() = %v, want a SettingError that begins with %q", err, want)
		}
	}
}

func TestARampBeginsLowAndDoubles(t *testing.T) {
	g := gentle{tempo: usualTempo}
	now := time.Now()
	for after, want := range map[time.Duration]float64{-5 * time.Minute: 0.1 /* another's clock */, 0: 0.1, 10 * time.Second: 0.2, 20 * time.Second: 0.4, time.Minute: 1} {
		if got := g.ramp(now.Add(after), now); got < want*0.999 || got > want*1.001 {
			t.Errorf("%s after its begin the ramp is at %v, want %v", after, got, want)
		}
	}
	if got := g.ramp(now, time.Time{}); got != 1 {
		t.Errorf("without a ramp it is %v, want 1", got)
	}
}

func TestNoMoreIsFedThanTheRateAndTheWindowLet(t *testing.T) {
	now := time.Now()
	g := gentle{tempo: usualTempo}
	m := &meta{}
	m.Rate = 100
	if got := g.room(now, m, 0, 0, 1000); got != 0 {
		t.Errorf("at first there is room for %d, want 0", got)
	}
	now = now.Add(50 * time.Millisecond)
	if got := g.room(now, m, 0, 0, 1000); got != 5 {
		t.Errorf("after 50 ms at 100/s there is room for %d, want 5", got)
	}
	g.spend(5)
	now = now.Add(time.Hour)
	if got := g.room(now, m, 0, 0, 1000); got != 10 {
		t.Errorf("after an hour there is room for %d, want what a tenth of a second lets through", got)
	}
	m.Rate, m.Window = 0, 30
	if got := g.room(now, m, 28, 0, 1000); got != 2 {
		t.Errorf("with 28 of 30 in flight there is room for %d, want 2", got)
	}
	if got := g.room(now, m, 40, 0, 1000); got != 0 {
		t.Errorf("with 40 of 30 in flight there is room for %d, want 0", got)
	}
}

// Few are in flight where a rate lets few through: that is not for want of a window.
func TestARateDoesNotOpenTheWindow(t *testing.T) {
	now := time.Now()
	g := gentle{tempo: usualTempo}
	m := &meta{}
	m.Rate = 150
	for range 200 { // the workers keep up with it
		g.spend(g.room(now, m, 10, 0, 1000))
		now = now.Add(turn)
	}
	g.drained = 17 // and then they do not
	if got := g.room(now, m, firstWindow, 0, 1000); got != 0 {
		t.Errorf("with %d in flight, and 17 of them ending in a second, there is room for %d, want 0", firstWindow, got)
	}
	m.Rate = 100_000
	g = gentle{tempo: usualTempo}
	most := 0
	for range 200 {
		n := g.room(now, m, 0, 0, 1_000_000)
		most = max(most, n)
		g.spend(n)
		now = now.Add(turn)
	}
	if most < 2000 {
		t.Errorf("at 100,000 a second there was room for %d, want the window to have grown", most)
	}
}

// Workers with more slots than the first window, and a slow provider: what is there keeps
// no slot waiting, and is not yet in the queue's way.
func TestTheWindowIsAsWideAsTheWorkersSlots(t *testing.T) {
	const slots, queued = 600, 1000
	now := time.Now()
	g := gentle{tempo: usualTempo}
	m := &meta{}
	var ends []time.Time // of those that are sent, the first one first
	waiting, most := 0, 0
	for range 2000 { // 50 s
		now = now.Add(turn)
		ended := 0
		for len(ends) > 0 && !ends[0].After(now) {
			ends, ended = ends[1:], ended+1
		}
		g.note(now, slices.Repeat([]result{{state: string(status.Accepted), final: "yes"}}, ended))
		for ; waiting > 0 && len(ends) < slots; waiting-- {
			ends = append(ends, now.Add(3*time.Second))
		}
		n := g.room(now, m, waiting+len(ends), len(ends), 100_000)
		g.spend(n)
		waiting += n
		most = max(most, waiting)
	}
	if len(ends) < slots*9/10 || most > queued {
		t.Errorf("%d of %d slots are used, and up to %d waited for one; want nearly all, and at most %d", len(ends), slots, most, queued)
	}
}

func TestEachPauseAfterFailuresIsTwiceAsLong(t *testing.T) {
	for holds, want := range map[int]time.Duration{
		0: 30 * time.Second, 1: time.Minute, 4: 8 * time.Minute, 5: 15 * time.Minute, 1000: 15 * time.Minute,
	} {
		if got := usualTempo.afterFailures(holds); got != want {
			t.Errorf("after %d pauses it pauses for %s, want %s", holds, got, want)
		}
	}
}
