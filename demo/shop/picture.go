package shop

import (
	"hash/fnv"
	"image"
	"math"
	"math/rand/v2"
)

// palette is the colours of one product's picture.
type palette struct{ main, second, dark, light hsl }

// picture draws a product: the same SKU always gives the same picture.
func picture(p *Product, hue float64, size int) *image.RGBA {
	seed := fnv.New64a()
	_, _ = seed.Write([]byte(p.SKU))
	rng := rand.New(rand.NewPCG(catalogueSeed, seed.Sum64()))
	base := hue + rng.Float64()*60 - 30
	c := palette{
		main:   hsl{base, .38 + rng.Float64()*.2, .46 + rng.Float64()*.14},
		second: hsl{base + 150 + rng.Float64()*60, .30, .42},
		dark:   hsl{base, .22, .24},
		light:  hsl{base, .45, .90},
	}
	wall := base + 180 + rng.Float64()*80 - 40
	paint := &painter{sky: hsl{wall, .32, .92}, floor: hsl{wall, .28, .82}}
	paint.add(faint(disc(.15-rng.Float64()*.3, -.12, .78, .78), .5, .02), hsl{wall, .40, .95})
	paint.add(faint(disc(0, .74, .62, .09), .28, .12), hsl{base, .2, .2})
	drawers(paint, rng, c)[p.Category]()
	return paint.paint(size)
}

// drawers is one drawing per category. rng varies the proportions.
func drawers(p *painter, rng *rand.Rand, c palette) map[string]func() {
	vary := func(by float64) float64 { return (rng.Float64()*2 - 1) * by }
	return map[string]func(){
		"lamps":      func() { lamp(p, c, vary) },
		"mugs":       func() { mug(p, c, vary) },
		"chairs":     func() { chair(p, c, vary) },
		"plants":     func() { plant(p, c, vary) },
		"bags":       func() { bag(p, c, vary) },
		"clocks":     func() { clock(p, c, vary) },
		"notebooks":  func() { notebook(p, c, vary) },
		"vases":      func() { vase(p, c, vary) },
		"candles":    func() { candle(p, c, vary) },
		"umbrellas":  func() { umbrella(p, c, vary) },
		"headphones": func() { headphones(p, c, vary) },
		"cushions":   func() { cushion(p, c, vary) },
	}
}

func lamp(p *painter, c palette, vary func(float64) float64) {
	wide, high := .44+vary(.09), -.05+vary(.06)
	p.add(faint(disc(0, .1, .8, .62), .45, .7), hsl{46, .95, .84})
	p.add(bar(0, high, 0, .68, .028), c.dark)
	p.add(taper(0, .66, .74, .2+vary(.05), .27, 0), c.dark)
	p.add(taper(0, -.62, high+.04, wide*.5, wide, vary(.06)), c.main)
	p.add(faint(taper(0, high-.02, high+.05, wide*.97, wide, 0), .8, .02), hsl{46, .9, .86})
}

func mug(p *painter, c palette, vary func(float64) float64) {
	w, top := .42+vary(.07), -.32+vary(.12)
	p.add(ring(w+.02, (top+.66)/2-.02, .22, .055, -1, 1), c.main.lighter(-.07))
	p.add(taper(0, top, .7, w, w*.86, .03+vary(.03)), c.main)
	p.add(taper(0, .2+vary(.1), .38+vary(.04), w*.99, w*.97, .025), c.light)
	p.add(disc(0, top, w, .075), c.light)
	p.add(disc(0, top+.01, w*.9, .055), hsl{24, .45, .24})
	for i := range 3 {
		x := -.18 + float64(i)*.18
		p.add(faint(bar(x, top-.16, x+.05, top-.36, .03), .9, .08), hsl{0, 0, 1})
	}
}

