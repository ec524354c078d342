package cache

import (
	"context"
	"fmt"
	"hash/maphash"
	"reflect"
	"strings"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// pages is an origin whose pages depend on what f makes of a path and the parameters.
type pages struct {
	f func(path string, parameters map[string]string) string
	n int
}

func (p *pages) Serve(_ context.Context, x *stage.Exchange) (*message.Response, error) {
	p.n++
	m := map[string]string{}
	for q := range pairs(x.In.Query()) {
		m[string(q.name)] = string(q.value)
	}
	resp := &x.Response
	resp.Reset()
	resp.Status = 200
	resp.AddString(message.CacheControl, "public, max-age=600")
	resp.AddString(message.ContentType, "text/html")
	resp.SetBytes([]byte(p.f(string(x.In.Path()), m)))
	return resp, nil
}

func learning(t *testing.T, key v1.CacheKey, f func(path string, m map[string]string) string) (*rig, *pages) {
	r := newRig(t, v1.CachePolicySpec{Key: key}, reply{})
	o := &pages{f: f}
	r.chain = stage.Chain(o, r.s, r.s.Watch())
	return r, o
}

func (r *rig) keys() KeyReport {
	r.t.Helper()
	list := r.s.Keys("acme/shop")
	if len(list) != 1 {
		r.t.Fatalf("%d reports", len(list))
	}
	return list[0]
}

func (k *KeyReport) of(name string) Evidence {
	for _, e := range k.Evidence {
		if e.Name == name {
			return e
		}
	}
	return Evidence{}
}

// A shop with clicks of advertisers, and of one that nobody knows, and parameters that make other pages.
func TestParametersThatChangeNothingAreProposed(t *testing.T) {
	r, _ := learning(t, v1.CacheKey{}, func(path string, m map[string]string) string { return path + m["page"] + m["size"] })
	for i := range 60 {
		path := fmt.Sprint("GET /p", i%3)
		r.do(fmt.Sprintf("%s?utm_source=s%d&gclid=%d&xid=%d", path, i%4, i, 1000+i))
		r.do(path)
		if i%5 == 0 {
			r.do(fmt.Sprintf("%s?page=%d&size=m", path, i%20))
			r.do(fmt.Sprintf("%s?page=%d&size=%d", path, i%20, i))
			r.do(fmt.Sprintf("%s?page=%d&size=%d", path, i%20+1, i))
		}
		r.pass(time.Second)
	}
	k := r.keys()
	if want := []string{"@marketing", "xid"}; !reflect.DeepEqual(k.Propose, want) || k.QueryWould != "except" || !reflect.DeepEqual(k.KeyWould, want) {
		t.Errorf("%+v", k)
	}
	for name, verdict := range map[string]string{"utm_source": "propose", "gclid": "propose", "xid": "propose", "page": "counts", "size": "counts"} {
		if e := k.of(name); e.Verdict != verdict {
			t.Errorf("%s: %+v, want %s", name, e, verdict)
		}
	}
	if e := k.of("xid"); e.Paths != 3 || e.Values < 40 || e.Values > 80 || e.Differ != 0 || e.Spare < 50 || e.Marketing {
		t.Errorf("%+v", e)
	}
	if e := k.of("page"); e.Path == "" || e.Marketing {
		t.Errorf("%+v", e)
	}
	// What it says of the hit ratio is what the policy then does.
	then, _ := learning(t, v1.CacheKey{Query: k.QueryWould, Parameters: k.KeyWould}, func(path string, m map[string]string) string { return path + m["page"] + m["size"] })
	for i := range 60 {
		path := fmt.Sprint("GET /p", i%3)
		then.do(fmt.Sprintf("%s?utm_source=s%d&gclid=%d&xid=%d", path, i%4, i, 1000+i))
		then.do(path)
		if i%5 == 0 {
			then.do(fmt.Sprintf("%s?page=%d&size=m", path, i%20))
			then.do(fmt.Sprintf("%s?page=%d&size=%d", path, i%20, i))
			then.do(fmt.Sprintf("%s?page=%d&size=%d", path, i%20+1, i))
		}
		then.pass(time.Second)
	}
	now := then.keys()
	if got := now.HitRatio; got < k.WouldBe-0.02 || got > k.WouldBe+0.02 || k.HitRatio > k.WouldBe-0.3 {
		t.Errorf("it was %.3f, is %.3f, and %.3f was told", k.HitRatio, got, k.WouldBe)
	}
	if e := now.of("xid"); len(now.Propose) != 0 || e.Name != "" && e.Verdict != "left-out" {
		t.Errorf("%+v", now)
	}
}

func TestCounterEvidenceDropsACandidate(t *testing.T) {
	special := false
	r, _ := learning(t, v1.CacheKey{}, func(path string, m map[string]string) string {
		if special {
			return path + m["ref"]
		}
		return path
	})
	for i := range 40 {
		r.do(fmt.Sprintf("GET /p%d?ref=%d", i%4, i))
	}
	if k := r.keys(); k.of("ref").Verdict != "propose" || !reflect.DeepEqual(k.Propose, []string{"ref"}) {
		t.Fatalf("%+v", k)
	}
	special = true
	r.do("GET /special?ref=partner-a")
	r.do("GET /special?ref=partner-b")
	for i := range 40 {
		r.do(fmt.Sprintf("GET /p%d?ref=x%d", i%4, i))
	}
	k := r.keys()
	if e := k.of("ref"); e.Verdict != "counts" || e.Path != "/special" || e.Value != "partner-b" || len(k.Propose) != 0 || k.QueryWould != "" {
		t.Errorf("%+v", k)
	}
	// One of the advertisers' that counts after all takes the whole list out of the proposal.
	for i := range 40 {
		r.do(fmt.Sprintf("GET /q%d?utm_source=%d", i%4, i))
	}
	special = false
	r2, _ := learning(t, v1.CacheKey{}, func(path string, m map[string]string) string { return path + m["utm_term"] })
	for i := range 40 {
		r2.do(fmt.Sprintf("GET /q%d?utm_source=%d", i%4, i))
	}
	r2.do("GET /q?utm_term=a")
	r2.do("GET /q?utm_term=b")
	if k := r2.keys(); !reflect.DeepEqual(k.Propose, []string{"utm_source"}) {
		t.Errorf("%+v", k)
	}
}

func TestWhatIsNoEvidence(t *testing.T) {
	n := 0
	for name, c := range map[string]struct {
		key  v1.CacheKey
		page func(path string, m map[string]string) string
		line func(i int) string
		pass time.Duration
	}{
		"pages that are new each time": {v1.CacheKey{}, func(string, map[string]string) string { n++; return fmt.Sprint(n) }, func(i int) string { return fmt.Sprintf("GET /p%d?a=%d&b=%d", i%4, i, i) }, 0},
		"two that always come together": {v1.CacheKey{}, func(path string, m map[string]string) string {
			if path == "/p0" {
				return ""
			}
			return m["a"]
		}, func(i int) string { return fmt.Sprintf("GET /p%d?a=%d&b=%d", i%4, i, i) }, 0},
		"few values":             {v1.CacheKey{}, func(path string, _ map[string]string) string { return path }, func(i int) string { return fmt.Sprintf("GET /p%d?a=%d", i%4, i%3) }, 0},
		"one path":               {v1.CacheKey{}, func(path string, _ map[string]string) string { return path }, func(i int) string { return fmt.Sprintf("GET /p?a=%d", i) }, 0},
		"answers long ago":       {v1.CacheKey{}, func(path string, _ map[string]string) string { return path }, func(i int) string { return fmt.Sprintf("GET /p%d?a=%d", i%4, i) }, 2 * time.Minute},
		"a policy without query": {v1.CacheKey{Query: "none"}, func(path string, _ map[string]string) string { return path }, func(i int) string { return fmt.Sprintf("GET /p%d?a=%d", i, i) }, 0},
		"too many parameters": {v1.CacheKey{}, func(path string, _ map[string]string) string { return path }, func(i int) string {
			return fmt.Sprintf("GET /p%d?a=%d%s", i%4, i, strings.Repeat("&b", 1)+"&c&d&e&f&g&h&i&j&k&l&m&n")
		}, 0},
	} {
		r, _ := learning(t, c.key, c.page)
		for i := range 60 {
			r.do(c.line(i))
			r.pass(c.pass)
		}
		if k := r.keys(); len(k.Propose) != 0 {
			t.Errorf("%s: %+v", name, k)
		}
	}
}

func TestWhatIsLearnedIsBounded(t *testing.T) {
	r, _ := learning(t, v1.CacheKey{}, func(path string, m map[string]string) string { return path + m["id"] })
	r.do("GET /p?id=1")
	r.do("GET /p?id=2")
	for i := range 2 * maxPaths {
		r.do(fmt.Sprintf("GET /x%d?n%d=1", i, i))
		r.do(fmt.Sprintf("GET /x%d?n%d=2", i, i))
	}
	r.do("GET /p?" + strings.Repeat("x", maxName+1) + "=1")
	d := r.s.learner.all["acme/shop c"]
	if len(d.paths) != maxPaths || len(d.names) != maxNames || r.s.learner.paths.Load() != maxPaths || r.s.learner.names.Load() != maxNames {
		t.Errorf("%d paths, %d names; counted %d and %d", len(d.paths), len(d.names), r.s.learner.paths.Load(), r.s.learner.names.Load())
	}
	if k := r.keys(); k.of("id").Verdict != "counts" {
		t.Error("what spoke against a parameter was forgotten for others' sake")
	}
	for i := range 2 * maxEchoes {
		d.echoed(&needle{kind: "header", name: fmt.Append(nil, i)}, []byte("/"), r.now)
	}
	if len(d.echoes) != maxEchoes || d.echoes[maxEchoes-1].Name != fmt.Sprint(2*maxEchoes-1) {
		t.Errorf("%d echoes", len(d.echoes))
	}
}

// FuzzLearn: no query breaks it, and a query compared with itself differs in nothing.
func FuzzLearn(f *testing.F) {
	for _, s := range []string{"a=1&b=2", "a&a&a=1", "%61=1&a=2", "=&==&&", "a=1;b=2", strings.Repeat("a=1&", 40), "%"} {
		f.Add(s, "a=2")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		d := &learned{l: &learner{seed: maphash.MakeSeed()}}
		var x, y, z witness
		if !d.read(&x, []byte(a)) || !d.read(&y, []byte(b)) || !d.read(&z, []byte(a)) {
			return
		}
		x.since, y.since, z.since = 1, 1, 1
		if differing(&x, &z, nil) != 0 {
			t.Fatalf("%q differs from itself", a)
		}
		if differing(&x, &y, nil) != differing(&y, &x, nil) {
			t.Fatalf("%q and %q", a, b)
		}
	})
}
