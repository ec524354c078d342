package cache

import (
	"bytes"
	"context"
	"net/url"
	"strings"

	"github.com/relais-edge/relais/internal/edge/cache/semantics"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// unsafe forwards a request that may change things. Its success invalidates what is stored of its
// target, of what Location and Content-Location name on the same origin (RFC 9111 section 4.4), and of
// the groups that Cache-Group-Invalidation names (RFC 9875 section 3). The answer to a POST may be
// stored for later GETs (RFC 9110 section 9.3.3).
func (s *Stage) unsafe(ctx context.Context, x *stage.Exchange, next stage.Handler, p *part) (*message.Response, error) {
	s.done(x, resultBypass, "method")
	born := s.purges.Last()
	sent := s.now(x)
	r := p.ruleOf(x)
	if r != nil {
		r.normal.apply(&x.In.Fields, false)
	}
	var target store.Hash
	var epoch uint32
	storable := r != nil && x.In.Method == message.POST && r.detourOf(x) == nil
	if storable {
		l := s.local(x)
		l.key = r.append(l.key[:0], x)
		target = s.tiers.HashOf(l.key)
		epoch = s.epochs.at(target)
	}
	resp, err := next.Serve(ctx, x)
	if err != nil {
		return resp, err
	}
	stored := false
	if resp.Status >= 200 && resp.Status < 400 && x.In.Method != message.CONNECT {
		l := s.local(x)
		epoch += s.invalidate(l, x, p, x.In.Path(), x.In.Query(), target)
		for _, id := range [...]message.ID{message.Location, message.ContentLocation} {
			if v := resp.Get(id); v != nil {
				if path, query, ok := sameOrigin(x, string(v)); ok {
					epoch += s.invalidate(l, x, p, path, query, target)
				}
			}
		}
		s.invalidateGroups(x, resp)
		if storable && resp.Has(message.ContentLocation) {
			l.rule = r
			e := &semantics.Exchange{
				Authorization: x.In.Has(message.Authorization), Status: resp.Status,
				Fields: &resp.Fields, Sent: sent, Came: s.now(x), Post: true,
			}
			stored = s.recordPost(x, l, resp, e, epoch, born)
		}
	}
	if r != nil {
		r.hideTags(&resp.Fields)
		s.addStatus(&resp.Fields, &status{fwd: fwdMethod, stored: stored})
	}
	return resp, nil
}

// recordPost stores the answer to a POST that says that it is what a GET of the same target would get
// (RFC 9110 section 9.3.3), as its client reads it.
func (s *Stage) recordPost(x *stage.Exchange, l *local, resp *message.Response, e *semantics.Exchange, epoch uint32, born uint64) bool {
	path, query, ok := sameOrigin(x, string(resp.Get(message.ContentLocation)))
	if !ok || !bytes.Equal(path, x.In.Path()) || !bytes.Equal(query, x.In.Query()) || x.In.Has(message.Upgrade) {
		return false
	}
	if c := semantics.ParseRequest(x.In); c.Has(semantics.NoStore) {
		return false
	}
	l.key = l.rule.append(l.key[:0], x)
	l.hash, l.aliased = s.tiers.HashOf(l.key), false
	l.watching().rest()
	x.Shared = true // nobody waits for another's POST, and its answer was not asked for as one for all
	return s.record(x, l, resp, e, epoch, born) == semantics.Stored
}

// sameOrigin resolves a URI reference; false when its origin is not x's.
func sameOrigin(x *stage.Exchange, ref string) (path, query []byte, ok bool) {
	u, err := url.Parse(ref)
	if err != nil {
		return nil, nil, false
	}
	scheme := "http"
	if x.In.Secure {
		scheme = "https"
	}
	own := string(x.Host)
	if strings.IndexByte(own, ':') >= 0 {
		own = "[" + own + "]"
	}
	base := &url.URL{Scheme: scheme, Host: own + string(port(x.In.Authority(), x.In.Secure)), Path: "/"}
	if b, err := base.Parse(string(x.In.Path())); err == nil {
		base = b
	}
	u = base.ResolveReference(u)
	host := u.Hostname() + string(port([]byte(u.Host), x.In.Secure))
	if u.Scheme != scheme || !message.EqualFold([]byte(host), string(x.Host)+string(port(x.In.Authority(), x.In.Secure))) {
		return nil, nil, false
	}
	path = []byte(u.EscapedPath())
	if len(path) == 0 {
		path = []byte("/")
	}
	return path, []byte(u.RawQuery), true
}

// invalidate forgets what is stored under a target, and keeps what is on its way from being stored or
// joined. It returns by how much that moved the epoch of the watched hash.
func (s *Stage) invalidate(l *local, x *stage.Exchange, p *part, path, query []byte, watched store.Hash) (moved uint32) {
	for _, k := range p.keyers {
		l.key = k.appendTarget(appendOrigin(l.key[:0], x), path, query)
		moved += s.invalidateKey(l.key, watched)
		if !s.searches.Load() {
			continue
		}
		var r *searchRule
		if r, l.key = s.searchOf(l.key, x, path); r != nil {
			var ok bool
			if l.key, ok = r.append(l.key[:0], k, x, path, query); ok {
				moved += s.invalidateKey(l.key, watched)
			}
		}
	}
	return moved
}

func (s *Stage) invalidateKey(key []byte, watched store.Hash) (moved uint32) {
	h := s.tiers.HashOf(key)
	s.epochs.move(h)
	if s.epochs.slot(h) == s.epochs.slot(watched) {
		moved = 1
	}
	s.clear(h, key, true)
	s.mu.Lock()
	delete(s.flights, h)
	s.mu.Unlock()
	return moved
}
