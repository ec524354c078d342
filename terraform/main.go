// Command terraform-provider-relais lets Terraform and OpenTofu keep the documents of a control plane.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/providerserver"

	"github.com/relais-edge/relais/terraform/provider"
)

func main() {
	err := providerserver.Serve(context.Background(), provider.New, providerserver.ServeOpts{Address: "relais.example/relais-edge/relais"})
	if err != nil {
		fmt.Fprintln(os.Stderr, "terraform-provider-relais:", err)
		os.Exit(1)
	}
}
