package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/netip"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// purgeGuard says who may use the PURGE method.
type purgeGuard struct {
	from   []netip.Prefix
	tokens [][sha256.Size]byte
}

// newPurgeGuard is nil where nobody may.
func newPurgeGuard(spec *v1.CachePurge) *purgeGuard {
	if spec == nil || len(spec.Addresses) == 0 && len(spec.Tokens) == 0 {
		return nil
	}
	g := &purgeGuard{}
	for _, a := range spec.Addresses {
		if p, err := netip.ParsePrefix(a); err == nil {
			g.from = append(g.from, p.Masked())
		} else if a, err := netip.ParseAddr(a); err == nil {
			g.from = append(g.from, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	for _, t := range spec.Tokens {
		g.tokens = append(g.tokens, sha256.Sum256([]byte(t)))
	}
	if len(spec.Addresses) > 0 && len(g.from) == 0 {
		return nil // what cannot be read allows nobody
	}
	return g
}

// allows says whether x comes from where it may, and with a token where one is wanted.
func (g *purgeGuard) allows(x *stage.Exchange) bool {
	if len(g.from) > 0 {
		inside := false
		for _, p := range g.from {
			inside = inside || p.Contains(x.Client.Unmap())
		}
		if !inside {
			return false
		}
	}
	if len(g.tokens) == 0 {
		return true
	}
	scheme, token, _ := bytes.Cut(x.In.Get(message.Authorization), []byte{' '})
	if !message.EqualFold(scheme, "Bearer") {
		return false
	}
	sum := sha256.Sum256(bytes.TrimSpace(token))
	good := 0
	for i := range g.tokens {
		good |= subtle.ConstantTimeCompare(sum[:], g.tokens[i][:])
	}
	return good == 1
}

// purgeField says how a PURGE is meant: a list of soft, path (any query) and prefix.
const purgeField = "Relais-Purge"

var (
	errPurgeDenied = &stage.Error{
		Code: "purge_denied", Side: stage.SideClient, Status: 403,
		Err: errors.New("the CachePolicy's purge does not allow PURGE from this address or with this token"),
	}
	errPurgeWords = errors.New("Relais-Purge is a list of soft, path and prefix")
)

// servePurge answers PURGE. With Cache-Tag or Surrogate-Key it purges these tags of the site, else the
// target. No origin is asked.
func (s *Stage) servePurge(ctx context.Context, x *stage.Exchange, r *rule) (*message.Response, error) {
	s.done(x, resultBypass, "PURGE")
	if r == nil || r.purge == nil {
		f := &message.Fields{}
		f.AddString(message.Allow, "GET, HEAD")
		return nil, &stage.Error{
			Code: "purge_not_allowed", Side: stage.SideClient, Status: 405, Fields: f,
			Err: errors.New("the route has no CachePolicy with purge"),
		}
	}
	if !r.purge.allows(x) {
		return nil, errPurgeDenied
	}
	entries, err := purgeOf(x)
	if err != nil {
		return nil, &stage.Error{Code: "http_request_error", Side: stage.SideClient, Status: 400, Err: err}
	}
	x.MayBlock() // it waits for the disk
	receipt, err := s.Purge(ctx, x.Site, entries...)
	if errors.Is(err, errSealed) {
		return nil, &stage.Error{Code: "draining", Side: stage.SideEdge, Status: 503, RetryAfter: time.Second, Close: true, Err: err}
	}
	if receipt == nil {
		return nil, &stage.Error{Code: "purge_failed", Side: stage.SideEdge, Status: 500, Err: err}
	}
	body, err := json.Marshal(receipt)
	if err != nil {
		return nil, err
	}
	resp := &x.Response
	resp.Reset()
	resp.Status = 200
	resp.AddString(message.ContentType, "application/json")
	resp.AddString(message.CacheControl, "no-store")
	resp.SetBytes(append(body, '\n'))
	return resp, nil
}

// purgeOf reads what a PURGE names.
func purgeOf(x *stage.Exchange) ([]purge.Entry, error) {
	e := purge.Entry{Kind: purge.URL, Site: string(x.Site.Key), Host: string(x.Host), Value: string(x.Path)}
	for word := range bytes.SplitSeq(x.In.Lookup(purgeField), []byte{','}) {
		switch string(bytes.TrimSpace(word)) {
		case "":
		case "soft":
			e.Soft = true
		case "path":
			e.Kind = purge.Path
		case "prefix":
			e.Kind = purge.Prefix
		default:
			return nil, errPurgeWords
		}
	}
	if e.Kind == purge.URL && len(x.In.Query()) > 0 {
		e.Value += "?" + string(x.In.Query())
	}
	if !x.In.Has(message.CacheTag) && !x.In.Has(message.SurrogateKey) {
		return []purge.Entry{e}, nil
	}
	var tags purge.Tags
	for i := x.In.Next(message.CacheTag, 0); i >= 0; i = x.In.Next(message.CacheTag, i+1) {
		_, _, line := x.In.At(i)
		tags.AddCommas(line)
	}
	for i := x.In.Next(message.SurrogateKey, 0); i >= 0; i = x.In.Next(message.SurrogateKey, i+1) {
		_, _, line := x.In.At(i)
		tags.AddSpaces(line)
	}
	if !tags.Whole() || len(tags.Text()) == 0 {
		return nil, errors.New("the tags cannot be read, or are too many")
	}
	var list []purge.Entry
	for name := range purge.Names(tags.Text()) {
		list = append(list, purge.Entry{Kind: purge.Tag, Site: e.Site, Value: string(name), Soft: e.Soft})
	}
	return list, nil
}
