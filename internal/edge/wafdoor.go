package edge

import (
	"net/http"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/waf"
)

// maxLearnedSites bounds the sites that one answer tells of.
const maxLearnedSites = 200

// WAFDoor answers for the admin socket what the firewall learned: GET /waf/learned, of the site
// named by site, or of all of which something is known; GET /waf/candidates, what the candidates of its policies, or of all, would do.
func (e *Edge) WAFDoor() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /waf/learned", func(w http.ResponseWriter, r *http.Request) {
		if name := r.FormValue("site"); name != "" {
			s, err := e.siteOf(siteKey(name))
			if err != nil {
				reply(w, http.StatusNotFound, nil, err)
				return
			}
			reply(w, http.StatusOK, []*waf.Learned{e.waf.Learned(s, time.Now())}, nil)
			return
		}
		reply(w, http.StatusOK, e.learned(), nil)
	})
	mux.HandleFunc("GET /waf/candidates", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, e.waf.Candidates(siteKey(r.FormValue("site")), time.Now()), nil)
	})
	return mux
}

// WAFDoubts lists the rules of which a proof of the firewall's screen was wrong.
func (e *Edge) WAFDoubts() []waf.Doubt { return e.waf.Doubts() }

// WAFCandidates says what the candidates of firewall policies would do otherwise.
func (e *Edge) WAFCandidates() []waf.Candidate { return e.waf.Candidates("", time.Now()) }

// learned tells of the sites of which something is known. One that is no longer served is left out.
func (e *Edge) learned() []*waf.Learned {
	list := []*waf.Learned{}
	t := e.current.Load()
	if t == nil {
		return list
	}
	for _, key := range e.waf.LearnedKeys() {
		entry := t.Entry(bundle.Key(key))
		if entry == nil {
			continue
		}
		if s, _ := entry.Site(); s != nil && len(list) < maxLearnedSites {
			list = append(list, e.waf.Learned(s, time.Now()))
		}
	}
	return list
}

// maxChecked bounds the firewall exclusions that a change has looked at.
const maxChecked = 1000

// warn says which firewall exclusions of b match nothing or everything. They are served all the
// same: the rules change with the program, and a site must not stand still for that.
func (e *Edge) warn(b *bundle.Bundle) {
	for i, p := range e.waf.Check(b, maxChecked) {
		if i == 20 {
			e.logger.Warn("more firewall exclusions match nothing or everything; relais validate lists all")
			return
		}
		e.logger.Warn("a firewall exclusion matches nothing or everything", "site", p.Site, "problem", p.String())
	}
}
