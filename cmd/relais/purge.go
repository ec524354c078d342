package main

import (
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

// purgeOrder is what every PoP shall fetch anew.
type purgeOrder struct {
	Site     string   `json:"site,omitempty"`
	URLs     []string `json:"urls,omitempty"`
	Tags     []string `json:"tags,omitempty"`
	Hosts    []string `json:"hosts,omitempty"`
	Prefixes []string `json:"prefixes,omitempty"`
	All      bool     `json:"all,omitempty"`
	AnyQuery bool     `json:"anyQuery,omitempty"`
	Soft     bool     `json:"soft,omitempty"`
}

// purgeReceipt tells which PoPs obey.
type purgeReceipt struct {
	Number int64     `json:"number"`
	Time   time.Time `json:"time"`
	Done   bool      `json:"done"`
	Blind  bool      `json:"blind,omitempty"`
	Pops   []struct {
		Pop   string     `json:"pop"`
		State string     `json:"state"`
		At    *time.Time `json:"at,omitempty"`
		Seen  time.Time  `json:"seen"`
	} `json:"pops"`
}

func (r *purgeReceipt) print(w io.Writer) {
	p := paintFor(w)
	fmt.Fprintf(w, "purge %d\n", r.Number)
	for _, x := range r.Pops {
		state := fmt.Sprintf("%-8s", x.State)
		switch x.State {
		case "obeys":
			state = p.green(state)
			if x.At != nil {
				state += " after " + x.At.Sub(r.Time).Round(time.Millisecond).String()
			}
		case "away":
			state = p.red(state) + " heard of last at " + x.Seen.Local().Format(time.DateTime)
		}
		fmt.Fprintf(w, "%-20s %s\n", x.Pop, state)
	}
	if r.Blind {
		fmt.Fprintln(w, "the control plane has just begun, or is cut off from the PoPs: ask again with relais purge show", r.Number)
	}
}

func purgeCommand() *cobra.Command {
	var r remote
	var o purgeOrder
	var output string
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "purge [--site SITE] [what]...", Short: "Make all PoPs fetch stored answers anew",
		Long: "Purge tells every PoP through the control plane to fetch anew what is named, waits for those that are heard of, and\n" +
			"prints who obeys. A PoP that is away obeys before it serves anything stored once it is back. With --soft what is\n" +
			"stored becomes stale in place of being removed. The edge of this machine alone: relais cache purge.",
		Example: "  relais purge --site shop --url https://shop.example/img/a.jpg\n  relais purge --site shop --tag product-17 --tag prices --soft\n" +
			"  relais purge --site shop --prefix /img/\n  relais purge --site shop --all\n  relais purge --all   everything of the organization",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := json.Marshal(&o)
			if err != nil {
				return failed(err)
			}
			seconds := strconv.Itoa(int(min(max(wait, 0), 30*time.Second).Seconds()))
			var got purgeReceipt
			q := client.Request{Method: http.MethodPost, Path: inOrg("purges"), Query: url.Values{"wait": {seconds}}, Body: body}
			if err := r.ask(cmd, output, q, &got, got.print); err != nil {
				return err
			}
			if wait > 0 && !got.Done && !got.Blind {
				return failed(errors.New("not all PoPs obey yet; see relais purge show " + strconv.FormatInt(got.Number, 10)))
			}
			return nil
		},
	}
	r.add(cmd)
	fl := cmd.Flags()
	fl.StringVar(&o.Site, "site", "", "name of the site")
	fl.StringArrayVar(&o.URLs, "url", nil, "URL, host/path or /path; may be repeated")
	fl.BoolVar(&o.AnyQuery, "any-query", false, "each --url with every query")
	fl.StringArrayVar(&o.Tags, "tag", nil, "what carries a Cache-Tag, Surrogate-Key or Cache-Groups; may be repeated")
	fl.StringArrayVar(&o.Hosts, "host", nil, "all of a host of the site; may be repeated")
	fl.StringArrayVar(&o.Prefixes, "prefix", nil, "host/path or /path and what lies below; may be repeated")
	fl.BoolVar(&o.All, "all", false, "all of the site, or without --site of the organization")
	fl.BoolVar(&o.Soft, "soft", false, "make stale instead of removing")
	fl.DurationVar(&wait, "wait", 10*time.Second, "wait as long for PoPs to obey, 30s at most; 0 does not wait")
	outputFlag(cmd, &output)
	cmd.AddCommand(purgeShowCommand())
	return cmd
}

func purgeShowCommand() *cobra.Command {
	var r remote
	var output string
	cmd := &cobra.Command{
		Use: "show NUMBER", Short: "Which PoPs obey a purge", Long: "Show prints the receipt of a purge as it is now.",
		Example: "  relais purge show 1041", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var got purgeReceipt
			return r.ask(cmd, output, client.Request{Method: http.MethodGet, Path: inOrg("purges", args[0])}, &got, got.print)
		},
	}
	r.add(cmd)
	outputFlag(cmd, &output)
	return cmd
}
