package learn

import (
	"slices"
	"time"
)

// recurs is how many buyers must have brought a shape before it is proposed.
const recurs = 2

// looked notes the shapes of the values of a hit.
func (h *visitHit) looked(now time.Time, shapes []string) {
	if len(shapes) == 0 {
		h.bare = true
	}
	for _, s := range shapes {
		id := h.f.know(now, s)
		switch {
		case slices.Contains(h.shapes, id):
		case id == 0 || len(h.shapes) == MaxOneHit:
			h.bare = true
		default:
			h.shapes = append(h.shapes, id)
		}
	}
}

// know remembers a shape and gives its number; 0 when there is no room. The one that no buyer brought, and that was seen
// longest ago, gives way.
func (f *finding) know(now time.Time, text string) uint64 {
	id, old := hash(text), -1
	for i := range f.shapes {
		s := &f.shapes[i]
		if s.hash == id {
			s.last = now
			return id
		}
		if s.buyers == 0 && (old < 0 || s.last.Before(f.shapes[old].last)) {
			old = i
		}
	}
	s := shape{text: text, hash: id, last: now}
	switch {
	case len(f.shapes) < MaxShapes:
		f.shapes = append(f.shapes, s)
	case old >= 0:
		f.shapes[old] = s
	default:
		return 0
	}
	return id
}

// bring notes that a buyer brought shapes.
func (f *finding) bring(now time.Time, ids []uint64) {
	for i := range f.shapes {
		if s := &f.shapes[i]; slices.Contains(ids, s.hash) {
			s.buyers, s.last = s.buyers+1, now
		}
	}
}

// recurring are the shapes that several buyers brought, and how many buyers brought nothing else.
func (f *finding) recurring() (texts []string, covered int) {
	var ids []uint64
	for i := range f.shapes {
		if s := &f.shapes[i]; s.buyers >= recurs {
			texts, ids = append(texts, s.text), append(ids, s.hash)
		}
	}
	for i := range f.buyers {
		b := &f.buyers[i]
		if len(b.shapes) > 0 && !slices.ContainsFunc(b.shapes, func(id uint64) bool { return !slices.Contains(ids, id) }) {
			covered++
		}
	}
	slices.Sort(texts)
	return texts, covered
}

// join adds the shapes of another finding.
func (f *finding) join(o *finding) {
	for i := range o.shapes {
		s := o.shapes[i]
		if k := slices.IndexFunc(f.shapes, func(h shape) bool { return h.hash == s.hash }); k >= 0 {
			f.shapes[k].buyers += s.buyers
		} else if len(f.shapes) < MaxProposed {
			f.shapes = append(f.shapes, s)
		}
	}
}
