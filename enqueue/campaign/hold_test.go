package campaign

import (
	"testing"
	"time"
)

func TestNothingIsSentInQuietHours(t *testing.T) {
	r := newRig(t)
	r.work(nil)
	night := time.Date(2026, 11, 23, 23, 0, 0, 0, time.UTC)
	c := r.open(nil)
	c.now = func() time.Time { return night }
	s := settings("polite")
	s.QuietHours = QuietHours{From: "21:00", To: "08:00", Zone: "UTC"}
	r.create(s, people(0, 300)...)
	r.start("polite")
	r.feed(c, "polite")
	k := r.until("polite", "held", func(k Campaign) bool { return k.Reason == ReasonQuietHours })
	if want := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC); k.State != Running || !k.Until.Equal(want) {
		t.Errorf("in quiet hours it is %s until %s, want running until %s", k.State, k.Until, want)
	}
	// Whoever resumes it lets nothing through either.
	if err := r.Pause(t.Context(), "polite"); err != nil {
		t.Fatal(err)
	}
	if err := r.Resume(t.Context(), "polite"); err != nil {
		t.Fatal(err)
	}
	k = r.until("polite", "held again", func(k Campaign) bool { return k.Reason == ReasonQuietHours })
	if err := sleep(t.Context(), 2*turn); err != nil {
		t.Fatal(err)
	}
	if k = r.status("polite"); k.Counts.Waiting != 300 {
		t.Errorf("in quiet hours %d rows were fed", 300-k.Counts.Waiting)
	}
}
