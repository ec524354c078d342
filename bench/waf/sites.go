package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/snapshot"

	crs "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
)

// Goals of sites with overlays of their own.
const (
	goalSiteKiB  = 64
	goalSiteTime = 10 // milliseconds
)

// overlay is a policy that no other site has: twenty exclusions of each form.
func overlay(site, version int) v1.WafPolicySpec {
	p := v1.WafPolicySpec{Paranoia: 1 + site%2, InboundThreshold: 5 + (site+version)%20}
	for k := range 20 {
		x := v1.WafExclusion{Path: fmt.Sprintf("/shop%d/p%d-%d", site, k, version), Methods: []string{"POST"}}
		switch k % 4 {
		case 0:
			x.Rules = []string{fmt.Sprintf("9421%02d", k), "932000-932999"}
		case 1:
			x.Tags, x.Target = []string{"attack-sqli", "attack-xss"}, fmt.Sprintf("ARGS:field%d", k)
		case 2:
			x.Target = fmt.Sprintf("REQUEST_COOKIES:pref%d", site)
		case 3:
			x.Tags, x.Target = []string{"attack-rce"}, fmt.Sprintf(`ARGS:/^json\.items\.\d+\.f%d$/`, k)
		}
		p.Exclusions = append(p.Exclusions, x)
	}
	return p
}

// heap is the memory in use after everything that can go has gone.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// sites measures what many sites with overlays of their own take, and how long a change of one does.
func (s *settings) sites(ctx context.Context, r *report, out io.Writer) error {
	st := newStage(0)
	for level := 1; level <= 2; level++ { // the screens are shared and not on a site's bill
		if _, err := st.level(level); err != nil {
			return err
		}
	}
	list := make([]*snapshot.Site, s.many)
	before, from := heap(), time.Now()
	for i := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if list[i], err = st.compile(fmt.Sprintf("bench/site%05d", i), overlay(i, 0), nil); err != nil {
			return err
		}
	}
	took, kib := time.Since(from), float64(heap()-before)/1024/float64(len(list))
	var changes []float64
	for i := range 500 {
		n := i * 7919 % len(list)
		start := time.Now()
		site, err := st.compile(string(list[n].Key), overlay(n, i+1), list[n])
		if err != nil {
			return err
		}
		changes = append(changes, float64(time.Since(start).Microseconds())/1e3)
		list[n] = site
	}
	runtime.KeepAlive(list)
	peerKiB, peerTime, err := enginePerSite()
	if err != nil {
		return err
	}
	r.table(fmt.Sprintf("%d sites with distinct overlays", len(list)), "Twenty exclusions each (rules, tags, targets, expressions; path and method). A site's bill has its documents, its compiled policy and its series of metrics. Time is wall time of a change of one site while the others are there.",
		"", "KiB a site", "change of one, median ms", "slowest ms", "all of them")
	r.row("the stage", fmt.Sprintf("%.1f", kib), fmt.Sprintf("%.2f", median(changes)), fmt.Sprintf("%.2f", slices.Max(changes)), took.Round(time.Millisecond).String())
	r.row("Coraza, an engine a site with one rule of its own", fmt.Sprintf("%.0f", peerKiB), fmt.Sprintf("%.0f", peerTime), "", "")
	fmt.Fprintf(out, "sites: %.1f KiB each, changed in %.2f ms, the slowest of %d in %.2f ms\n", kib, median(changes), len(changes), slices.Max(changes))
	r.most("site KiB", kib, goalSiteKiB, "%.1f", fmt.Sprintf("Coraza, an engine a site: %.0f KiB", peerKiB))
	r.most("site change ms", median(changes), goalSiteTime, "%.2f", fmt.Sprintf("Coraza, an engine a site: %.0f ms", peerTime))
	return nil
}

// enginePerSite is what another engine costs in a process that has one: KiB and milliseconds.
func enginePerSite() (kib, ms float64, err error) {
	build := func(i int) (coraza.WAF, error) {
		return coraza.NewWAF(coraza.NewWAFConfig().WithRootFS(crs.FS).WithDirectives(fmt.Sprintf(`Include @coraza.conf-recommended
SecAuditEngine Off
Include @crs-setup.conf.example
Include @owasp_crs/*.conf
SecRule ARGS:own "@streq %d" "id:%d,phase:2,deny"
`, i, 1_000_000+i)))
	}
	keep := make([]coraza.WAF, 6)
	if keep[0], err = build(0); err != nil {
		return 0, 0, err
	}
	before, from := heap(), time.Now()
	for i := range keep[1:] {
		if keep[i+1], err = build(i + 1); err != nil {
			return 0, 0, err
		}
	}
	took := time.Since(from)
	kib = float64(heap()-before) / 1024 / float64(len(keep)-1)
	runtime.KeepAlive(keep)
	return kib, float64(took.Microseconds()) / 1e3 / float64(len(keep)-1), nil
}
