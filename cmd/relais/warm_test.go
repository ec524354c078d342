package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/edge/cache/feed"
)

func TestWarmReadsListsAndSitemaps(t *testing.T) {
	for _, c := range []struct{ text, want, fail string }{
		{"https://h/a\n\n# no\r\n  https://h/b  \r\n", "[https://h/a https://h/b]", ""},
		{"\ufeffhttps://h/a", "[https://h/a]", ""},
		{`<?xml version="1.0"?><urlset><url><loc>https://h/a?x=1&amp;y=2</loc><image:image xmlns:image="i"><image:loc>https://h/i.jpg</image:loc></image:image></url><url><loc>
  https://h/b </loc><lastmod>2026</lastmod></url></urlset>`, "[https://h/a?x=1&y=2 https://h/b]", ""},
		{`<sitemapindex><sitemap><loc>https://h/1.xml</loc></sitemap></sitemapindex>`, "", "index of sitemaps"},
		{`<urlset><url>`, "", "cannot be read"},
		{strings.Repeat("<a>", 100), "", "no sitemap"},
		{strings.Repeat("x", maxWarmLine+1), "", "a line of more than"},
	} {
		got, err := parseURLs([]byte(strings.TrimPrefix(c.text, "\ufeff")))
		if c.fail != "" {
			if err == nil || !strings.Contains(err.Error(), c.fail) {
				t.Errorf("%.40q: %v, want %s", c.text, err, c.fail)
			}
			continue
		}
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%.40q: %v %v", c.text, got, err)
		}
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		_, _ = io.WriteString(w, c.text)
		_ = w.Close()
		name := filepath.Join(t.TempDir(), "list.gz")
		if err := os.WriteFile(name, z.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readURLs(nil, name); err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("gzipped %.40q: %v %v", c.text, got, err)
		}
	}
}

func TestEventsAreSentInBatchesAndWhatWasTakenIsTold(t *testing.T) {
	var text strings.Builder
	for i := range 2500 {
		fmt.Fprintf(&text, "{\"sku\":\"%d\"}\n", i)
	}
	n := 0
	sum, err := sendEvents(t.Context(), strings.NewReader(text.String()), func(_ context.Context, b []byte) (*feed.Ack, error) {
		lines := bytes.Count(b, []byte{'\n'})
		if lines > feed.MaxLines {
			t.Errorf("%d lines at once", lines)
		}
		if n += lines; n > 2000 {
			return nil, errors.New("gone")
		}
		return &feed.Ack{Lines: lines, Purged: lines - 1, Refused: 1, Reasons: []feed.Refusal{{Line: 1, Why: "x"}}}, nil
	}, io.Discard)
	if err == nil || sum.Taken == 0 || sum.Taken > 2000 || sum.Lines != sum.Taken || sum.Purged+sum.Refused != sum.Taken {
		t.Errorf("%v %+v", err, sum)
	}
	if r := sum.Reasons; len(r) > 1 && r[1].Line <= 1 {
		t.Errorf("the line is that of the batch: %+v", r)
	}
	// A line that comes alone is not held back.
	in, w := io.Pipe()
	got := make(chan string)
	go func() {
		_, _ = sendEvents(t.Context(), in, func(_ context.Context, b []byte) (*feed.Ack, error) {
			got <- string(b)
			return &feed.Ack{}, nil
		}, io.Discard)
		close(got)
	}()
	_, _ = io.WriteString(w, "{\"sku\":\"1\"}\n")
	if b := <-got; b != "{\"sku\":\"1\"}\n" {
		t.Error(b)
	}
	_ = w.Close()
	if _, more := <-got; more {
		t.Error("something was sent that did not come")
	}
}
