package ratelimit

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// What a key is made of; also keeps keys of different kinds apart.
const (
	onClient = iota + 1
	onHeader
	onCookie
	onSite
)

// key finds what is counted apart in a request.
type key struct {
	on   uint64
	name string
	id   message.ID // of a header with a known name
}

func newKey(k v1.RateLimitKey) key {
	switch k.On {
	case "header":
		return key{on: onHeader, name: k.Name, id: message.KnownID([]byte(k.Name))}
	case "cookie":
		return key{on: onCookie, name: k.Name}
	case "site":
		return key{on: onSite}
	}
	return key{on: onClient}
}

// hash returns the key of x under a limit.
func (k *key) hash(seed maphash.Seed, limit uint64, x *stage.Exchange) uint64 {
	var v []byte
	switch k.on {
	case onSite:
		return mix(limit, onSite, 0)
	case onHeader:
		if k.id != message.Other {
			v = x.In.Get(k.id)
		} else {
			v = x.In.Lookup(k.name)
		}
	case onCookie:
		v = cookie(&x.In.Fields, k.name)
	}
	if len(v) > 0 {
		return mix(limit, k.on, maphash.Bytes(seed, v))
	}
	return mix(limit, onClient, clientHash(seed, x.Client))
}

// clientHash hashes an IPv4 address or an IPv6 /64. All requests without an address are one.
func clientHash(seed maphash.Seed, a netip.Addr) uint64 {
	var b [9]byte
	switch {
	case a.Is4() || a.Is4In6():
		v := a.As4()
		b[0] = 4
		copy(b[1:], v[:])
	case a.IsValid():
		v := a.As16()
		b[0] = 6
		copy(b[1:], v[:8])
	}
	return maphash.Bytes(seed, b[:])
}

// mix joins three numbers so that each bit of each counts; never 0.
func mix(limit, on, v uint64) uint64 {
	h := v + limit*0x9e3779b97f4a7c15 + on*0xd1342543de82ef95
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return (h ^ h>>31) | 1<<63
}

// limitHash hashes the name and the numbers of a limit.
func limitHash(seed maphash.Seed, site, name string, r *rate) uint64 {
	b := binary.AppendUvarint(nil, uint64(len(site)))
	b = append(b, site...)
	for _, n := range [...]uint64{uint64(r.requests), uint64(r.burst), uint64(r.step.ns), uint64(r.step.frac)} {
		b = binary.AppendUvarint(b, n)
	}
	return maphash.Bytes(seed, append(b, name...))
}

// cookie lends the value of the first cookie of that name (RFC 6265 section 5.4).
func cookie(f *message.Fields, name string) []byte {
	for i := f.Next(message.Cookie, 0); i >= 0; i = f.Next(message.Cookie, i+1) {
		_, _, line := f.At(i)
		for len(line) > 0 {
			for len(line) > 0 && (line[0] == ' ' || line[0] == ';' || line[0] == '\t') {
				line = line[1:]
			}
			end := 0
			for end < len(line) && line[end] != ';' {
				end++
			}
			if n := len(name); end > n && line[n] == '=' && string(line[:n]) == name {
				return line[n+1 : end]
			}
			line = line[end:]
		}
	}
	return nil
}
