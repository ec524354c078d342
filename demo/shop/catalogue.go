package shop

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
)

// catalogueSeed makes every shop of the demo sell the same things at the same prices.
const catalogueSeed = 0x5e1a15

// perCategory is the number of products of each category.
const perCategory = 42

// Product is one thing that the shop sells. Catalogues are made from a fixed seed: the same
// SKU is the same product in every process.
type Product struct {
	SKU         string `json:"sku"`      // for example "LMP-0107"
	Name        string `json:"name"`     // for example "Alder Table Lamp, Moss"
	Category    string `json:"category"` // slug of the category
	Price       int    `json:"price"`    // euro cents
	Stock       int    `json:"stock"`    // pieces; a description, it does not fall with orders
	Rating      int    `json:"rating"`   // tenths of a star, 35 to 50
	Description string `json:"description"`

	folded string // lower-case text that search looks in
}

// Category is a department of the shop.
type Category struct {
	Slug  string `json:"slug"`
	Title string `json:"title"`
	Blurb string `json:"blurb"`

	products []*Product
	hue      float64
}

// Catalogue is the immutable list of what is sold. It is safe for concurrent use.
type Catalogue struct {
	categories []*Category
	bySlug     map[string]*Category
	products   []*Product
	bySKU      map[string]*Product
}

// NewCatalogue makes the shop's catalogue: about 500 products in 12 categories, always the
// same ones.
func NewCatalogue() *Catalogue {
	c := &Catalogue{bySlug: map[string]*Category{}, bySKU: map[string]*Product{}}
	rng := rand.New(rand.NewPCG(catalogueSeed, 1))
	for _, t := range trades() {
		cat := &Category{Slug: t.slug, Title: t.title, Blurb: t.blurb, hue: t.hue}
		for i := range perCategory {
			p := newProduct(rng, t, i)
			cat.products = append(cat.products, p)
			c.products = append(c.products, p)
			c.bySKU[p.SKU] = p
		}
		c.categories = append(c.categories, cat)
		c.bySlug[t.slug] = cat
	}
	return c
}

func newProduct(rng *rand.Rand, t trade, i int) *Product {
	pick := func(list []string) string { return list[rng.IntN(len(list))] }
	all := places()
	// Walking the list with a stride keeps the names of one category distinct.
	place := all[(i*7+len(t.title))%len(all)]
	noun := t.nouns[i%len(t.nouns)]
	finish := pick(finishes())
	p := &Product{
		SKU:      fmt.Sprintf("%s-%04d", t.prefix, 100+i),
		Name:     fmt.Sprintf("%s %s, %s", place, noun, finish),
		Category: t.slug,
		Price:    (t.low+rng.IntN(t.high-t.low))/100*100 + 90,
		Stock:    rng.IntN(60),
		Rating:   35 + rng.IntN(16),
	}
	p.Description = fmt.Sprintf("%s %s in %s: %s. Made of %s with a %s finish. %s",
		place, strings.ToLower(noun), strings.ToLower(finish), pick(praises()), pick(materials()),
		strings.ToLower(finish), pick(cares()))
	p.folded = strings.ToLower(p.SKU + " " + p.Name + " " + t.title + " " + p.Description)
	return p
}

// Categories returns the categories in the order of the menu. Do not change the result.
func (c *Catalogue) Categories() []*Category { return c.categories }

// Products returns all products. Do not change the result.
func (c *Catalogue) Products() []*Product { return c.products }

// Product returns the product with this SKU, or nil.
func (c *Catalogue) Product(sku string) *Product { return c.bySKU[sku] }

// Category returns the category with this slug, or nil.
func (c *Catalogue) Category(slug string) *Category { return c.bySlug[slug] }

// Search returns the products that hold every word of query, best match first (a word in
// the name counts most). At most eight words are looked at. An empty query finds nothing.
func (c *Catalogue) Search(query string) []*Product {
	words := strings.Fields(strings.ToLower(query))
	if len(words) == 0 {
		return nil
	}
	words = words[:min(len(words), 8)]
	type hit struct {
		p     *Product
		score int
	}
	var hits []hit
	for _, p := range c.products {
		score := 0
		name := strings.ToLower(p.Name)
		for _, w := range words {
			// "lamps" should find a lamp.
			stem := strings.TrimSuffix(w, "s")
			switch {
			case stem != "" && strings.Contains(name, stem):
				score += 3
			case strings.Contains(p.folded, w):
				score++
			default:
				score = -1 << 20
			}
		}
		if score > 0 {
			hits = append(hits, hit{p, score})
		}
	}
	slices.SortStableFunc(hits, func(a, b hit) int { return cmp.Compare(b.score, a.score) })
	found := make([]*Product, len(hits))
	for i, h := range hits {
		found[i] = h.p
	}
	return found
}

// InStock says in words how many are left.
func (p *Product) InStock() string {
	switch {
	case p.Stock == 0:
		return "Made to order, ready in two weeks"
	case p.Stock < 6:
		return fmt.Sprintf("Only %d left", p.Stock)
	default:
		return "In stock, sent today"
	}
}

// Stars is the rating as text, for example "4.6".
func (p *Product) Stars() string { return fmt.Sprintf("%d.%d", p.Rating/10, p.Rating%10) }

// Euros formats cents, for example 12990 as "€129.90".
func Euros(cents int) string { return fmt.Sprintf("€%d.%02d", cents/100, cents%100) }
