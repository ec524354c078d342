package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/api/client"
)

// rollout is a change on its way.
type rollout struct {
	ID       string    `json:"id"`
	Revision int64     `json:"revision"`
	State    string    `json:"state"`
	Ring     string    `json:"ring,omitempty"`
	Pops     int       `json:"pops,omitempty"`
	Of       int       `json:"of,omitempty"`
	Until    time.Time `json:"until,omitzero"`
	Reason   string    `json:"reason,omitempty"`
	Changed  time.Time `json:"changed"`
}

// rollouts of an organization, the newest first.
type rollouts struct {
	Items []rollout `json:"items"`
}

// where is how far it is, for people.
func (x *rollout) where() string {
	if x.Ring == "" {
		return x.Reason
	}
	text := fmt.Sprintf("ring %s, %d of %d PoPs", x.Ring, x.Pops, x.Of)
	switch {
	case x.State == "held":
	case x.Until.IsZero():
		text += ", not all have it yet"
	default:
		text += ", watched until " + x.Until.Local().Format(time.TimeOnly)
	}
	if x.Reason != "" {
		text += ": " + x.Reason
	}
	return text
}

func (l *rollouts) print(w io.Writer) {
	p := paintFor(w)
	for i := range l.Items {
		x := &l.Items[i]
		state := fmt.Sprintf("%-8s", x.State)
		switch x.State {
		case "done":
			state = p.green(state)
		case "undone", "held":
			state = p.red(state)
		}
		fmt.Fprintf(w, "%-8s %s %s\n", x.ID, state, x.where())
	}
}

func rolloutCommand() *cobra.Command {
	var r remote
	var output string
	cmd := &cobra.Command{
		Use: "rollout", Short: "Changes on their way through the PoPs",
		Long: "Rollout shows what of an organization is served, what is on its way and in which ring, and what was undone and\n" +
			"why. Its commands hold, continue, expedite or undo what is on its way.",
		Example: "  relais rollout\n  relais rollout log\n  relais rollout undo r17 --reason 'checkout fails'", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l rollouts
			return r.ask(cmd, output, client.Request{Method: http.MethodGet, Path: inOrg("rollouts")}, &l, l.print)
		},
	}
	r.add(cmd)
	outputFlag(cmd, &output)
	cmd.AddCommand(
		rolloutLogCommand(),
		steerCommand("hold", "Keep it in its ring"),
		steerCommand("continue", "Let it go on"),
		steerCommand("expedite", "Shorten the rings, and pass a freeze"),
		steerCommand("undo", "Take it back from where it is"),
	)
	return cmd
}

func rolloutLogCommand() *cobra.Command {
	var r remote
	var output string
	var after int64
	cmd := &cobra.Command{
		Use: "log", Short: "What happened to changes on their way", Long: "Log tells what happened to an organization's changes, the oldest first: when each ring began, and what was undone and why.",
		Example: "  relais rollout log\n  relais rollout log --after 120 -o json", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l struct {
				Items []struct {
					Number   int64     `json:"number"`
					Time     time.Time `json:"time"`
					Kind     string    `json:"kind"`
					Revision int64     `json:"revision"`
					Text     string    `json:"text"`
				} `json:"items"`
			}
			q := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {"1000"}}
			return r.ask(cmd, output, client.Request{Method: http.MethodGet, Path: inOrg("rollout-events"), Query: q}, &l, func(w io.Writer) {
				for _, e := range l.Items {
					fmt.Fprintf(w, "%6d  %s  r%-6d %-9s %s\n", e.Number, e.Time.Local().Format(time.DateTime), e.Revision, e.Kind, e.Text)
				}
			})
		},
	}
	r.add(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().Int64Var(&after, "after", 0, "number of the last event that is known")
	return cmd
}

// look is how often a rollout that is waited for is looked at.
const look = 250 * time.Millisecond

// await follows a revision until it, or a newer one, is everywhere, or was taken back. Each step is told once.
func (r *remote) await(ctx context.Context, c *client.Client, w io.Writer, revision int64) error {
	told := ""
	say := func(text string) {
		if text != told {
			told = text
			fmt.Fprintln(w, text)
		}
	}
	for {
		var l rollouts
		if _, err := c.Do(ctx, client.Request{Method: http.MethodGet, Path: client.Path("organizations", r.Organization, "rollouts")}, &l); err != nil {
			return err
		}
		for i := range l.Items {
			x := &l.Items[i]
			switch {
			case x.Revision < revision:
				continue
			case x.State == "done":
				say(fmt.Sprintf("revision %d is at all PoPs", x.Revision))
				return nil
			case x.State == "undone":
				return fmt.Errorf("revision %d was taken back: %s", x.Revision, x.Reason)
			default:
				say(fmt.Sprintf("revision %d is %s: %s", x.Revision, x.State, x.where()))
			}
			break
		}
		select {
		case <-ctx.Done():
			return errors.New("the rollout goes on; see relais rollout")
		case <-time.After(look):
		}
	}
}

func steerCommand(action, short string) *cobra.Command {
	var r remote
	var reason string
	cmd := &cobra.Command{
		Use: action + " ID", Short: short, Long: short + ". relais rollout shows the ids.", Example: "  relais rollout " + action + " r17 --reason 'checkout fails'", Args: cobra.ExactArgs(1),
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
