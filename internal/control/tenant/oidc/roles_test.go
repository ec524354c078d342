package oidc_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/oidc"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/test/postgres"
)

func editor(claim, value, org string) tenant.RoleMapping {
	return tenant.RoleMapping{Claim: claim, Value: value, Organization: org, Role: tenant.RoleEditor}
}

func TestRolesComeAndGoWithWhatTheProviderSays(t *testing.T) {
	b := setup(t)
	ctx, p := t.Context(), b.provider
	b.must(b.tenant.CreateProject(ctx, b.op, "shop", "web"))
	b.put(tenant.Provider{CreateUsers: true, Roles: []tenant.RoleMapping{
		editor("groups", "staff", "shop"), editor("groups", "staff", "cafe"), editor("https://example.com/boss", "yes", "east"),
		{Claim: "realm.roles", Value: "web", Organization: "shop", Project: "web", Role: tenant.RoleEditor},
	}})
	in, err := b.login("shop")
	b.must(err)
	sam := in.Actor
	if !b.may(sam, "shop", "") || b.may(sam, "cafe", "") || b.may(sam, "east", "") {
		t.Error("staff of the shop is not an editor of the shop alone")
	}
	state, err := b.store.Get(ctx, store.Key{Organization: "shop", Kind: tenant.KindBinding, Name: "shop/sam@example.com/editor"})
	b.must(err)
	_, err = b.login("shop")
	b.must(err)
	if again, err := b.store.Get(ctx, state.Key); err != nil || again.Revision != state.Revision {
		t.Errorf("a login that changes nothing changes the role: %v", err)
	}
	p.set(func() {
		p.claims["groups"], p.claims["realm"], p.claims["https://example.com/boss"] = []string{"others", "staffers"}, map[string]any{"roles": []string{"web"}}, "yes"
	})
	_, err = b.login("shop")
	b.must(err)
	if !b.may(sam, "east", "") || !b.may(sam, "cafe", "") {
		t.Error("the boss is none")
	}
	p.set(func() { p.claims["https://example.com/boss"] = "no" })
	_, err = b.login("shop")
	b.must(err)
	if b.may(sam, "east", "") || b.may(sam, "cafe", "") || b.may(sam, "shop", "") || !b.may(sam, "shop", "web") {
		t.Error("what the provider asserts no more is still there, or what it asserts is not")
	}
	// What a person gave is not the provider's to take, nor to lengthen.
	b.must(b.tenant.Bind(ctx, b.op, "shop", "", sam, tenant.RoleEditor, nil))
	p.set(func() { p.claims["groups"] = []string{"staff"} })
	_, err = b.login("shop")
	b.must(err)
	p.set(func() { p.claims["groups"] = []string{} })
	_, err = b.login("shop")
	b.must(err)
	if !b.may(sam, "shop", "") {
		t.Error("a role that a person gave went")
	}
	b.must(b.tenant.Unbind(ctx, b.op, "shop", "", sam, tenant.RoleEditor))
	// A role ends by itself where nobody logs in any more.
	p.set(func() { p.claims["groups"] = "staff" })
	_, err = b.login("shop")
	b.must(err)
	b.pass(13 * time.Hour)
	_, err = b.login("shop") // less than a session's life was left
	b.must(err)
	b.pass(23 * time.Hour)
	if !b.may(sam, "shop", "") {
		t.Error("the role ended before its day")
	}
	b.pass(2 * time.Hour)
	if b.may(sam, "shop", "") {
		t.Error("a role that nobody asserted for a day is held")
	}
	// A mapping that is gone takes its roles with it.
	_, err = b.login("shop")
	b.must(err)
	b.put(tenant.Provider{CreateUsers: true})
	_, err = b.login("shop")
	b.must(err)
	if b.may(sam, "shop", "") || b.may(sam, "shop", "web") {
		t.Error("roles outlive their mapping")
	}
}

