package waf

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/waf/learn"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// learning is what a policy makes of hits on visitors who order.
type learning struct {
	on    bool
	terms learn.Terms
	field string // by which the origin names an order; empty when a 2xx answer is one
}

func newLearning(spec *v1.WafLearning) learning {
	l := learning{on: spec.Mode != "off", field: spec.OrderField}
	l.terms = learn.Terms{Buyers: spec.Buyers, Share: .1, Lifetime: spec.Lifetime.Std(), Most: 4}
	if l.terms.Buyers < 2 {
		l.terms.Buyers = 10
	}
	if spec.Share != nil {
		l.terms.Share = spec.Share.Fraction()
	}
	if l.terms.Lifetime <= 0 {
		l.terms.Lifetime = 24 * time.Hour
	}
	if spec.MaxDemotions != nil {
		l.terms.Most = *spec.MaxDemotions
	}
	// A 2xx answer is no proof: a form that is shown again has one too.
	if l.field == "" || spec.Mode == "observe" || !l.on {
		l.terms.Most = 0
	}
	return l
}

// level is the paranoia level from which rules block.
func (p *policy) level() int {
	n, _ := strconv.Atoi(p.blocking[0])
	return n
}

// revision names what a document says, as the revision of all documents is named.
func revision(spec *v1.WafPolicySpec) string {
	b, err := json.Marshal(spec)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:6])
}

// judged evaluates a request, lets it pass where only demoted rules would deny it, remembers
// what hit, and marks what would let it pass where it is denied.
func (pt *part) judged(p *policy, x *stage.Exchange, r *sheet, cut bool) (verdict, error) {
	v, err := pt.weighed(p, x, r, cut)
	if err != nil || len(v.hits) == 0 && !v.deny {
		return v, err
	}
	if p.learning.on && pt.memory != nil {
		pt.memory.Hit(x.Start, who(x), placeOf(p, x), v.deny || v.demoted, learnable(v.hits))
	}
	pt.markExclusions(p, x, &v)
	return v, nil
}

// weighed evaluates a request, and lets it pass where only demoted rules would deny it.
func (pt *part) weighed(p *policy, x *stage.Exchange, r *sheet, cut bool) (verdict, error) {
	v, err := pt.engine.evaluate(p, x, r, cut)
	if err != nil || !v.deny || v.direct != 0 || !p.learning.on || pt.memory == nil {
		return v, err
	}
	list := pt.memory.Demoted(x.Start, placeOf(p, x), learnable(v.hits), p.learning.terms)
	if len(list) == 0 {
		return v, nil
	}
	return pt.spared(p, x, r, cut, v, list)
}

func placeOf(p *policy, x *stage.Exchange) learn.Place {
	return learn.PlaceOf(p.name, string(x.In.MethodName()), x.Path)
}

// spared judges again without what is demoted.
func (pt *part) spared(p *policy, x *stage.Exchange, r *sheet, cut bool, v verdict, list []learn.Demotion) (verdict, error) {
	without := *p
	without.exclusions = slices.Clip(slices.Clone(p.exclusions))
	var told []string
	for i := range list {
		e, err := pt.engine.exclusion(&v1.WafExclusion{Rules: []string{strconv.Itoa(list[i].Rule)}, Target: list[i].Target})
		if err != nil {
			continue
		}
		without.exclusions = append(without.exclusions, e)
		told = append(told, strconv.Itoa(list[i].Rule)+" ("+list[i].Target+") only logs here until "+list[i].Until.UTC().Format(time.RFC3339)+" because it hit buyers")
	}
	again, err := pt.engine.evaluate(&without, x, r, cut)
	if err != nil || again.deny {
		return v, err
	}
	v.deny, v.demoted = false, true
	v.detail = strings.Join(told, "; ") + "; " + v.detail
	return v, nil
}

func who(x *stage.Exchange) learn.Visitor {
	return learn.Visitor{ID: x.Visitor.Key, Network: learn.Network(x.Client), Basket: x.Visitor.Class == stage.Protected && x.Visitor.Key != 0}
}

// ordered remembers that the visitor has ordered, if the answer says so.
func (pt *part) ordered(x *stage.Exchange, r *message.Response) {
	if pt.memory == nil || x.Visitor.Class != stage.Protected || x.Tries == 0 || r.Status < 200 || r.Status >= 400 {
		return
	}
	p := pt.routes[x.Route.Index]
	if p == nil || !p.learning.on {
		// The order goes to a route without a firewall: the policy of another one knows what an order is.
		i := slices.IndexFunc(pt.routes, func(p *policy) bool { return p != nil && p.learning.on })
		if i < 0 {
			return
		}
		p = pt.routes[i]
	}
	var order uint64
	if p.learning.field == "" {
		if r.Status >= 300 { // shops send away from an empty basket so
			return
		}
	} else if order = learn.Order(r.Fields.Lookup(p.learning.field)); order == 0 {
		return
	}
	pt.memory.Order(x.Start, who(x), order, p.learning.terms)
}

// maxShown bounds the exclusions that a trail shows.
const maxShown = 4

// markExclusions puts the smallest exclusion that lets a denied request pass into its trail.
func (pt *part) markExclusions(p *policy, x *stage.Exchange, v *verdict) {
	if !v.deny {
		return
	}
	x.Lap()
	x.MarkDetail("waf", "policy", p.name+", revision "+p.revision+", "+pt.engine.version)
	threshold, _ := strconv.Atoi(p.threshold[0])
	list := smallest(v.hits, threshold, v.direct, string(x.In.MethodName()), cut(string(x.Path), maxPath))
	if len(list) > maxShown || len(x.Path) > maxPath {
		x.MarkDetail("waf", "exclusion", "none is small: "+strconv.Itoa(len(list))+" targets hit rules that would have to go")
		return
	}
	for i := range list {
		x.MarkDetail("waf", "exclusion", Line(&list[i]))
	}
}

// maxPath is the longest path that an exclusion in a trail has.
const maxPath = 512
