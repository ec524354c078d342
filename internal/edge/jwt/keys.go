package jwt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/token"
)

// How key sets are fetched.
const (
	fetchTime   = 10 * time.Second // for one try
	fetchAtOnce = 32
	fetchEach   = 8                // of one organization, so that addresses that hang hold up nobody else's
	askEvery    = 30 * time.Second // tokens that name unknown keys may cause a fetch
	askWait     = 2 * time.Second  // such a token waits
	pauseFirst  = time.Second
	pauseMost   = 5 * time.Minute
	maxWaiting  = 1024 // tokens for one set; the others do not wait
	maxRemotes  = 10_000
	maxEach     = 1000 // of one organization
)

// remote is a key set behind a URL. It outlives the documents that name it.
type remote struct {
	id      string
	org     string
	spec    *v1.JwtKeys
	client  *http.Client
	owner   *fetcher
	keys    atomic.Pointer[token.Keys]
	waiting atomic.Int32 // tokens

	mu      sync.Mutex
	next    time.Time // of the next fetch
	began   time.Time // of the last one
	running bool
	round   chan struct{} // closed when the fetch under way, or the next one, has ended
	fails   int
}

// fetcher keeps the key sets of a process.
type fetcher struct {
	cfg                     Config
	good, unchanged, failed observe.Counter
	wake                    chan struct{}

	mu   sync.Mutex
	all  map[string]*remote
	kept map[string]int // sets of an organization
	busy map[string]int // fetches under way of an organization; of all under ""
}

func newFetcher(cfg Config, results *observe.Family[observe.Counter]) *fetcher {
	f := &fetcher{
		cfg: cfg, good: results.With("good"), unchanged: results.With("unchanged"), failed: results.With("failed"),
		wake: make(chan struct{}, 1), all: map[string]*remote{}, kept: map[string]int{}, busy: map[string]int{},
	}
	if f.cfg.fetch == nil {
		f.cfg.fetch = func(ctx context.Context, r *remote) ([]byte, error) { return r.fetch(ctx) }
	}
	return f
}

// keep forgets all key sets but those with these ids.
func (f *fetcher) keep(ids map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for id, r := range f.all {
		if ids[id] {
			continue
		}
		delete(f.all, id)
		if f.kept[r.org]--; f.kept[r.org] == 0 {
			delete(f.kept, r.org)
		}
	}
}

// remoteID tells key sets apart. Organizations share none.
func remoteID(org string, k *v1.JwtKeys) string {
	return strings.Join([]string{org, k.URL, k.Refresh.String(), fmt.Sprint(k.Public), strings.Join(k.Allow, " "), k.CA}, "\x00")
}

// of gives the key set of a spec.
func (f *fetcher) of(org string, spec *v1.JwtKeys) (*remote, error) {
	id := remoteID(org, spec)
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.all[id]; r != nil {
		return r, nil
	}
	if len(f.all) >= maxRemotes || f.kept[org] >= maxEach {
		return nil, fmt.Errorf("there are more than %d key sets, or %d of one organization", maxRemotes, maxEach)
	}
	r := &remote{id: id, org: org, spec: spec, owner: f, round: make(chan struct{})}
	if f.cfg.Guard != nil {
		control, err := f.cfg.Guard(spec.Public, spec.Allow)
		if err != nil {
			return nil, err
		}
		conf := &tls.Config{MinVersion: tls.VersionTLS12}
		if spec.CA != "" {
			conf.RootCAs = x509.NewCertPool()
			if !conf.RootCAs.AppendCertsFromPEM([]byte(spec.CA)) {
				return nil, errors.New("jwks.ca holds no certificate")
			}
		}
		r.client = &http.Client{
			Transport: &http.Transport{
				DialContext:     (&net.Dialer{Timeout: fetchTime, ControlContext: control}).DialContext,
				TLSClientConfig: conf, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	f.all[id] = r
	f.kept[org]++
	f.poke()
	return r, nil
}

func (f *fetcher) poke() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// run fetches what is due until ctx ends.
func (f *fetcher) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.wake:
		case <-timer.C:
		}
		soonest := time.Hour
		for _, r := range f.list() {
			now := time.Now()
			wait := r.wait(now)
			if wait > 0 {
				soonest = min(soonest, wait)
				continue
			}
			if !f.take(r.org) {
				continue // a fetch that ends wakes us
			}
			r.begin(now)
			wg.Go(func() {
				r.end(ctx, f.load(ctx, r))
				f.give(r.org)
				f.poke()
			})
		}
		timer.Reset(max(soonest, 10*time.Millisecond))
	}
}

