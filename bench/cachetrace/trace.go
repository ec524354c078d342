package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// request is one of a trace.
type request struct {
	id   uint32
	size uint32
}

// shape says how a trace is made. Sizes are lognormal (median 16 KB, 512 B to 4 MB) and do not
// depend on popularity.
type shape struct {
	name     string
	requests int
	catalog  int
	zipf     float64 // exponent of the catalogue's popularity
	oneHit   float64 // share of requests for what is never asked for again
	scans    float64 // chance of a request to begin a crawler's scan of a twentieth of the catalogue
	shift    int     // after so many requests, a thousandth of the catalogue changes places with the most popular; 0 is never
	pages    bool    // sizes grow with rank: what is popular is small
}

// trace is a sequence of requests, the same for the same shape.
type trace struct {
	requests  []request
	unique    int
	footprint int64 // bytes of all objects
}

// sizeOf is the size of an object, in bytes.
func sizeOf(id uint32) uint32 {
	r := rand.New(rand.NewPCG(uint64(id), 99))
	return uint32(math.Min(4<<20, math.Max(512, 16384*math.Exp(1.3*r.NormFloat64()))))
}

// zipf draws ranks with a chance proportional to 1/rank^exponent.
type zipf struct{ cumulated []float64 }

func newZipf(n int, exponent float64) zipf {
	z := zipf{make([]float64, n)}
	sum := 0.0
	for i := range z.cumulated {
		sum += 1 / math.Pow(float64(i+1), exponent)
		z.cumulated[i] = sum
	}
	return z
}

func (z zipf) draw(rng *rand.Rand) int {
	x := rng.Float64() * z.cumulated[len(z.cumulated)-1]
	i, _ := slices.BinarySearch(z.cumulated, x)
	return min(i, len(z.cumulated)-1)
}

// generate makes the trace of a shape.
func generate(s shape) trace {
	rng := rand.New(rand.NewPCG(1, 2))
	popularity := newZipf(s.catalog, s.zipf)
	crawl := rng.Perm(s.catalog)
	products := make([]uint32, s.catalog) // by rank
	for i := range products {
		products[i] = uint32(i)
	}
	t := trace{requests: make([]request, 0, s.requests)}
	sizes := map[uint32]uint32{}
	next := uint32(s.catalog)
	scanned, left := 0, 0
	for len(t.requests) < s.requests {
		var id uint32
		switch u := rng.Float64(); {
		case left > 0 && u < 0.5:
			id = uint32(crawl[scanned%s.catalog])
			scanned++
			left--
		case u > 1-s.oneHit:
			id = next
			next++
		default:
			id = products[popularity.draw(rng)]
		}
		if left == 0 && rng.Float64() < s.scans {
			left = s.catalog / 20
		}
		size, ok := sizes[id]
		if !ok {
			size = sizeOf(id)
			if s.pages {
				size = max(512, uint32(float64(size)*math.Pow(float64(id%uint32(s.catalog)+1)/float64(s.catalog), 0.25)))
			}
			sizes[id] = size
			t.footprint += int64(size)
		}
		t.requests = append(t.requests, request{id, size})
		if s.shift > 0 && len(t.requests)%s.shift == 0 {
			drift(products, rng)
		}
	}
	t.unique = len(sizes)
	return t
}

// drift gives ranks among the most popular tenth to others of the catalogue, in exchange.
func drift(products []uint32, rng *rand.Rand) {
	for range len(products) / 1000 {
		i, j := rng.IntN(len(products)/10), rng.IntN(len(products))
		products[i], products[j] = products[j], products[i]
	}
}
