package main

import (
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/apiguard"
)

func apiCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "api",
		Short:   "What is known of a site's endpoints",
		Example: "  relais api endpoints shop",
		Args:    cobra.NoArgs,
	}
	cmd.AddCommand(apiEndpointsCommand())
	return cmd
}

func apiEndpointsCommand() *cobra.Command {
	var output, data string
	cmd := &cobra.Command{
		Use:   "endpoints SITE",
		Short: "Which endpoints of a site are in use, and whether its OpenAPI document has them",
		Long: "Endpoints asks the edge that runs on this machine which endpoints of a site with an ApiPolicy\n" +
			"were asked for since it started, by method and path with ids as {id}. SITE is the name of a site,\n" +
			"or organization/name. With -o openapi it writes a draft document of those that were answered\n" +
			"well, to begin an OpenAPI document with.",
		Example: "  relais api endpoints shop\n  relais api endpoints demo/shop -o json\n  relais api endpoints shop -o openapi > shop-api.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var list []apiguard.Report
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/api/endpoints?site="+url.QueryEscape(args[0]), &list); err != nil {
				return failed(err)
			}
			if output == "openapi" {
				_, err := cmd.OutOrStdout().Write(apiguard.Draft(list))
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) { listEndpoints(w, list) })
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text, json or openapi")
	dataFlag(cmd, &data)
	return cmd
}

func listEndpoints(w io.Writer, list []apiguard.Report) {
	p := paintFor(w)
	for _, r := range list {
		fmt.Fprintf(w, "%s  since %s\n", p.bold("site "+r.Site+", ApiPolicy "+r.Policy), r.Since.Format("2006-01-02 15:04"))
		for _, u := range r.Unchecked {
			fmt.Fprintln(w, "  not checked:", u)
		}
		if r.Others > 0 {
			fmt.Fprintf(w, "  the table is full: %d requests have no row, %d rows gave way to others\n", r.Others, r.GaveWay)
		}
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprint(t, "  REQUESTS\t2xx\t3xx\t4xx\t5xx\tDOCUMENT\tENDPOINT\n")
		for _, e := range r.Endpoints {
			in := "no"
			if e.Documented {
				in = "yes"
			}
			more := ""
			if e.Uncertain > 0 {
				more = fmt.Sprintf("  (%d of them may be others')", e.Uncertain)
			}
			fmt.Fprintf(t, "  %d\t%d\t%d\t%d\t%d\t%s\t%s %s%s\n", e.Requests, e.Status[2], e.Status[3], e.Status[4], e.Status[5], in, e.Method, e.Template, more)
		}
		_ = t.Flush()
	}
}
