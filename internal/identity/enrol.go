package identity

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// RetryTime is how long after a token was used the same key gets the same answer again: the first may have been lost.
const RetryTime = 5 * time.Minute

const (
	maxAsk    = 16 << 10 // bytes of a request to enrol or to renew
	maxAnswer = 2 << 20  // bytes of what is answered: the list of the revoked is the largest part
	maxSkew   = backdate // how wrong the clock of a machine may be that enrols

	perSource = 20  // requests to enrol of one address in a minute
	perMinute = 600 // of all together
)

// Redemption is a token that somebody shows.
type Redemption struct {
	ID   string
	Hash [sha256.Size]byte // of its secret
	Key  [sha256.Size]byte // of the public key that shall be certified: Pin
}

// Tokens keeps join tokens.
type Tokens interface {
	// Redeem burns a token and keeps what issue gives, in one transaction: where it fails, nothing was burnt, and nobody
	// may have the certificate. Issue is told the PoP's name, and gives the certificate and the answer to the machine. A
	// token that was burnt less than RetryTime ago by the same key gives the answer that was kept. Any other one that is
	// burnt, unknown, expired or of another hash is ErrToken.
	Redeem(ctx context.Context, r Redemption, issue func(pop string) (Issued, []byte, error)) (answer []byte, err error)
}

// Welcome is what a machine is told besides its certificate.
type Welcome struct {
	Addresses []string          `json:"addresses"`          // host:port of the bus
	Keys      map[string][]byte `json:"keys"`               // that sign manifests, by id: ed25519
	Revoked   []byte            `json:"revoked,omitempty"`  // CA.RevokedList
	Shared    []byte            `json:"shared,omitempty"`   // secret of all PoPs, by which keys of shared limits are hashed: 16 bytes
	Platform  string            `json:"platform,omitempty"` // organization whose listeners serve all sites
}

// Event is for the audit log.
type Event struct {
	Action string // enrol, renew
	Pop    string // empty: not known
	Token  string // id; of enrol
	Source string // address; of enrol
	Err    error  // nil: done
}

// Enrolment is the server at which machines enrol: POST /enrol, over TLS of Credentials.EnrolTLS.
type Enrolment struct {
	CA      func() *CA // that issues now
	Trust   *Trust
	Tokens  Tokens
	Welcome func(ctx context.Context, pop string) (Welcome, error)
	Audit   func(Event)      // nil: nobody is told
	Now     func() time.Time // nil: time.Now

	gate gate
}

// enrolAsk is what a machine sends, as JSON.
type enrolAsk struct {
	ID     string    `json:"id"`
	Secret []byte    `json:"secret"`
	CSR    []byte    `json:"csr"`  // DER
	Time   time.Time `json:"time"` // by the machine's clock
}

// answer is what it gets. One of Error and Chain is empty.
type answer struct {
	Error  string `json:"error,omitempty"`
	Code   string `json:"code,omitempty"` // of an error: token, clock, request, busy, failed
	Chain  string `json:"chain,omitempty"`
	Bundle string `json:"bundle,omitempty"`
	Welcome
}

// ServeHTTP implements http.Handler.
func (e *Enrolment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	source := sourceOf(r.RemoteAddr)
	if r.URL.Path != "/enrol" {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		http.Error(w, "POST alone", http.StatusMethodNotAllowed)
		return
	}
	if !e.gate.enter(source, e.now()) {
		w.Header().Set("Retry-After", "60")
		refuse(w, http.StatusTooManyRequests, "busy", "too many machines enrol, or this one too often; try again in a minute")
		return
	}
	var ask enrolAsk
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxAsk))
	if err == nil {
		err = strict(body, &ask)
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, "request", "the request is not one of relais pop join, or too long")
		return
	}
	pop, got, err := e.enrol(r.Context(), ask)
	if e.Audit != nil {
		e.Audit(Event{Action: "enrol", Pop: pop, Token: ask.ID, Source: source.String(), Err: err})
	}
	if err != nil {
		refuseError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(got) // a machine that is gone asks again
}

