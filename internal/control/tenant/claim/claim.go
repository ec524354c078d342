// Package claim is which organization a host name belongs to. A name works once its owner has proved it, by a TXT record or
// a page, and as long as the proof is found again. No two organizations have names of which some host is both's.
package claim

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

const (
	// Kind is the kind of claims, in the organization that makes them.
	Kind = "HostnameClaim"
	// Topic is the topic of messages that tell of names that begin or cease to work.
	Topic = "hostname"
	// index is the organization that holds who has which name: kind Hostname, names from the last label to the first.
	index     = tenant.HostnamesOrganization
	kindIndex = "Hostname"
)

// Method is how a name is proved.
type Method string

// The methods.
const (
	DNS  Method = "dns"
	HTTP Method = "http"
)

// State is how far a claim is.
type State string

// The states.
const (
	Pending State = "pending" // not proved yet: it works not, and keeps nobody away
	Active  State = "active"
	Failing State = "failing" // it works, its proof is not found, and it will lapse
	Lapsed  State = "lapsed"  // it works no more; a proof brings it back, unless another has the name
)

// Claim is an organization's claim to a name.
type Claim struct {
	Name    string    `json:"name"`
	Method  Method    `json:"method"`
	Proof   string    `json:"proof"` // what must be found; it is of this organization, this name and this claim alone
	State   State     `json:"state"`
	Since   time.Time `json:"since"`             // of the state
	Unheard bool      `json:"unheard,omitempty"` // failing because nobody answers
}

// Record is the name and what a TXT record there must hold.
func (c Claim) Record() (name, value string) {
	n, err := ParseName(c.Name)
	if err != nil {
		return "", ""
	}
	return txtLabel + n.Domain + ".", txtValue + c.Proof
}

// Page is the URL and what it must answer.
func (c Claim) Page() (url, body string) {
	n, err := ParseName(c.Name)
	if err != nil {
		return "", ""
	}
	return "http://" + n.Domain + httpPath + c.Proof, c.Proof
}

// TakenError says that the name, or one that overlaps it, belongs to another organization.
type TakenError struct{ Name string }

// Error does not say to which.
func (e *TakenError) Error() string {
	return e.Name + " is not free: another organization has proved it, or a name of which some host is both's"
}

// ErrNoProof says that the proof was looked for and not found.
var ErrNoProof = errors.New("the proof was not found")

// Notice is the payload of a message of Topic.
type Notice struct {
	Name         string `json:"name"`
	Organization string `json:"organization"`
	State        State  `json:"state"`
}

// Config is what a Service is made of. Zero durations take their defaults.
type Config struct {
	Store    tenant.Store
	Tenant   *tenant.Service
	DNS      Resolver
	Web      Fetcher
	Recheck  time.Duration // between two looks at a claim in force; 24 h
	Grace    time.Duration // from the first look that finds no proof until the claim lapses; 72 h
	Unheard  time.Duration // the same where nobody answers; 14 days
	Parallel int           // looks at a time; 16
}

// Service keeps claims.
type Service struct{ Config }

// New makes a Service.
func New(c Config) *Service {
	def := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&c.Recheck, 24*time.Hour)
	def(&c.Grace, 72*time.Hour)
	def(&c.Unheard, 14*24*time.Hour)
	if c.Parallel <= 0 {
		c.Parallel = 16
	}
	return &Service{c}
}

func claimKey(org string, n Name) store.Key {
	return store.Key{Organization: org, Kind: Kind, Name: n.String()}
}

func indexKey(n Name) store.Key {
	return store.Key{Organization: index, Kind: kindIndex, Name: n.reversed()}
}

// holder is a document of the index.
type holder struct {
	Organization string `json:"organization"`
	Name         string `json:"name"`
	Method       Method `json:"method"`
}

// Create makes a claim, which is pending until Prove finds its proof. Anybody may claim anything: that costs the owner
// nothing. A claim that is there is given as it is, unless its method is another.
func (s *Service) Create(ctx context.Context, actor tenant.Actor, org, name string, method Method) (c Claim, err error) {
	n, err := ParseName(name)
	if err != nil {
		return c, err
	}
	if method != DNS && (method != HTTP || n.Wildcard) {
		return c, fmt.Errorf("%w: %s is proved by dns, and names without a star by http too", ErrName, n)
	}
	err = s.Tenant.Change(ctx, actor, org, "hostname.claim", n.String(), nil, func(tx *store.Tx) error {
		if err := s.authorize(ctx, tx, actor, tenant.VerbWrite, org); err != nil {
			return err
		}
		revision, err := read(ctx, &tx.Reader, claimKey(org, n), &c)
		switch {
		case errors.Is(err, store.ErrNotFound):
			if _, err := tenant.Use(ctx, tx, org, tenant.MetricHostnames, 1); err != nil {
				return err
			}
		case err != nil:
			return err
		case c.Method == method || c.State == Active || c.State == Failing:
			return nil
		}
		sum := sha256.Sum256([]byte(auth.NewSecret() + "\x00" + org + "\x00" + n.String()))
		c = Claim{Name: n.String(), Method: method, Proof: base64.RawURLEncoding.EncodeToString(sum[:]), State: Pending, Since: tx.Now()}
		return write(ctx, tx, claimKey(org, n), c, store.Expect(revision))
	})
	return c, err
}

