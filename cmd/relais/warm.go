package main

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge"
	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/cache/refill"
)

const (
	maxWarmURLs  = 1_000_000
	maxWarmFile  = 256 << 20
	maxWarmBatch = 2000
	maxWarmBytes = 512 << 10
	maxWarmLine  = 16 << 10
)

type warmFlags struct {
	output, data, site, file string
	headers                  []string
	background               bool
}

func cacheWarmCommand() *cobra.Command {
	var f warmFlags
	cmd := &cobra.Command{
		Use:   "warm --site SITE [-f FILE] [URL]...",
		Short: "Fetch URLs into the cache before visitors ask",
		Long: "Warm has the edge fetch URLs in the background, through its cache, within the rate and the number at once\n" +
			"that the warm part of the site's CachePolicy allows (20 a second, 2 at once without one), and only while the\n" +
			"origins have places to spare. What is fresh already is not fetched.\n\n" +
			"The file holds a URL in each line (empty lines and # comments do not count), or is a sitemap as XML; either\n" +
			"may be gzipped; - is the standard input. Fields given with -H choose the variant; without them it is the one\n" +
			"of today's browsers, by Accept-Encoding.\n\n" +
			"It shows the progress until all is done, and ends with 1 when something failed.",
		Example: "  relais cache warm --site shop https://shop.example/ https://shop.example/offers\n" +
			"  relais cache warm --site shop -f sitemap.xml.gz\n  relais cache warm --site shop -f urls.txt -H 'Accept-Language: de' -o json\n" +
			"  relais cache warm status",
		RunE: func(cmd *cobra.Command, args []string) error { return runWarm(cmd, &f, args) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.site, "site", "", "site that the URLs are of")
	fl.StringVarP(&f.file, "file", "f", "", "file with URLs, or a sitemap; - for the standard input")
	fl.StringArrayVarP(&f.headers, "header", "H", []string{"Accept-Encoding: gzip, deflate, br, zstd"}, "field of the requests, as 'Name: value'; may be repeated")
	fl.BoolVar(&f.background, "background", false, "do not wait; relais cache warm status tells how far it is")
	outputFlag(cmd, &f.output)
	dataFlag(cmd, &f.data)
	cmd.AddCommand(warmStatusCommand())
	return cmd
}

func runWarm(cmd *cobra.Command, f *warmFlags, urls []string) error {
	if f.site == "" {
		return &exitError{code: exitUsage, err: errors.New("say of which site with --site")}
	}
	if f.file != "" {
		more, err := readURLs(cmd.InOrStdin(), f.file)
		if err != nil {
			return failed(err)
		}
		urls = append(urls, more...)
	}
	if len(urls) == 0 || len(urls) > maxWarmURLs {
		return &exitError{code: exitUsage, err: fmt.Errorf("%d URLs: give 1 to %d, as arguments or with -f", len(urls), maxWarmURLs)}
	}
	c := admin.NewClient(filepath.Join(f.data, adminSocket))
	job, refused, err := sendURLs(cmd.Context(), c, f, urls, cmd.ErrOrStderr())
	if err != nil {
		return failed(err)
	}
	var p refill.Progress
	if f.background {
		err = c.Get(cmd.Context(), "/cache/warm?job="+strconv.FormatUint(job, 10), &p)
	} else {
		p, err = awaitJob(cmd.Context(), c, job, cmd.ErrOrStderr())
	}
	if err != nil {
		return failed(err)
	}
	if err := show(cmd.OutOrStdout(), f.output, &p, func(w io.Writer) { showProgress(w, &p) }); err != nil {
		return err
	}
	if bad := p.Failed + p.NoRoom + p.Dropped + refused; bad > 0 {
		return failed(fmt.Errorf("%d of %d URLs were not fetched", bad, len(urls)))
	}
	return nil
}

// sendURLs gives the edge the URLs as one job, and waits while its queue is full. Refused is how many it does not take.
func sendURLs(ctx context.Context, c *admin.Client, f *warmFlags, urls []string, errs io.Writer) (job uint64, refused int, err error) {
	for len(urls) > 0 {
		n, size := 0, 0
		for n < len(urls) && n < maxWarmBatch && size < maxWarmBytes {
			size += len(urls[n])
			n++
		}
		var a edge.WarmupAnswer
		q := edge.CacheWarmup{Site: f.site, URLs: urls[:n], Fields: f.headers, Job: job}
		if err := c.Post(ctx, "/cache/warm", &q, &a); err != nil {
			return job, refused, err
		}
		job, refused = a.Job, refused+a.RefusedN
		for _, r := range a.Refused {
			fmt.Fprintln(errs, "relais:", r)
		}
		urls = urls[n:]
		for len(urls) > 0 { // so that the queue never has to drop what comes
			var p refill.Progress
			if err := c.Get(ctx, "/cache/warm?job="+strconv.FormatUint(job, 10), &p); err != nil {
				return job, refused, err
			}
			if p.Waiting < 20_000 {
				break
			}
			progressLine(errs, &p)
			if !wait(ctx, 200*time.Millisecond) {
				return job, refused, context.Cause(ctx)
			}
		}
	}
	return job, refused, nil
}

// awaitJob waits until a job has ended, and shows how far it is on a terminal.
func awaitJob(ctx context.Context, c *admin.Client, job uint64, errs io.Writer) (p refill.Progress, err error) {
	for {
		p = refill.Progress{}
		if err := c.Get(ctx, "/cache/warm?job="+strconv.FormatUint(job, 10), &p); err != nil {
			return p, err
		}
		progressLine(errs, &p)
		if p.Ended != nil {
			return p, nil
		}
		if !wait(ctx, 200*time.Millisecond) {
			return p, context.Cause(ctx)
		}
	}
}

func progressLine(w io.Writer, p *refill.Progress) {
	if !paintFor(w).on {
		return
	}
	done := p.Total - p.Waiting - p.Running
	fmt.Fprintf(w, "\r\x1b[K%d of %d, %d under way, %d stored, %d failed", done, p.Total, p.Running, p.Stored, p.Failed)
	if p.Ended != nil {
		fmt.Fprint(w, "\r\x1b[K")
	}
}

func showProgress(w io.Writer, p *refill.Progress) {
	state := "under way"
	if p.Ended != nil {
		state = "done in " + p.Ended.Sub(p.Began).Round(time.Millisecond).String()
	}
	fmt.Fprintf(w, "job %d, %s, %s: %d in all, %d stored, %d fresh already, %d may not be stored, %d failed", p.ID, p.Site, state, p.Total, p.Stored, p.Fresh, p.NotStored, p.Failed)
	for _, more := range []struct {
		n    int
		what string
	}{{p.NoRoom, "found no room at the origins"}, {p.Same, "were on their way already"}, {p.Dropped, "were dropped, as the queue was full"}, {p.Waiting + p.Running, "to come"}} {
		if more.n > 0 {
			fmt.Fprintf(w, ", %d %s", more.n, more.what)
		}
	}
	fmt.Fprintln(w)
	for _, e := range p.Errors {
		fmt.Fprintln(w, "  "+e)
	}
}

func warmStatusCommand() *cobra.Command {
	var output, data, site string
	cmd := &cobra.Command{
		Use:     "status",
		Short:   "How far background fetches are, the newest first",
		Example: "  relais cache warm status --site shop",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list []refill.Progress
			if err := admin.NewClient(filepath.Join(data, adminSocket)).Get(cmd.Context(), "/cache/warm?"+url.Values{"site": {site}}.Encode(), &list); err != nil {
				return failed(err)
			}
			return show(cmd.OutOrStdout(), output, list, func(w io.Writer) {
				for i := range list {
					showProgress(w, &list[i])
				}
			})
		},
	}
	cmd.Flags().StringVar(&site, "site", "", "only this site")
	outputFlag(cmd, &output)
	dataFlag(cmd, &data)
	return cmd
}

