package acme

import (
	"container/heap"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
)

// askTimeout bounds one question to onDemand.ask.
const askTimeout = 5 * time.Second

// Demand gets a certificate for a host that a visitor asks for, and waits for it until ctx ends;
// nil when there is none by then. It is for documents with onDemand, and only for hosts that the
// caller has found among the sites; sure says that a site has it by name, so that ask may be left out.
func (i *Issuer) Demand(ctx context.Context, key bundle.Key, host string, sure bool) *tls.Certificate {
	if !validName(host) || !strings.Contains(host, ".") || strings.HasPrefix(host, "*") {
		return nil
	}
	n, ask := i.enter(key, host, sure)
	if n == nil {
		return nil
	}
	if cert := i.current(n); cert != nil {
		i.register(n)
		return cert
	}
	if !i.take(n) {
		return nil
	}
	if ask != "" {
		if err := i.ask(ctx, ask, host); err != nil {
			i.cfg.Logger.Warn("a name on demand is not allowed", "certificate", key, "host", host, "err", err)
			return nil
		}
	}
	return i.await(ctx, n)
}

// enter finds or makes a name on demand.
func (i *Issuer) enter(key bundle.Key, host string, sure bool) (n *name, ask string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	o := i.orders[key]
	if o == nil || o.Spec.OnDemand == nil {
		return nil, ""
	}
	ask = o.Spec.OnDemand.Ask
	if !sure && ask == "" {
		return nil, ""
	}
	n = o.names[host]
	if n == nil {
		// Not in o.names yet: a name that is refused leaves nothing behind.
		n = &name{order: o, host: host, demand: true, place: -1}
	}
	n.used = true
	return n, ask
}

// take takes a place of those that onDemand.perMinute allows.
func (i *Issuer) take(n *name) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	o := n.order
	if o.names[n.host] == n && (n.busy || n.failures > 0) {
		return n.busy || n.place >= 0 // under way, or waiting after a failure
	}
	rate, now := float64(o.Spec.OnDemand.PerMinute), time.Now()
	if o.filled.IsZero() {
		o.tokens = rate
	}
	o.tokens = min(rate, o.tokens+rate*now.Sub(o.filled).Minutes())
	o.filled = now
	if o.tokens < 1 || o.demanded >= maxDemand {
		return false
	}
	o.tokens--
	return true
}

func (i *Issuer) ask(ctx context.Context, address, host string) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	u, err := url.Parse(address)
	if err != nil {
		return err
	}
	q := u.Query()
	q.Set("domain", host)
	u.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	resp, err := i.web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxOutput))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("onDemand.ask answers %s", resp.Status)
	}
	return nil
}

// register keeps a name on demand that has a certificate in the storage, so that it is renewed.
func (i *Issuer) register(n *name) {
	i.mu.Lock()
	defer i.mu.Unlock()
	o := n.order
	if o.names[n.host] != nil || o.demanded >= maxDemand || i.orders[o.Key] != o {
		return
	}
	o.names[n.host] = n
	o.demanded++
	heap.Push(&i.queue, n)
	i.notify()
}

// await puts a name into the queue and waits for the attempt.
func (i *Issuer) await(ctx context.Context, n *name) *tls.Certificate {
	i.mu.Lock()
	o := n.order
	if i.orders[o.Key] != o {
		i.mu.Unlock()
		return nil // the document has changed meanwhile
	}
	if other := o.names[n.host]; other != nil {
		n = other
	} else {
		o.names[n.host] = n
		o.demanded++
	}
	if n.place < 0 && !n.busy {
		heap.Push(&i.queue, n)
	}
	if n.failures > 0 && !n.busy {
		i.mu.Unlock()
		return nil // it waits after a failure: the handshake does not
	}
	if n.over == nil {
		n.over = make(chan struct{})
	}
	over := n.over
	i.mu.Unlock()
	i.notify()
	select {
	case <-ctx.Done():
		return nil
	case <-over:
	}
	n.load.Lock()
	defer n.load.Unlock()
	return n.cert
}
