package campaign

import (
	"testing"

	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers"
)

func TestEachRecipientIsSentToOnce(t *testing.T) {
	r := newRig(t)
	list := people(0, 1500)
	list = append(list, people(100, 200)...) // again
	list = append(list, rows.Row{Line: 1601, Problems: []providers.FieldError{{Field: "username", Problem: "is required"}}})
	k := r.create(settings("outage"), list...)
	if want := (Counts{Rows: 1601, Invalid: 1, Duplicate: 100, Waiting: 1500}); k.State != Created || k.Counts != want {
		t.Fatalf("Create() = %s, %+v; want created, %+v", k.State, k.Counts, want)
	}
	r.work(nil)
	r.start("outage")
	ended, _ := r.feed(r.Campaigns, "outage")
	r.until("outage", "over", isIn(CompletedWithFailures))
	if err := <-ended; err != nil {
		t.Errorf("Feed() = %v", err)
	}
	if n := r.status("outage").Counts; n.Accepted != 1500 || n.Waiting != 0 {
		t.Errorf("counts = %+v, want 1500 accepted", n)
	}
	counts := r.vendor.counts()
	for _, row := range people(0, 1500) {
		if name := row.Request.Recipient(); counts[name] != 1 {
			t.Errorf("%s was sent %d requests, want 1", name, counts[name])
		}
	}
	seen := map[string]int{}
	for row, err := range r.Report(t.Context(), "outage", false) {
		if err != nil {
			t.Fatal(err)
		}
		seen[row.State]++
	}
	if seen["accepted"] != 1500 || seen["duplicate"] != 100 || seen["invalid"] != 1 {
		t.Errorf("the report has %v", seen)
	}
}
