package provider

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net/http"
	"strconv"
	"strings"

	"github.com/hashicorp/terraform-plugin-framework/diag"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-go/tftypes"

	"github.com/relais-edge/relais/api/client"
	v1 "github.com/relais-edge/relais/api/v1"
)

// document is the resource of one kind.
type document struct {
	kind v1.Kind
	*remote
}

// item is what the control plane answers for a document.
type item struct {
	Document map[string]any `json:"document"`
	Revision int64          `json:"revision"`
}

func (d *document) Metadata(_ context.Context, req resource.MetadataRequest, resp *resource.MetadataResponse) {
	resp.TypeName = req.ProviderTypeName + "_" + snake(string(d.kind))
}

func (d *document) Schema(_ context.Context, _ resource.SchemaRequest, resp *resource.SchemaResponse) {
	s, err := schemaOf(d.kind)
	if err != nil {
		resp.Diagnostics.AddError("The provider is broken", err.Error())
	}
	resp.Schema = s
}

func (d *document) Configure(_ context.Context, req resource.ConfigureRequest, _ *resource.ConfigureResponse) {
	d.remote, _ = req.ProviderData.(*remote)
}

func (d *document) spec() *v1.Field { return v1.ShapeOf(d.kind).Field("spec") }

// row is a resource's state by attribute.
type row map[string]tftypes.Value

func rowOf(v tftypes.Value) (r row, err error) {
	var m map[string]tftypes.Value
	if err = v.As(&m); err != nil {
		err = fmt.Errorf("provider: %w", err)
	}
	return m, err
}

func (r row) text(name string) (s string) {
	if v := r[name]; v.IsKnown() && !v.IsNull() {
		_ = v.As(&s) // the schema says that it is a string
	}
	return s
}

func (d *document) org(r row) string {
	if o := r.text("organization"); o != "" {
		return o
	}
	return d.organization
}

// ModifyPlan leaves as it was what is written in another way and means the same.
func (d *document) ModifyPlan(_ context.Context, req resource.ModifyPlanRequest, resp *resource.ModifyPlanResponse) {
	if req.State.Raw.IsNull() || req.Plan.Raw.IsNull() {
		return
	}
	before, err := rowOf(req.State.Raw)
	now, err2 := rowOf(req.Plan.Raw)
	if err = errors.Join(err, err2); err != nil {
		resp.Diagnostics.AddError("The plan cannot be read", err.Error())
		return
	}
	now["spec"] = keepShape(plain(d.spec().Shape), before["spec"], now["spec"])
	if same := now["spec"].Equal(before["spec"]) && now["project"].Equal(before["project"]) && now["labels"].Equal(before["labels"]); same && !now["revision"].IsKnown() {
		now["revision"] = before["revision"]
	}
	resp.Plan.Raw = tftypes.NewValue(req.Plan.Raw.Type(), map[string]tftypes.Value(now))
}

// plain is a shape whose secrets are compared as what they are: in a plan they are in clear on both sides.
func plain(s *v1.Shape) *v1.Shape {
	c := *s
	c.Fields = make([]v1.Field, len(s.Fields))
	for i, f := range s.Fields {
		f.Secret, f.Pointer, f.Shape = false, true, plain(f.Shape)
		c.Fields[i] = f
	}
	if s.Elem != nil {
		c.Elem = plain(s.Elem)
	}
	return &c
}

func (d *document) Create(ctx context.Context, req resource.CreateRequest, resp *resource.CreateResponse) {
	resp.State.Raw = d.put(ctx, req.Plan.Raw, http.Header{"If-None-Match": {"*"}}, &resp.Diagnostics)
}

func (d *document) Update(ctx context.Context, req resource.UpdateRequest, resp *resource.UpdateResponse) {
	if v := d.put(ctx, req.Plan.Raw, match(req.State.Raw), &resp.Diagnostics); !resp.Diagnostics.HasError() {
		resp.State.Raw = v
	}
}

// match is the condition that the document is as it was read.
func match(state tftypes.Value) http.Header {
	var n big.Float
	r, err := rowOf(state)
	if err != nil || r["revision"].IsNull() || r["revision"].As(&n) != nil {
		return http.Header{"If-Match": {"*"}}
	}
	i, _ := n.Int64()
	return http.Header{"If-Match": {`"` + strconv.FormatInt(i, 10) + `"`}}
}

func (d *document) put(ctx context.Context, plan tftypes.Value, when http.Header, diags *diag.Diagnostics) tftypes.Value {
	none := tftypes.NewValue(plan.Type(), nil)
	r, err := rowOf(plan)
	if err != nil {
		diags.AddError("The plan cannot be read", err.Error())
		return none
	}
	if d.org(r) == "" {
		diags.AddAttributeError(path.Root("organization"), "No organization is named", "set it here, in the provider, or in RELAIS_ORGANIZATION")
		return none
	}
	body, err := d.body(r)
	if err != nil {
		diags.AddError("The plan cannot be written as a document", err.Error())
		return none
	}
	at := client.Path("organizations", d.org(r), "documents", string(d.kind), r.text("name"))
	if _, err := d.client.Do(ctx, client.Request{Method: http.MethodPut, Path: at, Header: when, Body: body, Type: "application/yaml"}, nil); err != nil {
		tell(err, diags)
		return none
	}
	var it item
	if _, err := d.client.Do(ctx, client.Request{Method: http.MethodGet, Path: at}, &it); err != nil {
		tell(err, diags)
	}
	return d.state(plan.Type(), r, it)
}

