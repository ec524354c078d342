package netlab

// packet is an IP packet on its way.
type packet struct {
	buf      []byte // of the lab's MTU and some
	n        int
	from, to *node
	path     *path
	link     *link  // it is on
	place    uint64 // in the link's row
	mark     uint64 // cuts of its way until it left
}

// waiting is a packet with the time at which it is due; of two that are due together, the first in goes first.
type waiting struct {
	due int64
	seq uint64
	p   *packet
}

func (a waiting) before(b waiting) bool { return a.due < b.due || a.due == b.due && a.seq < b.seq }

// queue is a heap of four branches, which moves less memory than one of two.
type queue struct {
	heap []waiting
	seq  uint64
}

func (q *queue) push(due int64, p *packet) {
	q.seq++
	w := waiting{due, q.seq, p}
	q.heap = append(q.heap, w)
	i := len(q.heap) - 1
	for i > 0 {
		up := (i - 1) / 4
		if !w.before(q.heap[up]) {
			break
		}
		q.heap[i] = q.heap[up]
		i = up
	}
	q.heap[i] = w
}

// next is when the first packet is due.
func (q *queue) next() (due int64, ok bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	return q.heap[0].due, true
}

func (q *queue) pop() waiting {
	first, last := q.heap[0], len(q.heap)-1
	w := q.heap[last]
	q.heap[last] = waiting{}
	q.heap = q.heap[:last]
	if last == 0 {
		return first
	}
	i := 0
	for {
		least := 4*i + 1
		if least >= last {
			break
		}
		for c := least + 1; c < min(4*i+5, last); c++ {
			if q.heap[c].before(q.heap[least]) {
				least = c
			}
		}
		if !q.heap[least].before(w) {
			break
		}
		q.heap[i] = q.heap[least]
		i = least
	}
	q.heap[i] = w
	return first
}

// pool keeps the memory of packets, of which there are at most so many.
type pool struct {
	free       []*packet
	made, most int
	size       int
}

// slab is how many packets are made at once.
const slab = 32

// get returns nil when all are in use.
func (s *pool) get() *packet {
	if len(s.free) == 0 {
		n := min(slab, s.most-s.made)
		if n <= 0 {
			return nil
		}
		mem, packets := make([]byte, n*s.size), make([]packet, n)
		for i := range packets {
			packets[i].buf = mem[i*s.size : (i+1)*s.size : (i+1)*s.size]
			s.free = append(s.free, &packets[i])
		}
		s.made += n
	}
	last := len(s.free) - 1
	p := s.free[last]
	s.free = s.free[:last]
	return p
}

func (s *pool) put(p *packet) {
	*p = packet{buf: p.buf}
	s.free = append(s.free, p)
}

func (s *pool) used() int { return s.made - len(s.free) }
