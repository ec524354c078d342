package l4

import (
	"errors"
	"strings"
)

const (
	// maxHello bounds a ClientHello (RFC 8446 section 4.1.2) with its records' headers. With a key share of
	// X25519MLKEM768 and a session ticket it has some 2 KiB.
	maxHello = 16 << 10
	// maxHelloNames bounds the protocols that are kept of ALPN.
	maxHelloNames = 32

	// maxRecord bounds a record in clear (RFC 8446 section 5.1).
	maxRecord = 16 << 10

	recordHandshake = 22
	typeClientHello = 1
	extServerName   = 0
	extALPN         = 16
)

var (
	errHelloMore = errors.New("the ClientHello is not whole yet")
	errNotTLS    = errors.New("the connection does not begin with a TLS ClientHello")
	errHelloBad  = errors.New("the ClientHello is malformed")
	errHelloLong = errors.New("the ClientHello is too long")
)

// hello is what a ClientHello says in clear.
type hello struct {
	serverName string // in lower case; empty when absent
	protocols  []string
}

// helloParser reads a ClientHello as its bytes come. It looks at each record once, so that a client
// that sends byte after byte costs no more than another.
type helloParser struct {
	at     int    // where the next record begins
	joined []byte // the handshake message so far
}

// parseHello reads the ClientHello that b begins with.
func parseHello(b []byte) (hello, error) { return new(helloParser).feed(b) }

// feed reads on; b is what was given before and what came since. A ClientHello may be in several records
// (RFC 8446 section 5.1). It returns errHelloMore as long as what is there is the beginning of one.
func (p *helloParser) feed(b []byte) (hello, error) {
	for {
		record := b[p.at:]
		if len(record) > 0 && record[0] != recordHandshake || len(record) > 1 && record[1] != 3 {
			return hello{}, errNotTLS
		}
		if len(record) < 5 {
			return hello{}, errHelloMore
		}
		n := int(record[3])<<8 | int(record[4])
		switch {
		case n == 0: // which section 5.1 forbids
			return hello{}, errHelloBad
		case n > maxRecord:
			return hello{}, errHelloLong
		case len(p.joined) == 0 && len(record) > 5 && record[5] != typeClientHello:
			return hello{}, errNotTLS
		case len(record) < 5+n:
			return hello{}, errHelloMore
		}
		if p.joined == nil {
			p.joined = record[5 : 5+n : 5+n] // in most cases all there is
		} else {
			p.joined = append(p.joined, record[5:5+n]...)
		}
		p.at += 5 + n
		if len(p.joined) < 4 {
			continue
		}
		size := int(p.joined[1])<<16 | int(p.joined[2])<<8 | int(p.joined[3])
		switch {
		case size > maxHello:
			return hello{}, errHelloLong
		case len(p.joined) >= 4+size:
			return parseHelloBody(p.joined[4 : 4+size])
		}
	}
}

// cursor reads a structure of TLS; what is not there makes it bad.
type cursor struct {
	b   []byte
	bad bool
}

func (c *cursor) take(n int) []byte {
	if c.bad || n > len(c.b) {
		c.bad = true
		return nil
	}
	p := c.b[:n]
	c.b = c.b[n:]
	return p
}

// number reads n bytes as a number.
func (c *cursor) number(n int) (v int) {
	for _, x := range c.take(n) {
		v = v<<8 | int(x)
	}
	return v
}

// vector reads a vector whose length is in n bytes.
func (c *cursor) vector(n int) cursor {
	return cursor{b: c.take(c.number(n))}
}

func parseHelloBody(b []byte) (h hello, err error) {
	c := cursor{b: b}
	c.take(2 + 32) // version, random
	c.vector(1)    // session id
	c.vector(2)    // cipher suites
	c.vector(1)    // compression
	if c.bad {
		return h, errHelloBad
	}
	if len(c.b) == 0 {
		return h, nil // a client without extensions
	}
	extensions := c.vector(2)
	if c.bad || len(c.b) > 0 {
		return h, errHelloBad
	}
	var seen [2]bool
	for len(extensions.b) > 0 {
		typ := extensions.number(2)
		data := extensions.vector(2)
		if extensions.bad {
			return hello{}, errHelloBad
		}
		var ok bool
		switch typ {
		case extServerName:
			ok, seen[0] = !seen[0], true
			ok = ok && h.readName(&data)
		case extALPN:
			ok, seen[1] = !seen[1], true
			ok = ok && h.readProtocols(&data)
		default:
			ok = true
		}
		if !ok {
			return hello{}, errHelloBad
		}
	}
	return h, nil
}

// readName reads a ServerNameList (RFC 6066 section 3), which has one host name at most.
func (h *hello) readName(data *cursor) bool {
	list := data.vector(2)
	if data.bad || len(data.b) > 0 || len(list.b) == 0 {
		return false
	}
	for len(list.b) > 0 {
		typ := list.number(1)
		name := list.vector(2)
		if list.bad || len(name.b) == 0 {
			return false
		}
		if typ != 0 {
			continue
		}
		if h.serverName != "" || len(name.b) > 255 || name.b[len(name.b)-1] == '.' {
			return false
		}
		h.serverName = strings.ToLower(string(name.b))
	}
	return true
}

// readProtocols reads a ProtocolNameList (RFC 7301 section 3.1).
func (h *hello) readProtocols(data *cursor) bool {
	list := data.vector(2)
	if data.bad || len(data.b) > 0 || len(list.b) == 0 {
		return false
	}
	for len(list.b) > 0 {
		name := list.vector(1)
		if list.bad || len(name.b) == 0 {
			return false
		}
		if len(h.protocols) < maxHelloNames {
			h.protocols = append(h.protocols, string(name.b))
		}
	}
	return true
}
