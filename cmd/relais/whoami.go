package main

import (
	"bytes"
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
	"github.com/spf13/pflag"

	"github.com/relais-edge/relais/api/client"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
)

func whoamiCommand() *cobra.Command {
	return verb{
		anywhere: true,
		use:      "whoami", short: "Who asks the control plane", example: "  relais whoami\n  relais whoami -o json",
		run: func(q *question, _ []string) error {
			var who struct {
				Organization string     `json:"organization"`
				Login        string     `json:"login"`
				Token        string     `json:"token,omitempty"`
				Scope        string     `json:"scope,omitempty"`
				Project      string     `json:"project,omitempty"`
				Expires      *time.Time `json:"expires,omitempty"`
			}
			if err := q.do(http.MethodGet, client.Path("session"), nil, nil, &who); err != nil {
				return err
			}
			return q.show(who, func(w io.Writer) {
				fmt.Fprintf(w, "%s@%s at %s\n", who.Login, who.Organization, q.client.Base)
				if who.Token != "" {
					fmt.Fprintf(w, "by token %s for %s %s", who.Token, who.Scope, who.Project)
					if who.Expires != nil {
						fmt.Fprintf(w, " until %s", who.Expires.Local().Format(time.DateTime))
					}
					fmt.Fprintln(w)
				}
			})
		},
	}.command()
}

func logoutCommand() *cobra.Command {
	var r remote
	cmd := &cobra.Command{
		Use: "logout", Short: "End the session of the last login",
		Long:    "Logout ends the session on the control plane, and forgets it on this machine. It does not touch API tokens.",
		Example: "  relais logout", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			file, err := contextFile()
			if err != nil {
				return failed(err)
			}
			b, err := os.ReadFile(file)
			if err != nil || json.Unmarshal(b, &r) != nil || r.Token == "" {
				return failed(errors.New("nobody is logged in on this machine"))
			}
			c, err := client.New(r.API, r.Token, []byte(r.CA))
			if err != nil {
				return failed(err)
			}
			_, asked := c.Do(cmd.Context(), client.Request{Method: http.MethodPost, Path: client.Path("logout")}, nil)
			var p *client.Problem
			if errors.As(asked, &p) && p.Status == http.StatusUnauthorized {
				asked = nil // it had ended already
			}
			r.Token = ""
			if err := r.keep(); err != nil {
				return failed(err)
			}
			if asked != nil {
				fmt.Fprintln(cmd.ErrOrStderr(), "relais: the session is forgotten here, and goes on there until it ends by itself:")
				return told(cmd, asked)
			}
			fmt.Fprintln(cmd.OutOrStdout(), "logged out")
			return nil
		},
	}
	return cmd
}

// errEnough ends a watch that has told what was asked for.
var errEnough = errors.New("enough")

func watchCommand() *cobra.Command {
	var after int64
	var count int
	return verb{
		use: "watch", short: "Changes of an organization as they are made",
		long:    "Watch prints each revision as it is made, until it is interrupted. A connection that breaks is made again, and\nnothing in between is left out. With -o json it prints one event to a line.",
		example: "  relais watch\n  relais watch --after 41 --count 1\n  relais watch -o json | jq .changes",
		flags: func(fl *pflag.FlagSet) {
			fl.Int64Var(&after, "after", 0, "revision after which to begin; 0: from now on")
			fl.IntVar(&count, "count", 0, "end after so many; 0: never")
		},
		run: func(q *question, _ []string) error {
			out, seen := q.cmd.OutOrStdout(), 0
			err := q.client.Watch(q.cmd.Context(), q.org(), after, func(e client.Event) error {
				if err := printEvent(out, q.output, e); err != nil {
					return err
				}
				if seen++; count > 0 && seen >= count {
					return errEnough
				}
				return nil
			})
			if errors.Is(err, errEnough) || q.cmd.Context().Err() != nil {
				return nil
			}
			return told(q.cmd, err)
		},
	}.command()
}

