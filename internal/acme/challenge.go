package acme

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	"github.com/mholt/acmez/v3/acme"

	v1 "github.com/relais-edge/relais/api/v1"
)

// challenges are the answers that authorities may come for: those of this edge in memory, those of
// others in the storage, as the authority may reach any edge.
type challenges struct {
	storage *certmagic.FileStorage

	mu   sync.Mutex
	mine map[string]acme.Challenge // by kind and token or host

	// Looks at the storage are bounded, because anybody can ask for a token.
	looks  atomic.Int64
	second atomic.Int64
}

const (
	// maxLooks bounds the looks at the storage for challenges of other edges, a second.
	maxLooks = 50
	maxToken = 256
)

func newChallenges(s *certmagic.FileStorage) *challenges {
	return &challenges{storage: s, mine: map[string]acme.Challenge{}}
}

func challengeKey(kind, id string) string { return kind + "/" + id }

func (c *challenges) file(kind, id string) string {
	return "acme/challenges/" + kind + "/" + certmagic.StorageKeys.Safe(id) + ".json"
}

func (c *challenges) put(ctx context.Context, kind, id string, ch acme.Challenge) error {
	c.mu.Lock()
	c.mine[challengeKey(kind, id)] = ch
	c.mu.Unlock()
	b, err := json.Marshal(ch)
	if err != nil {
		return err
	}
	return c.storage.Store(ctx, c.file(kind, id), b)
}

func (c *challenges) remove(ctx context.Context, kind, id string) error {
	c.mu.Lock()
	delete(c.mine, challengeKey(kind, id))
	c.mu.Unlock()
	return c.storage.Delete(ctx, c.file(kind, id))
}

// find finds a challenge; id comes from the network.
func (c *challenges) find(kind, id string) (acme.Challenge, bool) {
	c.mu.Lock()
	ch, ok := c.mine[challengeKey(kind, id)]
	c.mu.Unlock()
	if ok {
		return ch, true
	}
	if len(id) > maxToken || !c.mayLook(time.Now().Unix()) {
		return ch, false
	}
	b, err := c.storage.Load(context.Background(), c.file(kind, id)) // a file of this machine
	if err != nil || json.Unmarshal(b, &ch) != nil {
		return ch, false
	}
	if kind == v1.ChallengeHTTP01 && ch.Token != id || kind == v1.ChallengeTLSALPN01 && ch.Identifier.Value != id {
		return ch, false // Safe makes different names alike
	}
	return ch, true
}

func (c *challenges) mayLook(now int64) bool {
	if c.second.Swap(now) != now {
		c.looks.Store(0)
	}
	return c.looks.Add(1) <= maxLooks
}

// KeyAuthorization answers an HTTP-01 challenge (RFC 8555 section 8.3); false for a token that is
// none of ours.
func (i *Issuer) KeyAuthorization(token string) (string, bool) {
	if token == "" || len(token) > maxToken || strings.IndexFunc(token, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) >= 0 {
		return "", false
	}
	ch, ok := i.challenges.find(v1.ChallengeHTTP01, token)
	return ch.KeyAuthorization, ok
}

// ChallengeCertificate answers a TLS-ALPN-01 challenge (RFC 8737 section 3); nil for a host that
// has none.
func (i *Issuer) ChallengeCertificate(host string) *tls.Certificate {
	ch, ok := i.challenges.find(v1.ChallengeTLSALPN01, host)
	if !ok {
		return nil
	}
	cert, err := acmez.TLSALPN01ChallengeCert(ch)
	if err != nil {
		return nil
	}
	return cert
}

// solver keeps the answer where KeyAuthorization and ChallengeCertificate find it.
type solver struct {
	kind       string
	challenges *challenges
}

func (s *solver) id(ch acme.Challenge) string {
	if s.kind == v1.ChallengeHTTP01 {
		return ch.Token
	}
	return ch.Identifier.Value
}

// Present implements acmez.Solver.
func (s *solver) Present(ctx context.Context, ch acme.Challenge) error {
	return s.challenges.put(ctx, s.kind, s.id(ch), ch)
}

// CleanUp implements acmez.Solver.
func (s *solver) CleanUp(ctx context.Context, ch acme.Challenge) error {
	return s.challenges.remove(ctx, s.kind, s.id(ch))
}
