package curve

// sampled is an object of the sample.
type sampled struct {
	place uint64 // of its hash
	size  int64
	last  int32 // when it was last asked for, in ticks
}

// samples are objects in the order of their last requests. All memory is taken at once.
type samples struct {
	most    int
	objects []sampled
	free    []int32 // places of objects that nobody has
	heap    []int32 // objects, the highest place first
	table   []int32 // objects plus one by place: linear probing
	mask    uint64
	tick    int32
	owner   []int32 // objects plus one by tick of their last request
	tree    []int64 // a Fenwick tree of bytes by tick
}

// ticksPerSample is how many ticks there are for each sample until they are numbered anew.
const ticksPerSample = 2

func newSamples(most int) samples {
	slots := 1
	for slots*2 < 3*(most+1) { // two thirds full at the most
		slots *= 2
	}
	s := samples{
		most:    most,
		objects: make([]sampled, most+1),
		free:    make([]int32, 0, most+1),
		heap:    make([]int32, 0, most+1),
		table:   make([]int32, slots),
		mask:    uint64(slots - 1),
		owner:   make([]int32, ticksPerSample*most+2),
		tree:    make([]int64, ticksPerSample*most+3),
	}
	for i := range most + 1 {
		s.free = append(s.free, int32(most-i))
	}
	return s
}

func (s *samples) memory() int64 {
	return int64(len(s.objects)*24 + cap(s.free)*4 + cap(s.heap)*4 + len(s.table)*4 + len(s.owner)*4 + len(s.tree)*8)
}

// full says that there is one more than may stay.
func (s *samples) full() bool { return len(s.heap) > s.most }

// touch puts an object to the end of the order. If it was there, between is how many bytes of
// others were asked for since.
func (s *samples) touch(place uint64, size int64) (between int64, again bool) {
	if int(s.tick) == len(s.owner) {
		s.renumber()
	}
	slot := s.slot(place)
	i := s.table[slot] - 1
	if i >= 0 {
		o := &s.objects[i]
		between = s.sum(s.tick) - s.sum(o.last+1)
		s.count(o.last, -o.size)
		s.owner[o.last] = 0
		again = true
	} else {
		i = s.free[len(s.free)-1]
		s.free = s.free[:len(s.free)-1]
		s.objects[i] = sampled{place: place}
		s.table[slot] = i + 1
		s.heap = append(s.heap, i)
		s.up(len(s.heap) - 1)
	}
	o := &s.objects[i]
	o.size, o.last = size, s.tick
	s.owner[s.tick] = i + 1
	s.count(s.tick, size)
	s.tick++
	return between, again
}

// dropHighest removes the object with the highest place, and gives that place.
func (s *samples) dropHighest() uint64 {
	i := s.heap[0]
	end := len(s.heap) - 1
	s.heap[0] = s.heap[end]
	s.heap = s.heap[:end]
	if end > 0 {
		s.down()
	}
	o := s.objects[i]
	s.count(o.last, -o.size)
	s.owner[o.last] = 0
	s.remove(s.slot(o.place))
	s.free = append(s.free, i)
	return o.place
}

// slot is where a place is in the table, or would be.
func (s *samples) slot(place uint64) uint64 {
	// Low bits: the sampled places are alike in their high ones.
	at := place & s.mask
	for s.table[at] != 0 && s.objects[s.table[at]-1].place != place {
		at = (at + 1) & s.mask
	}
	return at
}

// remove empties a slot, and moves those behind it that would not be found any more.
func (s *samples) remove(hole uint64) {
	s.table[hole] = 0
	for at := (hole + 1) & s.mask; s.table[at] != 0; at = (at + 1) & s.mask {
		home := s.objects[s.table[at]-1].place & s.mask
		if (at-home)&s.mask >= (at-hole)&s.mask {
			s.table[hole], s.table[at] = s.table[at], 0
			hole = at
		}
	}
}

func (s *samples) higher(a, b int) bool {
	return s.objects[s.heap[a]].place > s.objects[s.heap[b]].place
}

func (s *samples) up(at int) {
	for at > 0 && s.higher(at, (at-1)/2) {
		s.heap[at], s.heap[(at-1)/2] = s.heap[(at-1)/2], s.heap[at]
		at = (at - 1) / 2
	}
}

func (s *samples) down() {
	for at := 0; ; {
		child := 2*at + 1
		if child >= len(s.heap) {
			return
		}
		if child+1 < len(s.heap) && s.higher(child+1, child) {
			child++
		}
		if !s.higher(child, at) {
			return
		}
		s.heap[at], s.heap[child] = s.heap[child], s.heap[at]
		at = child
	}
}

// count adds bytes at a tick.
func (s *samples) count(tick int32, bytes int64) {
	for i := int(tick) + 1; i < len(s.tree); i += i & -i {
		s.tree[i] += bytes
	}
}

// sum is the bytes at ticks before one.
func (s *samples) sum(tick int32) (bytes int64) {
	for i := tick; i > 0; i -= i & -i {
		bytes += s.tree[i]
	}
	return bytes
}

// renumber gives the objects the first ticks, in their order.
func (s *samples) renumber() {
	clear(s.tree)
	next := int32(0)
	for tick, i := range s.owner {
		if i == 0 {
			continue
		}
		s.owner[tick] = 0
		s.owner[next] = i
		s.objects[i-1].last = next
		s.tree[next+1] = s.objects[i-1].size
		next++
	}
	for i := 1; i < len(s.tree); i++ {
		if up := i + i&-i; up < len(s.tree) {
			s.tree[up] += s.tree[i]
		}
	}
	s.tick = next
}
