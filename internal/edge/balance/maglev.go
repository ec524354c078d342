package balance

// maglev is a lookup table from hashes to members (Eisenbud and others, "Maglev", NSDI 2016,
// section 3.4). Each member has a share of the places by its weight, and when a member comes
// or goes few places change hands. It is made of addresses, so that every edge has the same.
type maglev struct{ places []uint16 }

// maglevSizes are primes. A table has at least a hundred places for each member, up to the
// largest size.
var maglevSizes = [...]int{251, 1021, 4093, 16381, 65521, 262139, 1048573}

func newMaglev(members []member) *maglev {
	if len(members) == 0 {
		return nil
	}
	size := maglevSizes[len(maglevSizes)-1]
	for _, s := range maglevSizes {
		if s >= 100*len(members) {
			size = s
			break
		}
	}
	walks := make([]walk, len(members))
	var heaviest int64
	for i, m := range members {
		h := hashString(m.o.address)
		walks[i] = walk{mix(h) % uint64(size), mix(^h)%uint64(size-1) + 1}
		heaviest = max(heaviest, m.weight)
	}
	f := filling{places: make([]uint16, size), taken: make([]uint64, (size+63)/64)}
	credit := make([]int64, len(members))
	for left := size; left > 0; {
		for i := 0; i < len(members) && left > 0; i++ {
			// A member of half the heaviest's weight takes a place every other round.
			if credit[i] += members[i].weight; credit[i] < heaviest {
				continue
			}
			credit[i] -= heaviest
			f.take(&walks[i], i, left)
			left--
		}
	}
	return &maglev{f.places}
}

// walk is the order in which a member asks for the places of a table: all of them, as their number is a prime.
type walk struct{ at, step uint64 }

// filling is a table that is being filled.
type filling struct {
	places []uint16
	taken  []uint64 // a bit for each place, so that the walks stay in the processor's cache
	free   []uint32 // the last places, when they are few
}

// take gives member i the first place of its walk that is free, of so many that are left. Half of all the
// steps would be spent on the last thousandth of the places, so there it is looked which of those comes first.
func (f *filling) take(w *walk, i, left int) {
	size := uint64(len(f.places))
	if left*left > len(f.places) {
		for f.taken[w.at/64]>>(w.at%64)&1 != 0 {
			if w.at += w.step; w.at >= size {
				w.at -= size
			}
		}
		f.taken[w.at/64] |= 1 << (w.at % 64)
		f.places[w.at] = uint16(i)
		return
	}
	if f.free == nil {
		f.free = make([]uint32, 0, left)
		for at := range size {
			if f.taken[at/64]>>(at%64)&1 == 0 {
				f.free = append(f.free, uint32(at))
			}
		}
	}
	first, least, back := 0, size, inverse(w.step, size)
	for k, at := range f.free {
		if steps := (uint64(at) + size - w.at) * back % size; steps < least {
			first, least = k, steps
		}
	}
	w.at = uint64(f.free[first])
	f.places[w.at] = uint16(i)
	f.free[first] = f.free[len(f.free)-1]
	f.free = f.free[:len(f.free)-1]
}

// inverse is what n must be multiplied with to get 1 modulo a prime above it.
func inverse(n, prime uint64) uint64 {
	a, b, x, y := int64(prime), int64(n), int64(0), int64(1)
	for b != 0 {
		q := a / b
		a, b, x, y = b, a-q*b, y, x-q*y
	}
	return uint64((x + int64(prime)) % int64(prime))
}
