package http2

import "bytes"

// priority is what a client or an origin says of a stream's importance (RFC 9218 section 4).
type priority struct {
	urgency     uint8 // 0 is served first
	incremental bool
}

// defaultPriority is that of a stream of which nobody said anything. The RFC's default is not
// incremental; but clients that know nothing of priorities, and proxies that carry many
// users, must not wait for one large answer, so these take turns.
var defaultPriority = priority{3, true}

const urgencies = 8

// update takes over what a Priority field says. Members that are malformed or unknown are
// passed over (RFC 9218 section 4).
func (p priority) update(field []byte) priority {
	p.incremental = false
	for len(field) > 0 {
		var m []byte
		m, field, _ = bytes.Cut(field, []byte{','})
		m, _, _ = bytes.Cut(m, []byte{';'})
		m = bytes.Trim(m, " \t")
		switch {
		case len(m) == 3 && m[0] == 'u' && m[1] == '=' && m[2] >= '0' && m[2] <= '7':
			p.urgency = m[2] - '0'
		case string(m) == "i" || string(m) == "i=?1":
			p.incremental = true
		case string(m) == "i=?0":
			p.incremental = false
		}
	}
	return p
}

// queue holds the streams that have something to send, by urgency.
type queue struct {
	first, last [urgencies]*stream
	waiting     uint8 // a bit for each urgency that has streams
}

// add puts s in its place: those that are not incremental in the order of the requests and
// those that are at the end.
func (q *queue) add(s *stream) {
	u := s.priority.urgency
	s.queued, s.next, s.level = true, nil, u
	q.waiting |= 1 << u
	if q.first[u] == nil {
		q.first[u], q.last[u] = s, s
		return
	}
	if !s.priority.incremental {
		var before *stream
		for t := q.first[u]; t != nil; before, t = t, t.next {
			if t.priority.incremental || t.id > s.id {
				s.next = t
				if before == nil {
					q.first[u] = s
				} else {
					before.next = s
				}
				return
			}
		}
	}
	q.last[u].next = s
	q.last[u] = s
}

// head is the stream that is to send next; nil when none is.
func (q *queue) head() *stream {
	for u := range urgencies {
		if q.waiting&(1<<u) != 0 {
			return q.first[u]
		}
	}
	return nil
}

// remove takes s out.
func (q *queue) remove(s *stream) {
	if !s.queued {
		return
	}
	u := s.level
	var before *stream
	for t := q.first[u]; t != s; t = t.next {
		before = t
	}
	if before == nil {
		q.first[u] = s.next
	} else {
		before.next = s.next
	}
	if q.last[u] == s {
		q.last[u] = before
	}
	if q.first[u] == nil {
		q.waiting &^= 1 << u
	}
	s.queued, s.next = false, nil
}

// before says whether a stream of urgency u or a more urgent one waits.
func (q *queue) before(u uint8) bool { return q.waiting&(1<<(u+1)-1) != 0 }
