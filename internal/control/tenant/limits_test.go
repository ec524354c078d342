package tenant_test

import (
	"crypto/hmac"
	"crypto/sha1"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

// authenticator is a program that shows codes, written from RFC 6238 apart from ours.
func authenticator(t *testing.T, uri string, now time.Time) string {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(u.Query().Get("secret"))
	if err != nil {
		t.Fatal(err)
	}
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(now.Unix()/30))
	mac := hmac.New(sha1.New, key)
	mac.Write(counter[:])
	sum := mac.Sum(nil)
	at := sum[19] & 15
	return fmt.Sprintf("%06d", (binary.BigEndian.Uint32(sum[at:at+4])&0x7fffffff)%1_000_000)
}

func TestTokens(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	sites := []tenant.Rule{{Verbs: []tenant.Verb{"read", "write"}, Kinds: []string{"Site"}}}
	eve, ed := b.user("east", "eve", tenant.RoleAdmin), b.user("shop", "ed", tenant.RoleEditor)
	end := b.clock().Add(24 * time.Hour)
	text, err := b.CreateToken(ctx, eve, tenant.TokenRequest{Title: "ci", Scope: "shop", Rules: sites, Expires: end})
	b.must(err)
	a, err := b.Authenticate(ctx, text)
	b.must(err)
	for _, c := range []struct {
		verb      tenant.Verb
		kind, org string
		want      bool
	}{
		{"write", "Site", "shop", true},
		{"delete", "Site", "shop", false},
		{"write", "User", "shop", false},
		{"write", "Site", "east", false},
		{"write", "Site", "cafe", false},
	} {
		if got := b.may(a, c.verb, c.kind, c.org, ""); got != c.want {
			t.Errorf("the token may %s %s in %s: %v", c.verb, c.kind, c.org, got)
		}
	}
	doc, err := b.store.List(ctx, store.Query{Kind: tenant.KindToken})
	b.must(err)
	secret := text[strings.LastIndex(text, "_")+1:]
	if len(doc.Documents) != 1 || strings.Contains(string(doc.Documents[0].Body), secret[:20]) {
		t.Error("more than the hash of a token is kept")
	}
	everything := []tenant.Rule{{Verbs: []tenant.Verb{"*"}, Kinds: []string{"*"}}}
	for name, q := range map[string]struct {
		actor tenant.Actor
		req   tenant.TokenRequest
		want  error
	}{
		"more than its user":      {ed, tenant.TokenRequest{Rules: everything, Expires: end}, tenant.ErrDenied},
		"where its user is not":   {ed, tenant.TokenRequest{Scope: "cafe", Rules: sites, Expires: end}, tenant.ErrDenied},
		"above its user":          {ed, tenant.TokenRequest{Scope: "east", Rules: sites, Expires: end}, tenant.ErrDenied},
		"by a token":              {a, tenant.TokenRequest{Scope: "shop", Rules: sites, Expires: end}, tenant.ErrDenied},
		"for another user":        {eve, tenant.TokenRequest{User: "root", Rules: sites, Expires: end}, tenant.ErrInvalid},
		"for ever":                {eve, tenant.TokenRequest{Rules: sites}, tenant.ErrInvalid},
		"for two years":           {eve, tenant.TokenRequest{Rules: sites, Expires: end.AddDate(2, 0, 0)}, tenant.ErrInvalid},
		"that expired":            {eve, tenant.TokenRequest{Rules: sites, Expires: b.clock()}, tenant.ErrInvalid},
		"of a service of nowhere": {ed, tenant.TokenRequest{User: "robot", Rules: sites, Expires: end}, tenant.ErrInvalid},
	} {
		if _, err := b.CreateToken(ctx, q.actor, q.req); !errors.Is(err, q.want) {
			t.Errorf("a token %s: %v", name, err)
		}
	}
	for i := range 8 {
		bad := []byte(text)
		bad[len(bad)-10-i] ^= 1
		if _, err := b.Authenticate(ctx, string(bad)); !errors.Is(err, auth.ErrToken) {
			t.Error(err)
		}
	}
	forged := auth.NewToken("east")
	forged.ID = a.Token.ID
	if _, err := b.Authenticate(ctx, forged.String()); !errors.Is(err, auth.ErrToken) {
		t.Errorf("another secret: %v", err)
	}
	// A token does no more than its user may do now.
	b.must(b.Unbind(ctx, b.op, "east", "", eve, tenant.RoleAdmin))
	if b.may(a, "write", "Site", "shop", "") {
		t.Error("the token may what its user may no more")
	}
	b.must(b.Bind(ctx, b.op, "east", "", eve, tenant.RoleAdmin, nil))
	b.must(b.SetDisabled(ctx, b.op, "east", "eve", true))
	if _, err := b.Authenticate(ctx, text); !errors.Is(err, auth.ErrToken) || b.may(a, "write", "Site", "shop", "") {
		t.Errorf("a disabled user's token: %v", err)
	}
	b.must(b.SetDisabled(ctx, b.op, "east", "eve", false))
	b.pass(24 * time.Hour)
	if _, err := b.Authenticate(ctx, text); !errors.Is(err, auth.ErrToken) {
		t.Errorf("an expired token: %v", err)
	}
	if n, err := b.ExpireTokens(ctx, nil); err != nil || n != 1 {
		t.Errorf("%d tokens went, %v", n, err)
	}
	b.whole()
}

