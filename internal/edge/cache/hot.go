package cache

import (
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/stage"
)

// Ended lists what is stored for the target of x, whose route was found, and what purges from number on
// ended: for each answer that x's route asked for, and that is known by name (eachStored), the fields of a request ("Name: value") that asks for it anew.
func (s *Stage) Ended(x *stage.Exchange, number uint64) [][]string {
	r := s.ruleFor(x)
	if r == nil {
		return nil
	}
	l := s.probe(x, r)
	out := s.endedUnder(nil, l, x, number)
	if s.alias(l, x) {
		out = s.endedUnder(out, l, x, number)
	}
	return out
}

func (s *Stage) endedUnder(out [][]string, l *local, x *stage.Exchange, number uint64) [][]string {
	s.eachStored(l, x, func(o *object) bool {
		if o.route != x.Route.Name || o.headOnly {
			return true
		}
		at := placeOf(x, l.key, l.aliased)
		v := purge.Verdict{}
		if l.rule.mark.Last() >= number {
			v = purged(l.rule.mark, o, &at)
		}
		// What was made stale already is judged by the purge that did it.
		if max(v.Hard, v.Soft, o.softened) < number || v.Hard <= o.born && max(v.Soft, o.softened) <= o.born {
			return true
		}
		if fields, ok := semantics.Ask(o.selector, o.selected); ok {
			out = append(out, fields)
		}
		return true
	})
	return out
}

// MaxTopKey is how long a key with its site may be so that Top lists it whole, in bytes.
const MaxTopKey = topKey - 1
