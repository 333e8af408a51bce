package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// account is what the control endpoint tells of a provider: numbers and
// settings, nothing of any request.
type account struct {
	Fault  Fault  `json:"fault"`
	Counts Counts `json:"counts"`
}

// routes serves the control endpoint, and the providers everywhere else.
func (s *Server) routes() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("/", s.serve)
	mux.HandleFunc("/_sandbox/", func(w http.ResponseWriter, _ *http.Request) {
		replyError(w, http.StatusNotFound, errors.New("the control endpoint has GET /_sandbox/, "+
			"GET, PUT and DELETE /_sandbox/faults/{provider}, and POST /_sandbox/reset"))
	})
	mux.HandleFunc("GET /_sandbox/{$}", s.getIndex)
	mux.HandleFunc("GET /_sandbox/faults/{provider}", s.getFault)
	mux.HandleFunc("PUT /_sandbox/faults/{provider}", s.putFault)
	mux.HandleFunc("DELETE /_sandbox/faults/{provider}", s.deleteFault)
	mux.HandleFunc("POST /_sandbox/reset", func(w http.ResponseWriter, r *http.Request) {
		s.Reset()
		s.getIndex(w, r)
	})
	return mux
}

// getIndex tells everything: each provider's fault and counts, and which
// faults there are.
func (s *Server) getIndex(w http.ResponseWriter, _ *http.Request) {
	index := struct {
		Providers map[string]account `json:"providers"`
		Faults    map[string]string  `json:"faults"`
	}{map[string]account{}, map[string]string{}}
	for _, name := range s.names {
		f, _ := s.Fault(name) // both fail only for a name that there isn't
		c, _ := s.Counts(name)
		index.Providers[name] = account{f, c}
	}
	for _, k := range knobs {
		index.Faults[k.name] = k.about
	}
	replyJSON(w, http.StatusOK, index)
}

func (s *Server) getFault(w http.ResponseWriter, r *http.Request) {
	f, err := s.Fault(r.PathValue("provider"))
	if err != nil {
		replyError(w, http.StatusNotFound, err)
		return
	}
	replyJSON(w, http.StatusOK, f)
}

func (s *Server) putFault(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("provider")
	if _, err := s.provider(name); err != nil {
		replyError(w, http.StatusNotFound, err)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if errors.As(err, new(*http.MaxBytesError)) {
		replyError(w, http.StatusRequestEntityTooLarge, fmt.Errorf("the body has more than %d bytes", maxBody))
		return
	}
	if err != nil {
		replyError(w, http.StatusBadRequest, errors.New("the body could not be read whole: send it again"))
		return
	}
	// Called directly: json.Unmarshal would tell of a syntax error in other words.
	var f Fault
	if err := f.UnmarshalJSON(body); err != nil {
		replyError(w, http.StatusBadRequest, err)
		return
	}
	if err := s.SetFault(name, f); err != nil {
		replyError(w, http.StatusBadRequest, err)
		return
	}
	s.getFault(w, r)
}

func (s *Server) deleteFault(w http.ResponseWriter, r *http.Request) {
	if err := s.SetFault(r.PathValue("provider"), Fault{}); err != nil {
		replyError(w, http.StatusNotFound, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func replyError(w http.ResponseWriter, status int, err error) {
	replyJSON(w, status, map[string]string{"error": err.Error()})
}

func replyJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // fails only when the client has left
}
