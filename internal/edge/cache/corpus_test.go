package cache

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// said is a directive of an answer, and what follows from it by the RFCs' sentences. The facts are written
// down here and not computed, so that they are independent of the code under test.
type said struct {
	lines []string
	// never: no other request may have the answer (RFC 9111 sections 5.2.2.4, 5.2.2.5, 5.2.2.7 and 4.1).
	never bool
	// shared is a directive meant for shared caches: it allows Set-Cookie, and with auth Authorization (section 3.5).
	shared, auth bool
	// explicit is a lifetime that somebody gave (section 4.2.1).
	explicit bool
	// strips: Set-Cookie is for its own client only (the field name in no-cache or private).
	strips bool
	// byCookie and byAuth: the answer is for requests with the same field (section 4.1).
	byCookie, byAuth bool
	// targeted: it stands in the place of Cache-Control (RFC 9213 section 2.2).
	targeted bool
}

func saying(text string, more ...func(*said)) said {
	s := said{lines: []string{"Cache-Control: " + text}}
	for _, f := range more {
		f(&s)
	}
	return s
}

func never(s *said)    { s.never = true }
func shared(s *said)   { s.shared, s.auth = true, true }
func auth(s *said)     { s.auth = true }
func explicit(s *said) { s.explicit = true }
func strips(s *said)   { s.strips = true }

var corpusControls = []said{
	{},
	saying("public", shared),
	saying("public, max-age=60", shared, explicit),
	saying("s-maxage=60", shared, explicit),
	saying("max-age=60", explicit),
	saying("max-age=0", explicit),
	saying("max-age=0, s-maxage=60", shared, explicit),
	saying("private", never),
	saying("private, max-age=60", never),
	saying("public, private, max-age=60", never),
	saying("private, s-maxage=60", never),
	saying("no-store", never),
	saying("public, no-store, max-age=60", never),
	saying("no-cache", never),
	saying("public, no-cache, max-age=60", never),
	saying(`no-cache="set-cookie", max-age=60`, explicit, strips),
	saying(`public, no-cache="x-user", max-age=60`, shared, explicit),
	saying(`private="set-cookie", max-age=60`, explicit, strips),
	saying(`public, max-age=60, private="x-user, Set-Cookie"`, shared, explicit, strips),
	saying("max-age=60, must-revalidate", auth, explicit),
	saying("max-age=60, proxy-revalidate", explicit),
	saying("must-understand, max-age=60", explicit),
	saying("max-age=0, stale-while-revalidate=60, stale-if-error=60", explicit),
	saying(`max-age=60, private="`, never),
	saying("PRIVATE", never),
	saying(`max-age=60, x="private`, never),
	saying("no-cache=x, max-age=60", explicit), // the form without quotation marks names a field too (section 5.2)
}

var corpusExtras = []said{
	{},
	{lines: []string{"Vary: Cookie"}, byCookie: true},
	{lines: []string{"Vary: Accept-Encoding, cookie", "Vary: Authorization"}, byCookie: true, byAuth: true},
	{lines: []string{"Vary: *"}, never: true},
	{lines: []string{"Expires: @60", "Date: @0"}, explicit: true},
	{lines: []string{"Last-Modified: @-86400", "Date: @0"}},
	{lines: []string{`ETag: "v-{user}"`}},
	{lines: []string{"Pragma: no-cache"}},
	{lines: []string{"CDN-Cache-Control: private"}, never: true, targeted: true},
	{lines: []string{"CDN-Cache-Control: no-store"}, never: true, targeted: true},
	{lines: []string{"CDN-Cache-Control: max-age=60"}, shared: true, explicit: true, targeted: true},
	{lines: []string{"CDN-Cache-Control: max-age=?"}},
	{lines: []string{"No-Vary-Search: params"}},
	{lines: []string{`Cache-Groups: "a"`, "Cache-Tag: a"}},
}

// corpusUsers are the request fields of two users each.
var corpusUsers = [][2][]string{
	{{"Cookie: sid=anna-0123456789"}, {"Cookie: sid=bert-0123456789"}},
	{{"Authorization: Bearer anna-0123456789"}, {"Authorization: Bearer bert-0123456789"}},
	{{"Cookie: sid=anna-0123456789", "Authorization: Bearer anna-0123456789"}, {"Cookie: sid=bert-0123456789", "Authorization: Bearer bert-0123456789"}},
	{{"Cookie: theme=dark; sid=anna-0123456789"}, {"Cookie: theme=dark", "Cookie: sid=bert-0123456789"}},
	{{"Cookie: sid=anna-0123456789"}, {}},
	{{"Authorization: Bearer anna-0123456789"}, {}},
	{{}, {"Cookie: sid=bert-0123456789", "Authorization: Basic bert-0123456789"}},
}

