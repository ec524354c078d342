package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/bus"
)

const (
	renewTime  = 15 * time.Second // of one try
	lookEvery  = time.Minute      // at the wall clock, which may jump
	retryFirst = 5 * time.Second
	retryMost  = 5 * time.Minute
	issueTime  = 10 * time.Second
)

// renewAsk is what a PoP sends on bus.Renew, as JSON. It proves the key that it has as well as the one that it shall have,
// so that nothing rests on who may publish where.
type renewAsk struct {
	CSR       []byte `json:"csr"`       // DER, of the new key
	Chain     string `json:"chain"`     // PEM, its certificate of now
	Signature []byte `json:"signature"` // of that one's key, over renewDigest
}

func renewDigest(csr []byte) []byte {
	sum := sha256.Sum256(append([]byte("relais renew\x00"), csr...))
	return sum[:]
}

// Renewal answers PoPs that want a new certificate.
type Renewal struct {
	CA    func() *CA // that issues now
	Trust *Trust
	// Record keeps what was issued before it is given away, and refuses PoPs that shall have nothing any more.
	Record  func(ctx context.Context, issued Issued) error
	Welcome func(ctx context.Context, pop string) (Welcome, error)
	Audit   func(Event) // nil: nobody is told
}

// Handle answers a message on bus.Up("*", bus.Renew).
func (r *Renewal) Handle(m bus.Message) {
	if m.Respond == nil {
		return
	}
	pop, _ := strings.CutPrefix(m.Subject, "up.")
	pop, _ = strings.CutSuffix(pop, "."+bus.Renew)
	ctx, end := context.WithTimeout(context.Background(), issueTime)
	defer end()
	text, err := r.renew(ctx, pop, m.Data)
	if r.Audit != nil {
		r.Audit(Event{Action: "renew", Pop: pop, Err: err})
	}
	if err != nil {
		text, err = marshal(answer{Code: "failed", Error: err.Error()})
	}
	if err == nil {
		_ = m.Respond(text) // who hears nothing asks again
	}
}

func (r *Renewal) renew(ctx context.Context, pop string, data []byte) ([]byte, error) {
	var ask renewAsk
	if len(data) > maxAsk {
		return nil, fmt.Errorf("%w: it has more than %d bytes", ErrRequest, maxAsk)
	}
	if err := strict(data, &ask); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	certs, err := ParseCertificates([]byte(ask.Chain))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	id, err := r.Trust.Verify(certs)
	if err == nil {
		err = Is(Pop, pop)(id)
	}
	if err != nil {
		return nil, err
	}
	key, ok := certs[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || !ecdsa.VerifyASN1(key, renewDigest(ask.CSR), ask.Signature) {
		return nil, fmt.Errorf("%w: it does not prove that it has the key of its certificate", ErrRequest)
	}
	issued, err := r.CA().Issue(ask.CSR, id, 0)
	if err != nil {
		return nil, err
	}
	w, err := r.Welcome(ctx, pop)
	if err != nil {
		return nil, err
	}
	if err := r.Record(ctx, issued); err != nil {
		return nil, err
	}
	return marshal(answer{Chain: string(issued.Chain), Bundle: string(r.Trust.Bundle()), Welcome: w})
}

// Requester is what a PoP needs of its bus.
type Requester interface {
	Request(ctx context.Context, subject string, data []byte) ([]byte, error)
}

// Renew asks for a new certificate, with a new key, and gives the state that follows. It changes nothing by itself.
func Renew(ctx context.Context, over Requester, s State, now time.Time) (State, error) {
	certs, err := ParseCertificates([]byte(s.Chain))
	if err != nil {
		return State{}, fmt.Errorf("identity: %w", err)
	}
	id, err := Of(certs[0])
	if err != nil {
		return State{}, err
	}
	old, err := ParseKey([]byte(s.Key))
	if err != nil {
		return State{}, fmt.Errorf("identity: %w", err)
	}
	key, csr, err := NewRequest()
	if err != nil {
		return State{}, err
	}
	signature, err := ecdsa.SignASN1(rand.Reader, old, renewDigest(csr))
	if err != nil {
		return State{}, err
	}
	data, err := json.Marshal(renewAsk{CSR: csr, Chain: s.Chain, Signature: signature})
	if err != nil {
		return State{}, err
	}
	text, err := over.Request(ctx, bus.Up(id.Name, bus.Renew), data)
	if err != nil {
		return State{}, err
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return State{}, fmt.Errorf("the answer of the control plane cannot be read: %w", err)
	}
	if a.Error != "" {
		return State{}, a.failure()
	}
	next, err := accept(a, key, now, func(got Identity) error {
		if got != id {
			return fmt.Errorf("%w: this is for %s, and not for %s", ErrIdentity, got, id)
		}
		return nil
	})
	next.Token = s.Token
	return next, err
}

// Keeper keeps a machine's certificate young.
type Keeper struct {
	Dir         string
	Credentials *Credentials // of State.Open
	Over        Requester
	Renewed     func(State)  // called after each renewal; nil: nobody is told
	Log         *slog.Logger // nil: slog.Default
}

// Run renews at half of the certificate's life, until ctx ends: on the disk first, then in the credentials. While nobody
// answers it tries again and again; once a certificate has ended the bus lets nobody in with it, and only a new token helps.
func (k *Keeper) Run(ctx context.Context) {
	log := k.Log
	if log == nil {
		log = slog.Default()
	}
	for failures := 0; ; {
		wait := min(time.Until(k.due()), lookEvery)
		if failures > 0 {
			bound := min(retryFirst<<min(failures-1, 10), retryMost)
			wait = bound/2 + mathrand.N(bound/2)
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		if time.Until(k.due()) > 0 {
			failures = 0
			continue
		}
		if err := k.renew(ctx); err != nil && ctx.Err() == nil {
			failures++
			_, until, _ := k.Credentials.Life()
			log.Warn("the certificate was not renewed; it is tried again", "ends", until, "error", err)
			continue
		}
		failures = 0
	}
}

// due is when half of the life is over, which began after the part that is back-dated.
func (k *Keeper) due() time.Time {
	from, until, err := k.Credentials.Life()
	if err != nil {
		return time.Time{}
	}
	from = from.Add(backdate)
	return from.Add(until.Sub(from) / 2)
}

func (k *Keeper) renew(ctx context.Context) error {
	s, err := Load(k.Dir)
	if err != nil {
		return err
	}
	ctx, end := context.WithTimeout(ctx, renewTime)
	defer end()
	next, err := Renew(ctx, k.Over, s, time.Now())
	if err != nil {
		return err
	}
	if err := Save(k.Dir, next); err != nil {
		return err
	}
	if err := k.adopt(next); err != nil {
		return err
	}
	if k.Renewed != nil {
		k.Renewed(next)
	}
	return nil
}

func (k *Keeper) adopt(s State) error {
	trust := k.Credentials.Trust()
	if err := trust.SetBundle([]byte(s.Bundle)); err != nil {
		return err
	}
	if len(s.Revoked) > 0 {
		if err := trust.SetRevoked(s.Revoked); err != nil && !errors.Is(err, ErrOlder) {
			return err
		}
	}
	key, err := ParseKey([]byte(s.Key))
	if err != nil {
		return err
	}
	return k.Credentials.Set([]byte(s.Chain), key)
}
