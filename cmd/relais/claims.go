package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// claimed is a claim to a host name.
type claimed struct {
	Name   string `json:"name"`
	Method string `json:"method"`
	State  string `json:"state"`
	Since  string `json:"since"`
	Record *proof `json:"record,omitempty"`
	Page   *proof `json:"page,omitempty"`
}

type proof struct {
	At    string `json:"at"`
	Value string `json:"value"`
}

// print tells what is to be published, as long as the name is not in force.
func (c *claimed) print(w io.Writer) {
	fmt.Fprintf(w, "%s is %s\n", paintFor(w).bold(c.Name), c.State)
	switch {
	case c.State == "active":
	case c.Record != nil:
		fmt.Fprintf(w, "publish  %s TXT %q\nthen     relais claim verify '%s'\n", c.Record.At, c.Record.Value, c.Name)
	case c.Page != nil:
		fmt.Fprintf(w, "serve    %s\nwith     %s\nthen     relais claim verify '%s'\n", c.Page.At, c.Page.Value, c.Name)
	}
}

func claimCommand() *cobra.Command {
	var method string
	return group("claim", "Host names: whose they are, and the proof of it", "Claim tells the control plane which host names are the organization's. A site's name is served once its claim was\nproved, by a TXT record or by a page, and as long as the proof is found again.",
		"  relais claim add shop.example.com\n  relais claim verify shop.example.com\n  relais claim list",
		verb{
			use: "list", short: "Claims, and how far they are", example: "  relais claim list\n  relais claim list -o json",
			run: func(q *question, _ []string) error {
				return list(q, q.path("claims"), func(w io.Writer, c claimed) {
					fmt.Fprintf(w, "%-48s %-8s by %s since %s\n", c.Name, c.State, c.Method, c.Since)
				})
			},
		},
		verb{
			use: "add NAME", short: "Claim a name; prints the proof to publish", example: "  relais claim add shop.example.com\n  relais claim add '*.example.com'\n  relais claim add shop.example.com --method http", args: cobra.ExactArgs(1),
			flags: func(fl *pflag.FlagSet) {
				fl.StringVar(&method, "method", "dns", "dns: a TXT record, http: a page of the name")
			},
			run: func(q *question, args []string) error {
				if method != "dns" && method != "http" {
					return wrong("--method %q: it is dns or http", method)
				}
				var c claimed
				if err := q.do(http.MethodPost, q.path("claims"), nil, map[string]string{"name": args[0], "method": method}, &c); err != nil {
					return err
				}
				return q.show(&c, c.print)
			},
		},
		verb{
			use: "verify NAME", short: "Look for the proof, and put the name in force", long: "Verify has the control plane look for the proof now. Exit codes: 0 the name is in force, 1 the proof was not found.",
			example: "  relais claim verify shop.example.com", args: cobra.ExactArgs(1),
			run: func(q *question, args []string) error {
				var c claimed
				if err := q.do(http.MethodPost, q.path("claims", args[0], "prove"), nil, nil, &c); err != nil {
					return err
				}
				return q.show(&c, c.print)
			},
		},
		verb{
			use: "delete NAME", short: "End a claim; the name is not served any more", example: "  relais claim delete shop.example.com", args: cobra.ExactArgs(1),
			run: func(q *question, args []string) error {
				return q.done(http.MethodDelete, q.path("claims", args[0]), nil, deed{"claim", args[0], "deleted"})
			},
		},
	)
}

// planLimit is one limit of a plan.
type planLimit struct {
	Most    int64  `json:"most"`
	AtLimit string `json:"atLimit"`
	WarnAt  int    `json:"warnAt,omitempty"`
}

// parseLimits reads METRIC=MOST:WHAT.
func parseLimits(texts []string) (map[string]planLimit, error) {
	limits := map[string]planLimit{}
	for _, t := range texts {
		metric, rest, ok := strings.Cut(t, "=")
		most, at, _ := strings.Cut(rest, ":")
		n, err := strconv.ParseInt(most, 10, 64)
		if at == "" {
			at = "refuse"
		}
		if !ok || metric == "" || err != nil {
			return nil, wrong("--limit %q: write METRIC=MOST or METRIC=MOST:WHAT, such as sites=10 or requests=1000000:bill", t)
		}
		limits[metric] = planLimit{Most: n, AtLimit: at}
	}
	return limits, nil
}