// readURLs reads a list or a sitemap.
func readURLs(stdin io.Reader, name string) ([]string, error) {
	in := stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in = f
	}
	r := bufio.NewReader(in)
	if magic, _ := r.Peek(2); string(magic) == "\x1f\x8b" {
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		r = bufio.NewReader(z)
	}
	text, err := io.ReadAll(io.LimitReader(r, maxWarmFile+1))
	if err == nil && len(text) > maxWarmFile {
		err = fmt.Errorf("more than %d bytes", maxWarmFile)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	text = bytes.TrimSpace(bytes.TrimPrefix(text, []byte("\ufeff")))
	list, err := parseURLs(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}

func parseURLs(text []byte) ([]string, error) {
	if bytes.HasPrefix(text, []byte("<")) {
		return parseSitemap(text)
	}
	var out []string
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		switch {
		case len(line) == 0 || line[0] == '#':
			continue
		case len(line) > maxWarmLine:
			return nil, fmt.Errorf("a line of more than %d bytes", maxWarmLine)
		case len(out) == maxWarmURLs:
			return nil, fmt.Errorf("more than %d URLs", maxWarmURLs)
		}
		out = append(out, string(line))
	}
	return out, nil
}

// parseSitemap reads the loc elements of a sitemap (sitemaps.org protocol 0.9).
func parseSitemap(text []byte) ([]string, error) {
	d := xml.NewDecoder(bytes.NewReader(text))
	var out []string
	var path []string
	for {
		tok, err := d.Token()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("the sitemap cannot be read: %w", err)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if path = append(path, tok.Name.Local); len(path) == 1 && tok.Name.Local == "sitemapindex" {
				return nil, errors.New("it is an index of sitemaps: give the sitemaps that it names, one after the other")
			}
			if len(path) > 16 {
				return nil, errors.New("it is no sitemap")
			}
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.CharData:
			if len(path) == 3 && path[0] == "urlset" && path[1] == "url" && path[2] == "loc" {
				if u := strings.TrimSpace(string(tok)); u != "" && len(u) <= maxWarmLine {
					out = append(out, u)
				}
			}
			if len(out) > maxWarmURLs {
				return nil, fmt.Errorf("more than %d URLs", maxWarmURLs)
			}
		}
	}
}
