package v1

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// This file holds the rules that join several fields of the kinds beside Site.

// distinct reports words that stand twice in a list.
func (c *checker) distinct(name string, list []string) {
	if len(list) < 2 || len(list) > 1000 {
		return
	}
	for i, s := range list {
		if slices.Index(list, s) < i {
			c.add(name+"["+strconv.Itoa(i)+"]", quote(s)+" stands twice", "remove one")
		}
	}
}

func (c *checker) listener(s *ListenerSpec) {
	for i, p := range s.Protocols {
		at := "protocols[" + strconv.Itoa(i) + "]"
		switch {
		case slices.Index(s.Protocols, p) < i:
			c.add(at, quote(string(p))+" stands twice", "remove one")
		case s.TLS == nil && (p == ProtocolH2 || p == ProtocolH3):
			fix := "add tls"
			if p == ProtocolH2 {
				fix += ", or write h2c for HTTP/2 in clear"
			}
			c.add(at, string(p)+" needs TLS", fix)
		case s.TLS != nil && p == ProtocolH2C:
			c.add(at, "h2c is HTTP/2 in clear, and the listener speaks TLS", "write h2, or remove tls")
		}
	}
	if s.TLS != nil {
		c.within("tls", func() { c.distinct("certificates", s.TLS.Certificates) })
		if a := s.TLS.ClientAuth; a != nil && a.CA != "" {
			c.authorities("tls.clientAuth.ca", a.CA)
		}
	}
	a := s.ClientAddress
	if a.ProxyProtocol != "off" && a.ProxyProtocol != "" {
		if len(a.TrustedProxies) == 0 {
			c.add("clientAddress.trustedProxies", "is empty, so that nobody may speak the PROXY protocol",
				"list the networks of the proxies in front, or write proxyProtocol: off")
		}
		if a.ProxyProtocol == "required" && slices.Contains(s.Protocols, ProtocolH3) {
			c.add("clientAddress.proxyProtocol", "cannot be required with h3, which has no PROXY protocol", "remove h3 from protocols, or write optional")
		}
	}
	if s.RequestID.Trust && len(a.TrustedProxies) == 0 {
		c.add("requestId.trust", "trusts nobody, as clientAddress.trustedProxies is empty", "list the networks of the proxies in front")
	}
}

func (c *checker) service(s *ServiceSpec) {
	c.distinct("hostnames", s.Hostnames)
	switch passthrough := s.Protocol == "tls-passthrough"; {
	case passthrough && len(s.Hostnames) == 0:
		c.add("hostnames", "is required, as tls-passthrough chooses by the name that the client asks for", "list the host names, or * for all")
	case !passthrough && len(s.Hostnames) > 0:
		c.add("hostnames", "has no meaning for "+s.Protocol+", which knows no host names", "remove it, or write protocol: tls-passthrough")
	}
	if p := s.ClientAddress.ProxyProtocol; p != "off" && p != "" {
		if len(s.ClientAddress.TrustedProxies) == 0 {
			c.add("clientAddress.trustedProxies", "is empty, so that nobody may speak the PROXY protocol",
				"list the networks of the proxies in front, or write proxyProtocol: off")
		}
		if s.Protocol == "udp" {
			c.add("clientAddress.proxyProtocol", "is read over TCP only", "remove it")
		}
	}
}

func (c *checker) originPool(s *OriginPoolSpec) {
	c.within("hash", func() {
		c.nameOn(s.Hash.On, s.Hash.Name)
		if s.Hash.On != "client" && s.Hash.On != "" && s.Algorithm != ConsistentHash {
			c.add("on", "has no effect with algorithm "+string(s.Algorithm), "write algorithm: consistent-hash, or remove hash")
		}
	})
	c.each("tiers", len(s.Tiers), func(i int) { c.tier(&s.Tiers[i], s.Tiers[:i]) })
	c.poolOrigins(s)
	c.poolHealth(s)
	c.poolResilience(s)
	switch p := s.Connection.Protocol; {
	case s.Connection.TLS == nil && (p == OriginH2 || p == OriginAuto):
		fix := "add connection.tls"
		if p == OriginH2 {
			fix += ", or write h2c for HTTP/2 in clear"
		}
		c.add("connection.protocol", string(p)+" needs TLS", fix)
	case s.Connection.TLS != nil && p == OriginH2C:
		c.add("connection.protocol", "h2c is HTTP/2 in clear, and connection.tls is given", "write h2, or remove tls")
	case p != OriginHTTP1 && p != "" && s.Connection.ProxyProtocol != "off" && s.Connection.ProxyProtocol != "":
		c.add("connection.protocol", string(p)+" carries many visitors on a connection, and proxyProtocol names one", "write http1, or proxyProtocol: off")
	}
	if t := s.Connection.TLS; t != nil && t.CA != "" {
		c.authorities("connection.tls.ca", t.CA)
	}
	c.distinct("connection.sourceAddresses", s.Connection.SourceAddresses)
	if g := s.Connection.Signature; g != nil && len(g.Secret) > 0 && len(g.Secret) < 16 {
		c.add("connection.signature.secret", fmt.Sprintf("has only %d bytes", len(g.Secret)), "write at least 16 random bytes, such as openssl rand -hex 32 gives")
	}
}