func planCommand() *cobra.Command {
	var title, of string
	var limits []string
	return group("plan", "What organizations below may have", "Plan keeps plans for the organizations below, gives them, and shows what was used of them.",
		"  relais plan put small --limit sites=10 --limit requests=1000000:bill\n  relais plan assign small --organization shop --of east\n  relais plan usage sites --organization shop",
		verb{
			use: "list", short: "Plans for the organizations below", example: "  relais plan list -o json",
			run: func(q *question, _ []string) error {
				return list(q, q.path("plans"), func(w io.Writer, it struct {
					Name   string               `json:"name"`
					Title  string               `json:"title,omitempty"`
					Limits map[string]planLimit `json:"limits"`
				},
				) {
					var text []string
					for metric, l := range it.Limits {
						text = append(text, fmt.Sprintf("%s=%d:%s", metric, l.Most, l.AtLimit))
					}
					slices.Sort(text)
					fmt.Fprintf(w, "%-20s %s  %s\n", it.Name, strings.Join(text, " "), it.Title)
				})
			},
		},
		verb{
			use: "put NAME", short: "Make or replace a plan", args: cobra.ExactArgs(1),
			long:    "Put makes a plan, or replaces one as a whole; prices are written over the API. Metrics are organizations, projects,\nusers, tokens, sites, hostnames, documents, and requests, bytes and orders of a month. At a limit: refuse, warn, bill\nor degrade.",
			example: "  relais plan put small --title Small --limit sites=10 --limit requests=1000000:bill",
			flags: func(fl *pflag.FlagSet) {
				fl.StringVar(&title, "title", "", "its name for people")
				fl.StringArrayVar(&limits, "limit", nil, "METRIC=MOST or METRIC=MOST:WHAT; may be repeated")
			},
			run: func(q *question, args []string) error {
				parsed, err := parseLimits(limits)
				if err != nil {
					return err
				}
				return q.done(http.MethodPut, q.path("plans", args[0]), map[string]any{"title": title, "limits": parsed}, deed{"plan", args[0], "written"})
			},
		},
		verb{
			use: "delete NAME", short: "Remove a plan that nobody has", example: "  relais plan delete small", args: cobra.ExactArgs(1),
			run: func(q *question, args []string) error {
				return q.done(http.MethodDelete, q.path("plans", args[0]), nil, deed{"plan", args[0], "deleted"})
			},
		},
		verb{
			use: "assign NAME --of ORGANIZATION", short: "Give an organization a plan of one above it", example: "  relais plan assign small --of east --organization shop", args: cobra.ExactArgs(1),
			flags: func(fl *pflag.FlagSet) { fl.StringVar(&of, "of", "", "organization whose plan it is") },
			run: func(q *question, args []string) error {
				if of == "" {
					return wrong("--of names the organization whose plan it is")
				}
				return q.done(http.MethodPut, q.path("plan"), map[string]string{"organization": of, "name": args[0]}, deed{"plan", args[0], "given to " + q.org()})
			},
		},
		verb{
			use: "usage METRIC", short: "What was used, and the limit", example: "  relais plan usage sites\n  relais plan usage requests -o json", args: cobra.ExactArgs(1),
			run: func(q *question, args []string) error {
				var u struct {
					Used  int64      `json:"used"`
					Limit *planLimit `json:"limit,omitempty"`
				}
				if err := q.do(http.MethodGet, q.path("usage", args[0]), nil, nil, &u); err != nil {
					return err
				}
				return q.show(u, func(w io.Writer) {
					if u.Limit == nil {
						fmt.Fprintf(w, "%d %s, without a limit\n", u.Used, args[0])
						return
					}
					fmt.Fprintf(w, "%d of %d %s, then: %s\n", u.Used, u.Limit.Most, args[0], u.Limit.AtLimit)
				})
			},
		},
	)
}
