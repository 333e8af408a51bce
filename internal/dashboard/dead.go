package dashboard

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/otpq/otpq/status"
)

const (
	deadPage = 50
	// maxScan is how many dead letters are looked at for one page: a filter that
	// fits few of many would otherwise read them all.
	maxScan = 2000
)

// deadData is what the page of the dead letters shows.
type deadData struct {
	Letters []status.DeadLetter
	// What was asked for, and what can be.
	Provider, State, Reason, Since string
	Providers, States, Reasons     []string
	Ages                           []age
	// Later is true on any page but the first.
	Later bool
	// More leads to the next page; empty on the last. Scanned is how many letters
	// were looked at, when that was as many as a page looks at.
	More    string
	Scanned int
}

// age is a choice of how long ago a message died.
type age struct{ Value, Title string }

var ages = []age{{"", "ever"}, {"1h", "in the last hour"}, {"24h", "in the last day"}, {"168h", "in the last week"}}

// cursor is where a page begins: after a letter of a provider.
type cursor struct {
	provider string
	listed   time.Time
	id       string
}

// parseCursor reads what String wrote; anything else is the beginning.
func parseCursor(text string) cursor {
	provider, rest, _ := strings.Cut(text, ",")
	ms, id, ok := strings.Cut(rest, ",")
	n, err := strconv.ParseInt(ms, 10, 64)
	if !ok || err != nil {
		return cursor{}
	}
	return cursor{provider, time.UnixMilli(n), id}
}

func (c cursor) String() string {
	return fmt.Sprintf("%s,%d,%s", c.provider, c.listed.UnixMilli(), c.id)
}

func (d *Dashboard) listDead(ctx context.Context, r *http.Request) (view, error) {
	q := r.URL.Query()
	data := deadData{
		Provider: q.Get("provider"), State: q.Get("state"), Reason: q.Get("reason"), Since: q.Get("since"), Ages: ages,
		States: []string{string(status.Rejected), string(status.Exhausted), string(status.Unknown)},
	}
	for _, p := range d.cfg.Providers {
		data.Providers = append(data.Providers, p.Name)
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		data.Reasons = append(data.Reasons, string(reason))
	}
	if problem := data.wrong(); problem != "" {
		return failed(http.StatusBadRequest, problem, ""), nil
	}
	after := parseCursor(q.Get("after"))
	data.Later = after != cursor{}
	next, err := d.readDead(ctx, &data, after)
	if err != nil {
		return view{}, err
	}
	if next != (cursor{}) {
		q.Set("after", next.String())
		data.More = deliveriesRoot + "/dead?" + q.Encode()
	}
	return view{template: "dead", Title: "Dead letters", Path: deliveriesRoot + "/dead", Data: data}, nil
}

// wrong says what of the choice is none.
func (a *deadData) wrong() string {
	switch {
	case a.Provider != "" && !slices.Contains(a.Providers, a.Provider):
		return "There is no such provider."
	case a.State != "" && !slices.Contains(a.States, a.State):
		return "Dead letters are rejected, exhausted or unknown."
	case !slices.ContainsFunc(ages, func(known age) bool { return known.Value == a.Since }):
		return "That is no time to choose from."
	}
	return ""
}

// readDead fills a page that begins after a letter. It returns the last letter that
// it looked at, when there may be more.
func (d *Dashboard) readDead(ctx context.Context, data *deadData, after cursor) (cursor, error) {
	var since time.Time
	if ago, err := time.ParseDuration(data.Since); err == nil {
		since = d.cfg.Now().Add(-ago)
	}
	scanned, reached := 0, after.provider == ""
	for _, provider := range data.Providers {
		reached = reached || provider == after.provider
		if !reached || data.Provider != "" && data.Provider != provider {
			continue
		}
		filter := status.DeadFilter{Since: since}
		if provider == after.provider && after.listed.After(since) {
			filter.Since = after.listed
		}
		for letter, err := range d.cfg.Records.Dead(ctx, provider, filter) {
			if err != nil {
				return cursor{}, err
			}
			if provider == after.provider && !letter.Listed.After(after.listed) && letter.ID <= after.id {
				continue // it was on the page before
			}
			scanned++
			if (data.State == "" || data.State == string(letter.State)) && (data.Reason == "" || data.Reason == letter.Reason) {
				data.Letters = append(data.Letters, letter)
			}
			if len(data.Letters) == deadPage || scanned == maxScan {
				if scanned == maxScan {
					data.Scanned = scanned
				}
				return cursor{provider, letter.Listed, letter.ID}, nil
			}
		}
	}
	return cursor{}, nil
}

// messageLink leads to the page of a message.
func messageLink(id string) string {
	return deliveriesRoot + "/message?" + url.Values{"id": {id}}.Encode()
}
