package record

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// store holds lines in memory, for each organization and within bounds. Those that somebody may ask about have
// half of an organization's room to themselves.
type store struct {
	most, orgMost int64
	orgCount      int

	mu   sync.Mutex
	orgs map[string]*kept
	size int64
	seq  uint64
}

// kept are the lines of an organization: ordinary and notable ones.
type kept struct {
	lines [2][]numbered
	size  [2]int64
}

type numbered struct {
	seq  uint64
	text []byte
}

// overhead is what a line takes besides its bytes.
const overhead = 64

func newStore(most, orgMost int64, orgCount int) *store {
	return &store{most: most, orgMost: orgMost, orgCount: orgCount, orgs: map[string]*kept{}}
}

// add keeps a line and gives up the oldest that have no room beside it.
func (s *store) add(organization string, notable bool, text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.orgs[organization]
	if k == nil {
		k = &kept{}
		s.orgs[organization] = k
	}
	i := 0
	if notable {
		i = 1
	}
	s.seq++
	k.lines[i] = append(k.lines[i], numbered{s.seq, text})
	n := int64(len(text)) + overhead
	k.size[i] += n
	s.size += n
	for len(k.lines[i]) > 1 && (k.size[i] > s.orgMost/2 || len(k.lines[i]) > s.orgCount/2) {
		s.drop(organization, k, i)
	}
	for s.size > s.most {
		s.dropLargest()
	}
}

// drop gives up the oldest line of one kind.
func (s *store) drop(organization string, k *kept, i int) {
	n := int64(len(k.lines[i][0].text)) + overhead
	k.lines[i][0] = numbered{}
	k.lines[i] = k.lines[i][1:]
	k.size[i] -= n
	s.size -= n
	if len(k.lines[0])+len(k.lines[1]) == 0 {
		delete(s.orgs, organization)
	}
}

// dropLargest gives up a line of the organization that has most, so that the others keep theirs.
func (s *store) dropLargest() {
	var at string
	var largest *kept
	for name, k := range s.orgs {
		if largest == nil || k.size[0]+k.size[1] > largest.size[0]+largest.size[1] {
			at, largest = name, k
		}
	}
	if largest == nil {
		return
	}
	i := 0
	if largest.size[1] > largest.size[0] {
		i = 1
	}
	s.drop(at, largest, i)
}

// export writes the lines, the oldest first.
func (s *store) export(w io.Writer, organization string) error {
	s.mu.Lock()
	var all []numbered
	for name, k := range s.orgs {
		if organization == "" || name == organization {
			all = append(append(all, k.lines[0]...), k.lines[1]...)
		}
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b numbered) int { return cmp.Compare(a.seq, b.seq) })
	for _, l := range all { // nobody changes a line
		if _, err := w.Write(l.text); err != nil {
			return err
		}
	}
	return nil
}

// Notable says whether somebody may ask about a request: one that was refused, failed, spilled or tried again.
func (q *Request) Notable() bool {
	o := &q.Outcome
	return o.Code != "" || o.Spill != "" || o.Tries > 1 || o.Full == "waited" || o.Abort != "" || q.Answer.Status >= 400 ||
		slices.ContainsFunc(o.Marks, func(m [2]string) bool { return strings.HasPrefix(m[1], "would-") })
}

// setRaw writes texts that are not UTF-8 with a character for each byte, since JSON knows no other bytes.
func (q *Request) setRaw() {
	texts := q.texts()
	for _, t := range texts {
		if !validJSON(*t) {
			q.Raw = true
		}
	}
	if !q.Raw {
		return
	}
	for _, t := range texts {
		r := make([]rune, len(*t))
		for i := range len(*t) {
			r[i] = rune((*t)[i])
		}
		*t = string(r)
	}
}

// unraw undoes setRaw.
func (q *Request) unraw() error {
	if !q.Raw {
		return nil
	}
	q.Raw = false
	for _, t := range q.texts() {
		b := make([]byte, 0, len(*t))
		for _, r := range *t {
			if r > 0xff {
				return fmt.Errorf("is no recorded request: it is raw, and has the character %q", r)
			}
			b = append(b, byte(r))
		}
		*t = string(b)
	}
	return nil
}

// texts are the texts that came from a client or an origin.
func (q *Request) texts() []*string {
	t := []*string{&q.Method, &q.Authority, &q.Path}
	if q.Query != nil {
		t = append(t, q.Query)
	}
	for _, list := range [...][]Field{q.Fields, q.Answer.Fields} {
		for i := range list {
			t = append(t, &list[i][0], &list[i][1])
		}
	}
	return t
}

// validJSON says whether a text is the same after it was written as JSON and read.
func validJSON(s string) bool { return utf8.ValidString(s) }