// Prove looks for the proof, and puts the name in force: *TakenError where another organization has it, ErrNoProof where
// the proof is not there. Who stands in the way is looked at again: where its proof is gone, it lapses at once.
func (s *Service) Prove(ctx context.Context, actor tenant.Actor, org, name string) (c Claim, err error) {
	n, err := ParseName(name)
	if err != nil {
		return c, err
	}
	err = s.Store.View(ctx, func(r *store.Reader) error {
		if err := s.Tenant.Authorize(ctx, r, actor, tenant.Access{Verb: tenant.VerbWrite, Kind: Kind, Organization: org}); err != nil {
			return err
		}
		_, err := read(ctx, r, claimKey(org, n), &c)
		return err
	})
	if err != nil {
		return c, s.Tenant.Denied(ctx, actor, org, "hostname.prove", n.String(), err)
	}
	if f := probe(ctx, s.DNS, s.Web, n, c.Method, c.Proof); f != there {
		return c, fmt.Errorf("%s: %w", n, ErrNoProof)
	}
	if err := s.contest(ctx, org, n); err != nil {
		return c, err
	}
	err = s.Tenant.Change(ctx, actor, org, "hostname.prove", n.String(), nil, func(tx *store.Tx) error {
		if err := s.authorize(ctx, tx, actor, tenant.VerbWrite, org); err != nil {
			return err
		}
		looked := c
		if _, err := read(ctx, &tx.Reader, claimKey(org, n), &c); err != nil {
			return err
		}
		if c.Proof != looked.Proof || c.Method != looked.Method {
			return fmt.Errorf("%s: %w: the claim was made anew meanwhile", n, ErrNoProof)
		}
		return s.activate(ctx, tx, org, n, &c)
	})
	return c, err
}

// activate puts a name in force in the transaction that sees that nobody else has it.
func (s *Service) activate(ctx context.Context, tx *store.Tx, org string, n Name, c *Claim) error {
	others, err := rivals(ctx, &tx.Reader, org, n)
	if err != nil {
		return err
	}
	if len(others) > 0 {
		return &TakenError{n.String()}
	}
	if c.Method == HTTP {
		if owner, err := provedAbove(ctx, &tx.Reader, org, n); err != nil || owner {
			return errors.Join(err, parentError(owner, n))
		}
	}
	was := c.State
	c.State, c.Unheard = Active, false
	if was != Active {
		c.Since = tx.Now()
	}
	if err := write(ctx, tx, claimKey(org, n), *c, store.Any); err != nil {
		return err
	}
	if err := write(ctx, tx, indexKey(n), holder{org, n.String(), c.Method}, store.Any); err != nil {
		return err
	}
	if was == Active || was == Failing {
		return nil
	}
	return tell(ctx, tx, org, n, Active)
}

func parentError(owner bool, n Name) error {
	if !owner {
		return nil
	}
	return fmt.Errorf("%w: a domain above %s is another organization's; prove it by dns", ErrNoProof, n)
}

