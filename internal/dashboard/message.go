package dashboard

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/otpq/otpq/status"
)

// maxID is the longest id that is looked for. Ours have 36 characters; what others
// put into a queue may have any.
const maxID = 256

// messageData is what the page of a message shows.
type messageData struct {
	status.Record
	Why      []string
	Timeline []event
	// Dead is true while the letter can be replayed.
	Dead bool
}

// event is a line of a message's timeline.
type event struct {
	At     time.Time
	Title  string
	Detail string
	Badge  string
}

// CodeValid says how long the code lives, when the provider told it.
func (m messageData) CodeValid() string {
	if m.CodeValidSeconds == 0 {
		return ""
	}
	return span(time.Duration(m.CodeValidSeconds * float64(time.Second)))
}

func (d *Dashboard) showMessage(ctx context.Context, r *http.Request) (view, error) {
	id := strings.TrimSpace(r.URL.Query().Get("id")) // as it was pasted
	switch {
	case id == "":
		return view{Data: redirect(deliveriesRoot)}, nil
	case len(id) > maxID:
		return failed(http.StatusBadRequest, "That is no message's id.", ""), nil
	}
	record, err := d.cfg.Records.Get(ctx, id)
	if errors.Is(err, status.ErrNotFound) {
		return failed(http.StatusNotFound, "There is no message with this id.",
			"The id is wrong, or what was known of the message was kept as long as the configuration says, and is gone."), nil
	}
	if err != nil {
		return view{}, err
	}
	data := messageData{Record: record, Timeline: timeline(record)}
	if data.Why, err = d.why(ctx, record); err != nil {
		return view{}, err
	}
	if record.State.Dead() && record.ReplayedAs == "" {
		_, err := d.cfg.Records.DeadLetter(ctx, id)
		if status.IsUnreachable(err) {
			return view{}, err
		}
		data.Dead = err == nil
	}
	v := view{template: "message", Title: "Message", Data: data}
	if !record.State.Terminal() && r.URL.Query().Get("refresh") == "3" {
		v.Refresh = 3
	}
	return v, nil
}

// timeline tells what happened to a message, the oldest first.
func timeline(r status.Record) []event {
	created := event{At: r.CreatedAt, Title: "queued", Badge: "plain"}
	if r.ReplayOf != "" {
		created.Detail = "as a replay of another message"
	}
	out := []event{created}
	for _, a := range r.Attempts {
		e := event{At: a.StartedAt, Title: fmt.Sprintf("attempt %d", a.Number), Badge: "plain"}
		switch {
		case a.Outcome == "":
			e.Detail = "under way"
		case a.Reason == "":
			e.Detail = a.Outcome + " after " + took(a)
		default:
			e.Detail = a.Outcome + " after " + took(a) + ": " + reasonWords(a.Reason)
		}
		if a.HTTPStatus != 0 {
			e.Detail += fmt.Sprintf(" (HTTP %d)", a.HTTPStatus)
		}
		out = append(out, e)
	}
	if r.State == status.Queued || r.State == status.Sending {
		return out
	}
	now := event{At: r.UpdatedAt, Title: string(r.State), Badge: stateBadge(r.State)}
	if r.Reason != "" {
		now.Detail = "because " + reasonWords(r.Reason)
	}
	return append(out, now)
}

func took(a status.Attempt) string {
	return span(time.Duration(a.DurationMS * float64(time.Millisecond)))
}