func chair(p *painter, c palette, vary func(float64) float64) {
	w := .38 + vary(.06)
	wood := hsl{28 + vary(8), .42, .38}
	p.add(bar(-w+.08, .15, -w+.02, .5, .03), wood.lighter(-.1))
	p.add(bar(w-.08, .15, w-.02, .5, .03), wood.lighter(-.1))
	p.add(bar(-w+.05, -.7, -w+.02, .15, .035), wood)
	p.add(bar(w-.05, -.7, w-.02, .15, .035), wood)
	slats := 2 + int(math.Abs(vary(2.9)))
	for i := range slats {
		y := -.62 + float64(i)*.55/float64(slats)
		p.add(box(0, y, w-.03, .16/float64(slats)+.03, .03), c.main)
	}
	p.add(box(0, .14, w+.05, .085, .07), c.main.lighter(.06))
	p.add(bar(-w, .2, -w-.07, .72, .036), wood)
	p.add(bar(w, .2, w+.07, .72, .036), wood)
}

func plant(p *painter, c palette, vary func(float64) float64) {
	leaf := hsl{125 + vary(25), .38, .36}
	n := 7 + int(math.Abs(vary(5)))
	for i := range n {
		angle := (float64(i)/float64(n-1)-.5)*2.3 + vary(.1)
		length := .78 - math.Abs(angle)*.16 + vary(.08)
		x, y := math.Sin(angle)*length, .22-math.Cos(angle)*length
		p.add(bar(0, .25, x*.7, .25+(y-.25)*.7, .014), leaf.lighter(-.08))
		p.add(bar(x*.5, .25+(y-.25)*.5, x, y, .05+math.Abs(vary(.045))), leaf.lighter(vary(.08)))
	}
	p.add(taper(0, .22, .72, .33+vary(.05), .22+vary(.03), .03), hsl{18 + vary(14), .45, .52})
	p.add(box(0, .24, .36, .055, .03), hsl{18, .45, .58})
}

func bag(p *painter, c palette, vary func(float64) float64) {
	w, top := .5+vary(.08), -.18+vary(.08)
	p.add(ring(0, top, .26+vary(.03), .035, -1, top), c.dark)
	p.add(taper(0, top, .72, w*.82, w, .03), c.main)
	p.add(taper(0, top, top+.3+vary(.06), w*.84, w*.9, .02), c.main.lighter(-.1))
	p.add(box(0, top+.3, .07, .09, .03), hsl{44, .6, .6})
	p.add(box(0, top+.31, .035, .045, .02), c.dark)
	for i := range 9 {
		x := -w*.8 + float64(i)*w*.2
		p.add(bar(x, .66, x+.05, .66, .008), c.light)
	}
}

func clock(p *painter, c palette, vary func(float64) float64) {
	r := .6 + vary(.06)
	p.add(disc(0, 0, r, r), c.main)
	p.add(disc(0, 0, r*.86, r*.86), c.light.lighter(.05))
	for i := range 12 {
		a := float64(i) * math.Pi / 6
		long := .05
		if i%3 == 0 {
			long = .11
		}
		x, y := math.Sin(a), -math.Cos(a)
		p.add(bar(x*(r*.8), y*(r*.8), x*(r*.8-long), y*(r*.8-long), .013), c.dark)
	}
	hour, minute := vary(math.Pi), vary(math.Pi)
	p.add(bar(0, 0, math.Sin(hour)*r*.42, -math.Cos(hour)*r*.42, .03), c.dark)
	p.add(bar(0, 0, math.Sin(minute)*r*.64, -math.Cos(minute)*r*.64, .02), c.dark)
	p.add(disc(0, 0, .05, .05), hsl{20, .7, .52})
}

func notebook(p *painter, c palette, vary func(float64) float64) {
	w := .46 + vary(.06)
	p.add(box(.05, .05, w, .64, .05), c.dark)
	p.add(box(.03, .02, w, .63, .04), hsl{44, .4, .93})
	p.add(box(0, 0, w, .64, .05), c.main)
	p.add(box(-w+.08, 0, .045, .64, .01), c.main.lighter(-.12))
	p.add(box(.08, -.24+vary(.06), .22, .12, .02), c.light)
	p.add(bar(-.04, -.26, .2, -.26, .01), c.dark)
	p.add(bar(-.04, -.2, .12, -.2, .01), c.dark)
	p.add(box(w-.12, 0, .02, .64, 0), c.second)
}