// clockSkew says that a machine's clock is wrong.
type clockSkew struct{ here, there time.Time }

func (e *clockSkew) Error() string {
	return fmt.Sprintf("the clock of this machine says %s, and that of the control plane %s: they differ by %s; set it (NTP), the token is still good",
		e.there.UTC().Format(time.RFC3339), e.here.UTC().Format(time.RFC3339), e.here.Sub(e.there).Abs().Round(time.Second))
}

func (e *Enrolment) enrol(ctx context.Context, ask enrolAsk) (pop string, got []byte, err error) {
	now := e.now()
	if now.Sub(ask.Time).Abs() > maxSkew {
		return "", nil, &clockSkew{now, ask.Time}
	}
	key, err := keyOf(ask.CSR)
	if err != nil {
		return "", nil, err
	}
	got, err = e.Tokens.Redeem(ctx, Redemption{ID: ask.ID, Hash: sha256.Sum256(ask.Secret), Key: key}, func(name string) (Issued, []byte, error) {
		pop = name
		ca := e.CA()
		issued, err := ca.Issue(ask.CSR, Identity{Domain: ca.Domain(), Kind: Pop, Name: name}, 0)
		if err != nil {
			return Issued{}, nil, err
		}
		w, err := e.Welcome(ctx, name)
		if err != nil {
			return Issued{}, nil, err
		}
		text, err := marshal(answer{Chain: string(issued.Chain), Bundle: string(e.Trust.Bundle()), Welcome: w})
		return issued, text, err
	})
	return pop, got, err
}

// keyOf is the pin of the key that a request is for; the proof is looked at here too, as the
// answer to a retry is not issued again.
func keyOf(csr []byte) ([sha256.Size]byte, error) {
	r, err := parseRequest(csr)
	if err != nil {
		return [sha256.Size]byte{}, err
	}
	if err := r.CheckSignature(); err != nil {
		return [sha256.Size]byte{}, fmt.Errorf("%w: it does not prove that it has its key: %w", ErrRequest, err)
	}
	return Pin(r.PublicKey)
}

func marshal(a answer) ([]byte, error) {
	b, err := json.Marshal(a)
	if err == nil && len(b) > maxAnswer {
		err = fmt.Errorf("identity: an answer has %d bytes, and %d are the most", len(b), maxAnswer)
	}
	return b, err
}

func refuseError(w http.ResponseWriter, err error) {
	var skew *clockSkew
	switch {
	case errors.As(err, &skew):
		refuse(w, http.StatusConflict, "clock", skew.Error())
	case errors.Is(err, ErrToken):
		refuse(w, http.StatusForbidden, "token", ErrToken.Error())
	case errors.Is(err, ErrRequest):
		refuse(w, http.StatusBadRequest, "request", err.Error())
	default: // it may tell of the inside
		refuse(w, http.StatusServiceUnavailable, "failed", "the control plane cannot enrol anybody now; try again, the token is still good")
	}
}

func refuse(w http.ResponseWriter, status int, code, why string) {
	b, err := json.Marshal(answer{Code: code, Error: why})
	if err != nil {
		b = []byte("{}")
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(b) // who is gone needs no reason
}

func (e *Enrolment) now() time.Time {
	if e.Now != nil {
		return e.Now()
	}
	return time.Now()
}

// sourceOf is whose requests are counted together: an IPv4 address, or the /64 of an IPv6 address.
func sourceOf(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	p, err := a.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return p
}

// gate counts requests by the minute. All together are so few that its table needs no bound of its own.
type gate struct {
	mu    sync.Mutex
	began time.Time
	all   int
	by    map[netip.Prefix]int
}

func (g *gate) enter(source netip.Prefix, now time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if age := now.Sub(g.began); age < 0 || age >= time.Minute {
		g.began, g.all, g.by = now, 0, map[netip.Prefix]int{}
	}
	if g.all >= perMinute || g.by[source] >= perSource {
		return false
	}
	g.all++
	g.by[source]++
	return true
}
