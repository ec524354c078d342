package balance

import (
	"math/rand/v2"
	"testing"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/snapshot"
	"github.com/relais-edge/relais/internal/stage"
)

func TestRequestsThatAreAlikeAreOfOneKind(t *testing.T) {
	for path, want := range map[string]string{
		"/": "/", "/a": "/a", "/product/17": "/product", "/product/18?": "/product", "/img/shoe.webp": ".webp", "/x.css/page": "/x.css",
		"/v1.0/list-of-all": "/v1.0", "": "", "/a/b.c/": "/a", "/assets/app.js": ".js", "/a.longest": "/a.longest",
	} {
		if got := string(telling([]byte(path))); got != want {
			t.Errorf("%q: %q tells, want %q", path, got, want)
		}
	}
	kind := func(route int, method message.Method, path string) uint8 {
		var x stage.Exchange
		x.Route, x.Out.Method = &snapshot.Route{Index: route}, method
		x.SetPath([]byte(path))
		k := kindOf(&x)
		if n := testing.AllocsPerRun(20, func() { kindOf(&x) }); n > 0 || k >= kindCount {
			t.Errorf("%s: kind %d, %v allocations", path, k, n)
		}
		return k
	}
	page := kind(0, message.GET, "/product/1")
	if kind(0, message.GET, "/product/2") != page || kind(0, message.HEAD, "/product/3") != page {
		t.Error("two products are of two kinds")
	}
	if kind(0, message.GET, "/img/1.png") == page || kind(0, message.POST, "/product/1") == page || kind(1, message.GET, "/product/1") == page {
		t.Error("an image, an order and another route are of the kind of a page")
	}
}

// answers gives kinds a look of the answers n of each kind, with times in ms.
func (k *kinds) answers(calm bool, wait float64, n int, times ...float64) float64 {
	for i, ms := range times {
		for range n {
			if ms > 0 {
				k.of[i].answered(int64(ms * 1e6))
			}
		}
	}
	return k.look(calm, wait)
}

func TestTimesOfKindsAreMadeComparable(t *testing.T) {
	var k kinds
	k.answers(true, 0, 4, 300, 1)
	if k.of[0].usual.Load() != 0 {
		t.Error("four answers say what a kind takes")
	}
	for range 50 {
		k.answers(true, 0, 4, 300, 1)
	}
	shifted := func(i int, took float64) float64 { return took + float64(k.of[i].shift.Load())/1e6 }
	if a, b := shifted(0, 300), shifted(1, 1); a != b || a != 300 {
		t.Errorf("a page counts %v ms, a file %v", a, b)
	}
	for range 50 { // everybody waits: that is no news of the kinds
		k.answers(false, 50e6, 4, 350, 51, 0)
	}
	if a, b := shifted(0, 350), shifted(1, 51); a != b || a != 350 {
		t.Errorf("with a queue a page counts %v ms, a file %v", a, b)
	}
	for range 5 { // a kind that comes while there is a queue
		k.answers(false, 50e6, 4, 350, 51, 150)
	}
	if c := shifted(2, 150); c != 350 {
		t.Errorf("a new kind counts %v ms, want 350", c)
	}
	moved := 0.0
	for range 1000 { // pages stop coming, so that times count as shorter: the limiter is told by how much
		moved += k.answers(true, 0, 4, 0, 1, 100)
	}
	if a := shifted(2, 100); a != 100 || moved != -200e6 {
		t.Errorf("what takes 100 ms counts %v ms, times moved by %v", a, moved)
	}
}

func TestInPlaceOfASlowOriginTheLeastBusyOneIsTaken(t *testing.T) {
	for _, a := range []v1.Algorithm{v1.LeastRequest, v1.RoundRobin, v1.Random, v1.PeakEWMA} {
		for _, class := range []stage.Class{stage.Anonymous, stage.Protected} {
			b := newBed(t, poolSpec(a, tierSpec("home", 6, 0, 0)))
			slow := b.byAddr["home-3:80"]
			slow.slow.Store(true)
			slow.most.Store(1)
			rng := rand.New(rand.NewPCG(3, 4))
			var held []Slot
			for range 5000 {
				b.pass(time.Millisecond)
				held = append(held, b.must(t, Visitor{Class: class}))
				if len(held) > 54 {
					j := rng.IntN(len(held))
					held[j].Release(Succeeded)
					held[j], held = held[len(held)-1], held[:len(held)-1]
				}
				least, most := int64(1<<62), int64(0)
				for addr, o := range b.byAddr {
					if n := o.inFlight.Load(); addr != "home-3:80" {
						least, most = min(least, n), max(most, n)
					} else if n > 1 || n > 0 && class == stage.Protected {
						t.Fatalf("%s: %d at the slow origin", a, n)
					}
				}
				if a == v1.LeastRequest && most-least > 2 {
					t.Fatalf("%s: from %d to %d in flight", a, least, most)
				}
			}
			for _, s := range held {
				s.Release(Succeeded)
			}
		}
	}
}
