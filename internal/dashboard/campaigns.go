package dashboard

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/otpq/otpq/enqueue/campaign"
)

// Campaigns is where the page about campaigns reads from. It is safe for concurrent use.
type Campaigns interface {
	// List returns all campaigns, the newest first, with the counts last known.
	List(ctx context.Context) ([]campaign.Campaign, error)
}

// mostCampaigns is how many the page shows.
const mostCampaigns = 50

// campaignsData is what the page of the campaigns shows.
type campaignsData struct {
	Campaigns []campaignRow
	More      int // those that are not shown
}

// campaignRow is one campaign.
type campaignRow struct{ campaign.Campaign }

// campaignCount is how many rows of a campaign are so.
type campaignCount struct {
	Name string
	N    int64
}

// Ended is how many of the rows that are to be sent came to an end, of ToSend.
func (r campaignRow) Ended() int64 {
	n := r.Counts
	return n.Accepted + n.Rejected + n.Exhausted + n.Unknown + n.Expired + n.Canceled
}

// ToSend is how many rows are to be sent.
func (r campaignRow) ToSend() int64 { return r.Counts.Rows - r.Counts.Invalid - r.Counts.Duplicate }

// StateWords is the state in words.
func (r campaignRow) StateWords() string { return strings.ReplaceAll(string(r.State), "_", " ") }

// Badge is the class of the state's colour.
func (r campaignRow) Badge() string {
	switch r.State {
	case campaign.Completed:
		return "good"
	case campaign.CompletedWithFailures:
		return "bad"
	case campaign.Paused:
		return "wait"
	case campaign.Running, campaign.Creating, campaign.Created, campaign.Canceled:
	}
	return "plain"
}

// Why says why nothing is fed, and until when; "" when nothing holds the campaign.
func (r campaignRow) Why(now time.Time) string {
	words := ""
	switch r.Reason {
	case campaign.ReasonOperator:
		return "Somebody paused it; `otpq campaign resume " + r.ID + "` goes on."
	case campaign.ReasonQuietHours:
		words = "These are its quiet hours; it goes on by itself"
	case campaign.ReasonBreakerOpen:
		words = "The provider's breaker is open; it looks again"
	case campaign.ReasonFailures:
		words = "Too many of its last messages failed; it tries again"
	}
	switch {
	case words == "" && r.State == campaign.Running && r.Feeder == "":
		return "Nobody feeds it right now: a worker takes it over within seconds, if there is one."
	case words == "":
		return ""
	case r.Until.After(now):
		return words + " at " + clock(r.Until) + ", in " + span(r.Until.Sub(now)) + "."
	}
	return words + "."
}

// Pace is how fast it goes, and for how long yet; "" when it does not, or nobody knows.
func (r campaignRow) Pace() string {
	if r.State != campaign.Running || r.RatePerSecond <= 0 {
		return ""
	}
	digits := 0
	if r.RatePerSecond < 10 {
		digits = 1
	}
	pace := strconv.FormatFloat(r.RatePerSecond, 'f', digits, 64) + " in a second"
	if left := r.ToSend() - r.Ended(); left > 0 {
		pace += ", about " + span(time.Duration(float64(left)/r.RatePerSecond*float64(time.Second))) + " left"
	}
	return pace
}

// Kinds are how many rows there are of each kind, those without any left out.
func (r campaignRow) Kinds() []campaignCount {
	n := r.Counts
	var out []campaignCount
	for _, c := range []campaignCount{
		{"waiting", n.Waiting}, {"queued", n.Queued}, {"sending", n.Sending}, {"deferred", n.Deferred},
		{"accepted", n.Accepted}, {"rejected", n.Rejected}, {"exhausted", n.Exhausted}, {"unknown", n.Unknown},
		{"expired", n.Expired}, {"canceled", n.Canceled}, {"invalid", n.Invalid}, {"duplicate", n.Duplicate},
	} {
		if c.N > 0 {
			out = append(out, c)
		}
	}
	return out
}

func (d *Dashboard) listCampaigns(ctx context.Context, r *http.Request) (view, error) {
	all, err := d.cfg.Campaigns.List(ctx)
	if err != nil {
		return view{}, err
	}
	data := campaignsData{More: max(0, len(all)-mostCampaigns)}
	for _, c := range all[:min(len(all), mostCampaigns)] {
		data.Campaigns = append(data.Campaigns, campaignRow{c})
	}
	v := view{template: "campaigns", Title: "Campaigns", Path: campaignsPath, Data: data}
	if r.URL.Query().Get("refresh") == "3" {
		v.Refresh = 3
	}
	return v, nil
}