// rivals lists the names in force of other organizations of which some host is n's too.
func rivals(ctx context.Context, r *store.Reader, org string, n Name) (list []holder, err error) {
	look := func(d store.Document) error {
		var h holder
		if err := decode(d, &h); err != nil {
			return err
		}
		o, err := ParseName(h.Name)
		if err != nil {
			return err
		}
		if h.Organization != org && o.overlaps(n) {
			list = append(list, h)
		}
		return nil
	}
	// Above: the name itself, and wildcards of its parents.
	keys := []store.Key{indexKey(Name{n.Domain, n.Wildcard})}
	for _, d := range n.above() {
		keys = append(keys, indexKey(Name{d, true}))
	}
	for _, k := range keys {
		d, err := r.Get(ctx, k)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err == nil {
			err = look(d)
		}
		if err != nil {
			return nil, err
		}
	}
	if !n.Wildcard {
		return list, nil
	}
	// Below: all names that begin with its labels. One rival is enough, so it ends at the first page that has any.
	q := store.Query{Organization: index, Kind: kindIndex, Prefix: Name{n.Domain, false}.reversed()}
	for {
		p, err := r.List(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, d := range p.Documents {
			if err := look(d); err != nil {
				return nil, err
			}
		}
		if q.Cursor = p.Next; q.Cursor == "" || len(list) > 0 {
			return list, nil
		}
	}
}

// provedAbove says whether another organization proved a domain above n by DNS: then a page is not proof enough, because
// who left a name pointing to somewhere else has not given it away.
func provedAbove(ctx context.Context, r *store.Reader, org string, n Name) (bool, error) {
	for _, d := range n.above() {
		for _, wildcard := range []bool{false, true} {
			var h holder
			_, err := read(ctx, r, indexKey(Name{d, wildcard}), &h)
			switch {
			case errors.Is(err, store.ErrNotFound):
			case err != nil:
				return false, err
			case h.Organization != org && h.Method == DNS:
				return true, nil
			}
		}
	}
	return false, nil
}

// contest looks at the proofs of those who stand in the way of one that proved his.
func (s *Service) contest(ctx context.Context, org string, n Name) error {
	var list []holder
	err := s.Store.View(ctx, func(r *store.Reader) (err error) {
		list, err = rivals(ctx, r, org, n)
		return err
	})
	if err != nil {
		return err
	}
	for _, h := range list[:min(len(list), 100)] {
		o, err := ParseName(h.Name)
		if err != nil {
			return err
		}
		if err := s.look(ctx, nil, h.Organization, o, true); err != nil {
			return err
		}
	}
	return nil
}

// Release ends a claim.
func (s *Service) Release(ctx context.Context, actor tenant.Actor, org, name string) error {
	n, err := ParseName(name)
	if err != nil {
		return err
	}
	return s.Tenant.Change(ctx, actor, org, "hostname.release", n.String(), nil, func(tx *store.Tx) error {
		if err := s.authorize(ctx, tx, actor, tenant.VerbDelete, org); err != nil {
			return err
		}
		if _, err := tx.Get(ctx, claimKey(org, n)); err != nil {
			return err
		}
		if err := s.unindex(ctx, tx, org, n); err != nil {
			return err
		}
		if _, err := tenant.Use(ctx, tx, org, tenant.MetricHostnames, -1); err != nil {
			return err
		}
		return tx.Delete(ctx, claimKey(org, n), store.Any)
	})
}

// unindex takes a name out of force, where it is this organization's.
func (s *Service) unindex(ctx context.Context, tx *store.Tx, org string, n Name) error {
	var h holder
	_, err := read(ctx, &tx.Reader, indexKey(n), &h)
	if errors.Is(err, store.ErrNotFound) || err == nil && h.Organization != org {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(tx.Delete(ctx, indexKey(n), store.Any), tell(ctx, tx, org, n, Lapsed))
}

// Holder gives the organization for which a host works; empty: none.
func Holder(ctx context.Context, r *store.Reader, host string) (org string, err error) {
	n, err := ParseName(host)
	if err != nil || n.Wildcard {
		return "", errors.Join(err, ErrName)
	}
	keys := []store.Key{indexKey(n)}
	for _, d := range n.above() {
		keys = append(keys, indexKey(Name{d, true}))
	}
	for _, k := range keys {
		var h holder
		if _, err = read(ctx, r, k, &h); !errors.Is(err, store.ErrNotFound) {
			return h.Organization, err
		}
	}
	return "", nil
}

// May says whether an organization's documents may name a host or a wildcard: it proved it, or a wildcard above it.
func May(ctx context.Context, r *store.Reader, org, pattern string) (bool, error) {
	n, err := ParseName(pattern)
	if err != nil {
		return false, err
	}
	keys := []store.Key{indexKey(n)}
	for _, d := range n.above() {
		keys = append(keys, indexKey(Name{d, true}))
	}
	for _, k := range keys {
		var h holder
		_, err := read(ctx, r, k, &h)
		if err == nil && h.Organization == org {
			return true, nil
		}
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return false, err
		}
	}
	return false, nil
}

func tell(ctx context.Context, tx *store.Tx, org string, n Name, state State) error {
	b, err := json.Marshal(Notice{n.String(), org, state})
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	return tx.Emit(ctx, Topic, org, b)
}

func (s *Service) authorize(ctx context.Context, tx *store.Tx, actor tenant.Actor, v tenant.Verb, org string) error {
	return s.Tenant.Authorize(ctx, &tx.Reader, actor, tenant.Access{Verb: v, Kind: Kind, Organization: org})
}

func read(ctx context.Context, r *store.Reader, key store.Key, into any) (revision int64, err error) {
	d, err := r.Get(ctx, key)
	if err != nil {
		return 0, err
	}
	return d.Revision, decode(d, into)
}

func decode(d store.Document, into any) error {
	if err := json.Unmarshal(d.Body, into); err != nil {
		return fmt.Errorf("claim: %s is damaged: %w", d.Key, err)
	}
	return nil
}

func write(ctx context.Context, tx *store.Tx, key store.Key, v any, expect store.Expect) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("claim: %w", err)
	}
	_, err = tx.Put(ctx, key, b, expect)
	return err
}

func ignoreNotFound(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}
