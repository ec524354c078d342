package bots

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/budget"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

// part is what the stage made of a site: the policy of each route, nil where there is none.
type part struct {
	routes  []*policy
	hash    uint64
	metrics [outCount]observe.Counter
}

// policy is a compiled BotPolicy. It does not change.
type policy struct {
	gate      stage.Gate
	verified  []verified
	keys      map[string]key // by thumbprint
	honeypots []stage.Scope
	honeyTime time.Duration
	prints    []string
	ask, deny int
}

// verified is a program that is welcome once it has proved who it is.
type verified struct {
	name     string
	agent    string // in lower case
	networks []netip.Prefix
	domains  []string
}

// key is a public key with whose it is.
type key struct {
	bot    string
	public ed25519.PublicKey
}

// Bounds of files of addresses.
const (
	maxFile     = 8 << 20
	maxNetworks = 100_000
)

// Compile implements stage.Compiler. It reads the files that the documents name.
func (s *Stage) Compile(site *snapshot.Site, _ stage.Part) (stage.Part, error) {
	if len(site.Spec.Bots) == 0 {
		return nil, nil
	}
	pt := &part{routes: make([]*policy, len(site.Routes)), hash: budget.Fold([]byte(site.Key))}
	named := map[string]*policy{}
	for i := range site.Routes {
		n := site.Routes[i].Spec.Bots
		if n == "" {
			continue
		}
		p := named[n]
		if p == nil {
			spec := site.Spec.Bots[n]
			if spec == nil {
				return nil, fmt.Errorf("bots: site %s names BotPolicy %s, which the bundle does not hold", site.Key, n)
			}
			var err error
			if p, err = compile(spec); err != nil {
				return nil, fmt.Errorf("bots: site %s: BotPolicy %s: %w", site.Key, n, err)
			}
			named[n] = p
		}
		pt.routes[i] = p
	}
	for i, o := range outcomes {
		pt.metrics[i] = s.counter.With(string(site.Key), o)
	}
	return pt, nil
}

func compile(spec *v1.BotPolicySpec) (*policy, error) {
	p := &policy{gate: stage.NewGate(spec.Protection), honeyTime: spec.HoneypotTime.Std(), prints: spec.Fingerprints, ask: spec.ChallengeFrom, deny: spec.DenyFrom}
	for _, h := range spec.Honeypots {
		p.honeypots = append(p.honeypots, stage.NewScope(h, nil))
	}
	for i := range spec.Verified {
		b := &spec.Verified[i]
		v := verified{name: b.Name, agent: strings.ToLower(b.UserAgent)}
		for _, d := range b.Domains {
			v.domains = append(v.domains, strings.ToLower(d))
		}
		for _, t := range b.Addresses {
			n, err := network(t)
			if err != nil {
				return nil, fmt.Errorf("verified[%d].addresses: %w", i, err)
			}
			v.networks = append(v.networks, n)
		}
		for _, path := range b.AddressFiles {
			list, err := readAddresses(path)
			if err != nil {
				return nil, fmt.Errorf("verified[%d].addressFiles: %w", i, err)
			}
			v.networks = append(v.networks, list...)
		}
		for _, x := range b.Keys {
			raw, err := base64.RawURLEncoding.DecodeString(x)
			if err != nil || len(raw) != ed25519.PublicKeySize {
				return nil, fmt.Errorf("verified[%d].keys: %q is no Ed25519 public key", i, x)
			}
			if p.keys == nil {
				p.keys = map[string]key{}
			}
			p.keys[thumbprint(x)] = key{b.Name, raw}
		}
		p.verified = append(p.verified, v)
	}
	return p, nil
}

func network(t string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(t)
	if err == nil {
		return n.Masked(), nil
	}
	a, err := netip.ParseAddr(t)
	if err != nil {
		return n, fmt.Errorf("%q is no network and no address", t)
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}

// readAddresses reads a file of networks: one a line, where # begins a comment, or JSON as search engines publish it.
func readAddresses(path string) ([]netip.Prefix, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(b) > maxFile {
		return nil, fmt.Errorf("%s is longer than %d bytes", path, maxFile)
	}
	var list []string
	if t := bytes.TrimSpace(b); len(t) > 0 && t[0] == '{' {
		var published struct {
			Prefixes []struct {
				V4 string `json:"ipv4Prefix"`
				V6 string `json:"ipv6Prefix"`
			} `json:"prefixes"`
		}
		if err := json.Unmarshal(t, &published); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, e := range published.Prefixes {
			list = append(list, e.V4+e.V6)
		}
	} else {
		for l := range strings.Lines(string(b)) {
			l, _, _ = strings.Cut(l, "#")
			if l = strings.TrimSpace(l); l != "" {
				list = append(list, l)
			}
		}
	}
	if len(list) == 0 || len(list) > maxNetworks {
		return nil, fmt.Errorf("%s holds %d networks; give from 1 to %d", path, len(list), maxNetworks)
	}
	out := make([]netip.Prefix, 0, len(list))
	for _, t := range list {
		n, err := network(t)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		out = append(out, n)
	}
	return out, nil
}
