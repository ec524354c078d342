package v1

import (
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// This file holds the rules of an OriginPool that join its parts.

// discovered says whether DNS decides how many origins it is.
func (o Origin) discovered() bool { return o.Expand || o.SRV != "" }

// one is the address as it is written in its one form, so that 10.0.0.1:080 and [::ffff:10.0.0.1]:80 are one.
func (o *Origin) one() string {
	if c := len(o.Address); c == 0 || o.Address[0] != '[' && (o.Address[0] < '0' || o.Address[0] > '9') {
		return o.Address
	}
	ap, err := netip.ParseAddrPort(o.Address)
	if err != nil {
		return o.Address
	}
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()).String()
}

// poolOrigins holds the origins against one another and against what the connection may reach.
func (c *checker) poolOrigins(s *OriginPoolSpec) {
	tierOf := map[string]int{}
	c.each("tiers", len(s.Tiers), func(i int) {
		t := &s.Tiers[i]
		for j := range t.Origins {
			o := &t.Origins[j]
			at := "origins[" + strconv.Itoa(j) + "]"
			c.origin(at, o, &s.Connection)
			name, written := o.one(), o.Address
			if o.SRV != "" {
				name, written, at = o.SRV, o.SRV, at+".srv"
			} else {
				at += ".address"
			}
			if k, twice := tierOf[name]; twice && k != i && name != "" {
				c.add(at, quote(written)+" is in the tier "+quote(s.Tiers[k].Name)+" too, so that overflow would go to the server that it comes from", "remove one of the two")
			} else {
				tierOf[name] = i
			}
		}
	})
	if s.Zones.Prefer == "own" && !slices.ContainsFunc(s.Tiers, func(t Tier) bool {
		return slices.ContainsFunc(t.Origins, func(o Origin) bool { return o.Zone != "" })
	}) {
		c.add("zones.prefer", "has no effect, as no origin has a zone", "give the origins a zone, or remove it")
	}
	if s.Zones.Prefer == "own" && (s.Algorithm == ConsistentHash || s.Algorithm == First) {
		c.add("zones.prefer", "has no effect with algorithm "+string(s.Algorithm)+", which has an order of its own", "write another algorithm, or remove it")
	}
}

var srvName = regexp.MustCompile(`^_[a-z0-9-]{1,62}\._(tcp|udp)\.(.+)$`)

func (c *checker) origin(at string, o *Origin, conn *ConnectionSpec) {
	switch {
	case o.Address == "" && o.SRV == "":
		c.add(at+".address", "is required", "write host:port, such as 10.0.1.10:8080, or give srv")
	case o.Address != "" && o.SRV != "":
		c.add(at+".srv", "and address are two ways to find the origin", "remove one of the two")
	case o.SRV != "":
		if o.Expand {
			c.add(at+".expand", "has no meaning with srv, whose records are origins in any case", "remove it")
		}
		m := srvName.FindStringSubmatch(o.SRV)
		if m == nil {
			c.add(at+".srv", quote(o.SRV)+" is not the name of SRV records", "write _service._tcp.name, such as _http._tcp.shop.example")
		} else if what, fix := checkHostname(m[2], false); what != "" {
			c.add(at+".srv", what, fix)
		}
		return
	}
	ap, err := netip.ParseAddrPort(o.Address)
	if err != nil {
		return
	}
	a := ap.Addr().Unmap()
	switch {
	case o.Expand:
		c.add(at+".expand", "has no meaning for "+quote(o.Address)+", which is an address already", "remove it, or give a name")
	case conn.allows(a):
	case IsMetadata(a):
		c.add(at+".address", quote(o.Address)+" is where a cloud tells its machines their secrets", "name the origin's own address, or list "+a.String()+" in connection.allow")
	case conn.Public && (a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast()):
		c.add(at+".address", quote(o.Address)+" is not public, and connection.public is true", "list its network in connection.allow, or remove public")
	}
}

func (s *ConnectionSpec) allows(a netip.Addr) bool {
	for _, text := range s.Allow {
		if p, err := netip.ParsePrefix(text); err == nil && p.Contains(a) {
			return true
		}
		if one, err := netip.ParseAddr(text); err == nil && one == a {
			return true
		}
	}
	return false
}