func TestNobodyMapsMoreThanHeHas(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.must(b.tenant.PutRole(ctx, b.op, "shop", "keys", tenant.Role{Rules: []tenant.Rule{
		{Verbs: []tenant.Verb{"*"}, Kinds: []string{tenant.KindProvider, tenant.KindBinding, "Site"}},
	}}))
	b.must(b.tenant.PutRole(ctx, b.op, "shop", "sites", tenant.Role{Rules: []tenant.Rule{{Verbs: []tenant.Verb{"read"}, Kinds: []string{"Site"}}}}))
	b.must(b.tenant.CreateUser(ctx, b.op, "shop", "kim", password, false))
	kim := tenant.Actor{Organization: "shop", Login: "kim"}
	put := func(m ...tenant.RoleMapping) error {
		return b.tenant.PutProvider(ctx, kim, "shop", "own", tenant.Provider{Issuer: "https://id.example.com", ClientID: "x", Roles: m}, "s")
	}
	b.is(put(), tenant.ErrDenied)
	b.must(b.tenant.Bind(ctx, b.op, "shop", "", kim, "keys", nil))
	b.must(put())
	b.must(put(tenant.RoleMapping{Organization: "shop", Role: "sites"}))
	b.is(put(tenant.RoleMapping{Organization: "shop", Role: tenant.RoleAdmin}), tenant.ErrDenied)
	b.is(put(tenant.RoleMapping{Organization: "cafe", Role: "sites"}), tenant.ErrDenied)
	b.is(put(tenant.RoleMapping{Organization: "east", Role: tenant.RoleViewer}), tenant.ErrDenied)
	b.is(put(tenant.RoleMapping{Organization: "nowhere", Role: tenant.RoleViewer}), tenant.ErrDenied)
	b.is(put(tenant.RoleMapping{Organization: "shop", Role: "none"}), tenant.ErrInvalid)
	b.is(put(tenant.RoleMapping{Claim: "x", Organization: "shop", Role: "sites"}), tenant.ErrInvalid)
	b.is(put(make([]tenant.RoleMapping, 33)...), tenant.ErrInvalid)
	for _, p := range []tenant.Provider{
		{ClientID: ""},
		{ClientID: "a\nb"},
		{ClientID: "x", Scopes: []string{"a b"}},
		{ClientID: "x", Domains: []string{"Example.com"}},
		{ClientID: "x", Domains: []string{"com"}},
		{ClientID: "x", Scopes: make([]string, 17)},
		{ClientID: "x", Title: strings.Repeat("x", 257)},
	} {
		p.Issuer = "https://id.example.com"
		b.is(b.tenant.PutProvider(ctx, b.op, "shop", "own", p, "s"), tenant.ErrInvalid)
	}
	// A secret goes to no other issuer or client than the one that it is of.
	b.is(b.tenant.PutProvider(ctx, b.op, "shop", "own", tenant.Provider{Issuer: "https://evil.example.com", ClientID: "x"}, ""), tenant.ErrInvalid)
	b.is(b.tenant.PutProvider(ctx, b.op, "shop", "own", tenant.Provider{Issuer: "https://id.example.com", ClientID: "y"}, ""), tenant.ErrInvalid)
	b.must(b.tenant.PutProvider(ctx, b.op, "shop", "own", tenant.Provider{Issuer: "https://id.example.com", ClientID: "x"}, ""))
	if _, _, s, err := b.tenant.FindProvider(ctx, "shop", "own"); err != nil || s != "s" {
		t.Errorf("the secret is %q, %v", s, err)
	}
	list, err := b.tenant.Providers(ctx, b.op, "shop")
	if err != nil || len(list) != 1 || list["own"].Secret != nil {
		t.Errorf("%+v, %v", list, err)
	}
	choices, err := b.tenant.Choices(ctx, "shop")
	if err != nil || len(choices) != 2 || choices[0].String() != "shop/own" || choices[1].String() != "east/idp" {
		t.Errorf("%+v, %v", choices, err)
	}
	if list, err := b.tenant.Choices(ctx, "nowhere"); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
	for i := range 15 {
		b.must(b.tenant.PutProvider(ctx, b.op, "shop", "p"+string(rune('a'+i)), tenant.Provider{Issuer: "https://id.example.com", ClientID: "x"}, ""))
	}
	var l *store.LimitError
	if err := b.tenant.PutProvider(ctx, b.op, "shop", "more", tenant.Provider{Issuer: "https://id.example.com", ClientID: "x"}, ""); !errors.As(err, &l) {
		t.Errorf("a seventeenth: %v", err)
	}
}