func printEvent(w io.Writer, output string, e client.Event) error {
	if output == "json" {
		return json.NewEncoder(w).Encode(e)
	}
	if e.Reset {
		_, err := fmt.Fprintf(w, "revisions up to %d are not kept any more: read everything anew\n", e.Revision)
		return err
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%6d  %s  %s  %s\n", e.Revision, e.Time.Local().Format(time.DateTime), e.Author, e.Reason)
	for _, c := range e.Changes {
		fmt.Fprintf(&b, "        %s %s %s\n", c.Kind, paintFor(w).bold(c.Name), c.Action)
	}
	_, err := w.Write(b.Bytes())
	return err
}

const auditPage = 1000

// auditPageAfter reads a part of the log.
func (q *question) auditPageAfter(after int64, limit int) ([]audit.Entry, error) {
	var page struct {
		Items []audit.Entry `json:"items"`
	}
	query := url.Values{"after": {strconv.FormatInt(after, 10)}, "limit": {strconv.Itoa(limit)}}
	err := q.do(http.MethodGet, q.path("audit"), query, nil, &page)
	return page.Items, err
}

func auditCommand() *cobra.Command {
	var after int64
	var limit int
	v := verb{
		use: "audit", short: "Who did what, the oldest first", long: "Audit lists the audit log of an organization.", example: "  relais audit\n  relais audit --after 1200 -o json\n  relais audit verify",
		flags: func(fl *pflag.FlagSet) {
			fl.Int64Var(&after, "after", 0, "entries after this one")
			fl.IntVar(&limit, "limit", 100, "how many, at most 1,000")
		},
		run: func(q *question, _ []string) error {
			if limit < 1 || limit > auditPage || after < 0 {
				return wrong("--limit is 1 to %d, and --after is not negative", auditPage)
			}
			items, err := q.auditPageAfter(after, limit)
			if err != nil {
				return err
			}
			return q.show(entries[audit.Entry]{items}, func(w io.Writer) {
				for _, e := range items {
					fmt.Fprintf(w, "%6d  %s  %-24s %-20s %s  %s\n", e.Seq, e.Time.Local().Format(time.DateTime), e.Actor, e.Action, e.Target, e.Reason)
				}
			})
		},
	}
	cmd := v.command()
	cmd.AddCommand(auditVerifyVerb().command())
	return cmd
}

func auditVerifyVerb() verb {
	var anchors []string
	return verb{
		use: "verify", short: "Whether the audit log is as it was written",
		long: "Verify reads the whole log and holds each entry against the one before, on this machine: the control plane is not\n" +
			"asked for its opinion. Note what it prints as last, and give it as --anchor the next time: a log whose end was cut\noff is found by that alone.\n\n" +
			"Exit codes: 0 it is whole, 1 it could not be read, 2 wrong arguments, 3 it was changed.",
		example: "  relais audit verify\n  relais audit verify --anchor 1200=5f3c…",
		flags: func(fl *pflag.FlagSet) {
			fl.StringArrayVar(&anchors, "anchor", nil, "an entry that was noted before, NUMBER=HASH; may be repeated")
		},
		run: func(q *question, _ []string) error {
			var noted []audit.Anchor
			for _, a := range anchors {
				number, hash, ok := strings.Cut(a, "=")
				n, err := strconv.ParseInt(number, 10, 64)
				if !ok || err != nil || n < 1 || len(hash) != 64 || strings.Trim(hash, "0123456789abcdef") != "" {
					return wrong("--anchor %s: write NUMBER=HASH, with the hash in 64 hexadecimal digits", a)
				}
				noted = append(noted, audit.Anchor{Seq: n, Hash: hash})
			}
			return q.verifyAudit(audit.NewChain(q.org(), noted...))
		},
	}
}

func (q *question) verifyAudit(c *audit.Chain) error {
	out := struct {
		OK      bool         `json:"ok"`
		Entries int          `json:"entries"`
		Last    audit.Anchor `json:"last"`
		Broken  string       `json:"broken,omitempty"`
	}{}
	var broken error
	for broken == nil {
		page, err := q.auditPageAfter(out.Last.Seq, auditPage)
		if err != nil {
			return err
		}
		for _, e := range page {
			if broken = c.Next(e); broken != nil {
				break
			}
			out.Entries++
			out.Last = audit.Anchor{Seq: e.Seq, Hash: e.Hash}
		}
		if len(page) == 0 {
			break
		}
	}
	if broken == nil {
		_, broken = c.End()
	}
	if out.OK = broken == nil; !out.OK {
		out.Broken = broken.Error()
	}
	err := q.show(out, func(w io.Writer) {
		p := paintFor(w)
		if !out.OK {
			fmt.Fprintf(w, "%s %s\n", p.red("not as it was written:"), out.Broken)
			return
		}
		fmt.Fprintf(w, "%s %d entries of %s\nlast: %d=%s (note it, and give it as --anchor the next time)\n", p.green("good:"), out.Entries, q.org(), out.Last.Seq, out.Last.Hash)
	})
	if err == nil && !out.OK {
		err = &exitError{code: exitFound, err: broken, said: true}
	}
	return err
}
