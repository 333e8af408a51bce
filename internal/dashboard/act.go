package dashboard

import (
	"context"
	"errors"
	"net/http"
	"slices"

	"github.com/otpq/otpq/status"
)

// What may be done to a dead letter.
const (
	doReplay  = "replay"
	doDiscard = "discard"
)

// maxForm bounds what a form may hold: a page of ids.
const maxForm = 64 << 10

// actData is what the pages before and after an action show.
type actData struct {
	Do      string
	Letters []actLetter
	// Left is how many of the letters can be acted on; Doubt how many of them may
	// have been sent.
	Left, Doubt  int
	Done, Failed int
}

// actLetter is a letter that is to be acted on, or was.
type actLetter struct {
	ID     string
	Record status.Record
	// Problem says why it cannot be acted on, or what went wrong.
	Problem string
	NewID   string
}

// chosen reads which letters are to be acted on and how.
func (d *Dashboard) chosen(ctx context.Context, r *http.Request) (data actData, problem view, err error) {
	if d.cfg.Act == nil {
		return data, failed(http.StatusMethodNotAllowed, "The dashboard is read-only.",
			"It can replay and discard when it is started with --write. `otpq dead` can at any time."), nil
	}
	data.Do = r.Form.Get("do")
	ids := slices.Compact(slices.Sorted(slices.Values(r.Form["id"])))
	switch {
	case data.Do != doReplay && data.Do != doDiscard:
		return data, failed(http.StatusBadRequest, "Say whether to replay or to discard.", ""), nil
	case len(ids) == 0:
		return data, failed(http.StatusBadRequest, "No dead letter is chosen.", "Go back and tick those that you mean."), nil
	case len(ids) > deadPage:
		return data, failed(http.StatusBadRequest, "These are more than a page.", ""), nil
	}
	for _, id := range ids {
		letter, err := d.readLetter(ctx, id)
		if err != nil {
			return data, view{}, err
		}
		if letter.Problem == "" {
			data.Left++
			if letter.Record.State == status.Unknown || letter.Record.PossibleDuplicate {
				data.Doubt++
			}
		}
		data.Letters = append(data.Letters, letter)
	}
	return data, view{}, nil
}

// readLetter returns a dead letter, or says why it is none.
func (d *Dashboard) readLetter(ctx context.Context, id string) (actLetter, error) {
	if id == "" || len(id) > maxID {
		return actLetter{ID: "?", Problem: "is no message's id"}, nil
	}
	dead, err := d.cfg.Records.DeadLetter(ctx, id)
	var refused *status.RefusedError
	switch {
	case err == nil:
		return actLetter{ID: id, Record: dead.Record}, nil
	case errors.Is(err, status.ErrNotFound):
		return actLetter{ID: id, Problem: "is gone"}, nil
	case errors.As(err, &refused):
		record, err := d.cfg.Records.Get(ctx, id)
		if status.IsUnreachable(err) {
			return actLetter{}, err
		}
		return actLetter{ID: id, Record: record, Problem: "is no dead letter any more", NewID: record.ReplayedAs}, nil
	}
	return actLetter{}, err
}

// confirm shows what would be done.
func (d *Dashboard) confirm(ctx context.Context, r *http.Request) (view, error) {
	r.Form = r.URL.Query()
	data, problem, err := d.chosen(ctx, r)
	if err != nil || problem.template != "" {
		return problem, err
	}
	return view{template: "confirm", Title: "Confirm", Path: deliveriesRoot + "/dead", Data: data}, nil
}

// act does it. What cannot be done to one letter does not keep it from the others.
func (d *Dashboard) act(ctx context.Context, r *http.Request) (view, error) {
	r.Body = http.MaxBytesReader(nil, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		return failed(http.StatusBadRequest, "The form cannot be read.", ""), nil
	}
	r.Form = r.PostForm // an address alone does nothing
	data, problem, err := d.chosen(ctx, r)
	if err != nil || problem.template != "" {
		return problem, err
	}
	for i := range data.Letters {
		letter := &data.Letters[i]
		if letter.Problem == "" {
			d.actOn(context.WithoutCancel(ctx), r, data.Do, letter)
		}
		if letter.Problem == "" {
			data.Done++
		} else {
			data.Failed++
		}
	}
	if len(data.Letters) == 1 && data.Failed == 0 && data.Letters[0].NewID != "" {
		return view{Data: redirect(messageLink(data.Letters[0].NewID))}, nil
	}
	return view{template: "done", Title: "Done", Path: deliveriesRoot + "/dead", Data: data}, nil
}

// actOn acts on one letter and notes who did.
func (d *Dashboard) actOn(ctx context.Context, r *http.Request, do string, letter *actLetter) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	var err error
	switch do {
	case doReplay:
		letter.NewID, err = d.cfg.Act.Replay(ctx, letter.ID)
	case doDiscard:
		err = d.cfg.Act.Discard(ctx, letter.Record.Provider, letter.ID)
	}
	line := d.cfg.Log.Info()
	if err != nil {
		letter.Problem = "failed: " + err.Error()
		line = d.cfg.Log.Error().Err(err)
	}
	line.Str("user", userOf(r.Context())).Str("action", do).Str("message", letter.ID).Str("new_message", letter.NewID).
		Msg("dead letter acted on in the dashboard")
}
