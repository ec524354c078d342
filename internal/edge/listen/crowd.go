package listen

import (
	"net/netip"

	"github.com/relais-edge/relais/internal/http/deadline"
	"github.com/relais-edge/relais/internal/http/http3"
)

// What happens when places are few: from three quarters on no address may have more than its
// share, and when all are taken an idle connection goes for each new one.
const (
	// fairFrom is the least limit for which shares make sense.
	fairFrom = 256
	// fairShare is the part of the places that one address may have.
	fairShare = 16
	// slack is the part of the places that may be taken beyond all of them, by those for whom an idle
	// connection was told to go: in a burst the new ones come quicker than the old ones leave.
	slack = 8
)

// places is how many connections the listener may have: what the document says, and no more
// than the process has descriptors for.
func (a *Active) places() int {
	limit := a.Spec.Limits.Connections
	if files := a.m.cfg.Files; files > 0 && (limit <= 0 || files < limit) {
		return files
	}
	return limit
}

// enterTCP takes a place for a connection that was accepted, or says why there is none. When
// all are taken, an idle connection is told to go; until it has, there is one more.
func (a *Active) enterTCP() (refused string) {
	limit := a.places()
	full := a.m.full()
	if !full && a.state.take(limit) {
		a.m.open.Add(1)
		return ""
	}
	reason := refuseConnections
	if full {
		reason = refuseFiles
	}
	if !a.state.take(limit + 1 + limit/slack) {
		return reason
	}
	if !a.shed(full) {
		a.state.give()
		return reason
	}
	a.m.open.Add(1)
	return ""
}

// enterQUIC takes a place for a connection over UDP, which needs no descriptor. An idle connection goes
// only for a client whose address is proved: others could be made up without end.
func (a *Active) enterQUIC(verified bool) bool {
	limit := a.Spec.Limits.Connections
	if a.state.take(limit) {
		return true
	}
	if !verified || !a.state.take(limit+1+limit/slack) {
		return false
	}
	if !a.shed(false) {
		a.state.give()
		return false
	}
	return true
}

// leaveTCP gives the place back.
func (a *Active) leaveTCP() {
	a.m.open.Add(-1)
	a.state.give()
}

// full says whether the descriptors for connections are used up.
func (m *Manager) full() bool { return m.cfg.Files > 0 && m.open.Load() >= int64(m.cfg.Files) }

// shed ends an idle connection of the listener, whatever settings and version of HTTP it has; where
// none is, one that has been slow to say anything. Files says that it is to give back a descriptor,
// which those over UDP share.
func (a *Active) shed(files bool) bool {
	for _, s := range a.state.engines() {
		if _, udp := s.(*http3.Server); udp && files {
			continue
		}
		if state := s.Shed(); state != deadline.ShedNothing {
			a.series.shed[state.String()].Inc()
			return true
		}
	}
	return false
}

// shedder is a server that can do without some of its connections.
type shedder interface {
	// Shed ends one, and says in what state it was.
	Shed() deadline.Shed
}

// admit takes a place of those of the client's address, or says why there is none. Trusted
// proxies bring many clients on one address, so they are not counted.
func (a *Active) admit(client netip.Addr) (counted bool, refused string) {
	limit, places := a.Spec.Limits.ConnectionsPerAddress, a.places()
	if limit <= 0 && places < fairFrom || a.trusted.contains(client) {
		return false, ""
	}
	reason := refuseAddress
	if places >= fairFrom && a.state.open.Load() > int64(places)/4*3 && (limit <= 0 || limit > places/fairShare) {
		limit, reason = places/fairShare, refuseShare
	}
	if !a.state.takeFrom(client, limit) {
		return false, reason
	}
	return true, ""
}

// Connections is how many the listeners' documents allow over TCP in all.
func (m *Manager) Connections() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for p, e := range m.endpoints {
		if p.network == "tcp" {
			n += e.current.Load().Spec.Limits.Connections
		}
	}
	return n
}
