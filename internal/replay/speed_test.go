package replay

import (
	"testing"
	"time"
)

// BenchmarkRequests replays requests of a shop through two revisions: with firewall and without.
func BenchmarkRequests(b *testing.B) {
	for _, c := range []struct{ name, policies string }{{"plain", ", cache: pages"}, {"waf", ", cache: pages, waf: strict"}} {
		b.Run(c.name, func(b *testing.B) {
			docs := compiled(b, documents(c.policies))
			list := evening()
			for len(list) < b.N {
				list = append(list, evening()...)
			}
			list = list[:b.N]
			for i, q := range list {
				q.ID, q.Time = idOf(i), began.Add(time.Duration(i)*20*time.Millisecond)
			}
			b.ResetTimer()
			s, err := Run(b.Context(), &Question{Before: docs, After: docs, Requests: list, Seed: 1})
			if err != nil || s.Different != 0 || s.Requests != b.N {
				b.Fatal(s, err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
		})
	}
}
