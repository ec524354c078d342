package api_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/auth"
)

// operation is one of the description's.
type operation struct {
	method, path, id string
	public           bool
}

func (b *bed) operations() (all []operation) {
	b.t.Helper()
	raw, err := b.api.OpenAPI()
	b.must(err)
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string                `json:"operationId"`
			Security    []map[string][]string `json:"security"`
		}
	}
	b.must(json.Unmarshal(raw, &doc))
	for path, methods := range doc.Paths {
		for m, o := range methods {
			all = append(all, operation{strings.ToUpper(m), path, o.OperationID, len(o.Security) == 0})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].id < all[j].id })
	return all
}

// sample is a request that who may could make: query, body, and the name in the path.
func sample(id string) (query, body, name string) {
	expires := `"2026-06-02T00:00:00Z"`
	query = map[string]string{"rollback": "?to=1"}[id]
	body = map[string]string{
		"apply-documents": pool("mine"), "put-document": pool("mine"),
		"create-organization": `{"name":"newone"}`, "create-project": `{"name":"green"}`,
		"create-user": `{"login":"eve","password":"` + password + `"}`, "set-password": `{"password":"` + password + `2"}`, "disable-user": `{"disabled":true}`,
		"put-role": `{"rules":[{"verbs":["read"],"kinds":["Site"]}]}`, "bind": `{"user":"joe","role":"viewer"}`, "unbind": `{"user":"joe","role":"viewer"}`,
		"create-token": `{"rules":[{"verbs":["read"],"kinds":["Site"]}],"expires":` + expires + `}`,
		"put-plan":     `{"limits":{"sites":{"most":1,"atLimit":"refuse"}}}`, "assign-plan": `{"organization":"east","name":"small"}`,
		"put-guardrails-own": `{"bounds":[]}`, "put-guardrails-imposed": `{"bounds":[]}`,
		"create-claim": `{"name":"new.example.com"}`, "purge": `{"site":"mine","all":true}`, "steer-rollout": `{"action":"hold"}`,
		"login": `{"organization":"shop","login":"x","password":"y"}`, "confirm-totp": `{"code":"123456"}`,
		"put-brand":   `{"title":"marker","support":{},"pages":{"en":{},"fr":{}}}`,
		"create-link": `{"purpose":"reset"}`, "put-provider": `{"issuer":"https://id.example.com","clientId":"relais","clientSecret":"marker"}`,
	}[id]
	name = map[string]string{
		"delete-project": "blue", "delete-user": "joe", "set-password": "joe", "disable-user": "joe", "put-role": "mine", "put-plan": "mine", "delete-plan": "mine",
		"get-usage": "sites", "prove-claim": "marker.example.com", "release-claim": "marker.example.com", "enrol-pop": "fra", "steer-rollout": "1",
		"list-sessions": "joe", "end-sessions": "joe", "create-link": "joe",
	}[id]
	if name == "" {
		name = "mine"
	}
	return query, body, name
}

func (b *bed) try(o operation, org, token string) reply {
	query, body, name := sample(o.id)
	if o.id == "revoke-token" {
		name = b.ended
	}
	if o.id == "end-session" {
		name = b.session
	}
	path := strings.NewReplacer("{org}", org, "{kind}", "OriginPool", "{name}", name, "{number}", "1").Replace(o.path)
	var fields []string
	if o.id == "put-document" || o.id == "delete-document" {
		fields = []string{"If-Match", "*"}
	}
	if o.id == "watch" && token == b.tokens["shop"] {
		return reply{status: 200} // it does not end by itself; its own test looks at it
	}
	return b.ask(token, o.method, path+query, body, fields...)
}

