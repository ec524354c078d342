package tenant_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
	"github.com/relais-edge/relais/test/postgres"
)

const password = "correct horse battery"

// bed is a store with an operator, two resellers and three sellers:
//
//	op ── east ── shop, cafe
//	   └─ west ── deli
type bed struct {
	*tenant.Service
	t     *testing.T
	store *store.Store
	key   string // of the vault
	op    tenant.Actor

	mu  sync.Mutex
	now time.Time
}

func (b *bed) clock() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

func (b *bed) pass(d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = b.now.Add(d)
}

var server = &postgres.Lazy{}

func TestMain(m *testing.M) { os.Exit(server.Main(m)) }

func openStore(t *testing.T, o store.Options) *store.Store {
	t.Helper()
	var s *store.Store
	var err error
	if postgres.Wanted(t) {
		var dsn string
		if dsn, err = server.Database(t.Context()); err == nil {
			s, err = store.OpenPostgres(t.Context(), dsn, o)
		}
	} else {
		s, err = store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "relais.db"), o)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func setup(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)}
	b.store = openStore(t, store.Options{Clock: b.clock})
	private, _, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	b.key = private
	vault, err := secret.NewVault(private)
	if err != nil {
		t.Fatal(err)
	}
	b.Service = tenant.New(tenant.Config{
		Store: b.store, Vault: vault, Hasher: auth.NewHasher(auth.Cost{Passes: 1, MemoryKiB: 64, Lanes: 1}, 2), Issuer: "Relais", Clock: b.clock,
	})
	if b.op, err = b.Setup(t.Context(), "op", "root", password); err != nil {
		t.Fatal(err)
	}
	for _, o := range [][2]string{{"op", "east"}, {"op", "west"}, {"east", "shop"}, {"east", "cafe"}, {"west", "deli"}} {
		b.must(b.CreateOrganization(t.Context(), b.op, o[0], o[1], "Title of "+o[1]))
	}
	return b
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) denied(err error) {
	b.t.Helper()
	if !errors.Is(err, tenant.ErrDenied) {
		b.t.Errorf("%v, not a denial", err)
	}
}

func (b *bed) is(err, want error) {
	b.t.Helper()
	if !errors.Is(err, want) {
		b.t.Errorf("%v, not %v", err, want)
	}
}

// user makes a user with a role in his organization.
func (b *bed) user(org, login, role string) tenant.Actor {
	b.t.Helper()
	b.must(b.CreateUser(b.t.Context(), b.op, org, login, password, false))
	u := tenant.Actor{Organization: org, Login: login}
	if role != "" {
		b.must(b.Bind(b.t.Context(), b.op, org, "", u, role, nil))
	}
	return u
}

func (b *bed) may(a tenant.Actor, v tenant.Verb, kind, org, project string) bool {
	b.t.Helper()
	err := b.store.View(b.t.Context(), func(r *store.Reader) error {
		return b.Authorize(b.t.Context(), r, a, tenant.Access{Verb: v, Kind: kind, Organization: org, Project: project})
	})
	if err != nil && !errors.Is(err, tenant.ErrDenied) {
		b.t.Fatal(err)
	}
	return err == nil
}

// whole verifies the audit logs of all organizations.
func (b *bed) whole() {
	b.t.Helper()
	for _, org := range []string{"op", "east", "west", "shop", "cafe", "deli"} {
		if _, err := audit.Verify(b.t.Context(), b.store, org); err != nil {
			b.t.Error(err)
		}
	}
}

