package claim_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/claim"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
)

// world is the Internet of a test.
type world struct {
	mu    sync.Mutex
	txt   map[string][]string
	pages map[string]string
	down  bool // nobody answers
	looks int
}

func (w *world) LookupTXT(_ context.Context, name string) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	if w.down {
		return nil, &net.DNSError{Err: "server misbehaving", Name: name, IsTemporary: true}
	}
	if list := w.txt[name]; len(list) > 0 {
		return list, nil
	}
	return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
}

func (w *world) Fetch(_ context.Context, url string) (int, []byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.looks++
	if w.down {
		return 0, nil, errors.New("no route to host")
	}
	if body, ok := w.pages[url]; ok {
		return 200, []byte(body + "\n"), nil
	}
	return 404, []byte("nothing here"), nil
}

func (w *world) publish(c claim.Claim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c.Method == claim.HTTP {
		url, body := c.Page()
		w.pages[url] = body
		return
	}
	name, value := c.Record()
	w.txt[name] = append(w.txt[name], "v=spf1 -all", value)
}

// drop takes all proofs below a domain away.
func (w *world) drop(domain string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.txt {
		if strings.HasSuffix(name, domain+".") {
			delete(w.txt, name)
		}
	}
	for url := range w.pages {
		if strings.Contains(url, domain+"/") {
			delete(w.pages, url)
		}
	}
}

func (w *world) set(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down = down
}

type bed struct {
	*claim.Service
	t     *testing.T
	world *world
	store *store.Store
	who   map[string]tenant.Actor
	mu    sync.Mutex
	now   time.Time
}

func (b *bed) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bed) pass(d time.Duration) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
	return b.now
}

// setup makes tenants ann, bob and cat.
func setup(t *testing.T) *bed {
	t.Helper()
	b := &bed{
		t: t, world: &world{txt: map[string][]string{}, pages: map[string]string{}}, who: map[string]tenant.Actor{},
		now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC),
	}
	var err error
	b.store = openStore(t, store.Options{Clock: b.clock})
	private, _, err := secret.NewKey()
	b.must(err)
	vault, err := secret.NewVault(private)
	b.must(err)
	people := tenant.New(tenant.Config{Store: b.store, Vault: vault, Hasher: auth.NewHasher(auth.Cost{Passes: 1, MemoryKiB: 64, Lanes: 1}, 1), Clock: b.clock})
	op, err := people.Setup(t.Context(), "op", "root", "correct horse battery")
	b.must(err)
	for _, org := range []string{"ann", "bob", "cat"} {
		b.must(people.CreateOrganization(t.Context(), op, "op", org, ""))
		b.who[org] = tenant.Actor{Organization: org, Login: "admin"}
		b.must(people.CreateUser(t.Context(), op, org, "admin", "correct horse battery", false))
		b.must(people.Bind(t.Context(), op, org, "", b.who[org], tenant.RoleAdmin, nil))
	}
	b.Service = claim.New(claim.Config{Store: b.store, Tenant: people, DNS: b.world, Web: b.world})
	return b
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) claim(org, name string, m claim.Method) claim.Claim {
	b.t.Helper()
	c, err := b.Create(b.t.Context(), b.who[org], org, name, m)
	b.must(err)
	return c
}

// own makes a claim and proves it.
func (b *bed) own(org, name string, m claim.Method) error {
	b.t.Helper()
	b.world.publish(b.claim(org, name, m))
	_, err := b.Prove(b.t.Context(), b.who[org], org, name)
	return err
}

func (b *bed) holder(host string) (org string) {
	b.t.Helper()
	b.must(b.store.View(b.t.Context(), func(r *store.Reader) (err error) {
		org, err = claim.Holder(b.t.Context(), r, host)
		return err
	}))
	return org
}

func (b *bed) may(org, pattern string) (ok bool) {
	b.t.Helper()
	b.must(b.store.View(b.t.Context(), func(r *store.Reader) (err error) {
		ok, err = claim.May(b.t.Context(), r, org, pattern)
		return err
	}))
	return ok
}

func taken(err error) bool {
	var e *claim.TakenError
	return errors.As(err, &e)
}

// sweep looks at every claim once.
func (b *bed) sweep() {
	b.t.Helper()
	now := b.clock()
	b.must(b.Sweep(b.t.Context(), nil, now.Add(-24*time.Hour), now))
}

