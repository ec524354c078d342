package waitroom

// Bounds of what is remembered of those who were let in.
const (
	claimWindow = 1 << 20 // numbers of which it is known whether they came
	ownerWindow = 1 << 16 // of which it is known who came
	// retryFor is for how many seconds who came may come once more with the place, as an answer may be lost.
	retryFor = 120
)

// claims remember which of the numbers that were called came, a bit each, and of the latest who it was: 384 KiB, made
// when the first one comes.
type claims struct {
	used  []uint64
	owner []uint32 // 16 bits of a hash of who it was, one whether a pass was given, 15 of the second
	moved bool     // since it was written
}

const (
	ownerPass    = 1 << 15
	ownerSeconds = ownerPass - 1
)

// admit asks whether a number that was called lets its bearer in, whose hash is who: the first one that comes, and
// the same once more until a pass was given, and for a short time after. First says that it was the first.
func (c *claims) admit(number, called uint64, who uint16, now int64) (ok, first bool) {
	if number+claimWindow <= called {
		return false, false // nobody knows any more
	}
	if c.used == nil {
		c.used, c.owner = make([]uint64, claimWindow/64), make([]uint32, ownerWindow)
	}
	w, bit := c.bit(number)
	o := &c.owner[number%ownerWindow]
	if *w&bit == 0 {
		*w |= bit
		if number+ownerWindow > called {
			*o = uint32(who)<<16 | uint32(now)&ownerSeconds
		}
		c.moved = true
		return true, true
	}
	if number+ownerWindow <= called || uint16(*o>>16) != who {
		return false, false
	}
	return *o&ownerPass == 0 || (uint32(now)-*o)&ownerSeconds <= retryFor, false
}

// enter notes that a number was given a pass; false when it was before.
func (c *claims) enter(number, called uint64, now int64) bool {
	if c.used == nil || number+ownerWindow <= called {
		return false
	}
	o := &c.owner[number%ownerWindow]
	if *o&ownerPass != 0 {
		return false
	}
	*o = *o&^ownerSeconds | ownerPass | uint32(now)&ownerSeconds
	c.moved = true
	return true
}

// release takes back that a number came, when it found no room and nobody has a pass for it.
func (c *claims) release(number, called uint64) {
	if c.used == nil || number+ownerWindow <= called || c.owner[number%ownerWindow]&ownerPass != 0 {
		return
	}
	w, bit := c.bit(number)
	*w &^= bit
	c.moved = true
}

// forget makes room for the numbers after one up to another, which are called now.
func (c *claims) forget(after, to uint64) {
	if c.used == nil {
		return
	}
	for n := after + 1; n <= after+min(to-after, claimWindow); n++ {
		w, bit := c.bit(n)
		*w &^= bit
	}
}

func (c *claims) bit(number uint64) (*uint64, uint64) {
	return &c.used[number%claimWindow/64], 1 << (number % 64)
}
