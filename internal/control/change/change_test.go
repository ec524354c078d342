package change_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/claim"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/internal/document"
)

// bed is a control plane with an operator and two tenants, whose admins are root, ann and bob.
type bed struct {
	*change.Service
	t      *testing.T
	store  *store.Store
	tenant *tenant.Service
	claims *claim.Service
	zone   zone
	key    string // of the vault

	root, ann, bob tenant.Actor
}

// zone answers TXT questions.
type zone struct {
	mu  sync.Mutex
	txt map[string][]string
}

func (z *zone) LookupTXT(_ context.Context, name string) ([]string, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.txt[name], nil
}

func setup(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, zone: zone{txt: map[string][]string{}}}
	var err error
	if b.store, err = store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "relais.db"), store.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.store.Close() })
	private, _, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	b.key = private
	vault, err := secret.NewVault(private)
	if err != nil {
		t.Fatal(err)
	}
	b.tenant = tenant.New(tenant.Config{Store: b.store, Vault: vault, Hasher: auth.NewHasher(auth.Cost{Passes: 1, MemoryKiB: 64, Lanes: 1}, 2), Issuer: "Relais"})
	b.claims = claim.New(claim.Config{Store: b.store, Tenant: b.tenant, DNS: &b.zone})
	b.Service = change.New(change.Config{Store: b.store, Tenant: b.tenant, Vault: vault})
	if b.root, err = b.tenant.Setup(t.Context(), "op", "root", "correct horse battery"); err != nil {
		t.Fatal(err)
	}
	for _, org := range []string{"shop", "deli"} {
		b.must(b.tenant.CreateOrganization(t.Context(), b.root, "op", org, ""))
	}
	b.ann, b.bob = b.user("shop", "ann", tenant.RoleAdmin), b.user("deli", "bob", tenant.RoleAdmin)
	b.apply(b.root, "op", "apiVersion: relais/v1\nkind: Listener\nmetadata: {name: web}\nspec: {address: ':8080'}\n")
	return b
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) user(org, login, role string) tenant.Actor {
	b.t.Helper()
	b.must(b.tenant.CreateUser(b.t.Context(), b.root, org, login, "correct horse battery", false))
	a := tenant.Actor{Organization: org, Login: login}
	if role != "" {
		b.must(b.tenant.Bind(b.t.Context(), b.root, org, "", a, role, nil))
	}
	return a
}

func files(texts ...string) (list []document.File) {
	for _, text := range texts {
		list = append(list, document.File{Name: "request", Text: []byte(text)})
	}
	return list
}

func (b *bed) apply(a tenant.Actor, org string, texts ...string) *change.Result {
	b.t.Helper()
	r, err := b.Apply(b.t.Context(), a, org, files(texts...), change.Options{})
	b.must(err)
	return r
}

// refused expects problems, of which one holds the text.
func (b *bed) refused(err error, want string) {
	b.t.Helper()
	var p *change.ProblemsError
	if !errors.As(err, &p) {
		b.t.Errorf("%v, not problems with %q", err, want)
		return
	}
	for _, x := range p.Problems {
		if strings.Contains(x.String(), want) {
			return
		}
	}
	b.t.Errorf("%v, none of them has %q", p.Problems, want)
}

func (b *bed) is(err, want error) {
	b.t.Helper()
	if !errors.Is(err, want) {
		b.t.Errorf("%v, not %v", err, want)
	}
}

const head = "apiVersion: relais/v1\nkind: "

func pool(name string) string {
	return head + "OriginPool\nmetadata: {name: " + name + "}\nspec: {tiers: [{origins: [{address: '192.0.2.1:80'}]}]}\n"
}

func site(name, host, pool string) string {
	return head + "Site\nmetadata: {name: " + name + "}\nspec: {hostnames: ['" + host + "'], routes: [{pool: " + pool + "}]}\n"
}