// nameOn holds the pair of On and Name that hashes and limits have.
func (c *checker) nameOn(on, name string) {
	byName := on == "header" || on == "cookie"
	if byName && name == "" {
		c.add("name", "is required with on: "+on, "name the "+on)
	}
	if !byName && name != "" {
		c.add("name", "has no meaning with on: "+on, "write on: header or on: cookie, or remove it")
	}
}

func (c *checker) tier(t *Tier, before []Tier) {
	if slices.ContainsFunc(before, func(o Tier) bool { return o.Name == t.Name }) {
		c.add("name", quote(t.Name)+" is the name of an earlier tier", "give each tier its own name")
	}
	if t.Capacity.InFlight == nil && t.Capacity.Adaptive == "off" && t.Capacity.Reserve > 0 {
		c.add("capacity.reserve", "is a share of a limit, and there is none", "give capacity.inFlight, or write adaptive: auto")
	}
	if t.Capacity.Reserve >= 100 {
		c.add("capacity.reserve", "leaves no room for visitors without a basket, who then cannot fill one", "write less than 100%")
	}
	seen := make(map[string]struct{}, len(t.Origins)) // as addresses are written in their one form
	some := false
	for i := range t.Origins {
		o := &t.Origins[i]
		some = some || o.Weight == nil || *o.Weight > 0
		address := o.one()
		if _, twice := seen[address]; twice && address != "" {
			c.add("origins["+strconv.Itoa(i)+"].address", quote(o.Address)+" stands twice in the tier", "remove one, or give one of them more weight")
		}
		seen[address] = struct{}{}
	}
	if !some && len(t.Origins) > 0 {
		c.add("origins", "have all weight 0, so that none is used", "give one of them a weight, or remove the tier")
	}
	if t.Subset > len(t.Origins) && len(t.Origins) > 0 && !slices.ContainsFunc(t.Origins, Origin.discovered) {
		c.add("subset", strconv.Itoa(t.Subset)+" is more than the tier has origins", "write less, or remove it to use all")
	}
}

func (c *checker) authorities(field, text string) {
	rest, n := []byte(text), 0
	for {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if _, err := x509.ParseCertificate(block.Bytes); block.Type != "CERTIFICATE" || err != nil {
			c.add(field, fmt.Sprintf("has a PEM block %d that is not a certificate", n+1), "give the authorities' certificates in PEM")
			return
		}
		n++
	}
	if n == 0 {
		c.add(field, "holds no PEM certificate", "give the authorities' certificates, each between BEGIN CERTIFICATE and END CERTIFICATE")
	}
}

var (
	wafRule = regexp.MustCompile(`^([0-9]{1,9})(?:-([0-9]{1,9}))?$`)
	// No modifiers of gjson: a path names members, and # all items of a list.
	wafCondition = regexp.MustCompile(`^(path|query|host|body|argument|argument:.+|cookie:[!#$%&'*+.^_|~0-9A-Za-z-]+|header:[!#$%&'*+.^_|~0-9A-Za-z-]+|json:[A-Za-z0-9_-]+(\.([A-Za-z0-9_-]+|#))*)$`)
	wafTarget    = regexp.MustCompile(`^[A-Z][A-Z_]*(:.+)?$`)
)

func (c *checker) wafPolicy(s *WafPolicySpec) {
	if d := s.DetectionParanoia; d > 0 && d < s.Paranoia {
		c.add("detectionParanoia", strconv.Itoa(d)+" is less than paranoia, "+strconv.Itoa(s.Paranoia), "write paranoia or more, or leave it out")
	}
	c.wafRules(s.Rules)
	c.wafExclusions(s.Exclusions)
	if n := s.Candidate; n != nil {
		c.within("candidate", func() {
			if n.Paranoia == 0 && n.InboundThreshold == 0 && n.Rules == nil && n.Exclusions == nil {
				c.add("", "is the same as the policy", "write paranoia, inboundThreshold, rules or exclusions; an empty list is none")
			}
			c.wafRules(n.Rules)
			c.wafExclusions(n.Exclusions)
		})
	}
}

