package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/api/client"
	"github.com/relais-edge/relais/internal/document"
)

// applied is what the control plane says of a change.
type applied struct {
	Organization string    `json:"organization"`
	Revision     int64     `json:"revision"`
	DryRun       bool      `json:"dryRun,omitempty"`
	Changes      []changed `json:"changes"`
	Pending      []struct {
		Site     string `json:"site"`
		Hostname string `json:"hostname"`
		Fix      string `json:"fix"`
	} `json:"pending,omitempty"`
}

// changed is what became of a document.
type changed struct {
	Kind    string `json:"kind"`
	Name    string `json:"name"`
	Project string `json:"project,omitempty"`
	Action  string `json:"action"`
	Fields  []struct {
		Path   string          `json:"path"`
		Before json.RawMessage `json:"before,omitempty"`
		After  json.RawMessage `json:"after,omitempty"`
	} `json:"fields,omitempty"`
}

func printChanges(w io.Writer, list []changed) {
	p := paintFor(w)
	for _, c := range list {
		fmt.Fprintf(w, "%s %s %s\n", c.Kind, p.bold(c.Name), c.Action)
		for _, f := range c.Fields {
			if f.Path == "" {
				continue // made or deleted as a whole
			}
			fmt.Fprintf(w, "  %s %s %s\n", f.Path, p.red("-"+string(f.Before)), p.green("+"+string(f.After)))
		}
	}
}

func (a *applied) print(w io.Writer) {
	printChanges(w, a.Changes)
	for _, x := range a.Pending {
		fmt.Fprintf(w, "Site %s: %s is not served yet; %s\n", x.Site, x.Hostname, x.Fix)
	}
	if a.DryRun {
		fmt.Fprintln(w, "nothing was changed: this was a dry run")
		return
	}
	fmt.Fprintf(w, "%s is at revision %d\n", a.Organization, a.Revision)
}

// load reads files as serve does, and writes what is sent.
func loadToSend(cmd *cobra.Command, files []string) ([]byte, error) {
	set, problems := document.LoadWritten(files, os.LookupEnv)
	if len(problems) > 0 {
		printProblems(cmd.ErrOrStderr(), problems)
		return nil, &exitError{code: exitUsage, err: errors.New("the documents are wrong"), said: true}
	}
	var body []byte
	for _, d := range set.Written {
		b, err := document.JSON(d)
		if err != nil {
			return nil, failed(err)
		}
		body = append(append(append(body, "---\n"...), b...), '\n')
	}
	return body, nil
}

func applyCommand(use, short, long, example string, fixed url.Values) *cobra.Command {
	var r remote
	var files []string
	var output, reason string
	var dry, prune bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long, Example: example, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 0:
				return r.between(cmd, output, files, args)
			case len(files) == 0:
				return &exitError{code: exitUsage, err: errors.New("say which files (-f), or which revisions to compare")}
			}
			body, err := loadToSend(cmd, files)
			if err != nil {
				return err
			}
			q := url.Values{"reason": {reason}, "dryRun": {strconv.FormatBool(dry)}, "prune": {strconv.FormatBool(prune)}}
			for k, v := range fixed {
				q[k] = v
			}
			var a applied
			if err := r.ask(cmd, output, client.Request{Method: http.MethodPost, Path: inOrg("documents"), Query: q, Body: body, Type: "application/yaml"}, &a, a.print); err != nil || wait <= 0 || a.DryRun {
				return err
			}
			return r.follow(cmd, output, a.Revision, wait)
		},
	}
	if fixed != nil {
		cmd.Args = cobra.MaximumNArgs(2) // of diff: revisions
	}
	r.add(cmd)
	fl := cmd.Flags()
	fl.StringArrayVarP(&files, "file", "f", nil, "file or folder of documents, or - for standard input; may be repeated")
	fl.StringVar(&reason, "reason", "", "stands in the revision and the audit log")
	fl.BoolVar(&prune, "prune", false, "delete what is not in the files")
	if fixed == nil {
		fl.BoolVar(&dry, "dry-run", false, "check everything and change nothing")
		fl.DurationVar(&wait, "wait", 0, "follow the change as long, until all PoPs have it or it was taken back")
		_ = cmd.MarkFlagRequired("file")
	}
	outputFlag(cmd, &output)
	return cmd
}

// follow waits for a change that was made. What happens meanwhile goes where errors go, so that -o json stays JSON.
func (r *remote) follow(cmd *cobra.Command, output string, revision int64, wait time.Duration) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), wait)
	defer cancel()
	w := cmd.OutOrStdout()
	if output == "json" {
		w = cmd.ErrOrStderr()
	}
	return told(cmd, r.await(ctx, c, w, revision))
}

// between prints what differs between two revisions, or a revision and the newest.
func (r *remote) between(cmd *cobra.Command, output string, files, revisions []string) error {
	if len(files) > 0 {
		return &exitError{code: exitUsage, err: errors.New("diff compares files with what there is (-f), or two revisions, not both")}
	}
	q := url.Values{"limit": {"1000"}}
	for i, name := range []string{"from", "to"}[:len(revisions)] {
		n, err := strconv.ParseInt(strings.TrimPrefix(revisions[i], "r"), 10, 64)
		if err != nil || n < 0 {
			return &exitError{code: exitUsage, err: fmt.Errorf("%q is no revision; relais history lists them", revisions[i])}
		}
		q.Set(name, strconv.FormatInt(n, 10))
	}
	var l struct {
		Items []changed `json:"items"`
		Next  string    `json:"next,omitempty"`
	}
	return r.ask(cmd, output, client.Request{Method: http.MethodGet, Path: inOrg("diff"), Query: q}, &l, func(w io.Writer) {
		printChanges(w, l.Items)
		if l.Next != "" {
			fmt.Fprintln(w, "there is more; ask the API with its cursor")
		}
	})
}

