package main

import (
	"net/http"
	"net/url"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/api/client"
)

func importCommand() *cobra.Command {
	var files []string
	var reason string
	var yes bool
	v := verb{
		use: "import -f PATH...", short: "Make an organization's documents what files say, and delete the others",
		long: "Import is apply --prune that shows first what it would change, deletions included, and asks. With --yes it does not ask.\n\n" +
			"Exit codes: 0 it was done, 1 it was not confirmed or went wrong, 2 the documents are wrong.",
		example: "  relais export > acme.yaml\n  relais import -f acme.yaml\n  relais import -f site/ --yes --reason 'from git'",
		args:    cobra.NoArgs,
		run: func(q *question, _ []string) error {
			for _, f := range files {
				if f == "-" && !yes {
					return wrong("-f - takes the standard input, so there is nobody to ask; add --yes")
				}
			}
			body, err := loadToSend(q.cmd, files)
			if err != nil {
				return err
			}
			ask := func(dry string) (a applied, err error) {
				r := client.Request{Method: http.MethodPost, Path: q.path("documents"), Body: body, Type: "application/yaml"}
				r.Query = url.Values{"prune": {"true"}, "reason": {reason}, "dryRun": {dry}}
				if _, err = q.client.Do(q.cmd.Context(), r, &a); err != nil {
					err = told(q.cmd, err)
				}
				return a, err
			}
			if !yes {
				would, err := ask("true")
				if err != nil {
					return err
				}
				would.print(q.cmd.ErrOrStderr())
				if err := confirmed(q.cmd, "This will be changed in "+q.org()+"."); err != nil {
					return err
				}
			}
			did, err := ask("false")
			if err != nil {
				return err
			}
			return q.show(&did, did.print)
		},
	}
	cmd := v.command()
	fl := cmd.Flags()
	fl.StringArrayVarP(&files, "file", "f", nil, "file or folder of documents, or - for standard input; may be repeated")
	fl.StringVar(&reason, "reason", "", "stands in the revision and the audit log")
	fl.BoolVar(&yes, "yes", false, "do not ask")
	_ = cmd.MarkFlagRequired("file")
	return cmd
}
