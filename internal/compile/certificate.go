package compile

import (
	"slices"
	"strconv"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/bundle"
)

// siteCertificates tells the listeners with TLS which certificates the sites name for their hosts.
// The lists of one site are shared.
func (c *compiler) siteCertificates(b *bundle.Bundle, sites []*v1.Site) {
	var secure []int
	for i := range b.Listeners {
		if b.Listeners[i].Spec.TLS != nil {
			secure = append(secure, i)
		}
	}
	for i, d := range sites {
		h, ok := c.certificatesOf(d)
		if !ok {
			continue
		}
		for _, l := range secure {
			if s := b.Sites[i].Listeners; len(s) == 0 || slices.Contains(s, b.Listeners[l].Key) {
				b.Listeners[l].Hosts = append(b.Listeners[l].Hosts, h)
			}
		}
	}
}

// certificatesOf are the certificates that a site names, with its host names; false when it names none.
func (c *compiler) certificatesOf(d *v1.Site) (h bundle.CertificateHosts, ok bool) {
	if len(d.Spec.Certificates) == 0 {
		return h, false
	}
	h.Hostnames = bundle.OwnHostnames(d.Spec.Hostnames)
	for j, name := range d.Spec.Certificates {
		cert, key, ok := resolve(c, c.certificates, d, name, ref{whole, "certificates", j, ""})
		if !ok {
			continue
		}
		h.Certificates = append(h.Certificates, key)
		if cert.Spec.ACME != nil {
			c.fitForACME(d, cert, j)
		}
	}
	if len(h.Hostnames) == 0 {
		c.problem(d, "spec.certificates", "has no effect, as the site has no host name of its own", "name the hosts, or name the certificates in a Listener's tls.certificates")
	}
	return h, true
}

// fitForACME reports host names of a site that its ACME certificate cannot be had for.
func (c *compiler) fitForACME(d *v1.Site, cert *v1.Certificate, index int) {
	for _, h := range d.Spec.Hostnames {
		if h == "*" {
			continue
		}
		if why := v1.UnfitForACME(h, cert.Spec.ACME); why != "" {
			c.problem(d, "spec.certificates["+strconv.Itoa(index)+"]", "of ACME does not fit the site's host names: "+why,
				"give that Certificate the challenge dns-01, or remove the wildcard")
		}
	}
}