func vase(p *painter, c palette, vary func(float64) float64) {
	for i := range 3 {
		x := -.28 + float64(i)*.28 + vary(.08)
		y := -.72 + math.Abs(vary(.16))
		p.add(bar(0, -.1, x, y, .014), hsl{130, .3, .36})
		petal := hsl{c.second.h + vary(30), .5, .64}
		for k := range 6 {
			a := float64(k) * math.Pi / 3
			p.add(disc(x+math.Cos(a)*.075, y+math.Sin(a)*.075, .055, .055), petal)
		}
		p.add(disc(x, y, .05, .05), hsl{44, .8, .6})
	}
	neck := .12 + math.Abs(vary(.06))
	p.add(taper(0, -.2, .72, neck, .2+vary(.05), .2+vary(.08)), c.main)
	p.add(faint(bar(-.16, .1, -.18, .45, .03), .35, .06), hsl{0, 0, 1})
	p.add(disc(0, -.2, neck+.03, .035), c.main.lighter(-.14))
}

func candle(p *painter, c palette, vary func(float64) float64) {
	w, top := .25+vary(.07), -.1+vary(.15)
	p.add(faint(disc(0, top-.25, .7, .6), .5, .7), hsl{44, 1, .84})
	p.add(taper(0, top, .7, w, w, 0), c.light.lighter(-.06))
	p.add(taper(0, .22+vary(.05), .52, w+.004, w+.004, 0), c.main)
	p.add(disc(0, top, w, .05), c.light)
	p.add(bar(0, top, 0, top-.09, .012), hsl{0, 0, .2})
	p.add(taper(0, top-.34, top-.06, .004, .02, .075), hsl{34, 1, .6})
	p.add(taper(0, top-.24, top-.08, .004, .015, .04), hsl{50, 1, .82})
	p.add(disc(0, .72, w+.2, .05), c.dark.lighter(.2))
}

func umbrella(p *painter, c palette, vary func(float64) float64) {
	r := .72 + vary(.05)
	p.add(bar(0, -.6, 0, .58, .024), c.dark)
	p.add(ring(.1, .58, .1, .026, .58, 1), c.dark)
	p.add(above(disc(0, .02, r, r*.86), .02), c.main)
	p.add(above(disc(0, .02, r*.62, r*.86), .02), c.light.lighter(-.1))
	p.add(above(disc(0, .02, r*.24, r*.86), .02), c.main)
	for i := range 4 {
		x := -r + r/4 + float64(i)*r/2
		p.add(disc(x, .04, r/4, .05), c.dark.lighter(.25))
	}
	p.add(bar(0, -.88*r, 0, -1.02*r, .02), c.dark)
}

func headphones(p *painter, c palette, vary func(float64) float64) {
	r := .5 + vary(.05)
	p.add(ring(0, .06, r+.04, .055, -1, .1), c.dark)
	p.add(ring(0, .06, r+.03, .024, -1, -.2), c.main)
	for _, side := range []float64{-1, 1} {
		p.add(box(side*(r+.05), .24, .11, .3+vary(.03), .1), c.main)
		p.add(box(side*(r-.07), .24, .07, .25, .06), c.dark.lighter(.06))
		p.add(disc(side*(r+.06), .24, .05, .05), c.light)
	}
}

func cushion(p *painter, c palette, vary func(float64) float64) {
	w := .56 + vary(.05)
	p.add(box(0, .12, w, w*.94, .16), c.main)
	switch kind := vary(1); {
	case kind < -.3:
		for i := range 5 {
			p.add(box(-w*.8+float64(i)*w*.4, .12, .035, w*.9, .03), c.light)
		}
	case kind < .3:
		for i := range 16 {
			p.add(disc(-w*.7+float64(i%4)*w*.46, -.26+float64(i/4)*.25, .05, .05), c.light)
		}
	default:
		p.add(box(0, .12, w*.62, w*.6, .1), c.light)
		p.add(box(0, .12, w*.4, w*.38, .08), c.second)
	}
	for _, x := range []float64{-1, 1} {
		for _, y := range []float64{-1, 1} {
			p.add(disc(x*(w-.02), .12+y*(w*.94-.02), .06, .06), c.dark.lighter(.2))
		}
	}
}
