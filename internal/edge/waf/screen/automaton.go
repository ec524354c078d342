package screen

import "errors"

const (
	words   = 8 // of 64 probes each
	maxWord = 6 // words are cut to this: a part of a required word is required too
	// maxTable0 bounds the entries of the table before words share states.
	maxTable0 = 64 << 20
)

// set is a set of probes.
type set [words]uint64

func (s *set) add(i int)      { s[i>>6] |= 1 << (i & 63) }
func (s *set) has(i int) bool { return s[i>>6]&(1<<(i&63)) != 0 }

// words are the places of s that are not 0.
func (s *set) words() (list []int) {
	for i, w := range s {
		if w != 0 {
			list = append(list, i)
		}
	}
	return list
}

// held says, for each clause, of which probes a text holds a word.
type held [maxClauses]set

// word is a required word of a clause of a probe.
type word struct {
	text          string
	probe, clause int
}

// automaton finds the words of all probes in one pass (Aho and Corasick, 1975), without regard
// to ASCII case. It does not change once made.
type automaton struct {
	class  [256]uint8
	states int
	delta  []uint32 // a row for each state: by class the next row, with outBit when its state ends words; then its place in outs
	end    uint32   // of a row, where that place is
	outs   [][]part
	base   held // clauses that hold of every text
}

// part is one word of a held.
type part struct {
	clause, word uint8
	on           uint64
}

const outBit = 1 << 31

func newAutomaton(list []word, base held) (*automaton, error) {
	a := &automaton{base: base}
	n := 1
	for _, w := range list {
		for i := range len(w.text) {
			c := w.text[i]
			if a.class[c] != 0 {
				continue
			}
			a.class[c] = uint8(n)
			if c >= 'a' && c <= 'z' {
				a.class[c-32] = uint8(n)
			}
			n++
		}
	}
	a.end = uint32(n)
	total := 0
	for _, w := range list {
		total += len(w.text)
	}
	if total*(n+1) > maxTable0 {
		return nil, errors.New("the words of the rules need too much memory")
	}
	next, out := a.trie(list)
	a.fail(next, out)
	a.table(next, out)
	return a, nil
}

func (a *automaton) trie(list []word) (next [][]int32, out []held) {
	add := func() int32 {
		row := make([]int32, a.end)
		for i := range row {
			row[i] = -1
		}
		next, out = append(next, row), append(out, held{})
		return int32(len(next) - 1)
	}
	add()
	for _, w := range list {
		s := int32(0)
		for i := range len(w.text) {
			c := a.class[w.text[i]]
			t := next[s][c]
			if t < 0 {
				t = add()
				next[s][c] = t
			}
			s = t
		}
		out[s][w.clause].add(w.probe)
	}
	return next, out
}

// fail completes the transitions, breadth first, and hands outputs down the failure links.
func (a *automaton) fail(next [][]int32, out []held) {
	link := make([]int32, len(next))
	var queue []int32
	for c, t := range next[0] {
		if t < 0 {
			next[0][c] = 0
		} else {
			queue = append(queue, t)
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		s := queue[0]
		for k := range out[s] {
			for w := range out[s][k] {
				out[s][k][w] |= out[link[s]][k][w]
			}
		}
		for c, t := range next[s] {
			f := next[link[s]][c]
			if t < 0 {
				next[s][c] = f
			} else {
				link[t] = f
				queue = append(queue, t)
			}
		}
	}
}

func (a *automaton) table(next [][]int32, out []held) {
	same := map[held]int{}
	a.states = len(next)
	row := a.end + 1
	a.delta = make([]uint32, uint32(len(next))*row)
	for s := range next {
		for c, t := range next[s] {
			v := uint32(t) * row
			if out[t] != (held{}) {
				v |= outBit
			}
			a.delta[uint32(s)*row+uint32(c)] = v
		}
		if out[s] == (held{}) {
			continue
		}
		n, ok := same[out[s]]
		if !ok {
			n = len(a.outs)
			a.outs = append(a.outs, out[s].parts())
			same[out[s]] = n
		}
		a.delta[uint32(s)*row+a.end] = uint32(n)
	}
}

func (h *held) parts() (list []part) {
	for k := range h {
		for w, on := range h[k] {
			if on != 0 {
				list = append(list, part{uint8(k), uint8(w), on})
			}
		}
	}
	return list
}

// marks remembers which outputs were merged in the present scan.
type marks struct {
	seen []uint32
	now  uint32
}

func (m *marks) start(n int) {
	if m.now++; len(m.seen) < n || m.now == 0 {
		m.seen, m.now = make([]uint32, n), 1
	}
}

// scan sets all to the probes of which v holds a word of each clause. A rune that folds into ASCII makes it every probe.
func (a *automaton) scan(v []byte, all *set, m *marks) {
	h := a.base
	m.start(len(a.outs))
	s := uint32(0)
	for i, c := range v {
		if c >= 0xC5 && foldsToASCII(v[i:]) {
			for w := range all {
				all[w] = ^uint64(0)
			}
			return
		}
		s = a.delta[s+uint32(a.class[c])]
		if s&outBit == 0 {
			continue
		}
		s &^= outBit
		n := a.delta[s+a.end]
		if m.seen[n] == m.now {
			continue
		}
		m.seen[n] = m.now
		for _, b := range a.outs[n] {
			h[b.clause][b.word] |= b.on
		}
	}
	for w := range all {
		all[w] = h[0][w] & h[1][w] & h[2][w]
	}
}

// foldsToASCII: U+017F and U+212A are the only runes beyond ASCII that simple folding takes
// into ASCII.
func foldsToASCII(v []byte) bool {
	return v[0] == 0xC5 && len(v) > 1 && v[1] == 0xBF ||
		v[0] == 0xE2 && len(v) > 2 && v[1] == 0x84 && v[2] == 0xAA
}