func TestAChangeIsWholeOrNothing(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	_, err := b.Apply(ctx, b.ann, "shop", files(pool("a"), site("s", "shop.example", "none")), change.Options{})
	b.refused(err, `spec.routes[0].pool: there is no OriginPool "none"`)
	_, err = b.Apply(ctx, b.ann, "shop", files(pool("a"), head+"Site\nmetadata: {name: s}\nspec: {hostname: x}\n"), change.Options{})
	b.refused(err, "request:4:8: Site shop/s spec.hostname: there is no such field")
	if _, err = b.Get(ctx, b.ann, "shop", v1.KindOriginPool, "a"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("half of a change is there: %v", err)
	}
	dry, err := b.Apply(ctx, b.ann, "shop", files(pool("a"), site("s", "shop.example", "a")), change.Options{DryRun: true})
	b.must(err)
	r := b.apply(b.ann, "shop", pool("a"), site("s", "shop.example", "a"))
	if r.Changed() != 2 || r.Revision != dry.Revision+1 || dry.Changed() != 2 || len(r.Pending) != 1 || r.Pending[0].Hostname != "shop.example" || !strings.Contains(r.Pending[0].Fix, "claim") {
		t.Errorf("%+v, dry %+v", r, dry)
	}
	again := b.apply(b.ann, "shop", pool("a"), site("s", "shop.example", "a"))
	if again.Changed() != 0 || again.Revision != r.Revision || again.Changes[0].Action != change.Unchanged {
		t.Errorf("nothing was to change: %+v", again)
	}
	r = b.apply(b.ann, "shop", site("s", "m.shop.example", "a"))
	if f := r.Changes[0].Fields; len(f) != 1 || f[0].Path != "/spec/hostnames/0" || string(f[0].After) != `"m.shop.example"` {
		t.Errorf("%+v", r.Changes)
	}
	_, err = audit.Verify(ctx, b.store, "shop")
	b.must(err)
}

func TestOnlyWhatWasReadIsChanged(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.apply(b.ann, "shop", pool("a"))
	it, err := b.Get(ctx, b.ann, "shop", v1.KindOriginPool, "a")
	b.must(err)
	b.apply(b.ann, "shop", strings.Replace(pool("a"), "192.0.2.1", "192.0.2.2", 1))
	var conflict *store.ConflictError
	if _, err = b.Apply(ctx, b.ann, "shop", files(string(it.Document)), change.Options{}); !errors.As(err, &conflict) {
		t.Errorf("metadata.revision was not compared: %v", err)
	}
	absent := store.Absent
	if _, err = b.Apply(ctx, b.ann, "shop", files(pool("a")), change.Options{Expect: &absent}); !errors.As(err, &conflict) {
		t.Errorf("it exists: %v", err)
	}
	if _, err = b.Delete(ctx, b.ann, "shop", []change.Ref{{Kind: v1.KindOriginPool, Name: "a", Revision: it.Revision}}, change.Options{}); !errors.As(err, &conflict) {
		t.Errorf("an old one was deleted: %v", err)
	}
	_, err = b.Delete(ctx, b.ann, "shop", []change.Ref{{Kind: v1.KindOriginPool, Name: "none"}}, change.Options{})
	b.is(err, store.ErrNotFound)
}

func TestWhatIsNamedIsNotDeleted(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.apply(b.ann, "shop", pool("a"), strings.Replace(site("s", "shop.example", "a"), "routes:", "listeners: [web], routes:", 1))
	_, err := b.Delete(ctx, b.ann, "shop", []change.Ref{{Kind: v1.KindOriginPool, Name: "a"}}, change.Options{})
	b.refused(err, `Site shop/s spec.routes[0].pool`)
	_, err = b.Delete(ctx, b.root, "op", []change.Ref{{Kind: v1.KindListener, Name: "web"}}, change.Options{})
	b.refused(err, "Site shop/s is served on it")
	_, err = b.Delete(ctx, b.ann, "shop", []change.Ref{{Kind: v1.KindSite, Name: "s"}, {Kind: v1.KindOriginPool, Name: "a"}}, change.Options{})
	b.must(err)
	_, err = b.Delete(ctx, b.root, "op", []change.Ref{{Kind: v1.KindListener, Name: "web"}}, change.Options{})
	b.must(err)
	_, err = b.Apply(ctx, b.ann, "shop", files(head+"KillSwitch\nmetadata: {name: k}\nspec: {features: [waf], sites: [s], reason: x, expires: 2030-01-01T00:00:00Z}\n"), change.Options{})
	b.refused(err, `spec.sites[0]: there is no Site "s"`)
}

