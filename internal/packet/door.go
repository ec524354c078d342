package packet

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"time"
)

// Asked is what a person asks the filter to do, at POST /packet/rules.
type Asked struct {
	Action Action       `json:"action"` // deny, allow, or remove
	Prefix netip.Prefix `json:"prefix"`
	For    string       `json:"for,omitempty"` // a duration, as 10m
	Reason string       `json:"reason,omitempty"`
}

// Remove is the action of a question that ends a rule.
const Remove Action = "remove"

// maxAsked bounds a question.
const maxAsked = 4 << 10

// Door answers what the engineer on call asks: GET /packet/status, GET /packet/rules, POST /packet/rules.
// It is for the admin socket, and checks nobody.
func (f *Filter) Door() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /packet/status", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, f.Status()) })
	mux.HandleFunc("GET /packet/rules", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, f.rules.List()) })
	mux.HandleFunc("POST /packet/rules", func(w http.ResponseWriter, r *http.Request) {
		var q Asked
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxAsked))
		d.DisallowUnknownFields()
		if err := d.Decode(&q); err != nil {
			refuse(w, http.StatusBadRequest, "the question is no JSON of an action, a prefix, for and a reason: "+err.Error())
			return
		}
		f.ask(w, &q)
	})
	return mux
}

func (f *Filter) ask(w http.ResponseWriter, q *Asked) {
	if f.cfg.Mode == Off {
		refuse(w, http.StatusConflict, "the packet filter is off; start with --packet auto --packet-interface NAME")
		return
	}
	if q.Action == Remove {
		if !f.rules.Remove(q.Prefix) {
			refuse(w, http.StatusNotFound, "no rule for "+q.Prefix.String()+"; `relais packet list` shows them")
			return
		}
		reply(w, http.StatusOK, q)
		return
	}
	life, err := time.ParseDuration(q.For)
	if err != nil {
		refuse(w, http.StatusBadRequest, "for: give a duration, as 10m; the most is "+MaxFor.String())
		return
	}
	if q.Reason == "" {
		q.Reason = "by-hand"
	}
	f.guard.now()
	switch q.Action {
	case Deny:
		err = f.rules.Deny(q.Prefix, time.Now().Add(life), q.Reason)
	case Allow:
		err = f.rules.Allow(q.Prefix, time.Now().Add(life), q.Reason)
	default:
		refuse(w, http.StatusBadRequest, "the action is deny, allow or remove")
		return
	}
	if err != nil {
		refuse(w, http.StatusConflict, err.Error())
		return
	}
	reply(w, http.StatusOK, q)
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the client is gone
}

func refuse(w http.ResponseWriter, status int, why string) {
	reply(w, status, map[string]string{"error": why})
}