func TestWhoIsLetIn(t *testing.T) {
	b := setup(t)
	ctx, p := t.Context(), b.provider
	b.put(tenant.Provider{CreateUsers: true, Domains: []string{"example.com"}})
	for name, claims := range map[string]map[string]any{
		"an address that is not verified": {"email_verified": false},
		"one of which nothing is said":    {"email_verified": nil},
		"another domain":                  {"email": "sam@example.org"},
		"one below it":                    {"email": "sam@mail.example.com"},
		"one that ends like it":           {"email": "sam@notexample.com"},
		"two signs":                       {"email": "sam@example.com@evil.org"},
		"no address":                      {"email": nil},
		"the domain alone":                {"email": "@example.com"},
		"a list":                          {"email": []string{"sam@example.com"}},
	} {
		p.set(func() { p.claims = claims })
		if _, err := b.login("shop"); !errors.Is(err, tenant.ErrFederated) {
			t.Errorf("%s: %v", name, err)
		}
	}
	p.set(func() { p.claims = map[string]any{"email": "Sam@EXAMPLE.com", "email_verified": "true"} })
	in, err := b.login("shop")
	b.must(err)
	if in.Login != "sam@example.com" {
		t.Errorf("%+v", in)
	}
	// Who is disabled stays out, and who is deleted comes in as somebody new, without what the former one had.
	b.must(b.tenant.Bind(ctx, b.op, "shop", "", in.Actor, tenant.RoleEditor, nil))
	b.must(b.tenant.SetDisabled(ctx, b.op, "shop", in.Login, true))
	_, err = b.login("shop")
	b.is(err, tenant.ErrFederated)
	b.must(b.tenant.DeleteUser(ctx, b.op, "shop", in.Login))
	in, err = b.login("shop")
	b.must(err)
	if b.may(in.Actor, "shop", "") {
		t.Error("a new user has the rights of the former one")
	}
	// A provider that makes nobody lets in who is known.
	b.put(tenant.Provider{})
	_, err = b.login("shop")
	b.must(err)
	p.set(func() { p.claims = map[string]any{"sub": "unknown"} })
	_, err = b.login("shop")
	b.is(err, tenant.ErrFederated)
	// And a plan that is full lets in nobody new.
	b.put(tenant.Provider{CreateUsers: true})
	b.must(b.tenant.PutPlan(ctx, b.op, "op", "small", tenant.Plan{Limits: map[string]tenant.Limit{tenant.MetricUsers: {Most: 1, AtLimit: tenant.Refuse}}}))
	b.must(b.tenant.AssignPlan(ctx, b.op, "shop", tenant.PlanRef{Organization: "op", Name: "small"}))
	_, err = b.login("shop")
	var q *tenant.QuotaError
	if !errors.As(err, &q) {
		t.Errorf("a second user: %v", err)
	}
	if c := b.Counts(); c.Denied != 11 {
		t.Errorf("%+v", c)
	}
}

func TestLinking(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.put(tenant.Provider{})
	for _, login := range []string{"ann", "bob"} {
		b.must(b.tenant.CreateUser(ctx, b.op, "shop", login, password, false))
	}
	ann, bob := tenant.Actor{Organization: "shop", Login: "ann"}, tenant.Actor{Organization: "shop", Login: "bob"}
	link := func(a tenant.Actor) error {
		to, _, err := b.BeginLink(ctx, a, "idp", redirect)
		if err != nil {
			return err
		}
		_, err = b.Finish(ctx, callback(b.provider.visit(to)))
		return err
	}
	b.must(link(ann))
	b.must(link(ann))
	in, err := b.login("shop")
	b.must(err)
	if in.Login != "ann" {
		t.Errorf("%+v", in)
	}
	b.is(link(bob), tenant.ErrInUse)
	b.is(link(tenant.Actor{Organization: "shop", Login: "ann", Token: &tenant.Grant{}}), tenant.ErrDenied)
	// A second factor of ours is not asked of who comes by a provider.
	uri, err := b.tenant.BeginTOTP(ctx, ann)
	b.must(err)
	if uri == "" {
		t.Fatal("no second factor")
	}
	_, err = b.login("shop")
	b.must(err)
}