func TestWhatNothingPutsInServiceIsRefused(t *testing.T) {
	b := setup(t)
	b.Unserved = map[v1.Kind]string{v1.KindKillSwitch: "write mode: off"}
	_, err := b.Apply(t.Context(), b.root, "op", files(head+"KillSwitch\nmetadata: {name: k}\nspec: {features: [waf], everywhere: true, reason: x, expires: 2030-01-01T00:00:00Z}\n"), change.Options{})
	b.refused(err, "does not put in service")
	b.apply(b.ann, "shop", pool("a"))
}

func TestWhoMayWriteWhat(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	viewer := b.user("shop", "vic", tenant.RoleViewer)
	nobody := b.user("shop", "ned", "")
	for _, a := range []tenant.Actor{b.bob, viewer, nobody, {Organization: "shop", Login: "ghost"}} {
		_, err := b.Apply(ctx, a, "shop", files(pool("a")), change.Options{DryRun: true})
		b.is(err, tenant.ErrDenied)
	}
	b.apply(b.ann, "shop", pool("a"))
	for _, a := range []tenant.Actor{b.bob, nobody} {
		_, err := b.Get(ctx, a, "shop", v1.KindOriginPool, "a")
		b.is(err, tenant.ErrDenied)
		_, err = b.Get(ctx, a, "shop", v1.KindOriginPool, "none")
		b.is(err, tenant.ErrDenied)
		_, _, err = b.List(ctx, a, "shop", change.Query{})
		b.is(err, tenant.ErrDenied)
		_, _, err = b.Diff(ctx, a, "shop", 0, 0, "", 0)
		b.is(err, tenant.ErrDenied)
		_, _, err = b.History(ctx, a, "shop", v1.KindOriginPool, "a", "", 0)
		b.is(err, tenant.ErrDenied)
		_, err = b.Export(ctx, a, "shop", "")
		b.is(err, tenant.ErrDenied)
		_, err = b.Rollback(ctx, a, "shop", 0, change.Options{})
		b.is(err, tenant.ErrDenied)
		_, err = b.Apply(ctx, a, "nowhere", files(pool("a")), change.Options{})
		b.is(err, tenant.ErrDenied)
	}
	for text, want := range map[string]string{
		head + "Listener\nmetadata: {name: l}\nspec: {address: ':80'}\n":                                                                "only the operator's organization may",
		head + "Pop\nmetadata: {name: p}\nspec: {region: eu}\n":                                                                         "only the operator's organization may",
		head + "Certificate\nmetadata: {name: c}\nspec: {files: {certificate: /etc/passwd, key: /etc/shadow}}\n":                        "spec.files: names something of the machine",
		head + "Certificate\nmetadata: {name: c}\nspec: {acme: {hostnames: [a.example], dns: {exec: [/bin/sh]}}}\n":                     "spec.acme.dns.exec: names something",
		head + "ApiPolicy\nmetadata: {name: c}\nspec: {document: {file: /etc/passwd}}\n":                                                "the control plane reads none",
		head + "Pop\nmetadata: {name: p, organization: deli}\nspec: {region: eu}\n":                                                     `metadata.organization: is "deli"`,
		head + "KillSwitch\nmetadata: {name: k}\nspec: {features: [waf], everywhere: true, reason: x, expires: 2030-01-01T00:00:00Z}\n": "only the operator's switches",
		head + "Lease\nmetadata: {name: k}\n":                                                                                           "reserved for a later version",
		"":                                                                                                                              "holds no documents",
	} {
		_, err := b.Apply(ctx, b.ann, "shop", files(text), change.Options{})
		b.refused(err, want)
	}
	b.apply(b.root, "op", head+"Pop\nmetadata: {name: p}\nspec: {region: eu}\n---\n"+head+"Certificate\nmetadata: {name: c}\nspec: {files: {certificate: /a, key: /b}}\n")
}