func TestANameWorksOnceItIsProved(t *testing.T) {
	b := setup(t)
	b.must(b.store.Subscribe(t.Context(), "watch"))
	for name, m := range map[string]claim.Method{"shop.example.com": claim.DNS, "www.example.org": claim.HTTP, "*.example.net": claim.DNS} {
		c := b.claim("ann", name, m)
		if c.State != claim.Pending || b.may("ann", name) {
			t.Errorf("%s works before it is proved: %+v", name, c)
		}
		if _, err := b.Prove(t.Context(), b.who["ann"], "ann", name); !errors.Is(err, claim.ErrNoProof) {
			t.Errorf("%s without a proof: %v", name, err)
		}
		b.world.publish(c)
		c, err := b.Prove(t.Context(), b.who["ann"], "ann", name)
		if err != nil || c.State != claim.Active || !b.may("ann", name) || b.may("bob", name) {
			t.Errorf("%s with a proof: %+v, %v", name, c, err)
		}
		if again := b.claim("ann", name, m); again != c {
			t.Errorf("claimed again it is %+v", again)
		}
	}
	for host, want := range map[string]string{
		"shop.example.com": "ann", "SHOP.Example.com.": "ann", "example.com": "", "x.shop.example.com": "", "a.example.net": "ann", "a.b.example.net": "ann", "example.net": "",
	} {
		if got := b.holder(host); got != want {
			t.Errorf("%s belongs to %q, not %q", host, got, want)
		}
	}
	if !b.may("ann", "*.b.example.net") || b.may("ann", "*.example.com") {
		t.Error("wildcards below wildcards")
	}
	b.must(b.Release(t.Context(), b.who["ann"], "ann", "shop.example.com"))
	if b.may("ann", "shop.example.com") || b.holder("shop.example.com") != "" {
		t.Error("it works after its release")
	}
	list, err := b.store.Messages(t.Context(), "watch", 0)
	b.must(err)
	n := map[string]int{}
	for _, m := range list {
		if m.Topic == claim.Topic {
			n[string(m.Payload)]++
		}
	}
	if len(n) != 4 || n[`{"name":"shop.example.com","organization":"ann","state":"lapsed"}`] != 1 || n[`{"name":"*.example.net","organization":"ann","state":"active"}`] != 1 {
		t.Errorf("told of %v", n)
	}
	if _, err := audit.Verify(t.Context(), b.store, "ann"); err != nil {
		t.Error(err)
	}
}

// For each name that ann has, what bob may not have although he proves it, and what he may.
func TestNoTenantTakesWhatAnotherHas(t *testing.T) {
	b := setup(t)
	b.must(b.own("ann", "shop.example.com", claim.DNS))
	b.must(b.own("ann", "*.wild.example.com", claim.DNS))
	b.must(b.own("ann", "bücher.example.com", claim.DNS))
	for _, name := range []string{
		"shop.example.com", "SHOP.example.COM", "shop.example.com.", "shop。example。com", "ｓｈｏｐ.example.com", "*.example.com", "*.wild.example.com",
		"a.wild.example.com", "a.b.wild.example.com", "*.a.wild.example.com", "xn--bcher-kva.example.com", "BÜCHER.example.com", "bu\u0308cher.example.com",
	} {
		if err := b.own("bob", name, claim.DNS); !taken(err) {
			t.Errorf("bob has %s: %v", name, err)
		}
	}
	for _, name := range []string{"shop.example.org", "wild.example.com", "other.example.com", "*.shop.example.com", "x.shop.example.com", "example.com"} {
		if err := b.own("bob", name, claim.DNS); err != nil {
			t.Errorf("bob has not %s: %v", name, err)
		}
	}
	for host, want := range map[string]string{"shop.example.com": "ann", "a.wild.example.com": "ann", "wild.example.com": "bob", "q.shop.example.com": "bob"} {
		if got := b.holder(host); got != want {
			t.Errorf("%s belongs to %q, not %q", host, got, want)
		}
	}
	// ann may hold names within her own wildcard, and the wildcard above them.
	b.must(b.own("ann", "a.wild.example.com", claim.DNS))
	if err := b.own("ann", "*.example.com", claim.DNS); !taken(err) {
		t.Errorf("ann takes bob's names: %v", err)
	}
	for _, org := range []string{"bob", "cat"} {
		if err := b.Release(t.Context(), b.who[org], "ann", "shop.example.com"); !errors.Is(err, tenant.ErrDenied) {
			t.Errorf("%s releases ann's: %v", org, err)
		}
		if _, err := b.Create(t.Context(), b.who[org], "ann", "new.example.com", claim.DNS); !errors.Is(err, tenant.ErrDenied) {
			t.Errorf("%s claims for ann: %v", org, err)
		}
		if _, err := b.Prove(t.Context(), b.who[org], "ann", "shop.example.com"); !errors.Is(err, tenant.ErrDenied) {
			t.Errorf("%s proves for ann: %v", org, err)
		}
	}
	// bob releases his claim to what is not his: it stays ann's.
	b.must(b.Release(t.Context(), b.who["bob"], "bob", "shop.example.com"))
	if b.holder("shop.example.com") != "ann" {
		t.Error("a release of one's own claim took another's name away")
	}
}

