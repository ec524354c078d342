package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/cache/feed"
	"github.com/relais-edge/relais/internal/edge/cache/trial"
)

// feedIdle is how long a batch waits for more lines.
const feedIdle = 20 * time.Millisecond

type feedFlags struct {
	output, data, site, file string
	retry                    time.Duration
}

// feedSum is what became of all lines of a file.
type feedSum struct {
	feed.Ack
	// Taken is the number of the last line up to which everything was taken.
	Taken    int     `json:"taken"`
	Requests int     `json:"requests"`
	Seconds  float64 `json:"seconds"`
}

func cacheFeedCommand() *cobra.Command {
	var f feedFlags
	cmd := &cobra.Command{
		Use:   "feed --site SITE -f FILE",
		Short: "Give the edge events of prices and stock, as NDJSON",
		Long: "Feed reads events, one JSON object in a line, and has the edge purge what they name:\n\n" +
			"  {\"sku\": \"4711\", \"version\": 17, \"price\": \"9.90\", \"at\": \"2026-01-31T12:00:00Z\"}\n\n" +
			"sku is mapped to tags and URLs by the feed part of the site's CachePolicy; tag and url name things directly.\n" +
			"Of the events of one name, one with an older or the same version (without one: time) does nothing, so that\n" +
			"a file may be sent again after any failure. A line counts as taken when its purge holds and is on disk.\n\n" +
			"Lines are sent as they come, up to 1,000 at once. It ends with 0 when all were taken, 1 when some were refused\n" +
			"or the edge did not answer: then it says up to which line all was taken.",
		Example: "  relais cache feed --site shop -f events.ndjson\n  erp-export --follow | relais cache feed --site shop -f -\n  relais cache feed status",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runFeed(cmd, &f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.site, "site", "", "site of the events that name none")
	fl.StringVarP(&f.file, "file", "f", "", "file with events; - for the standard input")
	fl.DurationVar(&f.retry, "retry", 10*time.Second, "how long lines are sent again while the edge does not answer, as when it is restarted")
	outputFlag(cmd, &f.output)
	dataFlag(cmd, &f.data)
	cmd.AddCommand(feedStatusCommand())
	return cmd
}

func runFeed(cmd *cobra.Command, f *feedFlags) error {
	in := cmd.InOrStdin()
	switch f.file {
	case "":
		return &exitError{code: exitUsage, err: errors.New("give a file with -f; - is the standard input")}
	case "-":
	default:
		file, err := os.Open(f.file)
		if err != nil {
			return failed(err)
		}
		defer file.Close()
		in = file
	}
	c := admin.NewClient(filepath.Join(f.data, adminSocket))
	begin := time.Now()
	sum, err := sendEvents(cmd.Context(), in, func(ctx context.Context, batch []byte) (*feed.Ack, error) {
		target := "/cache/feed?" + url.Values{"site": {f.site}}.Encode()
		for until := time.Now().Add(f.retry); ; {
			var a feed.Ack
			err := c.Send(ctx, target, "application/x-ndjson", batch, &a)
			if err == nil || !time.Now().Before(until) || !wait(ctx, 250*time.Millisecond) {
				return &a, err
			}
		}
	}, cmd.ErrOrStderr())
	sum.Seconds = time.Since(begin).Seconds()
	if e := show(cmd.OutOrStdout(), f.output, sum, func(w io.Writer) {
		fmt.Fprintf(w, "%d events: %d purged, %d repeated, %d older, %d refused; all taken up to line %d, in %.2f s\n", sum.Lines, sum.Purged, sum.Repeated, sum.Older, sum.Refused, sum.Taken, sum.Seconds)
	}); e != nil {
		return e
	}
	if err != nil {
		return failed(fmt.Errorf("%w: all was taken up to line %d; send what follows again", err, sum.Taken))
	}
	if sum.Refused > 0 {
		return failed(fmt.Errorf("%d events were refused", sum.Refused))
	}
	return nil
}

// sendEvents sends lines in batches: as many as there are, without waiting for more than a moment.
func sendEvents(ctx context.Context, in io.Reader, send func(context.Context, []byte) (*feed.Ack, error), errs io.Writer) (*feedSum, error) {
	lines := make(chan []byte, feed.MaxLines)
	var read error
	go func() {
		defer close(lines)
		r := bufio.NewScanner(in)
		r.Buffer(make([]byte, 64<<10), feed.MaxLine+64<<10)
		for r.Scan() {
			select {
			case lines <- bytes.Clone(r.Bytes()):
			case <-ctx.Done():
				return
			}
		}
		read = r.Err()
	}()
	sum := &feedSum{}
	at := 0
	for {
		batch, n, ok := gather(ctx, lines)
		if n > 0 {
			a, err := send(ctx, batch)
			if err != nil {
				return sum, err
			}
			sum.Requests++
			sum.add(a, at, errs)
			at += n
			sum.Taken = at
		}
		if ctx.Err() != nil {
			return sum, context.Cause(ctx)
		}
		if !ok {
			return sum, read
		}
	}
}

func (s *feedSum) add(a *feed.Ack, before int, errs io.Writer) {
	s.Lines += a.Lines
	s.Purged += a.Purged
	s.Repeated += a.Repeated
	s.Older += a.Older
	s.Refused += a.Refused
	s.Holds = a.Holds
	for _, r := range a.Reasons {
		r.Line += before
		fmt.Fprintf(errs, "relais: line %d: %s\n", r.Line, r.Why)
		if len(s.Reasons) < 20 {
			s.Reasons = append(s.Reasons, r)
		}
	}
}

// gather makes a batch of n lines: it waits for the first, and a moment for each other. Ok is false at the end.
func gather(ctx context.Context, lines <-chan []byte) (batch []byte, n int, ok bool) {
	idle := time.NewTimer(time.Hour)
	defer idle.Stop()
	for n < feed.MaxLines {
		select {
		case <-ctx.Done():
			return batch, n, false
		case line, ok := <-lines:
			if !ok {
				return batch, n, false
			}
			batch = append(append(batch, line...), '\n')
			n++
			idle.Reset(feedIdle)
		case <-idle.C:
			if n > 0 {
				return batch, n, true
			}
			idle.Reset(time.Hour)
		}
	}
	return batch, n, true
}

func feedStatusCommand() *cobra.Command {
	var output, data, site string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "How old the oldest price is that still left the edge",
		Long: "Status tells, of the last 4,096 events of each site, for how long their old price could still be had: from\n" +
			"the event's own time until its purge held or, where that was later, until the last answer from before it\n" +
			"had left the edge. The oldest price is that of the last five minutes.",
		Example: "  relais cache feed status\n  relais cache feed status --site shop -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []feed.Status
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/cache/feed?"+url.Values{"site": {site}}.Encode(), &list); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) { showFeeds(w, list) })
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "only this site")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func showFeeds(w io.Writer, list []feed.Status) {
	if len(list) == 0 {
		fmt.Fprintln(w, "no events came yet")
	}
	for i := range list {
		s := &list[i]
		l := &s.Lag
		if o := l.Oldest; o != nil {
			how := "its purge held then"
			if o.Seen {
				how = "its last answer left then"
			}
			fmt.Fprintf(w, "%s: oldest price still served: %.3g s after it changed (%s, %s)\n", s.Site, o.Seconds, o.Name, how)
		} else {
			fmt.Fprintf(w, "%s: no event in the last five minutes\n", s.Site)
		}
		fmt.Fprintf(w, "  lag of the last %d events: p50 %.3g s, p99 %.3g s, max %.3g s; %d answers left after their purge held\n", l.Changes, l.P50, l.P99, l.Max, l.Late)
		fmt.Fprintf(w, "  %d events: %d purged, %d repeated, %d older, %d refused, %d from the future\n", s.Events, s.Purged, s.Repeated, s.Older, s.Refused, s.Ahead)
	}
}

func cacheTrialCommand() *cobra.Command {
	var output, data, site string
	cmd := &cobra.Command{
		Use:   "trial --site SITE",
		Short: "Which pages would be safe to cache, by evidence",
		Long: "Trial tells what the trial part of the site's CachePolicy found: for each part of the site how many pages\n" +
			"were the same for their visitor and for nobody, which cookies change them, and what speaks against caching,\n" +
			"such as a token in a form. Where it would be safe it prints the lines of a policy; to use them is up to you.\n" +
			"It ends with 0 when some part is safe, 3 when none is (yet).",
		Example: "  relais cache trial --site shop\n  relais cache trial --site shop -o json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var r trial.Report
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/cache/trial?"+url.Values{"site": {site}}.Encode(), &r); err != nil {
				return failed(err)
			}
			if err := show(cmd.OutOrStdout(), output, &r, func(w io.Writer) { showTrial(w, &r) }); err != nil {
				return err
			}
			for i := range r.Findings {
				if r.Findings[i].Safe {
					return nil
				}
			}
			return &exitError{code: exitFound, err: errors.New("nothing is known to be safe to cache"), said: true}
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "site that is tried")
	_ = cmd.MarkFlagRequired("site")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

func showTrial(w io.Writer, r *trial.Report) {
	p := paintFor(w)
	for i := range r.Findings {
		f := &r.Findings[i]
		says := p.red(f.Says)
		if f.Safe {
			says = p.green(f.Says)
		}
		fmt.Fprintf(w, "%s %s\n", says, p.dim("[route "+f.Route+"]"))
		if f.Policy != "" {
			fmt.Fprintln(w, f.Policy)
		}
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(w, "no page was compared yet")
	}
	if len(r.Skipped) > 0 {
		t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
		fmt.Fprintln(t, "not compared\tpages")
		for why, n := range r.Skipped {
			fmt.Fprintf(t, "%s\t%d\n", why, n)
		}
		_ = t.Flush()
	}
}