func TestTokensOfServicesAndTheirEnd(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	sam, ed := b.user("shop", "sam", tenant.RoleAdmin), b.user("shop", "ed", tenant.RoleEditor)
	b.must(b.CreateUser(ctx, sam, "shop", "robot", "", true))
	robot := tenant.Actor{Organization: "shop", Login: "robot"}
	b.must(b.Bind(ctx, sam, "shop", "", robot, tenant.RoleEditor, nil))
	q := tenant.TokenRequest{User: "robot", Rules: []tenant.Rule{{Verbs: []tenant.Verb{"*"}, Kinds: []string{"document"}}}, Expires: b.clock().Add(time.Hour)}
	_, err := b.CreateToken(ctx, ed, q)
	b.denied(err)
	text, err := b.CreateToken(ctx, sam, q)
	b.must(err)
	a, err := b.Authenticate(ctx, text)
	b.must(err)
	if !b.may(a, "write", "Site", "shop", "") || b.may(a, "read", "User", "shop", "") {
		t.Error("the service's token is not the service")
	}
	list, _, err := b.Tokens(ctx, ed, "shop", "", 0)
	if err != nil || len(list) != 0 {
		t.Errorf("an editor sees %+v, %v", list, err)
	}
	list, _, err = b.Tokens(ctx, sam, "shop", "", 0)
	if err != nil || len(list) != 1 || list[0].Hash != "" || list[0].User != "robot" {
		t.Errorf("an admin sees %+v, %v", list, err)
	}
	b.denied(b.RevokeToken(ctx, ed, "shop", a.Token.ID))
	b.denied(b.RevokeToken(ctx, sam, "shop", "nothing"))
	b.must(b.RevokeToken(ctx, sam, "shop", a.Token.ID))
	_, err = b.Authenticate(ctx, text)
	b.is(err, auth.ErrToken)
	text, err = b.CreateToken(ctx, sam, q)
	b.must(err)
	b.must(b.DeleteUser(ctx, sam, "shop", "robot"))
	_, err = b.Authenticate(ctx, text)
	b.is(err, auth.ErrToken)
	b.is(b.SetPassword(ctx, sam, "shop", "robot", "", "another long password"), store.ErrNotFound)
	if used, _, err := b.Usage(ctx, b.op, "shop", tenant.MetricTokens); err != nil || used != 0 {
		t.Errorf("%d tokens are counted, %v", used, err)
	}
}