// Every role of every organization against every organization: rights go down the tree and nowhere else.
func TestRightsGoDownTheTreeAndNowhereElse(t *testing.T) {
	b := setup(t)
	below := map[string][]string{
		"op": {"op", "east", "west", "shop", "cafe", "deli"}, "east": {"east", "shop", "cafe"}, "west": {"west", "deli"},
		"shop": {"shop"}, "cafe": {"cafe"}, "deli": {"deli"},
	}
	type right struct {
		verb tenant.Verb
		kind string
	}
	rights := map[string]map[right]bool{
		tenant.RoleAdmin:   {{"write", "Site"}: true, {"read", "Site"}: true, {"write", "User"}: true, {"read", "Secret"}: true, {"read", "Plan"}: true},
		tenant.RoleEditor:  {{"write", "Site"}: true, {"read", "Site"}: true, {"write", "User"}: false, {"read", "Secret"}: false, {"read", "Plan"}: false},
		tenant.RoleViewer:  {{"write", "Site"}: false, {"read", "Site"}: true, {"write", "User"}: false, {"read", "Secret"}: false, {"read", "Plan"}: true},
		tenant.RoleBilling: {{"write", "Site"}: false, {"read", "Site"}: false, {"write", "User"}: false, {"read", "Secret"}: false, {"read", "Plan"}: true},
		"":                 {{"read", "Site"}: false, {"read", "Plan"}: false},
	}
	for home, mine := range below {
		for role, what := range rights {
			u := b.user(home, "u-"+role+"x", role)
			for org := range below {
				in := false
				for _, m := range mine {
					in = in || m == org
				}
				for r, want := range what {
					if got := b.may(u, r.verb, r.kind, org, ""); got != (want && in) {
						t.Errorf("%s with role %q may %s %s in %s: %v", u, role, r.verb, r.kind, org, got)
					}
				}
			}
			if b.may(u, "read", "Site", "nowhere", "") || b.may(u, "read", "Site", "", "") || b.may(u, "read", "Site", "~quota", "") {
				t.Errorf("%s may read where there is no organization", u)
			}
		}
	}
	b.whole()
}

