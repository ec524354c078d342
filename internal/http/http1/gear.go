package http1

import "net"

// gear is what a connection needs while it has a goroutine. It is pooled.
type gear struct {
	src source

	partial  int   // bytes of a head that were found not to be all of it
	tunneled int64 // bytes that went back through a tunnel

	sendStep func(fd uintptr) bool // sendOnce; what it sends and what came of it follow
	sending  []byte
	sendErr  error
	vecStep  func(fd uintptr) bool // sendVector, of vecs
	vector   vector
	file     fileSender

	// Guarded by wmu.
	out  []byte  // heads and small answers that are not written yet
	obuf *buffer // out's memory
	pend []*exchange
	vec  net.Buffers
	vecs [3][]byte
}

func newGear() *gear {
	g := new(gear)
	g.sendStep, g.vecStep = g.sendOnce, g.sendVector
	g.file.init()
	return g
}

// gearUp gives the connection what it needs to be served.
func (c *serverConn) gearUp() {
	c.gear = c.s.gears.Get().(*gear)
	c.src.init(c.nc, c.raw, &c.s.pool)
}

// gearDown gives that back. Nothing is buffered.
func (c *serverConn) gearDown() {
	g := c.gear
	c.src.drop()
	c.giveBack()
	c.gear = nil
	g.src.nc, g.src.raw = nil, nil
	g.tunneled, g.sendErr = 0, nil
	g.file.clear()
	clear(g.pend)
	g.pend, g.vec = g.pend[:0], nil
	c.s.gears.Put(g)
}