// TestNobodyElseGetsAnythingOfATenant asks every operation of the description as another tenant, as a reseller beside, without
// a token and with one that ended: each is refused, and nothing is told, not even whether the organization exists.
func TestNobodyElseGetsAnythingOfATenant(t *testing.T) {
	b := setup(t)
	root := tenant.Actor{Organization: "op", Login: "root"}
	b.must(b.tenant.CreateUser(t.Context(), root, "shop", "joe", password, false))
	b.must(b.tenant.CreateProject(t.Context(), root, "shop", "blue"))
	b.must(b.tenant.PutPlan(t.Context(), root, "east", "small", tenant.Plan{Title: "marker"}))
	b.ask(b.tokens["shop"], "POST", "/v1/organizations/shop/claims", `{"name":"marker.example.com"}`)
	if r := b.ask(b.tokens["shop"], "POST", "/v1/organizations/shop/documents?reason=marker", pool("mine")); r.status != 200 {
		t.Fatalf("%d %s", r.status, r.body)
	}
	ended := b.token(tenant.Actor{Organization: "shop", Login: "admin-shop"}, time.Minute)
	of, err := auth.ParseToken(ended)
	b.must(err)
	b.ended = of.ID
	for _, org := range []string{"shop", "cafe", "east", "west", "op"} {
		b.tokens[org] = b.token(tenant.Actor{Organization: org, Login: map[bool]string{true: "root", false: "admin-" + org}[org == "op"]}, 20*time.Hour)
	}
	_, se, err := b.tenant.OpenSession(t.Context(), tenant.Actor{Organization: "shop", Login: "admin-shop"}, tenant.SessionRequest{Agent: "marker"})
	b.must(err)
	b.session = se.ID
	b.pass(2 * time.Minute)
	callers := []struct {
		name, token string
		status      int
	}{
		{"another tenant", b.tokens["cafe"], 403},
		{"reseller beside", b.tokens["west"], 403},
		{"no token", "", 401},
		{"ended token", ended, 401},
	}
	before := b.revision("shop")
	ids := regexp.MustCompile(`"(instance|requestId)":"[^"]*",?`)
	table := []string{fmt.Sprintf("%-24s %-7s %-64s %s", "operation", "method", "path", "another tenant, reseller beside, no token, ended token")}
	count := 0
	for _, o := range b.operations() {
		row := fmt.Sprintf("%-24s %-7s %-64s", o.id, o.method, o.path)
		for _, c := range callers {
			ofOrg := strings.Contains(o.path, "{org}")
			if o.public || !ofOrg && c.status == 403 {
				row += " own"
				continue
			}
			there, nowhere := b.try(o, "shop", c.token), b.try(o, "nowhere", c.token)
			count++
			row += fmt.Sprintf(" %d", there.status)
			if there.status != c.status {
				t.Errorf("%s as %s: %d %s", o.id, c.name, there.status, there.body)
			}
			for _, word := range []string{"marker", "192.0.2.1", "Title of", "joe", "admin-shop", "OriginPool"} {
				if strings.Contains(ids.ReplaceAllString(there.body, ""), word) { // a random id may hold a short word
					t.Errorf("%s as %s tells of %s: %s", o.id, c.name, word, there.body)
				}
			}
			if ofOrg && (there.status != nowhere.status || ids.ReplaceAllString(there.body, "") != ids.ReplaceAllString(nowhere.body, "")) {
				t.Errorf("%s as %s tells whether the organization exists:\n%d %s\n%d %s", o.id, c.name, there.status, there.body, nowhere.status, nowhere.body)
			}
		}
		table = append(table, row)
	}
	if after := b.revision("shop"); after != before || len(b.fleet.purges) > 0 || b.fleet.revoked > 0 {
		t.Errorf("something was changed: revision %d, then %d; %d purges", before, after, len(b.fleet.purges))
	}
	t.Logf("%d requests, all refused:\n%s", count, strings.Join(table, "\n"))
	if count < 150 {
		t.Errorf("only %d requests", count)
	}
	// The same requests are good ones: who may is not refused. Those that end something come last.
	all := b.operations()
	slices.SortStableFunc(all, func(x, y operation) int { return weight(x) - weight(y) })
	for _, o := range all {
		if o.public || !strings.Contains(o.path, "{org}") {
			continue
		}
		token := b.tokens["shop"]
		org := "shop"
		switch o.id {
		case "assign-plan", "put-guardrails-imposed", "delete-organization":
			token = b.tokens["east"]
		case "list-pops", "enrol-pop", "revoke-pop":
			token, org = b.tokens["op"], "op"
		}
		if r := b.try(o, org, token); r.status == 401 || r.status == 403 || r.status == 400 || r.status >= 500 || r.status == 422 && o.id != "rollback" {
			t.Errorf("%s as who may: %d %s", o.id, r.status, r.body)
		}
	}
}

func weight(o operation) int {
	switch {
	case o.id == "delete-organization":
		return 3
	case o.method == "DELETE" || o.id == "unbind" || o.id == "rollback":
		return 2
	case o.method == "GET":
		return 1
	}
	return 0
}

func (b *bed) revision(org string) (n int64) {
	b.t.Helper()
	b.must(b.store.View(b.t.Context(), func(r *store.Reader) error {
		o, err := r.Organization(b.t.Context(), org)
		n = o.Revision
		return err
	}))
	return n
}
