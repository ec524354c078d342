package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
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

func rolloutCommand() *cobra.Command {
	var r remote
	var output string
	cmd := &cobra.Command{
		Use: "rollout", Short: "Changes on their way through the PoPs",
		Long:    "Rollout shows what of an organization is served, what is on its way and in which ring, and what was undone and\nwhy. Its commands hold, continue, expedite or undo what is on its way.",
		Example: "  relais rollout\n  relais rollout undo r17 --reason 'checkout fails'", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l struct {
				Items []struct {
					ID       string    `json:"id"`
					Revision int64     `json:"revision"`
					State    string    `json:"state"`
					Ring     string    `json:"ring,omitempty"`
					Reason   string    `json:"reason,omitempty"`
					Changed  time.Time `json:"changed"`
				} `json:"items"`
			}
			return r.ask(cmd, output, client.Request{Method: http.MethodGet, Path: inOrg("rollouts")}, &l, func(w io.Writer) {
				for _, x := range l.Items {
					ring := x.Ring
					if ring != "" {
						ring = "ring " + ring
					}
					fmt.Fprintf(w, "%-8s %-8s %-16s %s\n", x.ID, x.State, ring, x.Reason)
				}
			})
		},
	}
	r.add(cmd)
	outputFlag(cmd, &output)
	for _, do := range [][3]string{
		{"hold", "hold", "Keep it in its ring"},
		{"continue", "continue", "Let it go on"},
		{"expedite", "expedite", "Shorten the rings, and pass a freeze"},
		{"undo", "undo", "Take it back from where it is"},
	} {
		cmd.AddCommand(steerCommand(do[0], do[1], do[2]))
	}
	return cmd
}

func steerCommand(use, action, short string) *cobra.Command {
	var r remote
	var reason string
	cmd := &cobra.Command{
		Use: use + " ID", Short: short, Long: short + ". relais rollout shows the ids.", Example: "  relais rollout " + use + " r17 --reason 'checkout fails'", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			body, err := json.Marshal(map[string]string{"action": action, "reason": reason})
			if err != nil {
				return failed(err)
			}
			return r.ask(cmd, "text", client.Request{Method: http.MethodPost, Path: inOrg("rollouts", args[0]), Body: body}, nil, nil)
		},
	}
	r.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "stands in the audit log")
	return cmd
}
