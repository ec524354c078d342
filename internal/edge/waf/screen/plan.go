package screen

// maxPlans bounds the plans that a class keeps.
const maxPlans = 64

// plan is the groups of a class for texts of certain kinds, with those chains made one that give all such texts the same output. It
// does not change.
type plan struct {
	kinds  uint16
	groups []group
}

// plan returns the groups to ask of a text with these kinds.
func (c *class) plan(s *Screen, kinds uint16) []group {
	at := &c.plans[planOf(kinds)]
	if p := at.Load(); p != nil && p.kinds == kinds {
		return p.groups
	}
	p := &plan{kinds: kinds, groups: s.join(c.groups, kinds)}
	at.Store(p)
	return p.groups
}

// planOf is the place of the plan for some kinds.
func planOf(kinds uint16) uint16 { return kinds * 0x9E37 >> 10 }

// anyKind are the kinds of a text of which nothing is known.
const anyKind = ^uint16(0)

// join unites groups that get the same text. A transformation of which a text holds no kind leaves it as it is, and the same
// one of the same text gives the same. What it makes may be of any kind, but lower case of ASCII only has no capitals.
func (s *Screen) join(groups []group, kinds uint16) (out []group) {
	same := make([]int, len(s.nodes))     // by node: the first with that text
	of := make([]uint16, len(s.nodes))    // and its kinds
	place := make([]int, len(s.nodes))    // and its place in out, plus one
	first := map[int]map[*transform]int{} // by node and what is done next
	of[0] = kinds
	for n := 1; n < len(s.nodes); n++ {
		t := s.nodes[n].t
		from := same[s.nodes[n].parent]
		if of[from]&t.needs == 0 {
			same[n] = from
			continue
		}
		if first[from] == nil {
			first[from] = map[*transform]int{}
		}
		twin, known := first[from][t]
		if !known {
			twin, first[from][t] = n, n
			of[n] = anyKind
			if t.fold && of[from]&kindHigh == 0 {
				of[n] = of[from] &^ kindUpper
			}
		}
		same[n] = twin
	}
	for i := range groups {
		n := same[groups[i].node]
		if place[n] == 0 {
			out = append(out, group{node: n})
			place[n] = len(out)
		}
		g := &out[place[n]-1]
		for k, w := range groups[i].probes {
			g.probes[k] |= w
		}
	}
	for i := range out {
		out[i].some = out[i].probes.words()
	}
	return out
}