const hour = v1.Duration(time.Hour)

var corpusPolicies = []struct {
	name             string
	spec             v1.CachePolicySpec
	standard, detour bool
}{
	{name: "none"},
	{name: "windows", spec: v1.CachePolicySpec{DefaultTTL: hour, StaleWhileRevalidate: hour, StaleIfError: hour, StaleDisconnected: hour}},
	{name: "set-cookie standard, guard off", spec: v1.CachePolicySpec{SetCookie: "standard", DefaultTTL: hour, Guard: "off"}, standard: true},
	{name: "bypass", spec: v1.CachePolicySpec{DefaultTTL: hour, Bypass: []v1.CacheBypass{{Cookies: []string{"sid"}}, {Headers: []string{"Authorization"}}}}, detour: true},
}

// corpusCase is one combination.
type corpusCase struct {
	control, extra *said
	users          *[2][]string
	set            bool // the answer has a Set-Cookie of its user
	status         int
	policy         int
}

func (c *corpusCase) String() string {
	return fmt.Sprintf("policy %s, %d, users %q, answer %q %q, set-cookie %v", corpusPolicies[c.policy].name, c.status, *c.users, c.control.lines, c.extra.lines, c.set)
}

func carries(headers []string, name string) bool {
	for _, h := range headers {
		if strings.HasPrefix(h, name+":") {
			return true
		}
	}
	return false
}

// mayHave says whether to may be given the answer that from got.
func (c *corpusCase) mayHave(from, to []string) bool {
	p := &corpusPolicies[c.policy]
	s := *c.control
	if c.extra.targeted {
		s = said{}
	}
	s.shared, s.auth, s.explicit = s.shared || c.extra.shared, s.auth || c.extra.auth, s.explicit || c.extra.explicit
	switch {
	case s.never || c.extra.never:
		return false
	case p.detour && len(from)+len(to) > 0:
		return false
	case carries(from, "Authorization") && !s.auth:
		return false
	case c.set && !s.shared && !s.strips && !(p.standard && s.explicit):
		return false
	case c.extra.byCookie && (carries(from, "Cookie") || carries(to, "Cookie")):
		return false
	case c.extra.byAuth && (carries(from, "Authorization") || carries(to, "Authorization")):
		return false
	case c.status == 500 && !s.explicit && !s.shared:
		return false // neither a lifetime nor a word that allows one (section 3)
	}
	return true
}

// mayHaveCookie says whether the Set-Cookie of from's answer may come with it.
func (c *corpusCase) mayHaveCookie(from, to []string) bool {
	return c.mayHave(from, to) && !(c.control.strips && !c.extra.targeted)
}

// shop is the origin of the corpus: each user gets what is his own, told by his fields.
type shop struct {
	mu    sync.Mutex
	cases map[string]*corpusCase // by path
	wait  bool
	clock func() time.Time
}

// userIn is the user whose fields these are.
func userIn(f *message.Fields) string {
	for i := range f.Len() {
		_, _, v := f.At(i)
		for _, u := range []string{"anna", "bert"} {
			if bytes.Contains(v, []byte(u+"-")) {
				return u
			}
		}
	}
	return "nobody"
}

