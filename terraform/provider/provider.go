// Package provider is the Terraform provider for the documents of a control plane: a resource for each kind, made at run
// time from the shapes of api/v1.
package provider

import (
	"context"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	fw "github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/provider/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/types"

	"github.com/relais-edge/relais/api/client"
	v1 "github.com/relais-edge/relais/api/v1"
)

// relais is the provider.
type relais struct{}

// New makes the provider.
func New() fw.Provider { return relais{} }

// remote is which control plane is asked, and for which organization where a resource names none.
type remote struct {
	client       *client.Client
	organization string
}

func (relais) Metadata(_ context.Context, _ fw.MetadataRequest, resp *fw.MetadataResponse) {
	resp.TypeName = "relais"
}

func (relais) Schema(_ context.Context, _ fw.SchemaRequest, resp *fw.SchemaResponse) {
	resp.Schema = schema.Schema{
		Description: "Documents of a Relais control plane.",
		Attributes: map[string]schema.Attribute{
			"address":      schema.StringAttribute{Optional: true, Description: "Address of the control plane, such as https://control.example.com; absent: RELAIS_API."},
			"token":        schema.StringAttribute{Optional: true, Sensitive: true, Description: "API token; absent: RELAIS_TOKEN."},
			"organization": schema.StringAttribute{Optional: true, Description: "Whose documents, where a resource names none; absent: RELAIS_ORGANIZATION."},
			"ca_file":      schema.StringAttribute{Optional: true, Description: "PEM file of the certificates to trust in place of the system's; absent: RELAIS_CA."},
		},
	}
}

type settings struct {
	Address      types.String `tfsdk:"address"`
	Token        types.String `tfsdk:"token"`
	Organization types.String `tfsdk:"organization"`
	CAFile       types.String `tfsdk:"ca_file"`
}

func (relais) Configure(ctx context.Context, req fw.ConfigureRequest, resp *fw.ConfigureResponse) {
	var c settings
	resp.Diagnostics.Append(req.Config.Get(ctx, &c)...)
	if resp.Diagnostics.HasError() {
		return
	}
	pick := func(s types.String, env string) string {
		if s.ValueString() != "" {
			return s.ValueString()
		}
		return os.Getenv(env)
	}
	var ca []byte
	if file := pick(c.CAFile, "RELAIS_CA"); file != "" {
		var err error
		if ca, err = os.ReadFile(file); err != nil {
			resp.Diagnostics.AddError("The CA file cannot be read", err.Error())
			return
		}
	}
	k, err := client.New(pick(c.Address, "RELAIS_API"), pick(c.Token, "RELAIS_TOKEN"), ca)
	if err != nil {
		resp.Diagnostics.AddError("The control plane is not named well", err.Error()+"; set address or RELAIS_API")
		return
	}
	resp.ResourceData = &remote{k, pick(c.Organization, "RELAIS_ORGANIZATION")}
}

func (relais) DataSources(context.Context) []func() datasource.DataSource { return nil }

// Resources are one of each kind.
func (relais) Resources(context.Context) (all []func() resource.Resource) {
	for _, k := range v1.Kinds() {
		all = append(all, func() resource.Resource { return &document{kind: k} })
	}
	return all
}
