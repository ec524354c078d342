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
	type walk struct{ at, step uint64 }
	walks := make([]walk, len(members))
	var heaviest int64
	for i, m := range members {
		h := hashString(m.o.address)
		walks[i] = walk{mix(h) % uint64(size), mix(^h)%uint64(size-1) + 1}
		heaviest = max(heaviest, m.weight)
	}
	t := &maglev{places: make([]uint16, size)}
	taken := make([]uint64, (size+63)/64) // a bit for each place, so that the walks stay in the processor's cache
	credit := make([]int64, len(members))
	for left := size; left > 0; {
		for i := 0; i < len(members) && left > 0; i++ {
			// A member of half the heaviest's weight takes a place every other round.
			if credit[i] += members[i].weight; credit[i] < heaviest {
				continue
			}
			credit[i] -= heaviest
			w := &walks[i]
			for taken[w.at/64]>>(w.at%64)&1 != 0 {
				if w.at += w.step; w.at >= uint64(size) {
					w.at -= uint64(size)
				}
			}
			taken[w.at/64] |= 1 << (w.at % 64)
			t.places[w.at] = uint16(i)
			left--
		}
	}
	return t
}