// take takes a place for a fetch of an organization, if there is one.
func (f *fetcher) take(org string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[all] >= fetchAtOnce || f.busy[org] >= fetchEach {
		return false
	}
	f.busy[all]++
	f.busy[org]++
	return true
}

func (f *fetcher) give(org string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy[all]--
	if f.busy[org]--; f.busy[org] == 0 {
		delete(f.busy, org)
	}
}

// all is no organization's name.
const all = ""

func (f *fetcher) list() []*remote {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]*remote, 0, len(f.all))
	for _, r := range f.all {
		out = append(out, r)
	}
	return out
}

// wait says how long until r is due; 0 when it is.
func (r *remote) wait(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running {
		return time.Hour
	}
	return max(r.next.Sub(now), 0)
}

func (r *remote) begin(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.running, r.began = true, now
}

// end sets the time of the next fetch, and lets those go on who wait for this one.
func (r *remote) end(ctx context.Context, err error) {
	pause := r.spec.Refresh.Std()
	r.mu.Lock()
	if err == nil {
		r.fails = 0
	} else {
		pause = min(pause, pauseMost, pauseFirst<<min(r.fails, 16))
		r.fails++
	}
	first := err != nil && r.fails == 1 && ctx.Err() == nil
	// Edges that started together do not ask together for ever.
	r.next = time.Now().Add(pause - time.Duration(rand.Int64N(int64(pause)/10+1)))
	close(r.round)
	r.running, r.round = false, make(chan struct{})
	r.mu.Unlock()
	if first {
		r.owner.cfg.Report("a key set cannot be fetched; the last good keys hold", "url", r.spec.URL, "err", err)
	}
}

// ask has the set fetched now, unless that was done just before, and waits for it a moment if it may.
func (r *remote) ask(ctx context.Context, wait bool) {
	r.mu.Lock()
	round := r.round
	if now := time.Now(); !r.running {
		if !r.began.IsZero() && now.Sub(r.began) < askEvery {
			r.mu.Unlock()
			return
		}
		r.next = now
	}
	r.mu.Unlock()
	r.owner.poke()
	defer r.waiting.Add(-1)
	if r.waiting.Add(1) > maxWaiting || !wait {
		return
	}
	t := time.NewTimer(askWait)
	defer t.Stop()
	select {
	case <-round:
	case <-t.C:
	case <-ctx.Done():
	}
}

// load fetches a set once and puts it in service when it is good.
func (f *fetcher) load(ctx context.Context, r *remote) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	text, err := f.cfg.fetch(ctx, r)
	if err == nil {
		var keys *token.Keys
		if keys, err = token.ParseKeys(text); err == nil {
			if old := r.keys.Load(); old != nil && old.Digest == keys.Digest {
				f.unchanged.Inc()
				return nil
			}
			r.keys.Store(keys)
			f.good.Inc()
			return nil
		}
	}
	f.failed.Inc()
	return err
}

// fetch asks for the set.
func (r *remote) fetch(ctx context.Context) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.spec.URL, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "relais")
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the answer is %s", resp.Status)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, token.MaxSetBytes+1))
	if err == nil && len(text) > token.MaxSetBytes {
		err = fmt.Errorf("the answer has more than %d bytes", token.MaxSetBytes)
	}
	return text, err
}
