package cache

import (
	"time"

	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// Witness hears what becomes of purges.
type Witness interface {
	// Purged is told of entries that hold, before they are on disk. It must not block.
	Purged(list []purge.Entry)
	// Left is told that an answer of a site with a feed left the edge at a time, although the purge of the
	// number named it: it was found before the purge held, or the purge was a soft one. Born is the number of the
	// last purge when the answer was asked for. It must not block.
	Left(site string, number, born uint64, at time.Time)
}

// departure waits for an answer to leave, so that it is known when the last old one did. It implements
// message.Ender and is part of what the exchange keeps.
type departure struct {
	s    *Stage
	x    *stage.Exchange
	l    *local
	tags []uint64
	born uint64
	// since is up to which purge nothing hard names it, and soft that of the soft purge that it was served after.
	since, soft uint64
}

// watch has the end of an answer from o noted, in a site with a feed.
func (s *Stage) watch(x *stage.Exchange, l *local, o *object, since uint64) {
	tags := o.tags
	if len(tags) == 0 && !o.enrolled {
		l.tagged = o.appendTags(l.tagged[:0], l.rule.mark, x) // others may read o
		tags = l.tagged
	}
	l.leaving = departure{s: s, x: x, l: l, tags: tags, born: o.born, since: since, soft: o.softened}
	x.OnEnd(&l.leaving)
}

// End implements message.Ender.
func (d *departure) End(message.Outcome) {
	s, l := d.s, d.l
	if s == nil {
		return
	}
	m := l.rule.mark
	if m.Last() > d.since || d.soft > 0 {
		v := purge.Verdict{Hard: d.soft}
		if m.Since(d.since) {
			at := placeOf(d.x, l.key, l.aliased)
			v = v.And(m.Place(&at))
		}
		if len(d.tags) > 0 {
			v = v.And(m.Tags(d.tags))
		}
		if n := max(v.Hard, v.Soft); n > d.born {
			s.cfg.Witness.Left(string(d.x.Site.Key), n, d.born, s.cfg.Clock())
		}
	}
	*d = departure{}
}