// A claim that is not proved keeps nobody away, and a proof is of one tenant alone.
func TestPendingClaimsKeepNobodyAway(t *testing.T) {
	b := setup(t)
	bobs := b.claim("bob", "shop.example.com", claim.DNS)
	b.claim("cat", "*.example.com", claim.DNS)
	anns := b.claim("ann", "shop.example.com", claim.DNS)
	if bobs.Proof == anns.Proof || len(anns.Proof) < 40 {
		t.Errorf("proofs %q and %q", bobs.Proof, anns.Proof)
	}
	b.world.publish(anns)
	if _, err := b.Prove(t.Context(), b.who["bob"], "bob", "shop.example.com"); !errors.Is(err, claim.ErrNoProof) {
		t.Errorf("bob uses ann's proof: %v", err)
	}
	if _, err := b.Prove(t.Context(), b.who["ann"], "ann", "shop.example.com"); err != nil {
		t.Error(err)
	}
}

// Two who prove at once: one has it.
func TestOneOfManyHasAName(t *testing.T) {
	b := setup(t)
	orgs := []string{"ann", "bob", "cat"}
	names := []string{"shop.example.com", "*.example.com", "shop.example.com"}
	for i, org := range orgs {
		b.world.publish(b.claim(org, names[i], claim.DNS))
	}
	errs := make(chan error, 3)
	for i, org := range orgs {
		go func() {
			_, err := b.Prove(t.Context(), b.who[org], org, names[i])
			errs <- err
		}()
	}
	have := 0
	for range 3 {
		if err := <-errs; err == nil {
			have++
		} else if !taken(err) {
			t.Error(err)
		}
	}
	if have != 1 {
		t.Errorf("%d have it", have)
	}
}

// A domain that changed hands: the old holder's proof is gone, so it lapses when the new one proves his, at once.
func TestANewOwnerNeedNotWait(t *testing.T) {
	b := setup(t)
	b.must(b.own("ann", "shop.example.com", claim.DNS))
	b.world.drop("shop.example.com")
	b.must(b.own("bob", "*.example.com", claim.DNS))
	if got := b.holder("shop.example.com"); got != "bob" {
		t.Errorf("it belongs to %q", got)
	}
	if err := b.own("ann", "shop.example.com", claim.DNS); !taken(err) {
		t.Errorf("ann has it again: %v", err)
	}
	// While nobody answers nobody loses anything.
	b.must(b.own("ann", "cafe.example.org", claim.DNS))
	c := b.claim("bob", "cafe.example.org", claim.DNS)
	b.world.publish(c)
	name, _ := c.Record()
	b.world.mu.Lock()
	proofs := b.world.txt[name]
	b.world.mu.Unlock()
	flaky := &flakyDNS{world: b.world, answers: 1, list: proofs}
	b.Service.DNS = flaky
	if _, err := b.Prove(t.Context(), b.who["bob"], "bob", "cafe.example.org"); !taken(err) {
		t.Errorf("bob has what could not be looked at: %v", err)
	}
}

// flakyDNS answers a number of times.
type flakyDNS struct {
	*world
	answers int
	list    []string
}

func (f *flakyDNS) LookupTXT(context.Context, string) ([]string, error) {
	if f.answers--; f.answers < 0 {
		return nil, &net.DNSError{Err: "timeout", IsTimeout: true}
	}
	return f.list, nil
}

// Where another proved the domain above by DNS, a page is not proof enough: a name that was left pointing elsewhere is no gift.
func TestADanglingNameIsNotTakenByAPage(t *testing.T) {
	b := setup(t)
	b.must(b.own("ann", "example.com", claim.DNS))
	if err := b.own("bob", "old.example.com", claim.HTTP); !errors.Is(err, claim.ErrNoProof) || b.holder("old.example.com") != "" {
		t.Errorf("bob has it by a page: %v", err)
	}
	b.must(b.own("ann", "new.example.com", claim.HTTP))
	// bob was there first, by a page: he proves it by DNS, or loses it in the time of grace.
	b.must(b.own("bob", "www.example.org", claim.HTTP))
	b.must(b.own("ann", "example.org", claim.DNS))
	b.sweep()
	b.pass(73 * time.Hour)
	b.sweep()
	if got := b.holder("www.example.org"); got != "" {
		t.Errorf("it belongs to %q still", got)
	}
	b.must(b.own("bob", "www.example.org", claim.DNS))
}

