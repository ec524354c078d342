package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/api"
	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
	"github.com/relais-edge/relais/internal/control/tenant/brand"
	"github.com/relais-edge/relais/internal/control/tenant/claim"
	"github.com/relais-edge/relais/internal/control/tenant/oidc"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
)

var update = flag.Bool("update", false, "write the golden files anew")

const password = "correct horse battery"

// bed is an API with this tree, an admin of each organization, and a token of each admin:
//
//	op ── east ── shop, cafe
//	   └─ west
type bed struct {
	t       *testing.T
	store   *store.Store
	tenant  *tenant.Service
	api     *api.API
	url     string
	fleet   *fleet
	tokens  map[string]string
	ended   string // id of a token that ended
	session string // id of a session of shop's admin

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

// fleet keeps what it is told.
type fleet struct {
	mu      sync.Mutex
	purges  []api.PurgeBody
	revoked int
}

func (f *fleet) Pops(context.Context) ([]api.PopStatus, error) {
	return []api.PopStatus{{Name: "fra", Healthy: true}}, nil
}

func (f *fleet) Enrol(context.Context, tenant.Actor, string) (string, time.Time, error) {
	return "enrol-text", time.Time{}, nil
}

func (f *fleet) Rollouts(context.Context, string) ([]api.Rollout, error) { return nil, nil }

func (f *fleet) Steer(context.Context, tenant.Actor, string, string, string, string) error {
	return nil
}

func (f *fleet) RevokePop(context.Context, tenant.Actor, string, string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revoked++
	return nil
}

func (f *fleet) RolloutEvents(context.Context, string, int64, int) ([]api.RolloutEvent, error) {
	return nil, nil
}

func (f *fleet) Receipt(_ context.Context, _ string, number int64) (api.Receipt, error) {
	return api.Receipt{Number: number}, nil
}

func (f *fleet) Purge(_ context.Context, _ tenant.Actor, _ string, p api.PurgeBody, _ time.Duration) (api.Receipt, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.purges = append(f.purges, p)
	return api.Receipt{Number: int64(len(f.purges)), Done: true, Pops: []api.Ack{{Pop: "fra", State: "obeys"}}}, nil
}

type noDNS struct{}

func (noDNS) LookupTXT(context.Context, string) ([]string, error) { return nil, nil }

func setup(t *testing.T) *bed {
	t.Helper()
	b := &bed{t: t, now: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), tokens: map[string]string{}, fleet: &fleet{}}
	var err error
	if b.store, err = store.OpenSQLite(t.Context(), filepath.Join(t.TempDir(), "relais.db"), store.Options{Clock: b.clock}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.store.Close() })
	private, _, err := secret.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	vault, err := secret.NewVault(private)
	if err != nil {
		t.Fatal(err)
	}
	marking := api.NewMarking(b.store)
	b.tenant = tenant.New(tenant.Config{Store: marking, Vault: vault, Hasher: auth.NewHasher(auth.Cost{Passes: 1, MemoryKiB: 64, Lanes: 1}, 2), Issuer: "Relais", Clock: b.clock, Loopback: true})
	b.api = api.New(api.Config{
		Store: marking, Pruner: b.store, Vault: vault, Tenant: b.tenant, Claims: claim.New(claim.Config{Store: marking, Tenant: b.tenant, DNS: noDNS{}}),
		Change: change.New(change.Config{Store: marking, Tenant: b.tenant, Vault: vault}), Fleet: b.fleet, Clock: b.clock,
		OIDC: oidc.New(oidc.Config{Store: marking, Tenant: b.tenant, Clock: b.clock, Loopback: true}), Brand: brand.New(brand.Config{Store: marking, Tenant: b.tenant}),
		URL: "https://control.example.com",
	})
	server := httptest.NewServer(b.api)
	t.Cleanup(server.Close)
	b.url = server.URL
	root, err := b.tenant.Setup(t.Context(), "op", "root", password)
	b.must(err)
	for _, o := range [][2]string{{"op", "east"}, {"op", "west"}, {"east", "shop"}, {"east", "cafe"}} {
		b.must(b.tenant.CreateOrganization(t.Context(), root, o[0], o[1], "Title of "+o[1]))
		admin := tenant.Actor{Organization: o[1], Login: "admin-" + o[1]}
		b.must(b.tenant.CreateUser(t.Context(), root, o[1], admin.Login, password, false))
		b.must(b.tenant.Bind(t.Context(), root, o[1], "", admin, tenant.RoleAdmin, nil))
		b.tokens[o[1]] = b.token(admin, 24*time.Hour)
	}
	b.tokens["op"] = b.token(root, 24*time.Hour)
	return b
}

