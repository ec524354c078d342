package origin

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"

	v1 "github.com/relais-edge/relais/api/v1"
)

// resolverOf asks these DNS servers in turn; without any, those of the system.
func resolverOf(servers []string) *net.Resolver {
	if len(servers) == 0 {
		return net.DefaultResolver
	}
	var turn atomic.Uint32
	turn.Store(rand.Uint32())
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, servers[turn.Add(1)%uint32(len(servers))])
	}}
}

// Resolve looks up an origin with expand, or with srv (RFC 2782): each of what it returns has an address,
// and of SRV records a weight.
func (h *Handler) Resolve(ctx context.Context, o *v1.Origin, resolvers []string) ([]v1.Origin, error) {
	r := resolverOf(resolvers)
	if o.SRV != "" {
		return lookupSRV(ctx, r, o.SRV)
	}
	host, port, err := net.SplitHostPort(o.Address)
	if err != nil {
		return nil, fmt.Errorf("origin %q is not host:port: %w", o.Address, err)
	}
	addrs, err := r.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil, err
	}
	var list []v1.Origin
	for _, a := range addrs {
		address := net.JoinHostPort(a.Unmap().String(), port)
		if !slices.ContainsFunc(list, func(o v1.Origin) bool { return o.Address == address }) {
			list = append(list, v1.Origin{Address: address})
		}
	}
	return list, nil
}

// maxWeight is the largest weight that a document allows.
const maxWeight = 1000

func lookupSRV(ctx context.Context, r *net.Resolver, name string) ([]v1.Origin, error) {
	_, records, err := r.LookupSRV(ctx, "", "", name)
	if len(records) == 0 {
		return nil, err
	}
	first, heaviest := records[0].Priority, 1
	for _, s := range records {
		first = min(first, s.Priority)
	}
	for _, s := range records {
		if s.Priority == first {
			heaviest = max(heaviest, int(s.Weight))
		}
	}
	var list []v1.Origin
	for _, s := range records {
		target := strings.TrimSuffix(s.Target, ".")
		if s.Priority != first || target == "" || s.Port == 0 { // a target of "." says that there is none
			continue
		}
		w := int(s.Weight)
		if heaviest > maxWeight {
			w = w * maxWeight / heaviest
		}
		// Weight 0 is for records without a choice, or such a small one.
		list = append(list, v1.Origin{Address: net.JoinHostPort(target, strconv.Itoa(int(s.Port))), Weight: new(max(1, w))})
	}
	return list, nil
}

var errNoAddress = errors.New("no such host")