func TestAClaimLapsesAfterItsGrace(t *testing.T) {
	b := setup(t)
	b.must(b.own("ann", "shop.example.com", claim.DNS))
	b.must(b.own("ann", "www.example.org", claim.HTTP))
	state := func() claim.State { return b.claim("ann", "shop.example.com", claim.DNS).State }
	b.sweep()
	if state() != claim.Active {
		t.Fatal(state())
	}
	before, err := b.store.Get(t.Context(), store.Key{Organization: "ann", Kind: claim.Kind, Name: "www.example.org"})
	b.must(err)
	b.world.drop("shop.example.com")
	b.pass(24 * time.Hour)
	b.sweep()
	if state() != claim.Failing || b.holder("shop.example.com") != "ann" {
		t.Errorf("%s, and it belongs to %q: there is grace", state(), b.holder("shop.example.com"))
	}
	b.world.publish(b.claim("ann", "shop.example.com", claim.DNS))
	b.sweep()
	if state() != claim.Active {
		t.Errorf("%s, and its proof is there again", state())
	}
	b.world.drop("shop.example.com")
	b.sweep()
	b.pass(71 * time.Hour)
	b.sweep()
	if state() != claim.Failing {
		t.Error(state())
	}
	b.pass(2 * time.Hour)
	b.sweep()
	if s := b.claim("ann", "shop.example.com", claim.DNS).State; s != claim.Lapsed || b.holder("shop.example.com") != "" || b.may("ann", "shop.example.com") {
		t.Errorf("%s, and it belongs to %q: its time is over", s, b.holder("shop.example.com"))
	}
	after, err := b.store.Get(t.Context(), store.Key{Organization: "ann", Kind: claim.Kind, Name: "www.example.org"})
	if err != nil || after.Revision != before.Revision {
		t.Errorf("looks that found nothing new were written down: %v", err)
	}
	b.world.publish(b.claim("ann", "shop.example.com", claim.DNS))
	_, err = b.Prove(t.Context(), b.who["ann"], "ann", "shop.example.com")
	b.must(err)
	if b.holder("shop.example.com") != "ann" {
		t.Error("a proof does not bring it back")
	}
	if _, err := audit.Verify(t.Context(), b.store, "ann"); err != nil {
		t.Error(err)
	}
}

// A resolver that fails takes nobody's names away, unless it does so for two weeks.
func TestSilenceIsNotAbsence(t *testing.T) {
	b := setup(t)
	for i := range 5 {
		b.must(b.own("ann", fmt.Sprintf("shop%d.example.com", i), claim.DNS))
	}
	b.world.set(true)
	for range 13 {
		b.sweep()
		b.pass(24 * time.Hour)
	}
	for i := range 5 {
		if b.holder(fmt.Sprintf("shop%d.example.com", i)) != "ann" {
			t.Fatal("silence took a name")
		}
	}
	b.world.set(false)
	b.sweep()
	b.world.set(true)
	b.sweep()
	b.pass(13 * 24 * time.Hour)
	b.sweep()
	if b.holder("shop0.example.com") != "ann" {
		t.Error("the time of silence did not begin anew")
	}
	b.pass(25 * time.Hour)
	b.sweep()
	if b.holder("shop0.example.com") != "" {
		t.Error("silence has no end")
	}
}

// Turns are spread, and each name has one turn in a day, however the day is cut.
func TestEachNameHasItsTurn(t *testing.T) {
	b := setup(t)
	const names = 24
	for i := range names {
		b.must(b.own("ann", fmt.Sprintf("shop%d.example.com", i), claim.DNS))
	}
	b.world.mu.Lock()
	b.world.looks = 0
	b.world.mu.Unlock()
	most := 0
	for range 48 {
		before, from := b.world.looks, b.clock()
		b.must(b.Sweep(t.Context(), nil, from, b.pass(30*time.Minute)))
		most = max(most, b.world.looks-before)
	}
	if b.world.looks != names || most > names/3 {
		t.Errorf("%d looks in a day, %d at once", b.world.looks, most)
	}
}

