package metrics

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// campaignsShown is the most campaigns that are shown: an id is no closed set, and
	// each has a score of series.
	campaignsShown = 20
	// campaignsAfter is for how long one that is over is still shown, so that its last
	// counts are seen.
	campaignsAfter = time.Hour
)

// Campaign is what is shown of a campaign.
type Campaign struct {
	ID, Provider string
	// Rows are how many rows there are in each state; every state is among them.
	Rows map[string]int64
	// Reason says why it feeds nothing though it is not over; empty when it does.
	Reason        string
	RatePerSecond float64
	// Over is true when nothing more will be fed; Ended is when all its rows had come
	// to their end, and zero before.
	Over  bool
	Ended time.Time
}

// Campaigns shows how campaigns go on. It is safe for concurrent use.
type Campaigns struct {
	// List returns all campaigns, the newest first.
	List func(context.Context) ([]Campaign, error)
	// Reasons are all that there are; another is shown as "other".
	Reasons []string
	// Now is the clock; nil means [time.Now].
	Now func() time.Time

	last looked
}

var _ prometheus.Collector = (*Campaigns)(nil)

var (
	campaignRows   = campaignRowsSpec.read()
	campaignPaused = campaignPausedSpec.read()
	campaignRate   = campaignRateSpec.read()
)

// Describe implements [prometheus.Collector].
func (c *Campaigns) Describe(ch chan<- *prometheus.Desc) {
	for _, r := range []read{campaignRows, campaignPaused, campaignRate} {
		ch <- r.Desc
	}
}

// Collect implements [prometheus.Collector].
func (c *Campaigns) Collect(ch chan<- prometheus.Metric) { c.last.collect(ch, c.look) }

// look reads all there is, or nothing: old figures would pass for new ones.
func (c *Campaigns) look(ctx context.Context) []prometheus.Metric {
	list, err := c.List(ctx)
	if err != nil {
		return nil
	}
	now := time.Now
	if c.Now != nil {
		now = c.Now
	}
	var out []prometheus.Metric
	for _, each := range shown(list, now()) {
		for state, n := range each.Rows {
			out = append(out, campaignRows.value(float64(n), each.ID, each.Provider, state))
		}
		reason := each.Reason
		if each.Over {
			reason = ""
		}
		if reason != "" && !slices.Contains(c.Reasons, reason) {
			out = append(out, campaignPaused.value(1, each.ID, otherReason))
		}
		for _, r := range c.Reasons {
			out = append(out, campaignPaused.value(oneIf(r == reason), each.ID, r))
		}
		out = append(out, campaignRate.value(each.RatePerSecond, each.ID))
	}
	return out
}

// shown are the campaigns that have series. Those that are not over come first: a day
// with many small ones does not hide one that is under way.
func shown(list []Campaign, now time.Time) []Campaign {
	var under, over []Campaign
	for _, each := range list {
		switch {
		case !each.Over, each.Ended.IsZero():
			under = append(under, each)
		case now.Sub(each.Ended) <= campaignsAfter:
			over = append(over, each)
		}
	}
	all := slices.Concat(under, over)
	return all[:min(len(all), campaignsShown)]
}
