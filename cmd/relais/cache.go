package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge"
	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/cache"
)

func cacheCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "What is stored, why, and how to be rid of it",
		Long:  "Cache asks the edge that runs on this machine about its stored answers, and purges them.",
		Example: "  relais cache purge --site shop --tag product-17\n  relais cache why https://shop.example/a\n" +
			"  relais cache inspect https://shop.example/a\n  relais cache top\n  relais cache stats --site shop\n  relais cache keys --site shop\n" +
			"  relais cache selftest --site shop https://shop.example/account\n  relais cache warm --site shop -f sitemap.xml\n" +
			"  relais cache feed --site shop -f events.ndjson\n  relais cache trial --site shop",
	}
	cmd.AddCommand(cachePurgeCommand(), cacheWhyCommand(), cacheInspectCommand(), cacheTopCommand(), cacheStatsCommand(), cacheKeysCommand(), cacheSelftestCommand(),
		cacheWarmCommand(), cacheFeedCommand(), cacheTrialCommand())
	return cmd
}

func cachePurgeCommand() *cobra.Command {
	var output, data string
	var q edge.CachePurge
	cmd := &cobra.Command{
		Use:   "purge --site SITE [what]...",
		Short: "Make stored answers be fetched anew",
		Long: "Purge makes the edge fetch anew what it names, once somebody asks for it. The answer tells the number\n" +
			"of the purge, and from when it holds: nothing that was asked for earlier is served after that, and\n" +
			"nothing on its way is stored. With --soft what is stored becomes stale: it may still be served while\n" +
			"it is validated, or when the origin fails, as its stale-while-revalidate and stale-if-error allow. With --warm\n" +
			"those that are asked for most among what was stored are fetched again in the background; the command waits.\n\n" +
			"A URL is purged with all variants, schemes and ports; with the query that it is given with, of which\n" +
			"counts what counts for the policy, or with --any-query with each. Without a host, /path is meant for\n" +
			"all hosts of the site. A prefix goes by path elements: /img is /img and /img/a, and not /images.",
		Example: "  relais cache purge --site shop --url https://shop.example/img/a.jpg\n" +
			"  relais cache purge --site shop --url shop.example/search --any-query\n" +
			"  relais cache purge --site acme/shop --tag product-17 --tag prices --soft\n" +
			"  relais cache purge --site shop --group 'Winter coats'\n" +
			"  relais cache purge --site shop --prefix shop.example/img/\n" +
			"  relais cache purge --site shop --host m.shop.example\n" +
			"  relais cache purge --site shop --all\n  relais cache purge --organization acme\n  relais cache purge --everything",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var a edge.PurgeAnswer
			r := &a.Receipt
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Post(cmd.Context(), "/cache/purge", &q, &a); err != nil {
				return failed(err)
			}
			if err := show(cmd.OutOrStdout(), output, &a, func(w io.Writer) { showReceipt(w, r) }); err != nil {
				return err
			}
			if !r.Kept {
				return failed(errors.New("the purge holds, but could not be written to the log: after a restart what a disk keeps would be back. Look at the disk, and purge again"))
			}
			return awaitJobs(cmd, data, output, a.Jobs)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&q.Site, "site", "", "site, as organization/name; a name alone is of the organization default")
	fl.StringArrayVar(&q.URLs, "url", nil, "URL, host/path or /path; may be repeated")
	fl.BoolVar(&q.AnyQuery, "any-query", false, "each --url with every query")
	fl.StringArrayVar(&q.Tags, "tag", nil, "what carries a Cache-Tag, Surrogate-Key or Cache-Groups; may be repeated")
	fl.StringArrayVar(&q.Groups, "group", nil, "what is in a cache group, as Cache-Groups has it between its quotation marks; may be repeated")
	fl.StringArrayVar(&q.Hosts, "host", nil, "all of a host of the site; may be repeated")
	fl.StringArrayVar(&q.Prefixes, "prefix", nil, "host/path or /path and what lies below; may be repeated")
	fl.BoolVar(&q.All, "all", false, "all of the site")
	fl.StringVar(&q.Organization, "organization", "", "all sites of an organization")
	fl.BoolVar(&q.Everything, "everything", false, "all sites of the edge")
	fl.BoolVar(&q.Soft, "soft", false, "make stale instead of removing")
	fl.BoolVar(&q.Warm, "warm", false, "fetch the hottest of it again, and wait for that")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

// awaitJobs waits for what a purge has fetched again.
func awaitJobs(cmd *cobra.Command, data, output string, jobs []uint64) error {
	c := admin.NewClient(filepath.Join(data, adminSocket))
	bad := 0
	for _, id := range jobs {
		p, err := awaitJob(cmd.Context(), c, id, cmd.ErrOrStderr())
		if err != nil {
			return failed(err)
		}
		if err := show(cmd.OutOrStdout(), output, &p, func(w io.Writer) { showProgress(w, &p) }); err != nil {
			return err
		}
		bad += p.Failed + p.NoRoom + p.Dropped
	}
	if bad > 0 {
		return failed(fmt.Errorf("the purge holds, but %d answers could not be fetched again", bad))
	}
	return nil
}

func showReceipt(w io.Writer, r *cache.Receipt) {
	for i := range r.Purged {
		e := &r.Purged[i]
		fmt.Fprintf(w, "%s: %s, number %d\n", e.Site, e.String(), e.Number)
	}
	fmt.Fprintf(w, "holds since %s, up to number %d\n", r.Holds.UTC().Format(time.RFC3339Nano), r.Number)
}

// questionFlags are those of a request that is not sent.
func questionFlags(cmd *cobra.Command, q *edge.CacheQuestion) {
	cmd.Flags().StringArrayVarP(&q.Fields, "header", "H", nil, "field of the request, as 'Name: value'; may be repeated")
	cmd.Flags().StringVarP(&q.Method, "method", "X", "GET", "method of the request")
	cmd.Flags().StringVar(&q.Listener, "listener", "", "key of the Listener that it comes to (the first one that serves the host)")
}

func cacheWhyCommand() *cobra.Command {
	var output, data string
	var q edge.CacheQuestion
	cmd := &cobra.Command{
		Use:   "why URL",
		Short: "Why a request would be a hit, a miss or neither",
		Long: "Why looks a request up as the edge would, without asking an origin or changing what is stored, and says\n" +
			"in words what comes of it, with the rule for each. Give the fields that matter with -H.",
		Example: "  relais cache why https://shop.example/a\n" +
			"  relais cache why https://shop.example/a -H 'Accept-Language: de' -H 'Cookie: session=1'\n  relais cache why -o json https://shop.example/a",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.URL = args[0]
			var a cache.Why
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Post(cmd.Context(), "/cache/why", &q, &a); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, &a, func(w io.Writer) { showWhy(w, &a) })
		},
	}
	questionFlags(cmd, &q)
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func showWhy(w io.Writer, a *cache.Why) {
	p := paintFor(w)
	result := p.red(a.Result)
	if a.Result == "hit" || a.Result == "stale" {
		result = p.green(a.Result)
	}
	fmt.Fprint(w, p.bold(result))
	if a.Forward != "" {
		fmt.Fprintf(w, " (fwd=%s)", a.Forward)
	}
	fmt.Fprintf(w, "\nsite %s, route %s", a.Site, a.Route)
	if a.Policy != "" {
		fmt.Fprintf(w, ", policy %s", a.Policy)
	}
	fmt.Fprintln(w)
	if a.Key != "" {
		fmt.Fprintf(w, "key %s\n", a.Key)
	}
	for _, r := range a.Reasons {
		fmt.Fprintf(w, "  %s", r.Words)
		if r.Rule != "" {
			fmt.Fprintf(w, " %s", p.dim("["+r.Rule+"]"))
		}
		fmt.Fprintln(w)
	}
}

