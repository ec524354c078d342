package document

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAFaultOfAnOpenAPIFileIsToldAtItsLineInThatFile(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	policy := write("policy.yaml", "apiVersion: relais/v1\nkind: ApiPolicy\nmetadata: {name: x}\nspec: {document: {file: shop.yaml}}\n")
	for _, c := range []struct{ text, at, says string }{
		{"openapi: 3.1.0\npaths:\n  /a:\n    get:\n      parameters:\n        - {name: q, in: query}\n        - name: r\n          in: body\n", "shop.yaml:8:11: ApiPolicy x spec.document.file: /paths/~1a/get/parameters/1/in ", "write path, query, header or cookie"},
		{"openapi: 3.1.0\nx: &x {minLength: -1}\npaths: {/a: {post: {requestBody: {content: {application/json: {schema: *x}}}}}}\n", "shop.yaml:2:8: ", "whole number"},
		{"{\"openapi\": \"3.1.0\",\n \"paths\": {\n  \"a\": {}}}\n", "shop.yaml:3:8: ", "does not begin with a slash"},
		{"openapi: 3.1.0\npaths: {}\n", "policy.yaml:4:19: ", "has no operation"},
		{"openapi: [\n", "policy.yaml:4:19: ", "neither JSON nor YAML"},
	} {
		write("shop.yaml", c.text)
		set, problems := Load([]string{policy}, nil)
		if len(problems) != 1 {
			t.Fatalf("%q: %v", c.text, problems)
		}
		if got := strings.TrimPrefix(problems[0].String(), dir+"/"); !strings.HasPrefix(got, c.at) || !strings.Contains(got, c.says) {
			t.Errorf("%q:\n%s, want %s… %s", c.text, got, c.at, c.says)
		}
		if r := set.Referenced(); len(r) != 1 || r[0] != filepath.Join(dir, "shop.yaml") {
			t.Errorf("referenced are %q", r)
		}
	}
}
