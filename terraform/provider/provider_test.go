package provider

import (
	"context"
	"encoding/json"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	v1 "github.com/relais-edge/relais/api/v1"
	files "github.com/relais-edge/relais/internal/document"
)

// TestEverySchemaIsOneThatTerraformTakes checks each kind's schema, and that its type is that of the mapped values.
func TestEverySchemaIsOneThatTerraformTakes(t *testing.T) {
	for _, k := range v1.Kinds() {
		var resp resource.SchemaResponse
		(&document{kind: k}).Schema(t.Context(), resource.SchemaRequest{}, &resp)
		resp.Diagnostics.Append(resp.Schema.ValidateImplementation(context.Background())...)
		if resp.Diagnostics.HasError() {
			t.Errorf("%s: %v", k, resp.Diagnostics)
			continue
		}
		spec := v1.ShapeOf(k).Field("spec").Shape
		if got := resp.Schema.Attributes["spec"].GetType().TerraformType(t.Context()); !got.Equal(typeOf(spec)) {
			t.Errorf("%s: the schema's type is not that of the values", k)
		}
		names := map[string]bool{}
		for i := range spec.Fields {
			names[snake(spec.Fields[i].Name)] = true
		}
		if len(names) != len(spec.Fields) {
			t.Errorf("%s: two fields have one name", k)
		}
	}
}

// TestEveryExampleComesBack takes each document of the examples to Terraform's values and back.
func TestEveryExampleComesBack(t *testing.T) {
	paths, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	env := func(string) (string, bool) { return "192.0.2.1:80", true }
	for _, p := range paths {
		set, _ := files.LoadWritten([]string{p}, env)
		if len(set.Documents) == 0 {
			t.Errorf("%s holds no document", p)
		}
		for _, d := range set.Documents {
			kind, m := d.Meta()
			b, err := files.JSON(d)
			if err != nil {
				t.Fatal(err)
			}
			var before map[string]any
			if err := json.Unmarshal(b, &before); err != nil {
				t.Fatal(err)
			}
			f := v1.ShapeOf(kind).Field("spec")
			value := fromJSON(f.Shape, before["spec"])
			after, err := toJSON(f.Shape, value)
			if err != nil {
				t.Fatal(err)
			}
			if a, b := text(t, after), text(t, before["spec"]); a != b {
				t.Errorf("%s: %s %s came back as\n%s\nnot as\n%s", p, kind, m.Name, a, b)
			}
			if kept := keep(f, value, value); !kept.Equal(value) {
				t.Errorf("%s: %s %s drifts against itself", p, kind, m.Name)
			}
		}
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestWhatMeansTheSameIsKept compares a field before and now.
func TestWhatMeansTheSameIsKept(t *testing.T) {
	spec := v1.ShapeOf(v1.KindCachePolicy).Field("spec").Shape
	for _, c := range []struct {
		field       string
		before, now any
		kept        bool
	}{
		{"defaultTTL", "60s", "1m", true},
		{"defaultTTL", "60s", "2m", false},
		{"defaultTTL", "0s", nil, true},
		{"defaultTTL", "60s", nil, false},
		{"maxObject", "1024KiB", "1MiB", true},
		{"statusKey", false, nil, true},
		{"statusKey", true, nil, false},
		{"statusKey", nil, true, false},
		{"bypass", []any{}, nil, true},
		{"key", map[string]any{"sort": false}, nil, true},
		{"key", map[string]any{"sort": true}, nil, false},
	} {
		f := spec.Field(c.field)
		before, now := fromJSON(f.Shape, c.before), fromJSON(f.Shape, c.now)
		if got := keep(f, before, now).Equal(before); got != c.kept {
			t.Errorf("%s: %v, then %v: kept %v", c.field, c.before, c.now, got)
		}
	}
	secret := v1.ShapeOf(v1.KindVisitorPolicy).Field("spec").Shape.Field("secret")
	if v := tftypes.NewValue(tftypes.String, "plain"); !keep(secret, v, tftypes.NewValue(tftypes.String, "(secret 0000000000000000)")).Equal(v) {
		t.Error("a secret is not kept")
	}
}

// TestAProblemIsToldAtItsAttribute turns places of documents into those of resources.
func TestAProblemIsToldAtItsAttribute(t *testing.T) {
	for field, want := range map[string]string{
		"spec.routes[0].waitingRoom": "spec.routes[0].waiting_room",
		"metadata.name":              "name",
		"spec.defaultTTL":            "spec.default_ttl",
	} {
		if at, ok := attributePath(field); !ok || !reflect.DeepEqual(at.String(), want) {
			t.Errorf("%s: %s", field, at)
		}
	}
	if _, ok := attributePath(""); ok {
		t.Error("no field has a path")
	}
}