func TestSessionsEndWithTheirProvider(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	in, err := b.login("shop")
	b.must(err)
	open := func(p tenant.ProviderRef) string {
		text, _, err := b.tenant.OpenSession(ctx, in.Actor, tenant.SessionRequest{Source: netip.MustParseAddr("192.0.2.1"), Provider: p})
		b.must(err)
		return text
	}
	by, other := open(in.Provider), open(tenant.ProviderRef{})
	_, err = b.tenant.ResumeSession(ctx, by)
	b.must(err)
	b.put(tenant.Provider{Disabled: true})
	_, err = b.tenant.ResumeSession(ctx, by)
	b.is(err, auth.ErrToken)
	b.put(tenant.Provider{})
	b.must(b.tenant.DeleteProvider(ctx, b.op, "east", "idp"))
	_, err = b.tenant.ResumeSession(ctx, by)
	b.is(err, auth.ErrToken)
	_, err = b.tenant.ResumeSession(ctx, other)
	b.must(err)
	_, err = b.login("shop")
	b.is(err, store.ErrNotFound)
}

func TestTheClientsSecretIsClosed(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	d, err := b.store.Get(ctx, store.Key{Organization: "east", Kind: tenant.KindProvider, Name: "idp"})
	b.must(err)
	if strings.Contains(string(d.Body), clientSecret) {
		t.Error("it is in the store in clear")
	}
	entries, err := json.Marshal(b.entries("east"))
	b.must(err)
	if !strings.Contains(string(entries), "provider.put") || strings.Contains(string(entries), clientSecret) || strings.Contains(string(entries), "cipher") {
		t.Errorf("the audit log says %s", entries)
	}
	// One that is copied elsewhere does not open there.
	_, err = b.store.Update(ctx, store.Change{Author: "mallory"}, func(tx *store.Tx) error {
		_, err := tx.Put(ctx, store.Key{Organization: "shop", Kind: tenant.KindProvider, Name: "idp"}, d.Body, store.Any)
		return err
	})
	b.must(err)
	_, _, _, err = b.tenant.FindProvider(ctx, "shop", "idp")
	b.is(err, secret.ErrMoved)
	b.provider.set(func() { b.provider.another = "a new one" })
	_, err = b.login("east")
	b.is(err, oidc.ErrRefused)
}

func (b *bed) entries(org string) (list []string) {
	b.t.Helper()
	b.must(b.store.View(b.t.Context(), func(r *store.Reader) error {
		raw, err := r.Entries(b.t.Context(), org, "audit", 0, 0)
		for _, e := range raw {
			list = append(list, string(e.Body))
		}
		return err
	}))
	return list
}

func TestOverPostgres(t *testing.T) {
	postgres.Again(t, map[string]func(*testing.T){
		"TestSomebodyIsWhoTheProviderSays":          TestSomebodyIsWhoTheProviderSays,
		"TestWhatProvesNothing":                     TestWhatProvesNothing,
		"TestALoginIsFinishedOnceWhereItBegan":      TestALoginIsFinishedOnceWhereItBegan,
		"TestAProviderThatNamesItselfMust":          TestAProviderThatNamesItselfMust,
		"TestLoginsThatBeganAreBounded":             TestLoginsThatBeganAreBounded,
		"TestAProviderThatIsDownSlowOrHuge":         TestAProviderThatIsDownSlowOrHuge,
		"TestASlowProviderIsSlowForItselfAlone":     TestASlowProviderIsSlowForItselfAlone,
		"TestKeysRotate":                            TestKeysRotate,
		"TestIssuersThatMayNotBe":                   TestIssuersThatMayNotBe,
		"TestRolesComeAndGoWithWhatTheProviderSays": TestRolesComeAndGoWithWhatTheProviderSays,
		"TestNobodyMapsMoreThanHeHas":               TestNobodyMapsMoreThanHeHas,
		"TestWhoIsLetIn":                            TestWhoIsLetIn,
		"TestLinking":                               TestLinking,
		"TestSessionsEndWithTheirProvider":          TestSessionsEndWithTheirProvider,
		"TestTheClientsSecretIsClosed":              TestTheClientsSecretIsClosed,
	})
}