func (d *document) body(r row) ([]byte, error) {
	meta := map[string]any{"name": r.text("name")}
	if p := r.text("project"); p != "" {
		meta["project"] = p
	}
	labels, err := toJSON(&v1.Shape{Form: v1.FormMap}, r["labels"])
	if err != nil {
		return nil, err
	}
	if labels != nil {
		meta["labels"] = labels
	}
	doc := map[string]any{"apiVersion": v1.APIVersion, "kind": d.kind, "metadata": meta}
	spec, err := toJSON(d.spec().Shape, r["spec"])
	if err != nil {
		return nil, err
	}
	if spec != nil {
		doc["spec"] = spec
	}
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	return b, nil
}

// state is what the control plane answered, in the words of before.
func (d *document) state(t tftypes.Type, before row, it item) tftypes.Value {
	meta, _ := it.Document["metadata"].(map[string]any)
	shape := v1.ShapeOf(d.kind).Field("metadata").Shape
	name, org := before.text("name"), d.org(before)
	now := map[string]tftypes.Value{
		"id":           tftypes.NewValue(tftypes.String, org+"/"+name),
		"organization": tftypes.NewValue(tftypes.String, org),
		"name":         tftypes.NewValue(tftypes.String, name),
		"revision":     tftypes.NewValue(tftypes.Number, it.Revision),
		"spec":         keep(d.spec(), before["spec"], fromJSON(d.spec().Shape, it.Document["spec"])),
	}
	for _, n := range []string{"project", "labels"} {
		f := shape.Field(n)
		now[n] = keep(f, before[n], fromJSON(f.Shape, meta[n]))
	}
	return tftypes.NewValue(t, now)
}

func (d *document) Read(ctx context.Context, req resource.ReadRequest, resp *resource.ReadResponse) {
	r, err := rowOf(req.State.Raw)
	if err != nil {
		resp.Diagnostics.AddError("The state cannot be read", err.Error())
		return
	}
	var it item
	_, err = d.client.Do(ctx, client.Request{Method: http.MethodGet, Path: client.Path("organizations", d.org(r), "documents", string(d.kind), r.text("name"))}, &it)
	if missing(err) {
		resp.State.RemoveResource(ctx)
		return
	}
	if err != nil {
		tell(err, &resp.Diagnostics)
		return
	}
	resp.State.Raw = d.state(req.State.Raw.Type(), r, it)
}

func (d *document) Delete(ctx context.Context, req resource.DeleteRequest, resp *resource.DeleteResponse) {
	r, err := rowOf(req.State.Raw)
	if err != nil {
		resp.Diagnostics.AddError("The state cannot be read", err.Error())
		return
	}
	at := client.Path("organizations", d.org(r), "documents", string(d.kind), r.text("name"))
	if _, err := d.client.Do(ctx, client.Request{Method: http.MethodDelete, Path: at, Header: match(req.State.Raw)}, nil); err != nil && !missing(err) {
		tell(err, &resp.Diagnostics)
	}
}

// ImportState takes ORGANIZATION/NAME, or NAME alone in the provider's organization.
func (d *document) ImportState(ctx context.Context, req resource.ImportStateRequest, resp *resource.ImportStateResponse) {
	org, name, both := strings.Cut(req.ID, "/")
	if !both {
		org, name = d.organization, req.ID
	}
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root("organization"), org)...)
	resp.Diagnostics.Append(resp.State.SetAttribute(ctx, path.Root("name"), name)...)
}

func missing(err error) bool {
	var p *client.Problem
	return errors.As(err, &p) && p.Status == http.StatusNotFound
}

// tell gives each thing that is wrong at its attribute.
func tell(err error, diags *diag.Diagnostics) {
	var p *client.Problem
	if !errors.As(err, &p) || len(p.Problems) == 0 {
		diags.AddError("The control plane refuses", err.Error())
		return
	}
	for _, x := range p.Problems {
		text := strings.TrimSuffix(x.What+"; "+x.Fix, "; ")
		if at, ok := attributePath(x.Field); ok {
			diags.AddAttributeError(at, p.Title, x.Field+": "+text)
		} else {
			diags.AddError(p.Title, strings.TrimSpace(x.Document+" "+x.Field)+": "+text)
		}
	}
}

// attributePath turns spec.routes[0].pool into the attribute's path.
func attributePath(field string) (at path.Path, ok bool) {
	field = strings.TrimPrefix(field, "metadata.")
	for i, part := range strings.Split(field, ".") {
		name, rest, _ := strings.Cut(part, "[")
		if name == "" {
			return at, false
		}
		if i == 0 {
			at = path.Root(snake(name))
		} else {
			at = at.AtName(snake(name))
		}
		for rest != "" {
			index, more, _ := strings.Cut(rest, "]")
			n, err := strconv.Atoi(index)
			if err != nil {
				return at, false
			}
			at, rest = at.AtListIndex(n), strings.TrimPrefix(more, "[")
		}
	}
	return at, true
}
