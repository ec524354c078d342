package change_test

import (
	"regexp"
	"strings"
	"testing"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/change"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant/secret"
)

func policy(name string, secrets ...string) string {
	return head + "VisitorPolicy\nmetadata: {name: " + name + "}\nspec: {secret: '" + secrets[0] + "', previousSecrets: ['" + strings.Join(secrets[1:], "', '") + "']}\n"
}

const (
	one   = "the-first-secret-0123456789"
	two   = "the-second-secret-0123456789"
	three = "the-third-secret-0123456789"
)

// plain gives the policy's secrets as an edge gets them.
func (b *bed) plain(name string) []string {
	b.t.Helper()
	var all []string
	b.must(b.store.View(b.t.Context(), func(r *store.Reader) error {
		docs, _, err := b.Served(b.t.Context(), r, "shop")
		for _, d := range docs {
			if p, is := d.(*v1.VisitorPolicy); is && p.Metadata.Name == name {
				all = append([]string{p.Spec.Secret}, p.Spec.PreviousSecrets...)
			}
		}
		return err
	}))
	return all
}

func TestSecretsAreNeverGivenBack(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	first := b.apply(b.ann, "shop", policy("p", one, two))
	if got := b.plain("p"); len(got) != 2 || got[0] != one || got[1] != two {
		t.Fatalf("an edge gets %q", got)
	}
	it, err := b.Get(ctx, b.ann, "shop", v1.KindVisitorPolicy, "p")
	b.must(err)
	shown := regexp.MustCompile(`\(secret [0-9a-f]{16}\)`).FindAllString(string(it.Document), -1)
	if len(shown) != 2 || shown[0] == shown[1] {
		t.Fatalf("%s", it.Document)
	}
	same := b.apply(b.ann, "shop", string(it.Document))
	if same.Changed() != 0 {
		t.Errorf("what was shown and sent back changes something: %+v", same.Changes)
	}
	if same = b.apply(b.ann, "shop", policy("p", one, two)); same.Changed() != 0 {
		t.Errorf("the same secrets change something: %+v", same.Changes)
	}
	// A new one comes first, and the former becomes a previous one, though nobody but us knows it.
	turned := b.apply(b.ann, "shop", policy("p", three, shown[0], shown[1]))
	if got := b.plain("p"); len(got) != 3 || got[0] != three || got[1] != one || got[2] != two {
		t.Errorf("an edge gets %q", got)
	}
	_, err = b.Apply(ctx, b.ann, "shop", files(policy("q", shown[0], two)), change.Options{})
	b.refused(err, "spec.secret: stands for a secret that this document does not have")
	back, err := b.Rollback(ctx, b.ann, "shop", first.Revision, change.Options{})
	b.must(err)
	if got := b.plain("p"); len(got) != 2 || got[0] != one {
		t.Errorf("rolled back, an edge gets %q", got)
	}
	history, _, err := b.History(ctx, b.ann, "shop", v1.KindVisitorPolicy, "p", "", 0)
	b.must(err)
	diff, _, err := b.Diff(ctx, b.ann, "shop", first.Revision-1, turned.Revision, "", 0)
	b.must(err)
	export, err := b.Export(ctx, b.ann, "shop", "")
	b.must(err)
	var kept []string
	b.must(b.store.View(ctx, func(r *store.Reader) error {
		for n := first.Revision; n <= back.Revision; n++ {
			list, _, err := r.Changes(ctx, "shop", n, "", 0)
			if err != nil {
				return err
			}
			for _, c := range list {
				kept = append(kept, string(c.Body))
			}
		}
		entries, err := r.Entries(ctx, "shop", "audit", 0, 0)
		for _, e := range entries {
			kept = append(kept, string(e.Body))
		}
		return err
	}))
	if len(history) != 3 || len(kept) < 6 {
		t.Errorf("%d in the history, %d bodies", len(history), len(kept))
	}
	for what, text := range map[string]string{
		"the document": string(it.Document), "the history": string(history[0].Document) + string(history[1].Document), "the export": string(export),
		"the store": strings.Join(kept, "\n"), "results": show(first, turned, back), "the difference": show(&change.Result{Changes: diff}),
	} {
		if strings.Contains(text, "secret-0123456789") {
			t.Errorf("%s gives a secret away: %s", what, text)
		}
		if what != "the store" && strings.Contains(text, "AGE") {
			t.Errorf("%s gives a cipher away: %s", what, text)
		}
	}
}

func show(results ...*change.Result) (s string) {
	for _, r := range results {
		for _, c := range r.Changes {
			for _, f := range c.Fields {
				s += f.Path + " " + string(f.Before) + " " + string(f.After) + "\n"
			}
		}
	}
	return s
}

func TestAnExportAppliedChangesNothing(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.apply(b.ann, "shop", policy("p", one, two), pool("a"), strings.Replace(site("s", "shop.example", "a"), "routes:", "visitor: p, routes:", 1),
		head+"KillSwitch\nmetadata: {name: k, labels: {a: '${x}', b: 'yes'}}\nspec: {features: [waf], sites: [s], reason: \"a: '$$ # b\", expires: 2030-01-01T00:00:00Z}\n")
	export, err := b.Export(ctx, b.ann, "shop", "")
	b.must(err)
	env := func(string) (string, bool) { return "", false }
	texts := files(string(export))
	if _, problems := readAsServe(texts, env); len(problems) > 0 {
		t.Fatalf("serve -f does not read it: %v\n%s", problems, export)
	}
	sent, err := resend(texts, env)
	b.must(err)
	r, err := b.Apply(ctx, b.ann, "shop", sent, change.Options{Prune: true})
	b.must(err)
	if r.Changed() != 0 || len(r.Changes) != 4 {
		t.Errorf("%+v", r.Changes)
	}
	r, err = b.Apply(ctx, b.ann, "shop", files(pool("a")), change.Options{Prune: true, DryRun: true})
	b.must(err)
	if r.Changed() != 3 || r.Changes[1].Action != change.Deleted {
		t.Errorf("%+v", r.Changes)
	}
}

func TestADocumentMovesWithItsSecretsAndKeysRotate(t *testing.T) {
	b := setup(t)
	ctx := t.Context()
	b.apply(b.ann, "shop", policy("p", one, two))
	b.must(b.tenant.CreateProject(ctx, b.ann, "shop", "blue"))
	b.apply(b.ann, "shop", strings.Replace(policy("p", one, two), "metadata: {", "metadata: {project: blue, ", 1))
	if got := b.plain("p"); len(got) != 2 || got[0] != one {
		t.Errorf("after the move an edge gets %q", got)
	}
	private, _, err := secret.NewKey()
	b.must(err)
	other, err := secret.NewVault(private)
	b.must(err)
	before := b.Vault
	b.Vault = other
	if err := b.store.View(ctx, func(r *store.Reader) error { _, _, err := b.Served(ctx, r, "shop"); return err }); err == nil {
		t.Error("another key opens it")
	}
	b.Vault = before
	n, err := b.RotateSecrets(ctx, "root")
	if b.must(err); n != 0 {
		t.Errorf("%d were closed anew for the same key", n)
	}
	if b.Vault, err = secret.NewVault(private + "\n" + b.key); err != nil {
		t.Fatal(err)
	}
	if n, err = b.RotateSecrets(ctx, "root"); err != nil || n != 1 {
		t.Errorf("%d were closed anew, %v", n, err)
	}
	if b.Vault = other; len(b.plain("p")) != 2 {
		t.Error("the new key alone does not open it")
	}
}