// poolHealth holds the kinds of check apart.
func (c *checker) poolHealth(s *OriginPoolSpec) {
	h := &s.Health
	c.within("health", func() {
		switch {
		case h.Connect && h.Path != "":
			c.add("connect", "and path are two kinds of check", "remove one of the two")
		case h.GRPC != nil && (h.Connect || h.Path != ""):
			c.add("grpc", "is a kind of check of its own", "remove it, or connect and path")
		case h.GRPC != nil && (s.Connection.Protocol == OriginHTTP1 || s.Connection.Protocol == ""):
			c.add("grpc", "needs HTTP/2, and connection.protocol is http1", "write connection.protocol: h2c, or h2 with connection.tls")
		}
		if h.Path == "" {
			for _, f := range [...]struct {
				name  string
				given bool
			}{{"headers", len(h.Headers) > 0}, {"statuses", len(h.Statuses) > 0}, {"body", h.Body != ""}} {
				if f.given {
					c.add(f.name, "has no meaning without path", "give path, or remove it")
				}
			}
		}
		c.statuses(h.Statuses, "2345")
		c.each("headers", len(h.Headers), func(i int) {
			if strings.ContainsAny(h.Headers[i].Value, "\r\n\x00") {
				c.add("value", "has a line break in it", "write it on one line")
			}
			switch n := strings.ToLower(h.Headers[i].Name); n {
			case "host":
				c.add("name", quote(h.Headers[i].Name)+" is what health.host is for", "write health.host")
			case "connection", "content-length", "transfer-encoding", "upgrade", "te", "trailer", "keep-alive", "proxy-connection":
				c.add("name", quote(h.Headers[i].Name)+" is the connection's own", "remove it")
			}
		})
	})
}

// subsets are of use only where any origin can serve a request.
func (c *checker) subsets(s *OriginPoolSpec) {
	for i := range s.Tiers {
		if s.Tiers[i].Subset > 0 && (s.Algorithm == ConsistentHash || s.Algorithm == First) {
			c.add("tiers["+strconv.Itoa(i)+"].subset", "has every edge use other origins, and with algorithm "+string(s.Algorithm)+" all shall use the same", "write another algorithm, or remove it")
		}
	}
}

// poolResilience holds what else depends on another field.
func (c *checker) poolResilience(s *OriginPoolSpec) {
	c.subsets(s)
	if s.Hash.Table == "ring" && s.Algorithm != ConsistentHash {
		c.add("hash.table", "has no effect with algorithm "+string(s.Algorithm), "write algorithm: consistent-hash, or remove it")
	}
	if s.SlowStart > 0 && (s.Algorithm == ConsistentHash || s.Algorithm == First) {
		c.add("slowStart", "has no effect with algorithm "+string(s.Algorithm)+", which goes by more than weight", "write another algorithm, or remove it")
	}
	if h := s.Retries.Hedge; h != nil {
		if s.Connection.ProxyProtocol != "off" && s.Connection.ProxyProtocol != "" {
			c.add("retries.hedge", "sends two requests at once, and with proxyProtocol a connection is one visitor's", "remove one of the two")
		}
		if h.Percentile != nil && (*h.Percentile < 50 || *h.Percentile > 99.9) {
			c.add("retries.hedge.percentile", h.Percentile.String()+" is out of bounds", "write a share from 50% to 99.9%")
		}
		if s.Retries.Budget != nil && *s.Retries.Budget == 0 {
			c.add("retries.hedge", "takes from retries.budget, which is 0%", "give a budget, or remove hedge")
		}
	}
	c.distinct("connection.resolvers", s.Connection.Resolvers)
	for i, r := range s.Connection.Resolvers {
		if _, err := netip.ParseAddrPort(r); err != nil {
			c.add("connection.resolvers["+strconv.Itoa(i)+"]", quote(r)+" is a name, and who should say its address?", "write address:port, such as 127.0.0.1:8600")
		}
	}
}
