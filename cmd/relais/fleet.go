package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/api/client"
)

// popTokenCommand asks a control plane for a join token.
func popTokenCommand() *cobra.Command {
	var r remote
	var output string
	cmd := &cobra.Command{
		Use: "token NAME", Short: "A token with which one machine becomes a PoP",
		Long:    "Token asks the control plane to let one machine in, as the PoP of that name, within the hour. The name is that\nof a Pop document, without which the PoP serves nothing. The token is a secret.",
		Example: "  relais pop token fra1", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var t struct {
				Token   string    `json:"token"`
				Expires time.Time `json:"expires"`
			}
			return r.ask(cmd, output, client.Request{Method: http.MethodPost, Path: inOrg("pops", args[0], "enrol")}, &t, func(w io.Writer) {
				fmt.Fprintln(w, t.Token)
			})
		},
	}
	r.add(cmd)
	outputFlag(cmd, &output)
	return cmd
}

// popListCommand shows how the operator's PoPs are.
func popListCommand() *cobra.Command {
	var r remote
	var output string
	cmd := &cobra.Command{
		Use: "list", Short: "How the PoPs are, as the control plane knows them", Long: "List shows each PoP of the operator: whether it serves what it should, and what is wrong.",
		Example: "  relais pop list", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l struct {
				Items []struct {
					Name     string    `json:"name"`
					Seen     time.Time `json:"seen"`
					Revision int64     `json:"revision"`
					Healthy  bool      `json:"healthy"`
					Problem  string    `json:"problem,omitempty"`
				} `json:"items"`
			}
			return r.ask(cmd, output, client.Request{Method: http.MethodGet, Path: inOrg("pops")}, &l, func(w io.Writer) {
				p := paintFor(w)
				for _, x := range l.Items {
					state := p.green("good")
					if !x.Healthy {
						state = p.red("not good")
					}
					fmt.Fprintf(w, "%-20s %-8s revision %-8d %s\n", x.Name, state, x.Revision, x.Problem)
				}
			})
		},
	}
	r.add(cmd)
	outputFlag(cmd, &output)
	return cmd
}

// popRevokeCommand lets a machine in no more.
func popRevokeCommand() *cobra.Command {
	var r remote
	var reason string
	cmd := &cobra.Command{
		Use: "revoke NAME", Short: "Let a PoP in no more, until it joins anew",
		Long: "Revoke ends the certificates of a PoP and the tokens for it that were not used: for a machine that was stolen or\n" +
			"given away. It goes on serving what it has, and hears of no change; to bring it back, make a token.",
		Example: "  relais pop revoke fra1 --reason 'the machine was sold'", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := client.Request{Method: http.MethodDelete, Path: inOrg("pops", args[0], "certificates"), Query: url.Values{"reason": {reason}}}
			return r.ask(cmd, "text", q, nil, func(w io.Writer) { fmt.Fprintf(w, "PoP %s revoked\n", args[0]) })
		},
	}
	r.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "stands in the audit log")
	return cmd
}