func cacheInspectCommand() *cobra.Command {
	var output, data string
	var q edge.CacheQuestion
	cmd := &cobra.Command{
		Use:     "inspect URL",
		Short:   "What is stored under a URL: variants, ages, lives, tags",
		Example: "  relais cache inspect https://shop.example/a\n  relais cache inspect -o json https://shop.example/a",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.URL = args[0]
			var in cache.Inspection
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Post(cmd.Context(), "/cache/inspect", &q, &in); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, &in, func(w io.Writer) { showInspection(w, &in) })
		},
	}
	questionFlags(cmd, &q)
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func showInspection(w io.Writer, in *cache.Inspection) {
	p := paintFor(w)
	switch {
	case in.Policy == "":
		fmt.Fprintf(w, "site %s, route %s: no CachePolicy, nothing is stored\n", in.Site, in.Route)
	case len(in.Keys) == 0:
		fmt.Fprintf(w, "site %s, route %s, policy %s: nothing is stored under this URL\n", in.Site, in.Route, in.Policy)
	}
	for _, k := range in.Keys {
		fmt.Fprintln(w, p.bold(k.Key))
		if k.Hits != nil {
			fmt.Fprintf(w, "  about %d hits in the last minutes\n", *k.Hits)
		}
		if k.Fetching > 0 {
			fmt.Fprintf(w, "  %d fetches are under way\n", k.Fetching)
		}
		if k.Pass != nil {
			fmt.Fprintf(w, "  an answer could not be stored: until %s requests wait for nobody\n", k.Pass.Format(time.RFC3339))
		}
		for _, v := range k.Variants {
			fmt.Fprintf(w, "  %s  %d  %s %s  %d of %d bytes  age %.0f s of %.0f s  born at purge %d\n", v.State, v.Status, v.Type, v.Coding, v.Kept, v.Size, v.Age, v.Lifetime, v.Born)
			for _, l := range [...][2]string{{"for", strings.Join(v.For, "; ")}, {"tags", strings.Join(v.Tags, " ")}} {
				if l[1] != "" {
					fmt.Fprintf(w, "    %s %s\n", l[0], l[1])
				}
			}
			if v.Purge != nil {
				fmt.Fprintf(w, "    %s, number %d at %s\n", v.Purge.String(), v.Purge.Number, v.Purge.Time.UTC().Format(time.RFC3339))
			}
		}
	}
}

