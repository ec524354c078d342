package cache

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/edge/cache/purge"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/stage"
)

// hearing writes down what a Witness is told.
type hearing struct {
	mu     sync.Mutex
	purged []uint64
	left   []string // "number born at"
}

func (h *hearing) Purged(list []purge.Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range list {
		h.purged = append(h.purged, list[i].Number)
	}
}

func (h *hearing) Left(site string, number, born uint64, at time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.left = append(h.left, fmt.Sprint(site, " ", number, " ", born, " ", at.Format("05")))
}

func (h *hearing) told() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.left)
}

var fed = v1.CachePolicySpec{Feed: &v1.CacheFeed{Tags: []string{"{sku}"}}, StaleWhileRevalidate: v1.Duration(time.Hour)}

func TestTheWitnessHearsOfEveryOldAnswerThatLeavesAfterItsPurge(t *testing.T) {
	priced := ok("Cache-Control: max-age=600", "Cache-Tag: a, b", `Cache-Groups: "prices"`)
	for _, c := range []struct {
		name  string
		entry purge.Entry
		want  int // answers that leave after it: under way from the store, and found after a soft purge
	}{
		{"tag", purge.Entry{Kind: purge.Tag, Value: "a"}, 1},
		{"group", purge.Entry{Kind: purge.Group, Value: "prices"}, 1},
		{"another tag", purge.Entry{Kind: purge.Tag, Value: "z"}, 0},
		{"path", purge.Entry{Kind: purge.Path, Value: "/a"}, 1},
		{"another path", purge.Entry{Kind: purge.Path, Value: "/b"}, 0},
		{"site", purge.Entry{Kind: purge.Site}, 1},
		{"soft", purge.Entry{Kind: purge.Tag, Value: "b", Soft: true}, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &hearing{}
			r := newRigWith(t, Config{Witness: h}, fed, priced)
			r.do("GET /a")
			r.do("GET /a")
			if len(h.left) > 0 {
				t.Fatalf("without a purge: %v", h.left)
			}
			x := r.exchange("GET /a")
			resp, err := r.chain.Serve(t.Context(), x) // found, and not yet left
			if err != nil {
				t.Fatal(err)
			}
			c.entry.Site = "acme/shop"
			if _, err := r.s.Purge(t.Context(), nil, c.entry); err != nil {
				t.Fatal(err)
			}
			r.pass(7 * time.Second)
			read(t.Context(), x, resp, nil)
			r.do("GET /a") // after a soft purge stale, and validated meanwhile; else anew
			r.do("GET /a")
			if len(h.purged) != 1 || len(h.left) != c.want {
				t.Errorf("purges %v, left %v, want %d", h.purged, h.left, c.want)
			}
			for _, l := range h.left {
				if want := fmt.Sprint("acme/shop ", h.purged[0], " 0 07"); l != want {
					t.Errorf("%s, want %s", l, want)
				}
			}
		})
	}
}

func TestTheWitnessHearsOfThoseWhoWaitedForTheSameFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hearing{}
		slow := make(chan struct{})
		rep := ok("Cache-Control: max-age=600", "Cache-Tag: a")
		rep.slow = slow
		r := newRigWith(t, Config{Witness: h, Clock: time.Now}, fed, rep)
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() { r.do("GET /a") })
		}
		synctest.Wait()
		if _, err := r.s.Purge(t.Context(), nil, purge.Entry{Kind: purge.Tag, Site: "acme/shop", Value: "a"}); err != nil {
			t.Fatal(err)
		}
		close(slow)
		wg.Wait()
		if n := len(h.told()); n != 3 {
			t.Errorf("%d of 3 answers: %v", n, h.left)
		}
	})
}

func TestAWatchedHitAllocatesNothing(t *testing.T) {
	r := newRigWith(t, Config{Witness: &hearing{}}, fed, ok("Cache-Control: max-age=600", "Cache-Tag: a"))
	r.do("GET /a")
	x := r.exchange("GET /a")
	in, site, route := x.In, x.Site, x.Route
	if n := testing.AllocsPerRun(100, func() {
		x.Reset()
		x.In, x.Site, x.Route, x.Start = in, site, route, r.now
		x.SetHost([]byte("shop.example"))
		if resp, err := r.chain.Serve(t.Context(), x); err != nil || resp.Status != 200 || x.CacheStatus != "hit" {
			t.Fatal(err, x.CacheStatus)
		}
		x.End(message.Outcome{})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestAVisitorDoesNotShareARefusalOfBackgroundWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, e := range []*stage.Error{
			{Code: "no_capacity", Side: stage.SideEdge, Status: 503, Err: stage.ErrFull},
			{Code: "connection_timeout", Side: stage.SideOrigin, Status: 504}, // it had no second try
		} {
			r := newRigWith(t, Config{Clock: time.Now}, v1.CachePolicySpec{}, reply{wait: after(time.Second), err: e}, ok("Cache-Control: max-age=60"))
			var wg sync.WaitGroup
			x := r.exchange("GET /a")
			x.Visitor.Background = true
			wg.Go(func() {
				if g := r.send(context.Background(), x); g.err == nil {
					t.Error("background work has an answer")
				}
			})
			synctest.Wait()
			for range 5 {
				wg.Go(func() {
					if g := r.do("GET /a"); g.err != nil || g.status != 200 {
						t.Errorf("a visitor: %v", g.err)
					}
				})
			}
			wg.Wait()
			if len(r.origin.asked) != 2 {
				t.Errorf("the origin was asked %d times", len(r.origin.asked))
			}
		}
	})
}

func TestEndedFindsWhatAPurgeEndedUntilItIsFetchedAgain(t *testing.T) {
	r := newRig(t, v1.CachePolicySpec{}, ok("Cache-Control: max-age=600", "Cache-Tag: a", "Vary: Accept-Language"))
	r.do("GET /a", "Accept-Language: de")
	r.do("GET /a", "Accept-Language: en")
	look := func(number uint64) string { return fmt.Sprint(r.s.Ended(r.exchange("GET /a"), number)) }
	if got := look(1); got != "[]" {
		t.Errorf("before a purge: %s", got)
	}
	for _, soft := range []bool{false, true} {
		rec, err := r.s.Purge(t.Context(), nil, purge.Entry{Kind: purge.Tag, Site: "acme/shop", Value: "a", Soft: soft})
		if err != nil {
			t.Fatal(err)
		}
		if got := look(rec.Number); got != "[[accept-language: en] [accept-language: de]]" && got != "[[accept-language: de] [accept-language: en]]" {
			t.Errorf("soft %v: %s", soft, got)
		}
		if got := look(rec.Number + 1); got != "[]" {
			t.Errorf("soft %v, from a later one on: %s", soft, got)
		}
		r.do("GET /a", "Accept-Language: de")
		if got := look(rec.Number); got != "[[accept-language: en]]" {
			t.Errorf("soft %v, one fetched again: %s", soft, got)
		}
		r.do("GET /a", "Accept-Language: en")
		if got := look(rec.Number); got != "[]" {
			t.Errorf("soft %v, all fetched again: %s", soft, got)
		}
	}
}
