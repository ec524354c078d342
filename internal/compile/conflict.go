package compile

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// hostConflicts finds host names that two sites have on one listener, whoever owns them.
func (c *compiler) hostConflicts(docs []*v1.Site, sites []*bundle.Site) {
	first := make(map[string]int32, len(sites)*2)
	more := map[string][]int32{} // the further sites of a name, on other listeners
	for i, s := range sites {
		for j, h := range s.Hostnames {
			f, taken := first[h]
			if !taken {
				first[h] = int32(i)
				continue
			}
			if int(f) == i {
				continue // twice in one site: Validate has told
			}
			clash := false
			for _, o := range append([]int32{f}, more[h]...) {
				on, both := shared(sites[o].Listeners, s.Listeners)
				if both {
					clash = true
					c.problem(docs[i], "spec.hostnames["+strconv.Itoa(j)+"]",
						fmt.Sprintf("%q is taken by Site %s on %s", h, sites[o].Key, on),
						"remove it from one of the two, or let them name different listeners")
					break
				}
			}
			if !clash {
				more[h] = append(more[h], int32(i))
			}
		}
	}
}

// shared tells in words on which listener two lists meet; an empty list means all.
func shared(a, b []bundle.Key) (on string, both bool) {
	switch {
	case len(a) == 0 && len(b) == 0:
		return "every listener", true
	case len(a) == 0:
		return "listener " + string(b[0]), true
	case len(b) == 0:
		return "listener " + string(a[0]), true
	}
	for _, k := range a {
		if slices.Contains(b, k) {
			return "listener " + string(k), true
		}
	}
	return "", false
}

// socket is an address on which a document receives.
type socket struct {
	doc       v1.Document
	host      string
	tcp, udp  bool
	sni       []string // host names of a tls-passthrough service
	isSNI     bool
	ends      bool   // it is a listener that ends TLS, beside which SNI may choose
	wholeName string // Kind organization/name
}

// addressConflicts finds listeners and services that receive on one address.
func (c *compiler) addressConflicts() {
	ports := map[string][]socket{}
	add := func(address string, s socket) {
		i := strings.LastIndexByte(address, ':')
		if i < 0 || address[i+1:] == "0" {
			return // Validate has told of the first; port 0 is a free one each time
		}
		s.host = strings.Trim(address[:i], "[]")
		port := address[i+1:]
		kind, _ := s.doc.Meta()
		s.wholeName = string(kind) + " " + string(keyOf(s.doc))
		for _, o := range ports[port] {
			c.sockets(s, o, port)
		}
		ports[port] = append(ports[port], s)
	}
	for _, d := range c.listenerDocs.sorted() {
		p := d.Spec.Protocols
		udp := slices.Contains(p, v1.ProtocolH3)
		add(d.Spec.Address, socket{doc: d, udp: udp, tcp: !udp || len(p) > 1, ends: d.Spec.TLS != nil})
	}
	for _, d := range c.services.sorted() {
		add(d.Spec.Address, socket{
			doc: d, udp: d.Spec.Protocol == "udp", tcp: d.Spec.Protocol != "udp",
			isSNI: d.Spec.Protocol == "tls-passthrough", sni: d.Spec.Hostnames,
		})
	}
}

func (c *compiler) sockets(s, o socket, port string) {
	if !(s.tcp && o.tcp) && !(s.udp && o.udp) || !overlap(s.host, o.host) {
		return
	}
	if s.isSNI && o.isSNI && s.host == o.host {
		for i, h := range s.sni {
			if slices.Contains(o.sni, h) {
				c.problem(s.doc, "spec.hostnames["+strconv.Itoa(i)+"]", fmt.Sprintf("%q is taken by %s on the same address", h, o.wholeName), "remove it from one of the two")
			}
		}
		// The PROXY protocol comes before the name that chooses between them.
		one, two := s.doc.(*v1.Service), o.doc.(*v1.Service)
		if !reflect.DeepEqual(one.Spec.ClientAddress, two.Spec.ClientAddress) {
			c.problem(s.doc, "spec.clientAddress", "differs from that of "+o.wholeName+" on the same address", "write the same in both")
		}
		return
	}
	if s.isSNI && o.ends && o.tcp && s.host == o.host {
		if i := slices.Index(s.sni, "*"); i >= 0 {
			c.problem(s.doc, "spec.hostnames["+strconv.Itoa(i)+"]", "* would take every name from "+o.wholeName+" on the same address", "name the hosts, or choose another address")
		}
		return
	}
	what := fmt.Sprintf("port %s of %s is taken by %s", port, hostWords(s.host), o.wholeName)
	if s.host != o.host {
		what += ", which receives on " + hostWords(o.host)
	}
	c.problem(s.doc, "spec.address", what, "choose another port or address for one of the two")
}

func hostWords(host string) string {
	switch host {
	case "", "::":
		return "every address"
	case "0.0.0.0":
		return "every IPv4 address"
	}
	return host
}

// overlap tells whether two hosts of one port cannot both be received on. The empty host and [::] stand
// for every address of both families, as the system binds them.
func overlap(a, b string) bool {
	all := func(h string) bool { return h == "" || h == "::" }
	if a == b || all(a) || all(b) {
		return true
	}
	v6 := func(h string) bool { x, err := netip.ParseAddr(h); return err == nil && x.Is6() }
	return a == "0.0.0.0" && !v6(b) || b == "0.0.0.0" && !v6(a)
}