func (b *bed) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) token(a tenant.Actor, life time.Duration) string {
	b.t.Helper()
	text, err := b.tenant.CreateToken(b.t.Context(), a, tenant.TokenRequest{Rules: []tenant.Rule{{Verbs: []tenant.Verb{"*"}, Kinds: []string{"*"}}}, Expires: b.clock().Add(life)})
	b.must(err)
	return text
}

// reply is what was answered.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) problem(t *testing.T) api.Problem {
	t.Helper()
	var p api.Problem
	if err := json.Unmarshal([]byte(r.body), &p); err != nil || r.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %s is no problem: %s", r.status, r.header.Get("Content-Type"), r.body)
	}
	if p.Status != r.status || p.RequestID == "" || p.RequestID != r.header.Get("Request-Id") || !strings.HasSuffix(p.Instance, p.RequestID) || !strings.HasPrefix(p.Type, "urn:relais:problem:") {
		t.Errorf("%+v", p)
	}
	return p
}

// ask makes a request; fields are pairs of names and values.
func (b *bed) ask(token, method, path, body string, fields ...string) reply {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, strings.NewReader(body))
	b.must(err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if strings.HasPrefix(body, "{") {
		req.Header.Set("Content-Type", "application/json")
	} else if body != "" {
		req.Header.Set("Content-Type", "application/yaml")
	}
	for i := 0; i+1 < len(fields); i += 2 {
		req.Header.Set(fields[i], fields[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	b.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	b.must(err)
	return reply{resp.StatusCode, resp.Header, string(text)}
}

func pool(name string) string {
	return "apiVersion: relais/v1\nkind: OriginPool\nmetadata: {name: " + name + "}\nspec: {tiers: [{origins: [{address: '192.0.2.1:80'}]}]}\n"
}

func TestTheDescriptionIsTheGoldenOne(t *testing.T) {
	b := setup(t)
	raw, err := b.api.OpenAPI()
	b.must(err)
	var out bytes.Buffer
	b.must(json.Indent(&out, raw, "", " "))
	out.WriteByte('\n')
	const golden = "testdata/openapi.json"
	if *update {
		b.must(os.WriteFile(golden, out.Bytes(), 0o644))
	}
	want, err := os.ReadFile(golden)
	b.must(err)
	if !bytes.Equal(want, out.Bytes()) {
		t.Error("the API is not as testdata/openapi.json says: run go test -update ./internal/control/api and look at what differs")
	}
	if r := b.ask("", "GET", "/v1/openapi.json", ""); r.status != 200 || !strings.Contains(r.body, `"3.1.0"`) || strings.Contains(r.body, "ErrorModel") {
		t.Errorf("%d %.200s", r.status, r.body)
	}
}

func TestDocumentsOverHTTP(t *testing.T) {
	b := setup(t)
	shop := b.tokens["shop"]
	at := "/v1/organizations/shop/documents"
	if r := b.ask(shop, "POST", at+"?dryRun=true", pool("a")); r.status != 200 || !strings.Contains(r.body, `"created"`) {
		t.Fatalf("%d %s", r.status, r.body)
	}
	one := at + "/OriginPool/a"
	if p := b.ask(shop, "GET", one, "").problem(t); p.Status != 404 {
		t.Errorf("the dry run made it: %+v", p)
	}
	if p := b.ask(shop, "PUT", one, pool("a")).problem(t); p.Status != 428 {
		t.Errorf("%+v", p)
	}
	if r := b.ask(shop, "PUT", one, pool("a"), "If-None-Match", "*"); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	if p := b.ask(shop, "PUT", one, pool("a"), "If-None-Match", "*").problem(t); p.Status != 412 {
		t.Errorf("%+v", p)
	}
	if p := b.ask(shop, "PUT", one, pool("b"), "If-Match", "*").problem(t); p.Status != 422 || p.Type != "urn:relais:problem:another" {
		t.Errorf("%+v", p)
	}
	got := b.ask(shop, "GET", one, "")
	var item change.Item
	b.must(json.Unmarshal([]byte(got.body), &item))
	if got.header.Get("ETag") != fmt.Sprintf("%q", fmt.Sprint(item.Revision)) || item.Revision == 0 {
		t.Errorf("%v %s", got.header, got.body)
	}
	changed := strings.Replace(pool("a"), "192.0.2.1", "192.0.2.2", 1)
	if r := b.ask(shop, "PUT", one, changed, "If-Match", got.header.Get("ETag")); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if p := b.ask(shop, "PUT", one, changed, "If-Match", got.header.Get("ETag")).problem(t); p.Status != 412 {
		t.Errorf("%+v", p)
	}
	if p := b.ask(shop, "PUT", one, string(item.Document)).problem(t); p.Status != 409 {
		t.Errorf("metadata.revision: %+v", p)
	}
	p := b.ask(shop, "POST", at, "apiVersion: relais/v1\nkind: Site\nmetadata: {name: s}\nspec:\n  hostname: x\n").problem(t)
	if p.Status != 422 || len(p.Problems) != 2 || p.Problems[1].Line != 5 || p.Problems[1].Field != "spec.hostname" || p.Problems[1].Fix == "" {
		t.Errorf("%+v", p)
	}
	r := b.ask(shop, "GET", "/v1/organizations/shop/revisions", "")
	var page struct{ Items []change.Revision }
	b.must(json.Unmarshal([]byte(r.body), &page))
	if r = b.ask(shop, "POST", fmt.Sprintf("/v1/organizations/shop/rollback?to=%d", item.Revision), ""); r.status != 200 || !strings.Contains(r.body, "192.0.2.1:80") {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r = b.ask(shop, "GET", fmt.Sprintf("/v1/organizations/shop/diff?from=%d", item.Revision), ""); r.status != 200 || strings.Contains(r.body, "OriginPool") {
		t.Errorf("after the rollback something differs: %d %s", r.status, r.body)
	}
	if r = b.ask(shop, "GET", "/v1/organizations/shop/export", ""); r.status != 200 || !strings.Contains(r.body, "kind: OriginPool\n") || r.header.Get("Content-Type") != "application/yaml" {
		t.Errorf("%d %v %s", r.status, r.header, r.body)
	}
	if p := b.ask(shop, "DELETE", one, "").problem(t); p.Status != 428 {
		t.Errorf("%+v", p)
	}
	if r := b.ask(shop, "DELETE", one, "", "If-Match", "*"); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if p := b.ask(shop, "GET", at+"?limit=9999", "").problem(t); p.Status != 422 || len(p.Problems) != 1 {
		t.Errorf("%+v", p)
	}
	if p := b.ask(shop, "GET", at+"?nonsense=1", "").problem(t); p.Status != 422 {
		t.Errorf("%+v", p)
	}
	if p := b.ask(shop, "GET", "/v1/nothing", "").problem(t); p.Status != 404 {
		t.Errorf("%+v", p)
	}
	if p := b.ask(shop, "POST", at, strings.Repeat("#", 17<<20)).problem(t); p.Status != 413 && p.Status != 400 {
		t.Errorf("%+v", p)
	}
}

func TestTenancyOverHTTP(t *testing.T) {
	b := setup(t)
	east := b.tokens["east"]
	for _, s := range []struct {
		method, path, body string
		status             int
		has                string
	}{
		{"POST", "/v1/organizations/east/children", `{"name":"bar","title":"A bar"}`, 201, ""},
		{"GET", "/v1/organizations/east/children", "", 200, `"bar"`},
		{"GET", "/v1/organizations/bar", "", 200, `"A bar"`},
		{"POST", "/v1/organizations/bar/projects", `{"name":"blue"}`, 201, ""},
		{"GET", "/v1/organizations/bar/projects", "", 200, `"blue"`},
		{"DELETE", "/v1/organizations/bar", "", 409, "in-use"},
		{"DELETE", "/v1/organizations/bar/projects/blue", "", 204, ""},
		{"POST", "/v1/organizations/bar/users", `{"login":"joe","password":"` + password + `"}`, 201, ""},
		{"POST", "/v1/organizations/bar/users", `{"login":"joe","password":"` + password + `"}`, 409, "conflict"},
		{"PUT", "/v1/organizations/bar/roles/purger", `{"rules":[{"verbs":["purge"],"kinds":["Site"]}]}`, 204, ""},
		{"GET", "/v1/organizations/bar/roles", "", 200, `"purger"`},
		{"POST", "/v1/organizations/bar/bindings", `{"user":"joe","role":"purger"}`, 204, ""},
		{"GET", "/v1/organizations/bar/bindings", "", 200, `"purger"`},
		{"POST", "/v1/organizations/bar/bindings/remove", `{"user":"joe","role":"purger"}`, 204, ""},
		{"PUT", "/v1/organizations/bar/users/joe/disabled", `{"disabled":true}`, 204, ""},
		{"GET", "/v1/organizations/bar/users", "", 200, `"disabled":true`},
		{"DELETE", "/v1/organizations/bar/users/joe", "", 204, ""},
		{"PUT", "/v1/organizations/east/plans/small", `{"limits":{"sites":{"most":1,"atLimit":"refuse"}}}`, 204, ""},
		{"PUT", "/v1/organizations/bar/plan", `{"organization":"east","name":"small"}`, 204, ""},
		{"GET", "/v1/organizations/bar/usage/sites", "", 200, `"most":1`},
		{"PUT", "/v1/organizations/bar/guardrails/imposed", `{"bounds":[{"kind":"WafPolicy","path":"spec.paranoia","min":"2"}]}`, 204, ""},
		{"GET", "/v1/organizations/bar/guardrails", "", 200, `"imposed"`},
		{"POST", "/v1/organizations/bar/claims", `{"name":"bar.example.com"}`, 201, `"record"`},
		{"POST", "/v1/organizations/bar/claims/bar.example.com/prove", "", 409, "proof-not-found"},
		{"GET", "/v1/organizations/bar/claims", "", 200, `"pending"`},
		{"DELETE", "/v1/organizations/bar/claims/bar.example.com", "", 204, ""},
		{"GET", "/v1/organizations/bar/audit", "", 200, `"hostname.claim"`},
		{"POST", "/v1/organizations/east/tokens", `{"title":"ci","rules":[{"verbs":["read"],"kinds":["Site"]}],"expires":"2026-06-02T00:00:00Z"}`, 201, `"token"`},
		{"GET", "/v1/organizations/east/tokens", "", 200, `"ci"`},
		{"GET", "/v1/session", "", 200, `"admin-east"`},
		{"GET", "/v1/organizations/op/pops", "", 403, ""},
		{"GET", "/v1/organizations/bar/pops", "", 403, ""},
		{"POST", "/v1/organizations/bar/purges", `{"site":"s","all":true}`, 202, `"number":1`},
		{"DELETE", "/v1/organizations/bar", "", 204, ""},
	} {
		r := b.ask(east, s.method, s.path, s.body)
		if r.status != s.status || !strings.Contains(r.body, s.has) {
			t.Errorf("%s %s: %d %s", s.method, s.path, r.status, r.body)
		}
		if strings.Contains(r.body, "argon2") || strings.Contains(r.body, `"hash":"$`) {
			t.Errorf("%s %s tells too much: %s", s.method, s.path, r.body)
		}
	}
	if r := b.ask(b.tokens["op"], "GET", "/v1/organizations/op/pops", ""); r.status != 200 || !strings.Contains(r.body, `"fra"`) {
		t.Errorf("%d %s", r.status, r.body)
	}
}

func TestLoginsAndOtherSites(t *testing.T) {
	b := setup(t)
	if p := b.ask("", "POST", "/v1/login", `{"organization":"shop","login":"admin-shop","password":"wrong password"}`).problem(t); p.Status != 401 {
		t.Errorf("%+v", p)
	}
	r := b.ask("", "POST", "/v1/login", `{"organization":"shop","login":"admin-shop","password":"`+password+`"}`)
	var in struct{ Token string }
	b.must(json.Unmarshal([]byte(r.body), &in))
	cookie := r.header.Get("Set-Cookie")
	for _, want := range []string{"__Host-relais=", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(cookie, want) {
			t.Errorf("the cookie %q has no %s", cookie, want)
		}
	}
	pair, _, _ := strings.Cut(cookie, ";")
	at := "/v1/organizations/shop/documents"
	for _, s := range []struct {
		method string
		status int
		fields []string
	}{
		{"GET", 200, nil},
		{"GET", 200, []string{"Sec-Fetch-Site", "same-origin"}},
		{"GET", 403, []string{"Sec-Fetch-Site", "cross-site"}},
		{"POST", 403, nil},
		{"POST", 403, []string{"Relais-Request", "1", "Sec-Fetch-Site", "same-site"}},
		{"POST", 200, []string{"Relais-Request", "1", "Sec-Fetch-Site", "same-origin"}},
	} {
		body := ""
		if s.method == "POST" {
			body = pool("a")
		}
		if r := b.ask("", s.method, at, body, append([]string{"Cookie", pair}, s.fields...)...); r.status != s.status {
			t.Errorf("%s %q: %d %s", s.method, s.fields, r.status, r.body)
		}
	}
	if r := b.ask(in.Token, "GET", at, ""); r.status != 200 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if r := b.ask(in.Token, "POST", "/v1/logout", ""); r.status != 204 {
		t.Errorf("%d %s", r.status, r.body)
	}
	if p := b.ask(in.Token, "GET", at, "").problem(t); p.Status != 401 {
		t.Errorf("after logout: %+v", p)
	}
}

func TestRateLimits(t *testing.T) {
	b := setup(t)
	last := reply{}
	for range 601 {
		last = b.ask(b.tokens["shop"], "GET", "/v1/session", "")
	}
	p := last.problem(t)
	if p.Status != 429 || last.header.Get("Retry-After") == "" || !strings.Contains(last.header.Get("RateLimit"), `"actor";r=0`) {
		t.Errorf("%+v %v", p, last.header)
	}
	if r := b.ask(b.tokens["cafe"], "GET", "/v1/session", ""); r.status != 200 {
		t.Errorf("another is refused too: %d", r.status)
	}
	b.pass(2 * time.Second)
	if r := b.ask(b.tokens["shop"], "GET", "/v1/session", ""); r.status != 200 {
		t.Errorf("after a while: %d", r.status)
	}
}