func TestBoundsAndQuotas(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.must(b.tenant.SetGuardrails(ctx, b.root, "op", false, tenant.Guardrails{Bounds: []tenant.Bound{{Kind: "OriginPool", Path: "spec.connection.public", Allowed: []string{"true"}}, {Kind: "WafPolicy", Path: "spec.paranoia", Min: "1", Max: "2"}}}))
	_, err := b.Apply(ctx, b.ann, "shop", files(pool("a")), change.Options{})
	b.refused(err, "spec.connection.public: ")
	b.apply(b.ann, "shop", strings.Replace(pool("a"), "spec: {", "spec: {connection: {public: true}, ", 1), head+"WafPolicy\nmetadata: {name: w}\nspec: {}\n")
	_, err = b.Apply(ctx, b.ann, "shop", files(head+"WafPolicy\nmetadata: {name: w}\nspec: {paranoia: 4}\n"), change.Options{})
	b.refused(err, "request:4:8: WafPolicy shop/w spec.paranoia: 4 is above 2; keep to the bounds that op has set")

	b.must(b.tenant.PutPlan(ctx, b.root, "op", "small", tenant.Plan{Limits: map[string]tenant.Limit{tenant.MetricSites: {Most: 1, AtLimit: tenant.Refuse}, change.MetricRules: {Most: 3, AtLimit: tenant.Refuse}}}))
	b.must(b.tenant.AssignPlan(ctx, b.root, "shop", tenant.PlanRef{Organization: "op", Name: "small"}))
	b.apply(b.ann, "shop", site("s", "shop.example", "a"))
	var quota *tenant.QuotaError
	for _, dry := range []bool{true, false} {
		if _, err = b.Apply(ctx, b.ann, "shop", files(site("t", "t.example", "a")), change.Options{DryRun: dry}); !errors.As(err, &quota) || quota.Metric != tenant.MetricSites {
			t.Errorf("a second site: %v", err)
		}
	}
	b.apply(b.ann, "shop", strings.Replace(site("s", "shop.example", "a"), "routes: [", "routes: [{pool: a, match: [{path: {prefix: /x}}]}, ", 1))
	used, _, err := b.tenant.Usage(ctx, b.ann, "shop", change.MetricRules)
	if b.must(err); used != 2 {
		t.Errorf("%d rules are counted, there are 2 routes", used)
	}
	_, err = b.Delete(ctx, b.ann, "shop", []change.Ref{{Kind: v1.KindSite, Name: "s"}}, change.Options{})
	b.must(err)
	b.apply(b.ann, "shop", site("t", "t.example", "a"))
	for metric, want := range map[string]int64{tenant.MetricSites: 1, tenant.MetricDocuments: 3, change.MetricRules: 1} {
		if used, _, err = b.tenant.Usage(ctx, b.ann, "shop", metric); err != nil || used != want {
			t.Errorf("%d %s are counted, want %d (%v)", used, metric, want, err)
		}
	}
}