func applyCommands() []*cobra.Command {
	return []*cobra.Command{
		applyCommand("apply -f PATH...", "Make or change documents on a control plane, all or none",
			"Apply reads documents as serve does, variables of the environment included, and sends them to the control\nplane, which checks them with all others and writes all of them or none.",
			"  relais apply -f shop.yaml\n  relais apply -f shop.yaml --wait 10m\n  relais apply -f site/ --prune --reason 'new checkout'", nil),
		applyCommand("diff -f PATH... | REVISION [REVISION]", "What apply would change, or what differs between revisions",
			"Diff lets the control plane check documents as apply does, prints what would change, and changes nothing. With\nrevisions it prints what differs between two of them, or one and the newest.",
			"  relais diff -f shop.yaml\n  relais diff -f site/ --prune -o json\n  relais diff 17\n  relais diff 17 21", url.Values{"dryRun": {"true"}}),
		exportCommand(), rollbackCommand(), deleteCommand(), getCommand(), historyCommand(),
	}
}

func exportCommand() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use: "export", Short: "All documents of an organization, as serve -f reads them",
		Long:    "Export writes an organization's documents as YAML. Secrets are shown by what stands for them; applied to\nthe same organization, the export changes nothing.",
		Example: "  relais export > acme.yaml\n  relais apply -f acme.yaml", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var b []byte
			return r.ask(cmd, "text", client.Request{Method: http.MethodGet, Path: inOrg("export")}, &b, func(w io.Writer) { _, _ = w.Write(b) })
		},
	}
	r.add(cmd)
	return cmd
}

func rollbackCommand() *cobra.Command {
	var r remote
	var output, reason string
	var dry bool
	cmd := &cobra.Command{
		Use: "rollback REVISION", Short: "Make the documents again what they were",
		Long:    "Rollback writes a new revision with the documents of a former one, after checking them again.",
		Example: "  relais history\n  relais rollback 17 --reason 'checkout fails'", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var a applied
			q := url.Values{"to": {args[0]}, "reason": {reason}, "dryRun": {strconv.FormatBool(dry)}}
			return r.ask(cmd, output, client.Request{Method: http.MethodPost, Path: inOrg("rollback"), Query: q}, &a, a.print)
		},
	}
	r.add(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "stands in the revision and the audit log")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "check everything and change nothing")
	outputFlag(cmd, &output)
	return cmd
}

func deleteCommand() *cobra.Command {
	var r remote
	var output string
	cmd := &cobra.Command{
		Use: "delete KIND NAME", Short: "Delete a document that no other names", Long: "Delete removes one document. What another document names stays, and the answer says who names it.",
		Example: "  relais delete Site shop", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			var a applied
			q := client.Request{Method: http.MethodDelete, Path: inOrg("documents", args[0], args[1]), Header: http.Header{"If-Match": {"*"}}}
			return r.ask(cmd, output, q, &a, a.print)
		},
	}
	r.add(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func getCommand() *cobra.Command {
	var r remote
	var output string
	cmd := &cobra.Command{
		Use: "get [KIND [NAME]]", Short: "Documents of an organization, or one", Long: "Get lists the documents of an organization or of a kind, or prints one as JSON.",
		Example: "  relais get\n  relais get Site\n  relais get Site shop", Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				var it struct {
					Document json.RawMessage `json:"document"`
				}
				return r.ask(cmd, "json", client.Request{Method: http.MethodGet, Path: inOrg("documents", args[0], args[1])}, &it, nil)
			}
			q := url.Values{"limit": {"1000"}}
			if len(args) == 1 {
				q.Set("kind", args[0])
			}
			var l struct {
				Items []struct {
					Kind     string          `json:"kind"`
					Name     string          `json:"name"`
					Project  string          `json:"project,omitempty"`
					Revision int64           `json:"revision"`
					Document json.RawMessage `json:"document"`
				} `json:"items"`
				Next string `json:"next,omitempty"`
			}
			return r.ask(cmd, output, client.Request{Method: http.MethodGet, Path: inOrg("documents"), Query: q}, &l, func(w io.Writer) {
				for _, d := range l.Items {
					fmt.Fprintf(w, "%-14s %-40s %d\n", d.Kind, d.Name, d.Revision)
				}
				if l.Next != "" {
					fmt.Fprintln(w, "there are more; name a kind, or export")
				}
			})
		},
	}
	r.add(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func historyCommand() *cobra.Command {
	var r remote
	var output string
	cmd := &cobra.Command{
		Use: "history", Short: "Revisions of an organization, the newest first", Long: "History lists who changed an organization, when and why.",
		Example: "  relais history", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var l struct {
				Items []struct {
					Number int64  `json:"number"`
					Time   string `json:"time"`
					Author string `json:"author"`
					Reason string `json:"reason,omitempty"`
				} `json:"items"`
			}
			return r.ask(cmd, output, client.Request{Method: http.MethodGet, Path: inOrg("revisions")}, &l, func(w io.Writer) {
				for _, v := range l.Items {
					fmt.Fprintf(w, "%6d  %s  %s  %s\n", v.Number, v.Time, v.Author, v.Reason)
				}
			})
		},
	}
	r.add(cmd)
	outputFlag(cmd, &output)
	return cmd
}
