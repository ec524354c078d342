package provider

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/schema/validator"
	"github.com/hashicorp/terraform-plugin-framework/types"

	v1 "github.com/relais-edge/relais/api/v1"
)

// snake turns a field's name into an attribute's: defaultTTL becomes default_ttl.
func snake(name string) string {
	var b strings.Builder
	r := []rune(name)
	for i, c := range r {
		if unicode.IsUpper(c) && i > 0 && (!unicode.IsUpper(r[i-1]) || i+1 < len(r) && unicode.IsLower(r[i+1])) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// words is what the JSON Schema of a kind says of a value.
type words struct {
	Description string           `json:"description"`
	Properties  map[string]words `json:"properties"`
	Items       *words           `json:"items"`
}

func schemaOf(k v1.Kind) (schema.Schema, error) {
	var w words
	if err := json.Unmarshal(v1.KindSchema(k), &w); err != nil {
		return schema.Schema{}, fmt.Errorf("the schema of %s: %w", k, err)
	}
	forever := []planmodifier.String{stringplanmodifier.RequiresReplace()}
	spec := v1.ShapeOf(k).Field("spec")
	return schema.Schema{
		Description: w.Description,
		Attributes: map[string]schema.Attribute{
			"id":           schema.StringAttribute{Computed: true, Description: "ORGANIZATION/NAME.", PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown()}},
			"organization": schema.StringAttribute{Optional: true, Computed: true, Description: "Owner; absent: the provider's.", PlanModifiers: []planmodifier.String{stringplanmodifier.UseStateForUnknown(), stringplanmodifier.RequiresReplace()}},
			"name":         schema.StringAttribute{Required: true, Description: "Unique within the organization and the kind.", PlanModifiers: forever},
			"project":      schema.StringAttribute{Optional: true, Description: w.Properties["metadata"].Properties["project"].Description},
			"labels":       schema.MapAttribute{Optional: true, ElementType: types.StringType, Description: w.Properties["metadata"].Properties["labels"].Description},
			"revision":     schema.Int64Attribute{Computed: true, Description: "At which the document was read; a change is refused when somebody else changed it meanwhile."},
			"spec":         attribute(spec, w.Properties["spec"]),
		},
	}, nil
}

func attributes(s *v1.Shape, w words) map[string]schema.Attribute {
	all := map[string]schema.Attribute{}
	for i := range s.Fields {
		f := &s.Fields[i]
		all[snake(f.Name)] = attribute(f, w.Properties[f.Name])
	}
	return all
}

// attribute of a field. No default is computed: what is not written stays null, here as in the control plane.
func attribute(f *v1.Field, w words) schema.Attribute {
	need, text := f.Required, w.Description
	if f.Default != "" {
		text = strings.TrimSpace(text + " Absent means " + f.Default + ".")
	}
	switch f.Shape.Form {
	case v1.FormObject:
		return schema.SingleNestedAttribute{Required: need, Optional: !need, Sensitive: f.Secret, Description: text, Attributes: attributes(f.Shape, w)}
	case v1.FormMap:
		return schema.MapAttribute{Required: need, Optional: !need, Sensitive: f.Secret, Description: text, ElementType: types.StringType}
	case v1.FormList:
		if f.Shape.Elem.Form == v1.FormObject {
			var of words
			if w.Items != nil {
				of = *w.Items
			}
			return schema.ListNestedAttribute{Required: need, Optional: !need, Sensitive: f.Secret, Description: text, NestedObject: schema.NestedAttributeObject{Attributes: attributes(f.Shape.Elem, of)}}
		}
		elem := types.StringType
		if f.Shape.Elem.Form == v1.FormInt {
			return schema.ListAttribute{Required: need, Optional: !need, Sensitive: f.Secret, Description: text, ElementType: types.Int64Type}
		}
		return schema.ListAttribute{Required: need, Optional: !need, Sensitive: f.Secret, Description: text, ElementType: elem}
	case v1.FormInt:
		return schema.Int64Attribute{Required: need, Optional: !need, Description: text, Validators: []validator.Int64{bounds{f}}}
	case v1.FormBool:
		return schema.BoolAttribute{Required: need, Optional: !need, Description: text}
	}
	return schema.StringAttribute{Required: need, Optional: !need, Sensitive: f.Secret, Description: text, Validators: []validator.String{bounds{f}}}
}

// bounds says before anything is asked what the control plane would say of a value by itself.
type bounds struct{ field *v1.Field }

// Description implements validator.Describer.
func (b bounds) Description(context.Context) string {
	if len(b.field.Enum) > 0 {
		return "write one of " + strings.Join(b.field.Enum, ", ")
	}
	return b.field.Bounds()
}

// MarkdownDescription implements validator.Describer.
func (b bounds) MarkdownDescription(ctx context.Context) string { return b.Description(ctx) }

// ValidateInt64 implements validator.Int64.
func (b bounds) ValidateInt64(ctx context.Context, req validator.Int64Request, resp *validator.Int64Response) {
	n := req.ConfigValue
	if n.IsNull() || n.IsUnknown() {
		return
	}
	if f := b.field; f.Min != nil && n.ValueInt64() < *f.Min || f.Max != nil && n.ValueInt64() > *f.Max {
		resp.Diagnostics.AddAttributeError(req.Path, "The number is out of bounds", b.Description(ctx))
	}
}

// ValidateString implements validator.String.
func (b bounds) ValidateString(ctx context.Context, req validator.StringRequest, resp *validator.StringResponse) {
	if req.ConfigValue.IsNull() || req.ConfigValue.IsUnknown() {
		return
	}
	f, text := b.field, req.ConfigValue.ValueString()
	if len(f.Enum) > 0 && !slices.Contains(f.Enum, text) {
		resp.Diagnostics.AddAttributeError(req.Path, "The value is none of those that there are", b.Description(ctx))
	}
	if f.Shape.Form != v1.FormText {
		return
	}
	v, err := parse(f.Shape, text)
	if err != nil {
		resp.Diagnostics.AddAttributeError(req.Path, "The value is not well formed", err.Error())
		return
	}
	if v.CanInt() && (f.Min != nil && v.Int() < *f.Min || f.Max != nil && v.Int() > *f.Max) {
		resp.Diagnostics.AddAttributeError(req.Path, "The value is out of bounds", b.Description(ctx))
	}
}