func TestNamesAreServedOnceTheyAreProved(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.apply(b.ann, "shop", pool("a"), strings.Replace(site("s", "shop.example", "a"), "['shop.example']", "[shop.example, www.shop.example, '*']", 1))
	served := func(org string) (hosts []string, pending int) {
		t.Helper()
		b.must(b.store.View(ctx, func(r *store.Reader) error {
			docs, left, err := b.Served(ctx, r, org)
			for _, d := range docs {
				if s, is := d.(*v1.Site); is {
					hosts = append(hosts, s.Spec.Hostnames...)
				}
			}
			pending = len(left)
			return err
		}))
		return hosts, pending
	}
	if hosts, pending := served("shop"); len(hosts) != 0 || pending != 3 {
		t.Errorf("%q are served, %d wait", hosts, pending)
	}
	c, err := b.claims.Create(ctx, b.ann, "shop", "www.shop.example", claim.DNS)
	b.must(err)
	name, value := c.Record()
	b.zone.mu.Lock()
	b.zone.txt[name] = []string{value}
	b.zone.mu.Unlock()
	_, err = b.claims.Prove(ctx, b.ann, "shop", "www.shop.example")
	b.must(err)
	if hosts, pending := served("shop"); len(hosts) != 1 || hosts[0] != "www.shop.example" || pending != 2 {
		t.Errorf("%q are served, %d wait", hosts, pending)
	}
	it, err := b.Get(ctx, b.ann, "shop", v1.KindSite, "s")
	b.must(err)
	if len(it.Pending) != 2 {
		t.Errorf("%+v", it.Pending)
	}
	b.apply(b.bob, "deli", pool("a"), site("s", "www.shop.example", "a"))
	if hosts, pending := served("deli"); len(hosts) != 0 || pending != 1 {
		t.Errorf("another's name: %q are served, %d wait", hosts, pending)
	}
	b.apply(b.root, "op", pool("a"), strings.Replace(site("s", "any.example", "a"), "['any.example']", "['*', www.shop.example, localhost, own.example]", 1))
	if hosts, pending := served("op"); len(hosts) != 3 || pending != 1 {
		t.Errorf("the operator: %q are served, %d wait", hosts, pending)
	}
}

func TestADocumentIsOfOneProject(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	in := func(project, text string) string {
		return strings.Replace(text, "metadata: {", "metadata: {project: "+project+", ", 1)
	}
	_, err := b.Apply(ctx, b.ann, "shop", files(in("blue", pool("a"))), change.Options{})
	b.refused(err, `there is no project "blue"`)
	b.must(b.tenant.CreateProject(ctx, b.ann, "shop", "blue"))
	b.must(b.tenant.CreateProject(ctx, b.ann, "shop", "red"))
	ben := b.user("shop", "ben", "")
	b.must(b.tenant.Bind(ctx, b.ann, "shop", "blue", ben, tenant.RoleEditor, nil))
	before := b.apply(ben, "shop", in("blue", pool("a")))
	_, err = b.Apply(ctx, ben, "shop", files(in("red", pool("a"))), change.Options{})
	b.is(err, tenant.ErrDenied)
	_, err = b.Apply(ctx, ben, "shop", files(pool("b")), change.Options{})
	b.is(err, tenant.ErrDenied)
	moved := b.apply(b.ann, "shop", in("red", pool("a")))
	if moved.Changes[0].Action != change.Updated {
		t.Errorf("%+v", moved.Changes)
	}
	_, err = b.Get(ctx, ben, "shop", v1.KindOriginPool, "a")
	b.is(err, tenant.ErrDenied)
	_, err = b.Apply(ctx, ben, "shop", files(in("blue", pool("a"))), change.Options{})
	b.is(err, tenant.ErrDenied)
	_, err = b.Rollback(ctx, b.ann, "shop", before.Revision, change.Options{})
	b.must(err)
	list, _, err := b.List(ctx, ben, "shop", change.Query{Project: "blue"})
	b.must(err)
	if len(list) != 1 || list[0].Project != "blue" {
		t.Errorf("it is not back in its project: %+v", list)
	}
}

func TestChangesSideBySideAreNotLost(t *testing.T) {
	b := setup(t)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			_, err := b.Apply(t.Context(), b.ann, "shop", files(pool(fmt.Sprintf("p%d", i)), site(fmt.Sprintf("s%d", i), fmt.Sprintf("s%d.example", i), fmt.Sprintf("p%d", i))), change.Options{})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, next, err := b.List(t.Context(), b.ann, "shop", change.Query{Kind: v1.KindSite, Limit: 10})
	b.must(err)
	more, end, err := b.List(t.Context(), b.ann, "shop", change.Query{Kind: v1.KindSite, Limit: 10, Cursor: next})
	b.must(err)
	if len(list) != 10 || len(more) != 2 || end != "" {
		t.Errorf("%d and %d sites, then %q", len(list), len(more), end)
	}
	used, _, err := b.tenant.Usage(t.Context(), b.ann, "shop", tenant.MetricSites)
	if b.must(err); used != 12 {
		t.Errorf("%d sites are counted", used)
	}
}