func cacheTopCommand() *cobra.Command {
	var output, data, site, by string
	var n int
	cmd := &cobra.Command{
		Use:   "top",
		Short: "The keys that are asked for most, or that save most bytes",
		Long: "Top lists keys by an estimate: one request in 16 is looked at, 1,024 keys are remembered for each list, and\n" +
			"counts are halved every five minutes. Over is by how much the first number may be too high.",
		Example: "  relais cache top\n  relais cache top --site shop --by bytes -n 50",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if by != "requests" && by != "bytes" {
				return &exitError{code: exitUsage, err: fmt.Errorf("--by %s: requests or bytes", by)}
			}
			var list []cache.TopKey
			v := url.Values{"site": {site}, "by": {by}, "n": {strconv.Itoa(n)}}
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/cache/top?"+v.Encode(), &list); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) {
				t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
				fmt.Fprintln(t, "requests\thits\tbytes saved\tover\tsite\tkey")
				for _, k := range list {
					fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%s\t%s\n", k.Requests, k.Hits, k.Bytes, k.Over, k.Site, k.URL)
				}
				_ = t.Flush()
			})
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "only this site")
	cmd.Flags().StringVar(&by, "by", "requests", "requests or bytes")
	cmd.Flags().IntVarP(&n, "number", "n", 20, "how many, up to 1000")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func cacheStatsCommand() *cobra.Command {
	var output, data, site string
	cmd := &cobra.Command{
		Use:   "stats",
		Short: "How well the cache does, by site",
		Long: "Stats tells since the start of the edge: what the cache did with requests, the ratio of those that cost no\n" +
			"origin anything among those looked up, and the bytes of bodies that came from the store. What is stored\n" +
			"now and what had to leave is told of all sites together, and of each organization what it has and what more\n" +
			"room would give it: an estimate from a sample of its requests, of a cache that gives up what was not\n" +
			"asked for longest.",
		Example: "  relais cache stats\n  relais cache stats --site shop -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var st cache.EdgeStats
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/cache/stats?"+url.Values{"site": {site}}.Encode(), &st); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, &st, func(w io.Writer) { showStats(w, &st) })
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "only this site")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

// bytesText is a number of bytes for people.
func bytesText(n int64) string {
	units := [...]string{"B", "KB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for v >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	return fmt.Sprintf("%.3g %s", v, units[i])
}

// ofQuota is what an organization has, and of how much if that is bounded.
func ofQuota(bytes, quota int64) string {
	if quota == 0 {
		return bytesText(bytes)
	}
	return bytesText(bytes) + " of " + bytesText(quota)
}

func showStats(w io.Writer, st *cache.EdgeStats) {
	fmt.Fprintf(w, "memory: %d records in %d of %d bytes, %d had to leave; %d times a tier did not admit one; %d purged things are told apart\n", st.Objects, st.Bytes, st.Limit, st.Evicted, st.Refused, st.PurgeKeys)
	if d := st.Disk; d != nil {
		off := ""
		if d.Off {
			off = ", off for now"
		}
		fmt.Fprintf(w, "disk %s%s: %d records in %d of %d bytes, %d had to leave; %d errors, %d damaged records, none of them served\n", d.Folder, off, d.Objects, d.Bytes, d.Limit, d.Evicted, d.Errors, d.Damaged)
	}
	for _, o := range st.Organizations {
		fmt.Fprintf(w, "organization %s: %d records, %s in memory, %s on the disk", o.Organization, o.Objects, ofQuota(o.Memory, o.MemoryQuota), ofQuota(o.Disk, o.DiskQuota))
		for _, g := range o.More {
			fmt.Fprintf(w, "; %s more would give %.1f %% more hits", bytesText(g.Bytes), 100*g.Requests)
		}
		fmt.Fprintln(w)
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintln(t, "site\trequests\thit ratio\tbytes saved\tstored\tfound purged\tresults")
	for _, s := range st.Sites {
		var results []string
		for name, n := range s.Results {
			results = append(results, fmt.Sprintf("%s %d", name, n))
		}
		slices.Sort(results)
		fmt.Fprintf(t, "%s\t%d\t%.3f\t%d\t%d\t%d\t%s\n", s.Site, s.Requests, s.HitRatio, s.BytesSaved, s.Stored, s.Purged, strings.Join(results, ", "))
	}
	_ = t.Flush()
}
