package claim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/control/egress"
)

// Where a proof is looked for.
const (
	txtLabel = "_relais-challenge." // before the domain
	txtValue = "relais-verification="
	httpPath = "/.well-known/relais-challenge/"
)

// Bounds of a look.
const (
	probeTime = 10 * time.Second
	maxProof  = 4 << 10 // bytes that are read of an answer
	maxHops   = 3
)

// Resolver looks up TXT records. A name that has none gives an error that errors.As finds to be *net.DNSError with
// IsNotFound; every other error says nothing of whether the proof is there.
type Resolver interface {
	LookupTXT(ctx context.Context, name string) ([]string, error)
}

// Fetcher gets a URL over plain HTTP and gives status and the first bytes of the answer.
type Fetcher interface {
	Fetch(ctx context.Context, url string) (status int, body []byte, err error)
}

// finding is what a look for a proof says.
type finding int

const (
	unknown finding = iota // nobody answered
	gone
	there
)

// probe looks for the proof of a claim.
func probe(ctx context.Context, dns Resolver, web Fetcher, n Name, method Method, proof string) finding {
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	if method == DNS {
		list, err := dns.LookupTXT(ctx, txtLabel+n.Domain+".")
		var missing *net.DNSError
		switch {
		case err == nil:
		case errors.As(err, &missing) && missing.IsNotFound:
			return gone
		default:
			return unknown
		}
		for _, t := range list {
			if strings.TrimSpace(t) == txtValue+proof {
				return there
			}
		}
		return gone
	}
	status, body, err := web.Fetch(ctx, "http://"+n.Domain+httpPath+proof)
	switch {
	case err != nil || status >= 500 || status == http.StatusTooManyRequests:
		return unknown
	case status == http.StatusOK && strings.TrimSpace(string(body)) == proof:
		return there
	}
	return gone
}

// Web is the Fetcher for the public Internet: it reaches no address that is not, follows redirects on the same host only,
// and reads a few bytes.
type Web struct{ client *http.Client }

// NewWeb makes a Web. Allowed says which addresses may be asked beside public ones; nil: none.
func NewWeb(allowed func(netip.Addr) bool) *Web {
	return &Web{&http.Client{
		Timeout:   probeTime,
		Transport: egress.Transport(allowed, probeTime),
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) >= maxHops || r.URL.Hostname() != via[0].URL.Hostname() {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}}
}

// Fetch implements Fetcher.
func (w *Web) Fetch(ctx context.Context, url string) (status int, body []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, fmt.Errorf("claim: %w", err)
	}
	r.Header.Set("User-Agent", "relais")
	a, err := w.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer a.Body.Close()
	body, err = io.ReadAll(io.LimitReader(a.Body, maxProof))
	return a.StatusCode, body, err
}
