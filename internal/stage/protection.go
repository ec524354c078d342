package stage

import (
	"math"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
)

// Gate is when and how a protection acts: its mode, and the instant from which it is off.
// The zero Gate is off.
type Gate struct {
	mode    v1.Mode
	expires int64 // Unix time in nanoseconds
}

// NewGate compiles what every protective kind has in common. An empty mode is enforce.
func NewGate(p v1.Protection) Gate {
	g := Gate{mode: p.Mode, expires: math.MaxInt64}
	if g.mode == "" {
		g.mode = v1.ModeEnforce
	}
	if p.Expires != nil {
		g.expires = p.Expires.UnixNano()
	}
	return g
}

// Mode returns the mode that holds for x, by the time of its start.
func (g *Gate) Mode(x *Exchange) v1.Mode {
	if g.mode == "" || g.mode == v1.ModeOff || g.expires != math.MaxInt64 && x.Start.UnixNano() >= g.expires {
		return v1.ModeOff
	}
	return g.mode
}

// Scope narrows a rule to the requests below a path and with one of some methods. The zero
// Scope holds for every request.
type Scope struct {
	prefix string // without its last slash; empty for every path
	known  uint16 // bits of the known methods; 0 with no others means every method
	others []string
}

// NewScope compiles a path prefix, matched by path elements as in the Gateway API (a slash at
// its end counts for nothing), and a list of methods. Empty means every path or method.
func NewScope(path string, methods []string) Scope {
	s := Scope{prefix: strings.TrimSuffix(path, "/")}
	for _, m := range methods {
		if k := message.KnownMethod([]byte(m)); k != message.MethodOther {
			s.known |= 1 << k
		} else {
			s.others = append(s.others, m)
		}
	}
	return s
}

// All says whether s holds for every request.
func (s *Scope) All() bool { return s.prefix == "" && s.known == 0 && len(s.others) == 0 }

// Holds says whether x's method is in the scope and so is its path, as it was sent or with runs of slashes
// merged: an origin may read it either way, and what restricts holds for both.
func (s *Scope) Holds(x *Exchange) bool {
	if !s.above(x.Path) {
		if m := x.Merged(); m == nil || !s.above(m) {
			return false
		}
	}
	return s.holdsMethod(x)
}

// HoldsAsSent says the same of the path as it was sent alone. What relaxes asks it: a path that is in the scope as
// it was sent is so with its slashes merged, too, so that neither reading obtains what the other would not.
func (s *Scope) HoldsAsSent(x *Exchange) bool { return s.above(x.Path) && s.holdsMethod(x) }

func (s *Scope) above(path []byte) bool {
	n := len(s.prefix)
	return n == 0 || len(path) >= n && string(path[:n]) == s.prefix && (len(path) == n || path[n] == '/')
}

func (s *Scope) holdsMethod(x *Exchange) bool {
	if s.known == 0 && len(s.others) == 0 || s.known&(1<<x.In.Method) != 0 {
		return true
	}
	if x.In.Method == message.MethodOther {
		name := x.In.MethodName()
		for _, m := range s.others {
			if m == string(name) {
				return true
			}
		}
	}
	return false
}