// A token makes another that is no wider, no longer and nowhere else.
func TestATokenMakesOnlyLesserOnes(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	eve := b.user("east", "eve", tenant.RoleAdmin)
	rules := []tenant.Rule{{Verbs: []tenant.Verb{"write"}, Kinds: []string{"Site", tenant.KindToken}}}
	end := b.clock().Add(time.Hour)
	text, err := b.CreateToken(ctx, eve, tenant.TokenRequest{Scope: "shop", Rules: rules, Expires: end})
	b.must(err)
	a, err := b.Authenticate(ctx, text)
	b.must(err)
	wider := []tenant.Rule{{Verbs: []tenant.Verb{"*"}, Kinds: []string{"Site"}}}
	for name, q := range map[string]tenant.TokenRequest{
		"wider":     {Scope: "shop", Rules: wider, Expires: end},
		"longer":    {Scope: "shop", Rules: rules, Expires: end.Add(time.Second)},
		"above":     {Scope: "east", Rules: rules, Expires: end},
		"elsewhere": {Scope: "cafe", Rules: rules, Expires: end},
	} {
		if _, err := b.CreateToken(ctx, a, q); !errors.Is(err, tenant.ErrDenied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	text, err = b.CreateToken(ctx, a, tenant.TokenRequest{Scope: "shop", Rules: rules[:1], Expires: end})
	b.must(err)
	second, err := b.Authenticate(ctx, text)
	b.must(err)
	if !b.may(second, "write", "Site", "shop", "") || b.may(second, "write", "Site", "east", "") {
		t.Error("the second token is not within the first")
	}
	_, err = b.BeginTOTP(ctx, a)
	b.denied(err)
	b.denied(b.SetPassword(ctx, a, "east", "eve", password, "another long password"))
	b.denied(b.CreateUser(ctx, a, "shop", "x", password, false))
}

func TestDecide(t *testing.T) {
	for _, c := range []struct {
		limit     tenant.Limit
		used, add int64
		want      tenant.Decision
	}{
		{tenant.Limit{Most: 10, AtLimit: tenant.Refuse}, 0, 1, tenant.Decision{Allowed: true}},
		{tenant.Limit{Most: 10, AtLimit: tenant.Refuse}, 7, 1, tenant.Decision{Allowed: true, Near: true}},
		{tenant.Limit{Most: 10, AtLimit: tenant.Refuse, WarnAt: 95}, 7, 1, tenant.Decision{Allowed: true}},
		{tenant.Limit{Most: 10, AtLimit: tenant.Refuse}, 9, 1, tenant.Decision{Allowed: true, Near: true}},
		{tenant.Limit{Most: 10, AtLimit: tenant.Refuse}, 10, 1, tenant.Decision{Over: 1, State: tenant.Refuse, Near: true}},
		{tenant.Limit{Most: 10, AtLimit: tenant.Refuse}, 20, -1, tenant.Decision{Allowed: true, Over: 9, State: tenant.Refuse, Near: true}},
		{tenant.Limit{Most: 0, AtLimit: tenant.Refuse}, 0, 1, tenant.Decision{Over: 1, State: tenant.Refuse, Near: true}},
		{tenant.Limit{Most: 10, AtLimit: tenant.Warn}, 10, 5, tenant.Decision{Allowed: true, Over: 5, State: tenant.Warn, Near: true}},
		{tenant.Limit{Most: 10, AtLimit: tenant.Bill}, 10, 5, tenant.Decision{Allowed: true, Over: 5, State: tenant.Bill, Near: true}},
		{tenant.Limit{Most: 10, AtLimit: tenant.Degrade}, 10, 5, tenant.Decision{Allowed: true, Over: 5, State: tenant.Degrade, Near: true}},
		{tenant.Limit{Most: 1 << 62, AtLimit: tenant.Bill}, 1 << 61, 1, tenant.Decision{Allowed: true}},
	} {
		if got := tenant.Decide(c.limit, c.used, c.add); got != c.want {
			t.Errorf("%+v, %d, %d: %+v, not %+v", c.limit, c.used, c.add, got, c.want)
		}
	}
}

// use counts in a transaction of its own.
func (b *bed) use(org, metric string, add int64) error {
	_, err := b.store.Update(b.t.Context(), store.Change{Author: "x"}, func(tx *store.Tx) error {
		_, err := tenant.Use(b.t.Context(), tx, org, metric, add)
		return err
	})
	return err
}

func TestQuotasAreOfTheWholeTreeBelow(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.must(b.PutPlan(ctx, b.op, "op", "reseller", tenant.Plan{Limits: map[string]tenant.Limit{
		"sites": {Most: 5, AtLimit: tenant.Refuse}, "requests": {Most: 100, AtLimit: tenant.Bill}, tenant.MetricUsers: {Most: 2, AtLimit: tenant.Refuse},
	}}))
	eve := b.user("east", "eve", tenant.RoleAdmin)
	b.must(b.PutPlan(ctx, eve, "east", "small", tenant.Plan{Limits: map[string]tenant.Limit{"sites": {Most: 3, AtLimit: tenant.Refuse}}}))
	b.denied(b.AssignPlan(ctx, eve, "east", tenant.PlanRef{Organization: "east", Name: "small"}))
	b.must(b.AssignPlan(ctx, b.op, "east", tenant.PlanRef{Organization: "op", Name: "reseller"}))
	b.must(b.AssignPlan(ctx, eve, "shop", tenant.PlanRef{Organization: "east", Name: "small"}))
	b.is(b.AssignPlan(ctx, b.op, "deli", tenant.PlanRef{Organization: "east", Name: "small"}), tenant.ErrInvalid)
	b.is(b.AssignPlan(ctx, b.op, "deli", tenant.PlanRef{Organization: "op", Name: "none"}), store.ErrNotFound)
	b.must(b.store.Subscribe(ctx, "watch"))
	b.must(b.use("shop", "sites", 3))
	var q *tenant.QuotaError
	if err := b.use("shop", "sites", 1); !errors.As(err, &q) || q.Organization != "shop" || q.Most != 3 || !strings.Contains(err.Error(), "3 sites") {
		t.Errorf("a fourth site of the shop: %v", err)
	}
	b.must(b.use("cafe", "sites", 2))
	if err := b.use("cafe", "sites", 1); !errors.As(err, &q) || q.Organization != "east" || strings.Contains(err.Error(), "5") || strings.Contains(err.Error(), "east") {
		t.Errorf("a sixth site of the reseller: %v", err)
	}
	b.must(b.use("deli", "sites", 100)) // no plan, no limit
	b.must(b.use("shop", "sites", -1))
	b.must(b.use("cafe", "sites", 1))
	b.must(b.use("shop", "requests", 250)) // billed, not refused
	for org, want := range map[string]int64{"shop": 2, "cafe": 3, "east": 5, "op": 105} {
		if used, _, err := b.Usage(ctx, b.op, org, "sites"); err != nil || used != want {
			t.Errorf("%s has %d sites, not %d: %v", org, used, want, err)
		}
	}
	var told []string
	list, err := b.store.Messages(ctx, "watch", 0)
	b.must(err)
	for _, m := range list {
		if m.Topic == tenant.TopicQuota {
			told = append(told, string(m.Payload))
		}
	}
	want := []string{
		`{"organization":"shop","metric":"sites","used":3,"most":3}`,
		`{"organization":"east","metric":"sites","used":5,"most":5}`,
		`{"organization":"shop","metric":"sites","used":2,"most":3}`,
		`{"organization":"east","metric":"requests","used":250,"most":100,"state":"bill","over":150}`,
	}
	if fmt.Sprint(told) == fmt.Sprint(want) {
		t.Log("told of each crossing once")
	} else if len(told) < 4 || told[0] != want[0] || told[len(told)-1] != want[3] {
		t.Errorf("told of %s", strings.Join(told, "\n"))
	}
	// The limit holds for what this room makes too, and an organization that ends gives all of it back.
	b.must(b.CreateUser(ctx, b.op, "cafe", "one", password, false))
	if err := b.CreateUser(ctx, b.op, "cafe", "two", password, false); !errors.As(err, &q) {
		t.Errorf("a third user below the reseller: %v", err)
	}
	b.must(b.DeleteOrganization(ctx, b.op, "cafe"))
	b.must(b.CreateUser(ctx, b.op, "shop", "two", password, false))
	if used, _, err := b.Usage(ctx, b.op, "east", "sites"); err != nil || used != 2 {
		t.Errorf("after its end the reseller has %d sites, %v", used, err)
	}
	b.is(b.DeletePlan(ctx, b.op, "op", "reseller"), tenant.ErrInUse)
	b.must(b.PutPlan(ctx, b.op, "op", "unused", tenant.Plan{}))
	b.must(b.DeletePlan(ctx, b.op, "op", "unused"))
	for _, p := range []tenant.Plan{
		{Limits: map[string]tenant.Limit{"sites": {Most: -1, AtLimit: tenant.Warn}}},
		{Limits: map[string]tenant.Limit{"sites": {Most: 1, AtLimit: "explode"}}},
		{Limits: map[string]tenant.Limit{"": {Most: 1, AtLimit: tenant.Warn}}},
		{Limits: map[string]tenant.Limit{"sites": {Most: 1, AtLimit: tenant.Warn, WarnAt: 101}}},
	} {
		b.is(b.PutPlan(ctx, b.op, "op", "bad", p), tenant.ErrInvalid)
	}
	b.whole()
}

func TestGuardrailsOnlyTighten(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	order := []string{"off", "shadow", "enforce"}
	set := func(actor tenant.Actor, org string, imposed bool, bounds ...tenant.Bound) error {
		return b.SetGuardrails(ctx, actor, org, imposed, tenant.Guardrails{Bounds: bounds})
	}
	mode := func(least string) tenant.Bound {
		return tenant.Bound{Kind: "WafPolicy", Path: "spec.mode", Order: order, AtLeast: least}
	}
	ttl := func(lo, hi string) tenant.Bound {
		return tenant.Bound{Kind: "CachePolicy", Path: "spec.rules.*.ttl", Unit: "duration", Min: lo, Max: hi}
	}
	size := tenant.Bound{Kind: "WafPolicy", Path: "spec.bodyBytes", Unit: "size", Max: "1MiB"}
	b.must(set(b.op, "op", false, mode("shadow"), ttl("", "1h"), size))
	eve, sam := b.user("east", "eve", tenant.RoleAdmin), b.user("shop", "sam", tenant.RoleAdmin)
	b.is(set(eve, "east", false, mode("off")), tenant.ErrInvalid)
	b.is(set(eve, "east", false, ttl("", "2h")), tenant.ErrInvalid)
	b.is(set(eve, "east", false, ttl("90m", "")), tenant.ErrInvalid)
	b.must(set(eve, "east", false, mode("enforce"), ttl("1m", "30m")))
	b.is(set(sam, "shop", false, mode("shadow")), tenant.ErrInvalid)
	b.is(set(sam, "shop", false, ttl("10s", "")), tenant.ErrInvalid)
	b.denied(set(sam, "shop", true, ttl("", "10s")))
	b.must(set(eve, "shop", true, ttl("", "10m")))
	b.is(set(sam, "shop", false, ttl("", "20m")), tenant.ErrInvalid)
	b.must(set(sam, "shop", false, ttl("", "5m")))
	check := func(org, kind, body string, want ...string) {
		t.Helper()
		var got []string
		err := b.store.View(ctx, func(r *store.Reader) error {
			list, err := tenant.CheckGuardrails(ctx, r, org, kind, []byte(body))
			for _, v := range list {
				got = append(got, v.Organization+" "+v.Path+": "+v.Why)
			}
			return err
		})
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s %s: %q, %v", org, body, got, err)
		}
	}
	check("shop", "WafPolicy", `{"spec":{"mode":"enforce","bodyBytes":"64KiB"}}`)
	check("shop", "WafPolicy", `{"spec":{"mode":"shadow","bodyBytes":"2MiB"}}`, "op spec.bodyBytes: 2MiB is above 1MiB", "east spec.mode: shadow is weaker than enforce")
	check("deli", "WafPolicy", `{"spec":{"mode":"shadow","bodyBytes":1048576}}`)
	check("deli", "WafPolicy", `{"spec":{"mode":"loud","bodyBytes":"x"}}`, "op spec.mode: loud is weaker than shadow", "op spec.bodyBytes: x cannot be compared with the bound")
	check("shop", "WafPolicy", `{}`, "op spec.mode: it must be given", "op spec.bodyBytes: it must be given", "east spec.mode: it must be given")
	check("shop", "CachePolicy", `{"spec":{"rules":[{"ttl":"2m"},{"ttl":"7m"},{"ttl":"3h"}]}}`,
		"op spec.rules.2.ttl: 3h is above 1h", "east spec.rules.2.ttl: 3h is above 30m", "shop spec.rules.2.ttl: 3h is above 10m",
		"shop spec.rules.1.ttl: 7m is above 5m", "shop spec.rules.2.ttl: 3h is above 5m")
	check("shop", "Site", `{"spec":{}}`)
	// One from above that came later holds all the same.
	b.must(set(b.op, "op", false, mode("enforce"), ttl("", "1m")))
	check("shop", "CachePolicy", `{"spec":{"rules":[{"ttl":"2m"}]}}`, "op spec.rules.0.ttl: 2m is above 1m")
	for _, bad := range []tenant.Bound{
		{},
		{Kind: "Site", Path: "x"},
		{Kind: "Site", Path: "x", Min: "a"},
		{Kind: "Site", Path: "x", Min: "2", Max: "1"},
		{Kind: "Site", Path: "x", Min: "1", Unit: "apples"},
		{Kind: "Site", Path: "x", AtLeast: "b", Order: []string{"a"}},
		{Kind: "Site", Path: "x", Min: "1", Allowed: []string{"a"}},
		{Kind: "Site", Path: "x", Min: "NaN"},
	} {
		b.is(set(b.op, "op", false, bad), tenant.ErrInvalid)
	}
	words := func(w ...string) tenant.Bound { return tenant.Bound{Kind: "Site", Path: "spec.tls", Allowed: w} }
	b.must(set(b.op, "op", false, words("1.2", "1.3")))
	b.is(set(b.op, "west", false, words("1.1", "1.3")), tenant.ErrInvalid)
	b.must(set(b.op, "west", false, words("1.3")))
	check("deli", "Site", `{"spec":{"tls":"1.2"}}`, "west spec.tls: 1.2 is not one of 1.3")
	b.whole()
}
