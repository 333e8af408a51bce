package dashboard_test

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/otpq/otpq/enqueue/campaign"
	"github.com/otpq/otpq/enqueue/campaign/rows"
	"github.com/otpq/otpq/providers/unimedbh"
)

// addCampaign creates a campaign to somebody and to others.
func (r *rig) addCampaign(id string, others int) {
	r.t.Helper()
	source := func(yield func(rows.Row, error) bool) {
		for n := range others + 1 {
			to := person
			if n > 0 {
				to = fmt.Sprintf("%d.%s", n, person)
			}
			if !yield(rows.Row{Line: n + 1, Request: unimedbh.Request{Username: to, Type: "EMAIL"}}, nil) {
				return
			}
		}
	}
	_, _, err := r.campaigns.Create(r.t.Context(), campaign.Settings{ID: id, Provider: unimedbh.Name},
		campaign.Source{Rows: source, Name: "people.csv"}, campaign.CreateOptions{})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestTheCampaignsPageTellsHowEachIs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.get("/deliveries/campaigns").want(t, http.StatusOK, "There are none")
	r.addCampaign("november", 9)
	r.get("/deliveries/campaigns").want(t, http.StatusOK, "november", "created", "0 of 10", "people.csv", `data-label="waiting">10<`, `data-label="rows">10<`)
	for what, do := range map[string]func() error{
		"Nobody feeds it right now": func() error { return r.campaigns.Start(t.Context(), "november", true) },
		"Somebody paused it":        func() error { return r.campaigns.Pause(t.Context(), "november") },
	} {
		if err := r.campaigns.Start(t.Context(), "november", true); err != nil {
			t.Fatal(err)
		}
		if err := do(); err != nil {
			t.Fatal(err)
		}
		r.get("/deliveries/campaigns").want(t, http.StatusOK, what)
	}
	if err := r.campaigns.Cancel(t.Context(), "november"); err != nil {
		t.Fatal(err)
	}
	r.get("/deliveries/campaigns?refresh=3").want(t, http.StatusOK, "10 of 10", `data-label="canceled">10<`, `http-equiv="refresh" content="3"`).
		without(t, "Nobody feeds it")
}

func TestTheCampaignsPageShowsTheNewest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for n := range 52 {
		r.addCampaign(fmt.Sprintf("notice-%02d", n), 0)
	}
	r.get("/deliveries/campaigns").want(t, http.StatusOK, "notice-51", "2 older ones are not shown").without(t, "notice-00")
}
