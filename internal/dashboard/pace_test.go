package dashboard

import (
	"testing"

	"github.com/otpq/otpq/enqueue/campaign"
)

func TestACampaignsPace(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		state campaign.State
		rate  float64
		rows  int64
		want  string
	}{
		"a slow one is not said to stand still": {campaign.Running, 0.4, 40, "0.4 in a second, about 1 min 40 s left"},
		"a fast one has no fractions":           {campaign.Running, 49.6, 496, "50 in a second, about 10 s left"},
		"one that has just sent its last":       {campaign.Running, 20, 0, "20 in a second"},
		"one of which nobody knows":             {campaign.Running, 0, 40, ""},
		"one that is over":                      {campaign.Completed, 20, 0, ""},
		"one that is paused":                    {campaign.Paused, 20, 40, ""},
	} {
		row := campaignRow{campaign.Campaign{State: tc.state, RatePerSecond: tc.rate, Counts: campaign.Counts{Rows: tc.rows}}}
		if got := row.Pace(); got != tc.want {
			t.Errorf("%s: Pace() = %q, want %q", name, got, tc.want)
		}
	}
}
