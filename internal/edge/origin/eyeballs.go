package origin

import (
	"context"
	"net"
	"net/netip"
	"time"
)

const (
	// attemptDelay is the time that one address has before the next is tried beside it (RFC 8305 section 5).
	attemptDelay = 250 * time.Millisecond
	// resolutionDelay is the time that is waited for addresses of IPv6 when those of IPv4 are there (RFC 8305
	// section 3).
	resolutionDelay = 50 * time.Millisecond
	// maxAddresses bounds the addresses that are tried for one connection.
	maxAddresses = 16
)

// dialTCP opens a connection to the endpoint's address. A name's addresses are raced as RFC 8305 says, so
// that one that does not answer costs a quarter of a second and not the time to connect.
func (e *endpoint) dialTCP(ctx context.Context) (net.Conn, error) {
	host, port, err := net.SplitHostPort(e.address)
	if err != nil {
		return nil, err
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return e.dialer.DialContext(ctx, "tcp", e.address)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := race{found: make(chan answer, 2), ended: make(chan attempt)}
	for _, family := range [...]string{"ip6", "ip4"} {
		go func() {
			addrs, err := e.dialer.Resolver.LookupNetIP(ctx, family, host)
			r.found <- answer{family == "ip6", addrs, err}
		}()
	}
	return r.run(ctx, func(a netip.Addr) (net.Conn, error) {
		return e.dialer.DialContext(ctx, "tcp", net.JoinHostPort(a.Unmap().String(), port))
	})
}

// answer is what DNS says for one family, attempt how the way to one address ended.
type answer struct {
	six   bool
	addrs []netip.Addr
	err   error
}

type attempt struct {
	nc  net.Conn
	err error
}

// race is the state of a connection to a name that is being opened.
type race struct {
	found chan answer
	ended chan attempt

	v6, v4   []netip.Addr // not tried yet
	asked    int          // families that DNS has not answered for
	six      bool         // of these, IPv6
	last     bool         // the last tried was of IPv6
	tried    int
	underWay int
	err      error // the first failure of an attempt
	dns      error // the first failure of DNS
}

// run tries addresses until one answers, DNS and all addresses have failed, or ctx ends.
func (r *race) run(ctx context.Context, dial func(netip.Addr) (net.Conn, error)) (net.Conn, error) {
	r.asked, r.six = 2, true
	next := time.NewTimer(0)
	defer next.Stop()
	<-next.C
	ready := false // the time of the last attempt is over, or there was none
	for {
		if ready || r.underWay == 0 && r.may() {
			if a, ok := r.take(); ok {
				ready = false
				r.underWay++
				go func() {
					nc, err := dial(a)
					select {
					case r.ended <- attempt{nc, err}:
					case <-ctx.Done():
						if nc != nil {
							_ = nc.Close()
						}
					}
				}()
				next.Reset(attemptDelay)
			}
		}
		if r.asked == 0 && r.underWay == 0 && len(r.v4)+len(r.v6) == 0 {
			return nil, r.failure()
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case a := <-r.found:
			if r.take4or6(a); r.underWay == 0 && !r.may() && len(r.v4) > 0 {
				next.Reset(resolutionDelay)
			}
		case a := <-r.ended:
			if r.underWay--; a.err == nil {
				return a.nc, nil
			}
			if r.err == nil {
				r.err = a.err
			}
			ready = true // who fails at once costs no time
		case <-next.C:
			ready = true
		}
	}
}

// take4or6 takes what DNS says for one family.
func (r *race) take4or6(a answer) {
	r.asked--
	if a.err != nil && r.dns == nil {
		r.dns = a.err
	}
	addrs := a.addrs[:min(len(a.addrs), maxAddresses/2)]
	if a.six {
		r.v6, r.six = addrs, false
	} else {
		r.v4 = addrs
	}
}

// may says whether a first attempt can be made without a wait for IPv6.
func (r *race) may() bool { return len(r.v6) > 0 || len(r.v4) > 0 && !r.six }

// take takes the next address: IPv6 first, then the families in turn (RFC 8305 section 4).
func (r *race) take() (a netip.Addr, ok bool) {
	six := len(r.v6) > 0 && (len(r.v4) == 0 || !r.last)
	switch {
	case six:
		a, r.v6 = r.v6[0], r.v6[1:]
	case len(r.v4) > 0:
		a, r.v4 = r.v4[0], r.v4[1:]
	default:
		return a, false
	}
	r.last = six
	r.tried++
	return a, true
}

func (r *race) failure() error {
	switch {
	case r.err != nil:
		return r.err
	case r.dns != nil:
		return r.dns
	}
	return &net.DNSError{Err: errNoAddress.Error(), IsNotFound: true}
}