func (c *checker) wafRules(list []WafRule) {
	named := map[string]bool{}
	c.each("rules", len(list), func(i int) {
		r := &list[i]
		if r.Name != "" && named[r.Name] {
			c.add("name", quote(r.Name)+" names another rule too", "give each rule a name of its own")
		}
		named[r.Name] = true
		if len(r.When) == 0 && r.Path == "" && len(r.Methods) == 0 {
			c.add("", "would match every request", "write when, a path or methods")
		}
		c.each("when", len(r.When), func(j int) {
			if t := r.When[j].Target; t != "" && !wafCondition.MatchString(t) {
				c.add("target", quote(t)+" is nothing to look at", "write path, query, host, header:NAME, cookie:NAME, argument, argument:NAME, json:PATH or body")
			}
		})
	})
}

func (c *checker) wafExclusions(list []WafExclusion) {
	c.each("exclusions", len(list), func(i int) {
		e := &list[i]
		if len(e.Rules) == 0 && len(e.Tags) == 0 && e.Target == "" {
			c.add("", "would take every rule out of force", "name rules, tags or a target; to look at nothing, write mode: off in a policy for that route")
		}
		for j, r := range e.Rules {
			m := wafRule.FindStringSubmatch(r)
			at := "rules[" + strconv.Itoa(j) + "]"
			if m == nil {
				c.add(at, quote(r)+" is not a rule", "write an id such as 942100, or a range such as 942100-942199")
				continue
			}
			first, _ := strconv.Atoi(m[1])
			last, _ := strconv.Atoi(m[2])
			if m[2] != "" && last < first {
				c.add(at, quote(r)+" ends before it begins", "write "+m[2]+"-"+m[1])
			}
		}
		if e.Exact && e.Path == "" {
			c.add("path", "is required with exact: true", "write the path that the exclusion is for")
		}
		if len(e.Shapes) > 0 && e.Target == "" {
			c.add("target", "is required with shapes", "write the target whose values have these shapes, as relais explain shows it")
		}
		if e.Target != "" && !wafTarget.MatchString(e.Target) {
			c.add("target", quote(e.Target)+" is not a variable", "write one such as ARGS:description or REQUEST_COOKIES:prefs")
		}
	})
}

func (c *checker) accessPolicy(s *AccessPolicySpec) {
	c.each("rules", len(s.Rules), func(i int) {
		r := &s.Rules[i]
		if len(r.Addresses) == 0 && len(r.Countries) == 0 && len(r.ASNs) == 0 && r.ClientCertificate == nil && r.Path == "" && len(r.Methods) == 0 {
			c.add("", "matches every request", "give addresses, countries, asns, clientCertificate, path or methods; what happens to all others is said by default")
		}
		for j, k := range r.Countries {
			if len(k) != 2 || k[0] < 'A' || k[0] > 'Z' || k[1] < 'A' || k[1] > 'Z' {
				c.add("countries["+strconv.Itoa(j)+"]", quote(k)+" is not a country", "write its two letters of ISO 3166-1, such as CH")
			}
		}
		if m := r.ClientCertificate; m != nil {
			c.within("clientCertificate", func() { c.clientCertificate(m) })
		}
	})
}

func (c *checker) rateLimit(s *RateLimitSpec) {
	c.within("key", func() { c.limitKey(&s.Key) })
	if len(s.Keys) > 0 && s.Key != (RateLimitKey{}) && s.Key != (RateLimitKey{On: "client"}) {
		c.add("key", "stands beside keys", "move it into keys")
	}
	c.each("keys", len(s.Keys), func(i int) { c.limitKey(&s.Keys[i]) })
	c.statuses(s.Statuses, "2345")
	c.distinct("methods", s.Methods)
}

func (c *checker) floodPolicy(s *FloodPolicySpec) {
	c.distinct("steps", s.Steps)
	c.within("cache", func() {
		if len(s.Cache.Parameters) > 0 && len(s.Cache.Paths) == 0 {
			c.add("paths", "is required with parameters", "list the paths below which only these parameters make another page, such as /search")
		}
		c.distinct("paths", s.Cache.Paths)
		c.distinct("parameters", s.Cache.Parameters)
		for i, p := range s.Cache.Parameters {
			if j := strings.IndexByte(p, '*'); j >= 0 && j != len(p)-1 {
				c.add("parameters["+strconv.Itoa(i)+"]", quote(p)+" has a * before its end", "write * only as the last character")
			}
		}
	})
}

func (c *checker) limitKey(k *RateLimitKey) {
	if k.On == "json" {
		if k.Name == "" {
			c.add("name", "is required with on: json", "name the field, such as email or user.email")
		}
	} else {
		c.nameOn(k.On, k.Name)
	}
	if (k.IPv4 != 0 || k.IPv6 != 0) && k.On != "network" {
		c.add("on", "is "+k.On+", and ipv4 and ipv6 are the bits of a network", "write on: network, or remove them")
	}
}
