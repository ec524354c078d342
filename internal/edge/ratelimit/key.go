package ratelimit

import (
	"bytes"
	"cmp"
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
	onNetwork
	onToken
	onPath
	onJSON
	onBasket // a visitor with a basket, under the ceiling of those that are spared
)

// key finds what is counted apart in a request, or a part of that.
type key struct {
	on     uint64
	name   string
	id     message.ID // of a header with a known name
	v4, v6 int        // bits of networks
}

// newKeys compiles the parts of a key; without a list it is the one key.
func newKeys(one v1.RateLimitKey, list []v1.RateLimitKey) []key {
	if len(list) == 0 {
		return []key{newKey(one)}
	}
	keys := make([]key, len(list))
	for i, k := range list {
		keys[i] = newKey(k)
	}
	return keys
}

func newKey(k v1.RateLimitKey) key {
	switch k.On {
	case "header":
		return key{on: onHeader, name: k.Name, id: message.KnownID([]byte(k.Name))}
	case "cookie":
		return key{on: onCookie, name: k.Name}
	case "site":
		return key{on: onSite}
	case "network":
		return key{on: onNetwork, v4: cmp.Or(k.IPv4, 24), v6: cmp.Or(k.IPv6, 48)}
	case "token":
		return key{on: onToken, id: message.Authorization}
	case "path":
		return key{on: onPath}
	case "json":
		return key{on: onJSON, name: k.Name}
	}
	return key{on: onClient}
}

// hasher hashes values: with a seed of this process, or, for limits that edges share, with the secret that they share.
type hasher struct {
	seed   maphash.Seed
	secret *[2]uint64
}

func (h *hasher) bytes(b []byte) uint64 {
	if h.secret != nil {
		return sipHash(h.secret, b)
	}
	return maphash.Bytes(h.seed, b)
}

// hashKeys returns the key of x under a limit. Fields are those of a JSON body, by the index of the part.
func hashKeys(keys []key, h *hasher, limit uint64, x *stage.Exchange, fields [][]byte) uint64 {
	out := limit
	for i := range keys {
		var field []byte
		if i < len(fields) {
			field = fields[i]
		}
		out = keys[i].hash(h, out, x, field)
	}
	return out
}

// hash returns limit joined with what the part finds in x.
func (k *key) hash(h *hasher, limit uint64, x *stage.Exchange, field []byte) uint64 {
	var v []byte
	switch k.on {
	case onSite:
		return mix(limit, onSite, 0)
	case onNetwork:
		return mix(limit, onNetwork, addressHash(h, x.Client, k.v4, k.v6))
	case onPath:
		path := x.Path
		if m := x.Merged(); m != nil {
			path = m // more slashes are no other path
		}
		return mix(limit, onPath, h.bytes(path))
	case onHeader, onToken:
		if k.id != message.Other {
			v = x.In.Get(k.id)
		} else {
			v = x.In.Lookup(k.name)
		}
		if k.on == onToken {
			v = bearer(v)
		}
	case onCookie:
		v = cookie(&x.In.Fields, k.name)
	case onJSON:
		v = field
	}
	if len(v) > 0 {
		return mix(limit, k.on, h.bytes(v))
	}
	return mix(limit, onClient, addressHash(h, x.Client, 32, 64))
}

// bearer lends the token of Authorization: Bearer (RFC 6750 section 2.1), or of another scheme all that follows it.
func bearer(v []byte) []byte {
	if i := bytes.IndexByte(v, ' '); i > 0 {
		return bytes.TrimLeft(v[i:], " ")
	}
	return v
}

// addressHash hashes the first bits of an address. All requests without one are one.
func addressHash(h *hasher, a netip.Addr, v4, v6 int) uint64 {
	var b [17]byte
	n, bits := 0, 0
	switch {
	case a.Is4() || a.Is4In6():
		v := a.As4()
		b[0] = 4
		copy(b[1:], v[:])
		n, bits = 4, v4
	case a.IsValid():
		v := a.As16()
		b[0] = 6
		copy(b[1:], v[:])
		n, bits = 16, v6
	}
	for i := range n {
		switch left := bits - i*8; {
		case left <= 0:
			b[1+i] = 0
		case left < 8:
			b[1+i] &= ^byte(0xff >> left)
		}
	}
	return h.bytes(b[:])
}

// mix joins three numbers so that each bit of each counts; never 0.
func mix(limit, on, v uint64) uint64 {
	h := v + limit*0x9e3779b97f4a7c15 + on*0xd1342543de82ef95
	h = (h ^ h>>30) * 0xbf58476d1ce4e5b9
	h = (h ^ h>>27) * 0x94d049bb133111eb
	return (h ^ h>>31) | 1<<63
}

// limitHash hashes the name and the numbers of a limit.
func limitHash(h *hasher, site, name string, r *rate) uint64 {
	b := binary.AppendUvarint(nil, uint64(len(site)))
	b = append(b, site...)
	for _, n := range [...]uint64{uint64(r.requests), uint64(r.burst), uint64(r.step.ns), uint64(r.step.frac)} {
		b = binary.AppendUvarint(b, n)
	}
	return h.bytes(append(b, name...))
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
