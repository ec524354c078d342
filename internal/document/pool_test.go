package document

import (
	"strings"
	"testing"
)

// What would break an overflow pool is refused, and it is said where and how to mend it.
func TestBadPoolsAreRefusedAndSaid(t *testing.T) {
	const head = "apiVersion: relais/v1\nkind: Listener\nmetadata: {name: web}\nspec: {address: \":8080\"}\n---\n" +
		"apiVersion: relais/v1\nkind: Site\nmetadata: {name: shop}\nspec: {hostnames: [\"*\"], routes: [{pool: shop}]}\n---\n" +
		"apiVersion: relais/v1\nkind: OriginPool\nmetadata: {name: shop}\nspec:\n"
	for _, c := range []struct{ name, spec, want string }{
		{"a tier of capacity 0", `tiers: [{capacity: {inFlight: 0}, origins: [{address: "10.0.0.1:80"}]}]`, "capacity.inFlight: 0 is out of bounds; write a number from 1"},
		{"a tier of a negative capacity", `tiers: [{capacity: {inFlight: -1}, origins: [{address: "10.0.0.1:80"}]}]`, "capacity.inFlight: -1 is out of bounds"},
		{"a tier whose origins weigh nothing", `tiers: [{origins: [{address: "10.0.0.1:80", weight: 0}]}]`, "have all weight 0, so that none is used"},
		{"a tier that keeps all for baskets", `tiers: [{capacity: {reserve: 100%}, origins: [{address: "10.0.0.1:80"}]}]`, "leaves no room for visitors without a basket"},
		{"an origin twice", `tiers: [{origins: [{address: "10.0.0.1:80"}, {address: "10.0.0.1:80"}]}]`, `"10.0.0.1:80" stands twice in the tier`},
		{"an origin twice, written in two ways", `tiers: [{origins: [{address: "10.0.0.1:80"}, {address: "[::ffff:10.0.0.1]:80"}]}]`, `"[::ffff:10.0.0.1]:80" stands twice in the tier`},
		{"an origin in two tiers", `tiers: [{name: a, origins: [{address: "10.0.0.1:80"}]}, {origins: [{address: "10.0.0.1:080"}]}]`, `"10.0.0.1:080" is in the tier "a" too, so that overflow would go to the server that it comes from`},
		{"a tier that names a pool", `tiers: [{pool: shop}]`, "tiers[0].pool: there is no such field"},
		{"a circle through the own listener", `tiers: [{origins: [{address: "10.0.0.1:80"}]}, {origins: [{address: "127.0.0.1:8080"}]}]`, "requests would go in a circle; name the server behind this edge"},
		{"a probe to a metadata address", `{tiers: [{origins: [{address: "169.254.169.254:80"}]}], health: {path: /latest}}`, "is where a cloud tells its machines their secrets"},
		{"a probe to a private address where only public ones are meant", `{tiers: [{origins: [{address: "10.0.0.1:80"}]}], health: {path: /}, connection: {public: true}}`, `"10.0.0.1:80" is not public, and connection.public is true`},
		{"a queue without end", `{tiers: [{origins: [{address: "10.0.0.1:80"}]}], whenFull: {wait: 1h}}`, "whenFull.wait: 1h is out of bounds"},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := c.spec
			if !strings.HasPrefix(spec, "{") {
				spec = "{" + spec + "}"
			}
			set, problems := Read([]File{{Name: "edge.yaml", Text: []byte(head + "  " + spec + "\n")}}, nil)
			_, more := set.Compile()
			var said []string
			for _, p := range append(problems, more...) {
				said = append(said, p.String())
			}
			if all := strings.Join(said, "\n"); !strings.Contains(all, c.want) || !strings.HasPrefix(all, "edge.yaml:") {
				t.Errorf("want %q, said:\n%s", c.want, all)
			}
		})
	}
}
