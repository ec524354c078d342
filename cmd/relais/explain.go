package main

import (
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/record"
)

func explainCommand() *cobra.Command {
	var output, data string
	var last int
	cmd := &cobra.Command{
		Use:   "explain [ID]",
		Short: "What every stage decided about one request, and when",
		Long: "Explain asks the edge that runs on this machine what happened to a request. The id is in the\n" +
			"X-Request-Id of every answer and on every error page. Without an id it lists the last requests.",
		Example: "  relais explain 3r5q8v6m4x2n7k9w1c0d5f8h2j\n  relais explain --last 10\n  relais explain -o json 3r5q8v6m4x2n7k9w1c0d5f8h2j",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := admin.NewClient(filepath.Join(data, adminSocket))
			if len(args) == 1 {
				var e record.Explanation
				if err := c.Get(cmd.Context(), "/explain/"+url.PathEscape(args[0]), &e); err != nil {
					return failed(err)
				}
				return show(cmd.OutOrStdout(), output, e, func(w io.Writer) { explainOne(w, e) })
			}
			var list []record.Explanation
			if err := c.Get(cmd.Context(), "/explain?last="+strconv.Itoa(last), &list); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) { explainList(w, list) })
		},
	}
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	cmd.Flags().IntVar(&last, "last", 20, "how many requests to list")
	return cmd
}

func explainOne(w io.Writer, e record.Explanation) {
	p := paintFor(w)
	if s := e.Service; s != nil {
		fmt.Fprintf(w, "%s %s\n", p.bold(e.Proto), strings.TrimSpace("connection to service "+s.Key+" "+e.Host))
		fmt.Fprintf(w, "from %s at %s, %.3f ms, %d bytes received, %d sent\n", e.Client, e.Time.Format("2006-01-02 15:04:05.000"), e.Millis, s.Received, e.Bytes)
		explainRest(w, e)
		return
	}
	if e.Method == "" {
		fmt.Fprintf(w, "%s  %s\n", p.bold("bytes that were no acceptable request"), status(p, e))
	} else {
		fmt.Fprintf(w, "%s %s%s  %s\n", p.bold(e.Method), e.Host, e.Path, status(p, e))
	}
	from := e.Client
	if e.Country != "" {
		from += " in " + e.Country
	}
	if e.ASN != 0 {
		from += " of AS" + strconv.FormatUint(uint64(e.ASN), 10)
	}
	fmt.Fprintf(w, "%s from %s at %s, %.3f ms, %d bytes, visitor %s\n", e.Proto, from, e.Time.Format("2006-01-02 15:04:05.000"), e.Millis, e.Bytes, e.Visitor)
	switch {
	case e.Site != "" && e.Revision != "":
		fmt.Fprintf(w, "site %s, route %s, revision %s\n", e.Site, e.Route, e.Revision)
	case e.Site != "":
		fmt.Fprintf(w, "site %s, route %s\n", e.Site, e.Route)
	}
	explainRest(w, e)
}

// explainRest says what requests and connections have in common.
func explainRest(w io.Writer, e record.Explanation) {
	if e.Origin != "" {
		fmt.Fprintf(w, "pool %s, tier %s, origin %s, tries %d\n", e.Pool, e.Tier, e.Origin, e.Tries)
	} else if e.Pool != "" {
		fmt.Fprintf(w, "pool %s, no origin\n", e.Pool)
	}
	if e.Spill != "" {
		fmt.Fprintf(w, "spill: %s (%s)\n", e.Spill, e.SpillWords())
	}
	if e.Full != "" {
		fmt.Fprintf(w, "no tier had room: %s (%s)\n", e.Full, e.FullWords())
	}
	if e.Score > 0 {
		fmt.Fprintf(w, "score: %d (how much like a program the visitor looks)\n", e.Score)
	}
	for _, l := range [][2]string{{"bot", e.Bot}, {"ja4", e.JA4}, {"code", e.Code}, {"side", e.Side}, {"cause", e.Cause}, {"abort", e.Abort}} {
		if l[1] != "" {
			fmt.Fprintf(w, "%s: %s\n", l[0], l[1])
		}
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, d := range e.Decisions {
		if !isExclusion(&d) {
			fmt.Fprintf(t, "  %.3f ms\t%s\t%s\t%s\n", d.Millis, d.Stage, d.Code, d.Detail)
		}
	}
	_ = t.Flush()
	explainExclusions(w, e)
}

func isExclusion(d *record.Decision) bool { return d.Stage == "waf" && d.Code == "exclusion" }

// explainExclusions shows the smallest exclusion with which the firewall lets such a request pass.
func explainExclusions(w io.Writer, e record.Explanation) {
	policy := ""
	said := false
	for _, d := range e.Decisions {
		if d.Stage == "waf" && d.Code == "policy" {
			policy, _, _ = strings.Cut(d.Detail, ",")
		}
		if !isExclusion(&d) {
			continue
		}
		if !strings.HasPrefix(d.Detail, "{") {
			fmt.Fprintf(w, "exclusion: %s\n", d.Detail)
			continue
		}
		if !said {
			said = true
			fmt.Fprintf(w, "if this is a false alarm, these lines in spec.exclusions of WafPolicy %s let such requests pass:\n", policy)
		}
		fmt.Fprintf(w, "  - %s\n", d.Detail)
	}
}

func explainList(w io.Writer, list []record.Explanation) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no request yet")
		return
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	for _, e := range list {
		path := e.Host + e.Path
		if e.Service != nil {
			path = e.Proto + " " + e.Service.Key + " " + path
		}
		if len(path) > 60 {
			path = path[:57] + "..."
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%.1f ms\t%s %s\t%s\n", e.ID, e.Time.Format("15:04:05.000"), e.Status, e.Millis, e.Method, path, strings.TrimSpace(e.Cache+" "+e.Tier+" "+e.Code))
	}
	_ = t.Flush()
}

func status(p paint, e record.Explanation) string {
	s := strconv.Itoa(e.Status)
	if e.Status >= 400 || e.Abort != "" {
		return p.red(s)
	}
	return p.green(s)
}
