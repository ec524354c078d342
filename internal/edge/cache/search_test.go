package cache

import (
	"fmt"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/store"
	"github.com/relais-edge/relais/internal/http/message"
)

// TestNoVarySearch: draft-ietf-httpbis-no-vary-search, the examples of its text among them.
func TestNoVarySearch(t *testing.T) {
	for _, c := range []struct {
		rule, stored, asked string
		hit                 bool
	}{
		{`key-order`, "a=1&b=2&c=3", "b=2&a=1&c=3", true},
		{`key-order`, "a=1&a=2", "a=2&a=1", false}, // the order of values of one name counts
		{`key-order`, "a=1&b=2", "b=1&a=2", false},
		{`key-order`, "a=1&b=2", "a=1&b=2&c=3", false},
		{`key-order=?0`, "a=1&b=2", "b=2&a=1", false},
		{`params=("utm_source" "gclid")`, "id=1&utm_source=x", "id=1&gclid=y", true},
		{`params=("utm_source")`, "id=1", "id=1&utm_source=x", true},
		{`params=("utm_source")`, "id=1&utm_source=x", "id=2&utm_source=x", false},
		{`params=("utm_source")`, "id=1&a=2", "a=2&id=1", false},
		{`params=("a")`, "", "a=1", true},
		{`params`, "a=1", "b=2&c", true},
		{`params, except=("id")`, "id=1&x=2", "y=3&id=1", true},
		{`params, except=("id")`, "id=1", "id=2", false},
		{`params, except=("id" "n"), key-order`, "id=1&n=2&x", "n=2&y&id=1", true},
		{`params=("a b")`, "a+b=1&c=2", "a%20b=3&c=2", true},
		{`params=("a%20b")`, "c=2", "a+b=3&c=2", true},
		{`params=("A")`, "c=2", "a=3&c=2", false},
		// What is not well-formed says nothing.
		{`params=("a" b)`, "c=1", "a=1&c=1", false},
		{`params="a"`, "c=1", "a=1&c=1", false},
		{`except=("a")`, "c=1", "d=1", false},
		{`params=("a"), except=("b")`, "c=1", "a=1&c=1", false},
		{`key-order=1`, "a=1&b=2", "b=2&a=1", false},
		{`params=`, "c=1", "d=1", false},
	} {
		t.Run(c.rule+" "+c.stored+" "+c.asked, func(t *testing.T) {
			rep := ok("Cache-Control: max-age=60", "No-Vary-Search: "+c.rule)
			r := newRig(t, v1.CachePolicySpec{}, rep)
			r.do("GET /a?" + c.stored)
			if g := r.do("GET /a?" + c.stored); g.cache != "hit" {
				t.Errorf("the same again: %s", g.cache)
			}
			if g := r.do("GET /a?" + c.asked); (g.cache == "hit") != c.hit {
				t.Errorf("%s, want a hit: %v", g.cache, c.hit)
			}
			if g := r.do("GET /b?" + c.asked); g.cache != "miss" {
				t.Errorf("another path: %s", g.cache)
			}
		})
	}
}

// TestNoVarySearchChanges: an answer with another rule, or none, is never found by the old one.
func TestNoVarySearchChanges(t *testing.T) {
	with := func(rule, body string) reply {
		return reply{headers: []string{"Cache-Control: max-age=60", rule}, body: body}
	}
	run(t, []rfcCase{
		{name: "policy: a rule holds for answers that gave it", steps: []step{
			{req: "GET /a?x=1&id=1", reply: with(`No-Vary-Search: params=("x")`, "one")},
			{req: "GET /a?y=1&id=2", reply: with(`No-Vary-Search: params=("y")`, "two"), want: "miss"},
			{req: "GET /a?x=1&id=2", reply: with("X: 1", "three"), want: "miss", body: "three"},
			{req: "GET /a?y=9&id=2", want: "hit", body: "two"},
			{req: "GET /a?x=1&id=2", want: "hit", body: "three"},
		}},
		{name: "policy: invalidation reaches what the rule makes equal", steps: []step{
			{req: "GET /a?x=1&id=1", reply: with(`No-Vary-Search: params=("x")`, "one")},
			{req: "POST /a?x=2&id=1", reply: ok()},
			{req: "GET /a?x=3&id=1", reply: ok(), want: "miss"},
		}},
		{name: "policy: the rule comes after the policy's own parameters", spec: v1.CachePolicySpec{Key: v1.CacheKey{Query: "except", Parameters: []string{"utm_*"}}}, steps: []step{
			{req: "GET /a?utm_a=1&id=1&x=1", reply: with(`No-Vary-Search: params=("x")`, "one")},
			{req: "GET /a?x=2&id=1&utm_b=1", want: "hit", body: "one"},
			{req: "GET /a?x=2&id=2&utm_b=1", reply: ok(), want: "miss"},
		}},
	})
}

func TestAHitByNoVarySearchAllocatesNothing(t *testing.T) {
	rep := image
	rep.headers = append([]string{`No-Vary-Search: key-order, params=("utm_source" "gclid")`, `Cache-Groups: "a", "b"`}, image.headers...)
	r := newRig(t, v1.CachePolicySpec{}, rep)
	r.do("GET /a?b=1&a=2", browser...)
	x := r.exchange("GET /a?a=2&utm_source=x&b=1", browser...)
	in, site, route := x.In, x.Site, x.Route
	one := func() {
		x.Reset()
		x.In, x.Site, x.Route, x.Start = in, site, route, r.now
		x.SetHost([]byte("shop.example"))
		if resp, err := r.chain.Serve(t.Context(), x); err != nil || resp.Status != 200 || x.CacheStatus != "hit" {
			t.Fatal(err, x.CacheStatus)
		}
		x.End(message.Outcome{})
	}
	one()
	if n := testing.AllocsPerRun(100, one); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestEpochsForgiveTheNeighbour(t *testing.T) {
	s := store.New[int](1 << 20)
	mine := s.HashOf([]byte("mine"))
	var other store.Hash
	for i := 0; ; i++ {
		other = s.HashOf(fmt.Append(nil, i))
		if other.Index(epochSlots) == mine.Index(epochSlots) {
			break
		}
	}
	var e epochs
	since := e.at(mine)
	if e.move(other); !e.current(mine, since) {
		t.Error("another key in the slot counts as mine")
	}
	if e.move(other); e.current(mine, since) {
		t.Error("of two moves one may have been mine")
	}
	since = e.at(mine)
	if e.move(mine); e.current(mine, since) {
		t.Error("mine was invalidated")
	}
}