func (s *shop) Serve(ctx context.Context, x *stage.Exchange) (*message.Response, error) {
	if s.wait {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	s.mu.Lock()
	c := s.cases[string(x.In.Path())]
	s.mu.Unlock()
	user := userIn(&x.In.Fields)
	resp := &x.Response
	resp.Reset()
	resp.Status = c.status
	for _, l := range [][]string{c.control.lines, c.extra.lines} {
		for _, line := range l {
			addLines(&resp.Fields, []string{strings.ReplaceAll(line, "{user}", user)}, s.clock())
		}
	}
	if c.set {
		resp.AddString(message.SetCookie, "sid="+user+"-new; Path=/")
	}
	if tag := resp.Get(message.ETag); tag != nil && bytes.Contains(x.In.Get(message.IfNoneMatch), tag) {
		resp.Status = 304
		resp.SetBytes(nil)
		return resp, nil
	}
	resp.AddLine([]byte("X-User"), []byte(user))
	resp.SetBytes([]byte("<html>the page of " + user))
	return resp, nil
}

// corpus makes the combinations with a policy.
func corpus(policy int) []*corpusCase {
	var out []*corpusCase
	n := policy
	for i := range corpusControls {
		for j := range corpusExtras {
			for k := range corpusUsers {
				for _, status := range []int{200, 404, 500} {
					if status != 200 && k > 2 {
						continue
					}
					for _, set := range []bool{false, true} {
						if n++; n%every != 0 {
							continue
						}
						out = append(out, &corpusCase{&corpusControls[i], &corpusExtras[j], &corpusUsers[k], set, status, policy})
					}
				}
			}
		}
	}
	return out
}

// judge looks at what the user of index i got.
func (c *corpusCase) judge(t *testing.T, i int, g *got) (shared bool) {
	names := [2]string{"nobody", "nobody"}
	for j, h := range c.users {
		if len(h) > 0 {
			names[j] = [2]string{"anna", "bert"}[j]
		}
	}
	own, other := names[i], names[1-i]
	from, to := c.users[1-i], c.users[i]
	body := g.body
	if strings.HasSuffix(body, " "+other) {
		shared = true
		if !c.mayHave(from, to) {
			t.Errorf("%s: user %d got the page of the other (%s)", c, i, g.header("Cache-Status"))
		}
	} else if body != "" && !strings.HasSuffix(body, " "+own) {
		t.Errorf("%s: user %d got %q", c, i, body)
	}
	if u := g.header("X-User"); u == other && !shared && body != "" {
		t.Errorf("%s: user %d got a field of the other", c, i)
	}
	for j := g.fields.Next(message.SetCookie, 0); j >= 0; j = g.fields.Next(message.SetCookie, j+1) {
		if _, _, v := g.fields.At(j); strings.HasPrefix(string(v), "sid="+other) && !c.mayHaveCookie(from, to) {
			t.Errorf("%s: user %d got the cookie of the other (%s)", c, i, g.header("Cache-Status"))
		}
	}
	return shared
}

// TestCorpusTwoUsersInTurn: all combinations of what requests carry and answers say, two users one after the
// other, and again when what was stored is stale. No answer, and no cookie, reaches the other user unless the origin
// said that it may.
func TestCorpusTwoUsersInTurn(t *testing.T) {
	n, asked, given := 0, 0, 0
	for p := range corpusPolicies {
		r := newRigWith(t, Config{MaxBytes: 512 << 20}, corpusPolicies[p].spec, reply{})
		o := &shop{cases: map[string]*corpusCase{}, clock: r.s.cfg.Clock}
		r.chain = stage.Chain(o, r.s, r.s.Watch())
		list := corpus(p)
		for i, c := range list {
			o.cases[fmt.Sprint("/", i)] = c
		}
		for _, round := range [][]int{{0, 1, 1, 0}, {1, 0, 1}} {
			for i, c := range list {
				for _, u := range round {
					asked++
					if c.judge(t, u, r.do(fmt.Sprint("GET /", i), c.users[u]...)) {
						given++
					}
				}
			}
			r.pass(90 * time.Second)
		}
		n += len(list)
		if t.Failed() {
			break
		}
	}
	t.Logf("%d combinations, %d requests, %d got what another was given before", n, asked, given)
	if given < n/8 {
		t.Error("hardly anything is shared: the test proves nothing")
	}
}

// TestCorpusTwoUsersAtOnce: the same with both users waiting for one fetch, and again on what that left.
func TestCorpusTwoUsersAtOnce(t *testing.T) {
	n, given, waited := 0, 0, 0
	for p := range corpusPolicies {
		synctest.Test(t, func(t *testing.T) {
			r := newRigWith(t, Config{Clock: time.Now, MaxBytes: 512 << 20}, corpusPolicies[p].spec, reply{})
			o := &shop{cases: map[string]*corpusCase{}, clock: time.Now, wait: true}
			r.chain = stage.Chain(o, r.s, r.s.Watch())
			list := corpus(p)
			var mu sync.Mutex
			for i, c := range list {
				o.mu.Lock()
				o.cases[fmt.Sprint("/", i)] = c
				o.mu.Unlock()
				var wg sync.WaitGroup
				for j := range 5 {
					u := (i + j/2 + j) % 2 // either is first
					x := r.exchange(fmt.Sprint("GET /", i), c.users[u]...)
					wg.Go(func() {
						time.Sleep(time.Duration(j) * 3 * time.Millisecond) // the last one after the answer
						g := r.send(t.Context(), x)
						mu.Lock()
						defer mu.Unlock()
						if c.judge(t, u, g) {
							given++
						}
						if g.cache == "collapsed" {
							waited++
						}
					})
				}
				wg.Wait()
				if t.Failed() {
					return
				}
			}
			n += len(list)
			synctest.Wait()
		})
	}
	t.Logf("%d combinations: %d times another's answer was given, %d waited for another's fetch", n, given, waited)
	if given < n/8 || waited < n/8 {
		t.Error("hardly anything is shared: the test proves nothing")
	}
}
