package metrics

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func campaignsOf(list ...Campaign) *Campaigns {
	return &Campaigns{
		List:    func(context.Context) ([]Campaign, error) { return list, nil },
		Reasons: []string{"operator", "breaker_open"}, Now: func() time.Time { return noon },
	}
}

func TestCampaignsAreShown(t *testing.T) {
	t.Parallel()
	got := series(t, campaignsOf(
		Campaign{ID: "november", Provider: "p", Rows: map[string]int64{"waiting": 7, "accepted": 3}, RatePerSecond: 2.5},
		Campaign{ID: "held", Provider: "p", Reason: "breaker_open"},
		Campaign{ID: "new", Provider: "p", Reason: "maria@example.com"},
		Campaign{ID: "over", Provider: "q", Reason: "operator", Over: true, Ended: noon.Add(-time.Minute)},
	))
	want := map[string]float64{
		"otpq_campaign_rows{november,p,waiting}": 7, "otpq_campaign_rows{november,p,accepted}": 3,
		"otpq_campaign_rate_per_second{november}": 2.5, "otpq_campaign_rate_per_second{held}": 0,
		"otpq_campaign_rate_per_second{new}": 0, "otpq_campaign_rate_per_second{over}": 0,
		"otpq_campaign_paused{november,operator}": 0, "otpq_campaign_paused{november,breaker_open}": 0,
		"otpq_campaign_paused{held,operator}": 0, "otpq_campaign_paused{held,breaker_open}": 1,
		"otpq_campaign_paused{new,operator}": 0, "otpq_campaign_paused{new,breaker_open}": 0, "otpq_campaign_paused{new,other}": 1,
		"otpq_campaign_paused{over,operator}": 0, "otpq_campaign_paused{over,breaker_open}": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

// An id comes from Redis, and a label has to be UTF-8.
func TestACampaignWithAnUnreadableIDIsShownAllTheSame(t *testing.T) {
	t.Parallel()
	got := series(t, campaignsOf(Campaign{ID: "a\xff", Provider: "p", Rows: map[string]int64{"waiting": 7}}))
	if got["otpq_campaign_rows{a\uFFFD,p,waiting}"] != 7 {
		t.Errorf("series = %v, want the campaign's", got)
	}
}

// The ids of campaigns are the only label that grows without end.
func TestOnlyAFewCampaignsAreShown(t *testing.T) {
	t.Parallel()
	many := func(n int, name string, over bool, ended time.Time) (out []Campaign) {
		for i := range n {
			out = append(out, Campaign{ID: fmt.Sprint(name, i), Over: over, Ended: ended})
		}
		return out
	}
	for name, c := range map[string]struct {
		list        []Campaign
		first, last string
		n           int
	}{
		"the newest of many":                                        {many(30, "c", false, time.Time{}), "c0", "c19", 20},
		"those under way before those that are over":                {append(many(25, "done", true, noon), many(3, "c", false, time.Time{})...), "c0", "done16", 20},
		"one that ended an hour ago":                                {many(1, "c", true, noon.Add(-time.Hour)), "c0", "c0", 1},
		"none that ended before":                                    {many(1, "c", true, noon.Add(-time.Hour-time.Second)), "", "", 0},
		"one that was canceled and still has messages in the queue": {many(1, "c", true, time.Time{}), "c0", "c0", 1},
	} {
		t.Run(name, func(t *testing.T) {
			got := shown(c.list, noon)
			if len(got) != c.n || c.n > 0 && (got[0].ID != c.first || got[c.n-1].ID != c.last) {
				t.Errorf("shown() = %v, want %d from %q to %q", got, c.n, c.first, c.last)
			}
		})
	}
}

func TestCampaignsAreReadOnceInAWhileAndNotShownWithoutRedis(t *testing.T) {
	t.Parallel()
	asked := 0
	c := campaignsOf()
	c.List = func(context.Context) ([]Campaign, error) {
		asked++
		if asked == 1 {
			return []Campaign{{ID: "november"}}, nil
		}
		return nil, errors.New("no answer")
	}
	for range 3 {
		if got := series(t, c); len(got) != 3 {
			t.Errorf("series = %v, want those of one campaign", got)
		}
	}
	if asked != 1 {
		t.Errorf("the campaigns were read %d times, want once", asked)
	}
	c.last.at = c.last.at.Add(-lookedFresh)
	if got := series(t, c); len(got) > 0 || asked != 2 {
		t.Errorf("without Redis series = %v, asked %d times; want none, and twice", got, asked)
	}
}