func TestASweepOfAFormerLeaderWritesNothing(t *testing.T) {
	b := setup(t)
	b.must(b.own("ann", "shop.example.com", claim.DNS))
	b.world.drop("shop.example.com")
	first, err := b.store.TryLead(t.Context(), "claims", "a")
	b.must(err)
	first.Close()
	second, err := b.store.TryLead(t.Context(), "claims", "b")
	b.must(err)
	defer second.Close()
	now := b.clock()
	if err := b.Sweep(t.Context(), first, now.Add(-24*time.Hour), now); !errors.Is(err, store.ErrFenced) {
		t.Errorf("who led before sweeps: %v", err)
	}
	b.must(b.Sweep(t.Context(), second, now.Add(-24*time.Hour), now))
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{
		"shop.example.com": "shop.example.com", "Shop.Example.COM.": "shop.example.com", "*.Example.com": "*.example.com", "bücher.de": "xn--bcher-kva.de",
		"*.BÜCHER.de.": "*.xn--bcher-kva.de", "shop。example．com": "shop.example.com", "me.github.io": "me.github.io", "github.io": "github.io", "straße.de": "xn--strae-oqa.de",
	} {
		n, err := claim.ParseName(in)
		if err != nil || n.String() != want {
			t.Errorf("%q is %q, %v", in, n, err)
		}
	}
	for _, bad := range []string{
		"", ".", "*", "*.", "com", "*.com", "co.uk", "*.co.uk", "com.", "localhost", "a..b.com", "-a.com", "a-.com", "a_b.com", "a b.com", "a/b.com", "a.com:80", "http://a.com",
		"1.2.3.4", "::1", "[::1]", "*.1.2.3.4", "a.*.com", "*.*.example.com", "a.com\x00", "a.com..", "1.2.3", strings.Repeat("a", 64) + ".com",
		strings.Repeat("a.", 130) + "com", strings.Repeat("x", 5000), "xn--a.com", "a\u200db.com", "\u202ea.com", "a.com#", "a.com?x", "ex%61mple.com",
	} {
		if n, err := claim.ParseName(bad); !errors.Is(err, claim.ErrName) {
			t.Errorf("%q is taken for %q: %v", bad, n, err)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"shop.example.com", "*.bücher.de.", "a。b.com", "1.2.3.4", "xn--bcher-kva.de"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := claim.ParseName(s)
		if err != nil {
			return
		}
		again, err := claim.ParseName(n.String())
		if err != nil || again != n {
			t.Errorf("%q is %q, which is %q, %v", s, n, again, err)
		}
		if n.String() != strings.ToLower(n.String()) || strings.HasSuffix(n.String(), ".") || n.Covers("*") {
			t.Errorf("%q is %q", s, n)
		}
	})
}

func TestTheWebReachesOnlyThePublic(t *testing.T) {
	hits := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hits++
		switch r.URL.Path {
		case "/elsewhere":
			http.Redirect(w, r, "http://other.example.com/", http.StatusFound)
		case "/same":
			http.Redirect(w, r, "/end", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/big":
			_, _ = w.Write(make([]byte, 1<<20))
		default:
			_, _ = w.Write([]byte("the end"))
		}
	}))
	defer server.Close()
	if _, _, err := claim.NewWeb(nil).Fetch(t.Context(), server.URL); err == nil || !strings.Contains(err.Error(), "not a public address") || hits != 0 {
		t.Errorf("it reached 127.0.0.1: %v", err)
	}
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for _, host := range []string{"localhost", "[::1]", "[::ffff:127.0.0.1]", "10.0.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "[fe80::1]", "[fd00::1]", "192.0.2.1", "[64:ff9b::7f00:1]"} {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		if _, _, err := claim.NewWeb(nil).Fetch(ctx, "http://"+host+port); err == nil || !strings.Contains(err.Error(), "not a public address") {
			t.Errorf("%s: %v", host, err)
		}
		cancel()
	}
	web := claim.NewWeb(func(a netip.Addr) bool { return a.IsLoopback() })
	for path, want := range map[string]struct {
		status int
		bytes  int
	}{"/": {200, 7}, "/same": {200, 7}, "/elsewhere": {302, -1}, "/loop": {302, -1}, "/big": {200, 4096}} {
		status, body, err := web.Fetch(t.Context(), server.URL+path)
		if err != nil || status != want.status || want.bytes >= 0 && len(body) != want.bytes {
			t.Errorf("%s: %d, %d bytes, %v", path, status, len(body), err)
		}
	}
}
