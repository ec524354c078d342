package balance

import (
	"bytes"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// hashOf is what consistent-hash hashes of x; 0 for other algorithms. A header or cookie that is
// absent makes way for the client.
func hashOf(x *stage.Exchange, spec *v1.OriginPoolSpec) uint64 {
	if spec.Algorithm != v1.ConsistentHash {
		return 0
	}
	var b []byte
	switch spec.Hash.On {
	case "path":
		b = x.Path
	case "header":
		b = x.In.Lookup(spec.Hash.Name)
	case "cookie":
		b = cookie(&x.In.Fields, spec.Hash.Name)
	}
	if len(b) > 0 {
		return hashBytes(b)
	}
	if x.Visitor.Key != 0 {
		return x.Visitor.Key
	}
	return clientHash(x.Client)
}

// cookie lends the value of a request cookie (RFC 6265 section 4.2.1), or nil.
func cookie(f *message.Fields, name string) []byte {
	for i := f.Next(message.Cookie, 0); i >= 0; i = f.Next(message.Cookie, i+1) {
		_, _, line := f.At(i)
		for len(line) > 0 {
			pair := line
			if j := bytes.IndexByte(line, ';'); j >= 0 {
				pair, line = line[:j], line[j+1:]
			} else {
				line = nil
			}
			pair = bytes.TrimLeft(pair, " \t")
			if len(pair) > len(name) && pair[len(name)] == '=' && string(pair[:len(name)]) == name {
				return pair[len(name)+1:]
			}
		}
	}
	return nil
}

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

// hashString is FNV-1a. It is the same on every edge, which consistent hashing needs.
func hashString(s string) uint64 {
	h := uint64(fnvOffset)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return h
}

func hashBytes(b []byte) uint64 {
	h := uint64(fnvOffset)
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return h
}
