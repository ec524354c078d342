package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge"
	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/edge/cache"
	"github.com/relais-edge/relais/internal/edge/cache/selftest"
)

type selftestFlags struct {
	output, data, site, connect string
	headers                     []string
	every                       time.Duration
	urls                        int
}

func cacheSelftestCommand() *cobra.Command {
	var f selftestFlags
	cmd := &cobra.Command{
		Use:   "selftest --site SITE [URL]...",
		Short: "Try cache deception and poisoning against one's own site",
		Long: "Selftest asks for URLs of a site, given or among those that are asked for most, as an attacker would: with\n" +
			"fields that origins build answers from and no key holds, under paths that look like files, and with\n" +
			"cookies and credentials; then once more without. It tells what came out where it must not. Each try has\n" +
			"a parameter or path of its own, so that no visitor gets what it stored; a URL whose key leaves unknown\n" +
			"parameters out is tried by paths only. With -H it comes as a visitor who is logged in, which finds more.\n\n" +
			"It ends with 0 when nothing was found, 3 when something was, 1 when it could not ask. With --every it\n" +
			"goes on until it is stopped, and then ends so.",
		Example: "  relais cache selftest --site shop --connect 127.0.0.1:443 https://shop.example/ https://shop.example/account\n" +
			"  relais cache selftest --site shop -H 'Cookie: session=…' --every 10m -o json",
		RunE: func(cmd *cobra.Command, args []string) error { return runSelftest(cmd, &f, args) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.site, "site", "", "site that the URLs are of")
	fl.StringVar(&f.connect, "connect", "", "host:port of the edge; without it, as the URLs' hosts resolve")
	fl.StringArrayVarP(&f.headers, "header", "H", nil, "field of a visitor who is logged in, as 'Name: value'; may be repeated")
	fl.DurationVar(&f.every, "every", 0, "test again after this time, until stopped")
	fl.IntVar(&f.urls, "urls", 20, "without URLs: how many of those that are asked for most")
	outputFlag(cmd, &f.output)
	dataFlag(cmd, &f.data)
	_ = cmd.MarkFlagRequired("site")
	return cmd
}

func runSelftest(cmd *cobra.Command, f *selftestFlags, urls []string) error {
	usage := func(err error) error { return &exitError{code: exitUsage, err: err} }
	victim := http.Header{}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return usage(fmt.Errorf("-H %s: write Name: value", h))
		}
		victim.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	if f.every != 0 && f.every < time.Second || f.urls < 1 || f.urls > selftest.MaxURLs {
		return usage(fmt.Errorf("--every is a second or more, --urls 1 to %d", selftest.MaxURLs))
	}
	c := admin.NewClient(filepath.Join(f.data, adminSocket))
	client := edgeClient(f.connect)
	defer client.CloseIdleConnections()
	cfg := selftest.Config{Do: client.Do, Key: keyFrom(c, f.site), Victim: victim}
	found := false
	for {
		list, err := urls, error(nil)
		if len(list) == 0 {
			list, err = askedMost(cmd.Context(), c, f)
		}
		var r *selftest.Report
		if err == nil {
			r, err = selftest.Run(cmd.Context(), cfg, list)
		}
		if cmd.Context().Err() != nil {
			break
		}
		if err != nil && f.every == 0 {
			return failed(err)
		}
		if err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "relais:", err)
		} else {
			found = found || len(r.Findings) > 0
			if err := show(cmd.OutOrStdout(), f.output, r, func(w io.Writer) { showReport(w, r) }); err != nil {
				return err
			}
		}
		if f.every == 0 || !wait(cmd.Context(), f.every) {
			break
		}
	}
	if found {
		return &exitError{code: exitFound, err: errors.New("the cache gives to others what it must not"), said: true}
	}
	return nil
}

// wait is false when ctx ended before.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// edgeClient asks the edge at an address, whatever the URL's host is. The edge is ours, so that its
// certificate is not looked at.
func edgeClient(address string) *http.Client {
	var d net.Dialer
	return &http.Client{
		Timeout:       30 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, DisableCompression: true,
			DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
				if address != "" {
					to = address
				}
				return d.DialContext(ctx, network, to)
			},
		},
	}
}

// keyFrom asks the edge for the key of a URL, and holds it to its site.
func keyFrom(c *admin.Client, site string) func(context.Context, string) (string, error) {
	return func(ctx context.Context, target string) (string, error) {
		var a cache.Why
		if err := c.Post(ctx, "/cache/why", &edge.CacheQuestion{URL: target}, &a); err != nil {
			return "", err
		}
		if a.Site != site && a.Site != "default/"+site {
			return "", fmt.Errorf("it is of site %s, not of %s", a.Site, site)
		}
		if a.Key == "" { // nothing of it is stored: what we ask for is nobody else's
			return target, nil
		}
		return a.Key, nil
	}
}

// askedMost finds URLs among the keys that are asked for most.
func askedMost(ctx context.Context, c *admin.Client, f *selftestFlags) ([]string, error) {
	var list []cache.TopKey
	v := url.Values{"site": {f.site}, "n": {strconv.Itoa(f.urls)}}
	if err := c.Get(ctx, "/cache/top?"+v.Encode(), &list); err != nil {
		return nil, err
	}
	var out []string
	for _, k := range list {
		target, _, _ := strings.Cut(k.URL, " ") // a rule may follow
		if u, err := url.Parse(target); err == nil && u.Host != "" && !strings.Contains(target, selftest.Parameter) {
			out = append(out, target)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("nothing was asked for yet; give URLs")
	}
	return out, nil
}

func showReport(w io.Writer, r *selftest.Report) {
	p := paintFor(w)
	fmt.Fprintf(w, "%s  %d URLs, %d requests, %d second answers came from the store\n", r.Began.Format("2006-01-02 15:04:05"), r.URLs, r.Requests, r.Stored)
	for _, s := range r.Skipped {
		fmt.Fprintf(w, "  not tested: %s\n", s)
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "%s with %s: %s\n  %s\n", p.red(f.Kind), f.With, f.Says, f.URL)
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(w, p.green("nothing came out where it must not"))
	}
}