func TestNobodyManagesHisParentOrSiblings(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	east, shop := b.user("east", "eve", tenant.RoleAdmin), b.user("shop", "sam", tenant.RoleAdmin)
	b.user("cafe", "carl", tenant.RoleAdmin)
	end := b.now.Add(time.Hour)
	for name, err := range map[string]error{
		"an organization beside":        b.CreateOrganization(ctx, shop, "east", "mine", ""),
		"an organization below another": b.CreateOrganization(ctx, shop, "cafe", "mine", ""),
		"a user of a sibling":           b.CreateUser(ctx, shop, "cafe", "spy", password, false),
		"a user of the parent":          b.CreateUser(ctx, shop, "east", "spy", password, false),
		"his own end":                   b.DeleteOrganization(ctx, shop, "shop"),
		"his parent's end":              b.DeleteOrganization(ctx, shop, "east"),
		"a reseller's end":              b.DeleteOrganization(ctx, east, "west"),
		"the operator's end":            b.DeleteOrganization(ctx, b.op, "op"),
		"a nephew's end":                b.DeleteOrganization(ctx, east, "deli"),
		"nothing's end":                 b.DeleteOrganization(ctx, east, "nowhere"),
		"his own plan":                  b.AssignPlan(ctx, shop, "shop", tenant.PlanRef{Organization: "east", Name: "big"}),
		"a password above":              b.SetPassword(ctx, shop, "east", "eve", "", "another long password"),
		"a password beside":             b.SetPassword(ctx, shop, "cafe", "carl", "", "another long password"),
		"rights above":                  b.Bind(ctx, shop, "east", "", shop, tenant.RoleAdmin, nil),
		"rights beside":                 b.Bind(ctx, shop, "cafe", "", shop, tenant.RoleAdmin, nil),
		"rights of others above":        b.Unbind(ctx, shop, "east", "", east, tenant.RoleAdmin),
		"a role above":                  b.PutRole(ctx, shop, "east", "mine", tenant.Role{Rules: []tenant.Rule{{Verbs: []tenant.Verb{"read"}, Kinds: []string{"Site"}}}}),
		"guardrails above":              b.SetGuardrails(ctx, shop, "east", false, tenant.Guardrails{}),
		"guardrails imposed on him":     b.SetGuardrails(ctx, shop, "shop", true, tenant.Guardrails{}),
		"the end of a user beside":      b.DeleteUser(ctx, shop, "cafe", "carl"),
		"a project beside":              b.CreateProject(ctx, shop, "cafe", "p"),
		"rights where nothing is":       b.Bind(ctx, shop, "nowhere", "", shop, tenant.RoleAdmin, &end),
	} {
		if !errors.Is(err, tenant.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"a user below":         b.CreateUser(ctx, east, "shop", "new", password, false),
		"a password below":     b.SetPassword(ctx, east, "shop", "sam", "", "another long password"),
		"an organization":      b.CreateOrganization(ctx, east, "east", "third", ""),
		"rights below":         b.Bind(ctx, east, "shop", "", tenant.Actor{Organization: "shop", Login: "new"}, tenant.RoleViewer, nil),
		"guardrails imposed":   b.SetGuardrails(ctx, east, "shop", true, tenant.Guardrails{}),
		"his own guardrails":   b.SetGuardrails(ctx, shop, "shop", false, tenant.Guardrails{}),
		"a project of his own": b.CreateProject(ctx, shop, "shop", "p"),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A stranger is let in by nobody, one from above only for a time.
	b.is(b.Bind(ctx, b.op, "shop", "", tenant.Actor{Organization: "deli", Login: "dora"}, tenant.RoleViewer, nil), tenant.ErrInvalid)
	b.user("deli", "dora", "")
	b.is(b.Bind(ctx, b.op, "shop", "", tenant.Actor{Organization: "deli", Login: "dora"}, tenant.RoleViewer, nil), tenant.ErrInvalid)
	support := b.user("op", "support", "")
	b.is(b.Bind(ctx, shop, "shop", "", support, tenant.RoleViewer, nil), tenant.ErrInvalid)
	b.must(b.Bind(ctx, shop, "shop", "", support, tenant.RoleViewer, &end))
	if !b.may(support, "read", "Site", "shop", "") || b.may(support, "read", "Site", "cafe", "") {
		t.Error("support is not where it was let in")
	}
	b.pass(time.Hour)
	if b.may(support, "read", "Site", "shop", "") {
		t.Error("support is still in")
	}
	b.whole()
}

func TestNobodyGivesMoreThanHeHas(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	rule := func(kind string, verbs ...tenant.Verb) []tenant.Rule {
		return []tenant.Rule{{Verbs: verbs, Kinds: []string{kind}}}
	}
	b.must(b.PutRole(ctx, b.op, "east", "helper", tenant.Role{Rules: append(rule("User", "*"), tenant.Rule{Verbs: []tenant.Verb{"*"}, Kinds: []string{tenant.KindBinding, tenant.KindRole, tenant.KindToken, "document"}})}))
	helper := b.user("shop", "hal", "")
	b.must(b.Bind(ctx, b.op, "shop", "", helper, "helper", nil))
	b.user("shop", "admin", tenant.RoleAdmin)
	b.must(b.CreateUser(ctx, helper, "shop", "new", password, false))
	fresh := tenant.Actor{Organization: "shop", Login: "new"}
	b.denied(b.Bind(ctx, helper, "shop", "", fresh, tenant.RoleAdmin, nil))
	b.denied(b.Bind(ctx, helper, "shop", "", helper, tenant.RoleAdmin, nil))
	b.denied(b.SetPassword(ctx, helper, "shop", "admin", "", "another long password"))
	b.denied(b.RemoveTOTP(ctx, helper, "shop", "admin", ""))
	b.denied(b.DeleteUser(ctx, helper, "shop", "admin"))
	b.denied(b.SetDisabled(ctx, helper, "shop", "admin", true))
	b.denied(b.Unbind(ctx, helper, "shop", "", tenant.Actor{Organization: "shop", Login: "admin"}, tenant.RoleAdmin))
	for _, kind := range []string{"*", "Secret", tenant.KindPlan} {
		b.denied(b.PutRole(ctx, helper, "shop", "big", tenant.Role{Rules: rule(kind, "read")}))
	}
	b.denied(b.PutRole(ctx, helper, "shop", "helper", tenant.Role{Rules: rule("*", "*")}))
	b.must(b.PutRole(ctx, helper, "shop", "small", tenant.Role{Rules: rule("Site", "read")}))
	b.must(b.Bind(ctx, helper, "shop", "", fresh, "small", nil))
	b.is(b.Bind(ctx, helper, "shop", "", fresh, "no-such-role", nil), tenant.ErrInvalid)
	if !b.may(fresh, "read", "Site", "shop", "") || b.may(fresh, "write", "Site", "shop", "") {
		t.Error("a role of the organization's own is not what it says")
	}
	// A role of another branch of the tree is none here.
	b.is(b.Bind(ctx, b.op, "deli", "", b.user("deli", "dora", ""), "helper", nil), tenant.ErrInvalid)
	for _, r := range []tenant.Role{{}, {Rules: []tenant.Rule{{}}}, {Rules: rule("Site", "fly")}, {Rules: rule("", "read")}, {Rules: make([]tenant.Rule, 65)}} {
		if err := b.PutRole(ctx, b.op, "shop", "r", r); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	b.is(b.PutRole(ctx, b.op, "shop", tenant.RoleAdmin, tenant.Role{Rules: rule("Site", "read")}), tenant.ErrInvalid)
	b.whole()
}

func TestARoleInAProjectEndsThere(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.must(b.CreateProject(ctx, b.op, "shop", "web"))
	b.must(b.CreateProject(ctx, b.op, "shop", "app"))
	u := b.user("shop", "uma", "")
	b.is(b.Bind(ctx, b.op, "shop", "none", u, tenant.RoleEditor, nil), store.ErrNotFound)
	b.must(b.Bind(ctx, b.op, "shop", "web", u, tenant.RoleEditor, nil))
	if !b.may(u, "write", "Site", "shop", "web") || b.may(u, "write", "Site", "shop", "app") || b.may(u, "write", "Site", "shop", "") || b.may(u, "write", "Site", "cafe", "web") {
		t.Error("a role in a project reaches elsewhere")
	}
	b.is(b.CreateProject(ctx, b.op, "shop", "Web!"), tenant.ErrInvalid)
	put := func(k store.Key) {
		_, err := b.store.Update(ctx, store.Change{Author: "x"}, func(tx *store.Tx) error {
			_, err := tx.Put(ctx, k, []byte(`{}`), store.Any)
			return err
		})
		b.must(err)
	}
	put(store.Key{Organization: "shop", Project: "web", Kind: "Site", Name: "s"})
	b.is(b.DeleteProject(ctx, b.op, "shop", "web"), tenant.ErrInUse)
	b.must(b.DeleteProject(ctx, b.op, "shop", "app"))
}

func TestTheTree(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	if _, err := b.Setup(ctx, "second", "root", password); !errors.Is(err, tenant.ErrDenied) {
		t.Errorf("a second operator: %v", err)
	}
	var c *store.ConflictError
	if err := b.CreateOrganization(ctx, b.op, "west", "shop", ""); !errors.As(err, &c) {
		t.Errorf("a name that is taken: %v", err)
	}
	for _, name := range []string{"", "~x", "A", "a_b", "-a", "a/b", fmt.Sprintf("%064d", 1)} {
		b.is(b.CreateOrganization(ctx, b.op, "op", name, ""), tenant.ErrInvalid)
	}
	var names []string
	for cursor := ""; ; {
		page, next, err := b.Children(ctx, b.op, "op", cursor, 1)
		b.must(err)
		names = append(names, page...)
		if cursor = next; cursor == "" {
			break
		}
	}
	if fmt.Sprint(names) != "[east west]" {
		t.Error(names)
	}
	o, err := b.Organization(ctx, b.op, "shop")
	if err != nil || fmt.Sprint(o.Path) != "[op east shop]" || o.Parent() != "east" || o.Title != "Title of shop" {
		t.Errorf("%+v, %v", o, err)
	}
	parent := "shop"
	for i := range 5 {
		name := fmt.Sprint("deep", i)
		b.must(b.CreateOrganization(ctx, b.op, parent, name, ""))
		parent = name
	}
	var l *store.LimitError
	if err := b.CreateOrganization(ctx, b.op, parent, "deepest", ""); !errors.As(err, &l) {
		t.Errorf("a ninth floor: %v", err)
	}
	b.is(b.DeleteOrganization(ctx, b.op, "shop"), tenant.ErrInUse)
	u := b.user("cafe", "carl", tenant.RoleAdmin)
	b.must(b.DeleteOrganization(ctx, b.op, "cafe"))
	b.denied(b.CreateProject(ctx, u, "cafe", "p"))
	if err := b.CreateOrganization(ctx, b.op, "west", "cafe", ""); !errors.As(err, &c) {
		t.Errorf("a name of one that is no more: %v", err)
	}
	b.whole()
}

func TestTheOperatorKeepsAnAdmin(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.is(b.Unbind(ctx, b.op, "op", "", b.op, tenant.RoleAdmin), tenant.ErrInUse)
	b.is(b.DeleteUser(ctx, b.op, "op", "root"), tenant.ErrInUse)
	b.is(b.SetDisabled(ctx, b.op, "op", "root", true), tenant.ErrInUse)
	second := b.user("op", "second", tenant.RoleAdmin)
	b.must(b.DeleteUser(ctx, second, "op", "root"))
	b.denied(b.CreateProject(ctx, b.op, "op", "p"))
	b.must(b.CreateProject(ctx, second, "op", "p"))
	// Who gets the login of one that is gone has none of his rights.
	b.must(b.CreateUser(ctx, second, "op", "root", password, false))
	b.denied(b.CreateProject(ctx, b.op, "op", "q"))
}

func from(s string) netip.Addr { return netip.MustParseAddr(s) }

func (b *bed) login(c tenant.Credentials) (string, error) {
	if !c.Source.IsValid() {
		c.Source = from("192.0.2.1")
	}
	_, device, err := b.Login(context.WithoutCancel(b.t.Context()), c)
	return device, err
}

func TestLogin(t *testing.T) {
	b := setup(t)
	b.user("shop", "sam", "")
	b.user("shop", "off", "")
	b.must(b.SetDisabled(t.Context(), b.op, "shop", "off", true))
	b.must(b.CreateUser(t.Context(), b.op, "shop", "robot", "", true))
	good := tenant.Credentials{Organization: "shop", Login: "sam", Password: password}
	device, err := b.login(good)
	b.must(err)
	good.Device = device
	if again, err := b.login(good); err != nil || again != device {
		t.Errorf("a device that is known gets another secret: %v", err)
	}
	for i, c := range []tenant.Credentials{
		{Organization: "shop", Login: "sam", Password: "wrong"},
		{Organization: "shop", Login: "nobody", Password: password},
		{Organization: "cafe", Login: "sam", Password: password},
		{Organization: "nowhere", Login: "sam", Password: password},
		{Organization: "shop", Login: "off", Password: password},
		{Organization: "shop", Login: "robot", Password: ""},
		{Organization: "~quota", Login: "sam/../x", Password: password},
		{},
	} {
		c.Source = from(fmt.Sprintf("198.51.%d.1", i))
		if _, err := b.login(c); !errors.Is(err, tenant.ErrLogin) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	b.is(b.SetPassword(t.Context(), tenant.Actor{Organization: "shop", Login: "sam"}, "shop", "sam", "wrong", "another long password"), tenant.ErrDenied)
	b.must(b.SetPassword(t.Context(), tenant.Actor{Organization: "shop", Login: "sam"}, "shop", "sam", password, "another long password"))
	if _, err := b.login(good); !errors.Is(err, tenant.ErrLogin) {
		t.Errorf("the former password: %v", err)
	}
	good.Password = "another long password"
	_, err = b.login(good)
	b.must(err)
	b.is(b.CreateUser(t.Context(), b.op, "shop", "x", "short", false), auth.ErrPassword)
	b.whole()
}

// Who guesses at an account from everywhere does not keep its owner out.
func TestGuessersDoNotLockTheOwnerOut(t *testing.T) {
	b := setup(t)
	b.user("shop", "sam", "")
	device, err := b.login(tenant.Credentials{Organization: "shop", Login: "sam", Password: password})
	b.must(err)
	waits := 0
	for i := range 12 {
		for range 6 {
			_, err := b.login(tenant.Credentials{Organization: "shop", Login: "sam", Password: "guess", Source: netip.AddrFrom4([4]byte{10, 0, byte(i), 1})})
			var w *tenant.WaitError
			if errors.As(err, &w) {
				waits++
			}
		}
	}
	if waits < 12 {
		t.Errorf("guessers waited %d times", waits)
	}
	_, err = b.login(tenant.Credentials{Organization: "shop", Login: "sam", Password: password, Source: from("198.51.100.1")})
	b.must(err)
	_, err = b.login(tenant.Credentials{Organization: "shop", Login: "sam", Password: password, Device: device, Source: from("10.0.1.1")})
	b.must(err)
	b.must(b.store.View(t.Context(), func(r *store.Reader) error {
		list, err := audit.Entries(t.Context(), r, "shop", 0, 0)
		n := 0
		for _, e := range list {
			if e.Action == "login.wrong" {
				n++
			}
		}
		if n == 0 || n > 12 {
			t.Errorf("%d lines tell of guessing", n)
		}
		return err
	}))
}

func TestSecondFactorsOutliveTheKeyThatClosedThem(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	sam := b.user("shop", "sam", "")
	b.user("cafe", "kim", "") // has none
	uri, err := b.BeginTOTP(ctx, sam)
	b.must(err)
	_, err = b.ConfirmTOTP(ctx, sam, authenticator(t, uri, b.clock()))
	b.must(err)
	young, _, err := secret.NewKey()
	b.must(err)
	serve := func(keys string) *tenant.Service {
		v, err := secret.NewVault(keys)
		b.must(err)
		return tenant.New(tenant.Config{Store: b.store, Vault: v, Hasher: auth.NewHasher(auth.Cost{Passes: 1, MemoryKiB: 64, Lanes: 1}, 2), Issuer: "Relais", Clock: b.clock})
	}
	both := serve(young + "\n" + b.key)
	for _, want := range []int{1, 0} {
		if n, err := both.RotateTOTP(ctx, "root"); err != nil || n != want {
			t.Errorf("closed %d anew, not %d: %v", n, want, err)
		}
	}
	b.pass(time.Minute)
	b.Service = serve(young)
	_, err = b.login(tenant.Credentials{Organization: "shop", Login: "sam", Password: password, Code: authenticator(t, uri, b.clock())})
	b.must(err)
}

func TestSecondFactor(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	sam := b.user("shop", "sam", "")
	uri, err := b.BeginTOTP(ctx, sam)
	b.must(err)
	code := func() string { return authenticator(t, uri, b.clock()) }
	good := tenant.Credentials{Organization: "shop", Login: "sam", Password: password}
	_, err = b.login(good) // not in force yet
	b.must(err)
	if _, err := b.ConfirmTOTP(ctx, sam, "000000"); !errors.Is(err, tenant.ErrCode) && code() != "000000" {
		t.Error(err)
	}
	recovery, err := b.ConfirmTOTP(ctx, sam, code())
	b.must(err)
	try := func(c string) error {
		with := good
		with.Code = c
		_, err := b.login(with)
		return err
	}
	b.is(try(""), tenant.ErrCodeWanted)
	b.is(try(code()), tenant.ErrCode) // it confirmed, so it was used
	b.pass(time.Minute)
	used := code()
	b.must(try(used))
	b.is(try(used), tenant.ErrCode)
	b.must(try(recovery[3]))
	b.is(try(recovery[3]), tenant.ErrCode)
	b.must(try(recovery[4]))
	wrong := good
	wrong.Password, wrong.Code = "wrong", code()
	if _, err := b.login(wrong); !errors.Is(err, tenant.ErrLogin) {
		t.Errorf("a code is enough: %v", err)
	}
	// Who has the password and no second factor is stopped, whatever he comes from; a recovery code still lets in.
	b.pass(time.Hour)
	for i := range 40 {
		with := good
		with.Code, with.Source = "x", netip.AddrFrom4([4]byte{10, 0, byte(i), 1})
		_, err := b.login(with)
		var w *tenant.WaitError
		if i >= 21 && !errors.As(err, &w) || i < 20 && !errors.Is(err, tenant.ErrCode) {
			t.Fatalf("wrong code %d: %v", i, err)
		}
	}
	b.must(try(recovery[5]))
	b.pass(time.Hour + time.Minute)
	b.must(b.RemoveTOTP(ctx, sam, "shop", "sam", code()))
	b.must(try(""))
	doc, err := b.store.Get(ctx, store.Key{Organization: "shop", Kind: tenant.KindUser, Name: "sam"})
	b.must(err)
	var u tenant.User
	b.must(json.Unmarshal(doc.Body, &u))
	if u.TOTP != nil || len(u.Recovery) != 0 {
		t.Errorf("something of the second factor is left: %+v", u)
	}
	b.whole()
}

// The same one-time code at the same time is taken once, whoever wins.
func TestACodeIsTakenOnceOfManyAtOnce(t *testing.T) {
	b := setup(t)
	sam := b.user("shop", "sam", "")
	uri, err := b.BeginTOTP(t.Context(), sam)
	b.must(err)
	_, err = b.ConfirmTOTP(t.Context(), sam, authenticator(t, uri, b.clock()))
	b.must(err)
	b.pass(time.Minute)
	code := authenticator(t, uri, b.clock())
	results := make(chan error, 5)
	for i := range 5 {
		go func() {
			_, err := b.login(tenant.Credentials{Organization: "shop", Login: "sam", Password: password, Code: code, Source: netip.AddrFrom4([4]byte{10, 0, byte(i), 1})})
			results <- err
		}()
	}
	in := 0
	for range 5 {
		if err := <-results; err == nil {
			in++
		} else if !errors.Is(err, tenant.ErrCode) {
			t.Error(err)
		}
	}
	if in != 1 {
		t.Errorf("one code let in %d times", in)
	}
}
