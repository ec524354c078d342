package purge

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/bus"
)

// chaos is a run of purges in which messages are lost, connections break, and PoPs and control planes are restarted.
type chaos struct {
	*world
	t      *testing.T
	dice   *rand.Rand
	planes []*plane
	pops   []*site
	cut    map[*site]bool
	given  int
}

func (c *chaos) lose(p *plane) {
	left, part := c.dice.IntN(20), c.dice.IntN(3)
	seed := c.dice.Uint64()
	loss := rand.New(rand.NewPCG(seed, seed))
	p.lossy.set(func(subject string, _ []byte) bool {
		left--
		return subject == bus.AllPurge && left >= 0 && loss.IntN(3) <= part
	})
}

func (c *chaos) step() {
	i, k := c.dice.IntN(len(c.pops)), c.dice.IntN(len(c.planes))
	p := c.pops[i]
	switch n := c.dice.IntN(12); {
	case n < 7:
		var names []string
		for range 1 + c.dice.IntN(4) {
			c.given++
			names = append(names, fmt.Sprint("t", c.given))
		}
		r, err := c.planes[k].Purge(c.t.Context(), tags(names...))
		if err != nil || int(r.Last) != c.given {
			c.t.Fatalf("%v %+v, want %d", err, r, c.given)
		}
	case n < 9:
		c.lose(c.planes[k])
	case n == 9 && c.cut[p]:
		p.end.Mend()
		c.cut[p] = false
	case n == 9:
		p.end.Cut()
		c.cut[p] = true
	case n == 10:
		p.stop()
		c.run(p)
		c.cut[p] = false
	default:
		c.planes[k].stop()
		c.planes[k] = c.plane(fmt.Sprint("plane", k))
	}
	time.Sleep(time.Duration(c.dice.IntN(40)) * time.Millisecond) // an input like the others; nothing is waited for
}

// TestWhateverBreaksEveryPurgeIsObeyed: in the end every PoP has made each purge hold after it was given, in the order of the numbers.
func TestWhateverBreaksEveryPurgeIsObeyed(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w := newWorld(t)
	c := &chaos{world: w, t: t, dice: rand.New(rand.NewPCG(seed, 1)), cut: map[*site]bool{}}
	c.planes = []*plane{w.plane("plane0"), w.plane("plane1")}
	c.planes[0].sites(t, [2]string{"acme", "shop"})
	c.pops = w.pops(c.planes[0], 4)
	for range 60 {
		c.step()
	}
	for _, p := range c.pops {
		p.end.Mend()
	}
	c.given++
	c.planes[0].lossy.set(nil)
	c.planes[0].obeyed(t, c.planes[0].must(t, tags(fmt.Sprint("t", c.given))))
	var want []string
	for i := range c.given {
		want = append(want, fmt.Sprint("t", i+1))
	}
	for _, p := range c.pops {
		if got := slices.Compact(p.since()); !slices.Equal(got, want) && !inOrder(got, want) {
			t.Errorf("%s: %d, want %d: %q", p.name, len(got), len(want), got)
		}
	}
}

// inOrder says whether got is want, where some of it came once more because a PoP ended before it noted that it had them.
func inOrder(got, want []string) bool {
	next := 0
	for _, g := range got {
		i := slices.Index(want, g)
		if i < 0 || i > next {
			return false
		}
		if i == next {
			next++
		}
	}
	return next == len(want)
}
