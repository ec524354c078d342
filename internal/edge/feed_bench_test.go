package edge

import (
	"fmt"
	"log/slog"
	"testing"

	"github.com/relais-edge/relais/internal/document"
	"github.com/relais-edge/relais/internal/edge/cache/feed"
	"github.com/relais-edge/relais/internal/observe"
)

// BenchmarkFeed takes batches of 1,000 events, each of which purges a tag of its own, with the purge log on
// disk: an operation is a batch, and events/s what counts.
func BenchmarkFeed(b *testing.B) {
	e, err := New(Config{Data: b.TempDir(), CacheBytes: 16 << 20, Explain: 64, Logger: slog.New(slog.DiscardHandler), Metrics: observe.New()})
	if err != nil {
		b.Fatal(err)
	}
	defer e.purges.Close()
	set, _ := document.Read([]document.File{{Name: "edge.yaml", Text: []byte(cached(`{feed: {tags: ["sku-{sku}"]}}`))}}, func(string) (string, bool) { return "127.0.0.1:1", true })
	bundle, problems := set.Compile()
	if len(problems) > 0 {
		b.Fatal(problems)
	}
	if err := e.Apply(b.Context(), bundle); err != nil {
		b.Fatal(err)
	}
	batches := make([][][]byte, 64) // 64,000 products
	for i := range batches {
		for k := range feed.MaxLines {
			batches[i] = append(batches[i], fmt.Appendf(nil, `{"sku":"%d","price":"9.90"}`, i*feed.MaxLines+k))
		}
	}
	for i := 0; b.Loop(); i++ {
		if a, err := e.feed.Take(b.Context(), "default/shop", siteKey, batches[i%len(batches)]); err != nil || a.Purged != feed.MaxLines {
			b.Fatal(a, err)
		}
	}
	b.ReportMetric(float64(b.N)*feed.MaxLines/b.Elapsed().Seconds(), "events/s")
}
