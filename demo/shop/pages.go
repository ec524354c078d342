package shop

import (
	"bytes"
	_ "embed" // the templates and assets are part of the program
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

//go:embed assets/style.css
var styleCSS string

//go:embed assets/icon.svg
var iconSVG string

//go:embed templates/layout.html
var layoutHTML string

//go:embed templates/pages.html
var pagesHTML string

// pageSize is the number of products on one page of a list.
const pageSize = 12

// maxQuery is the longest search, in characters.
const maxQuery = 80

// view is what the layout shows.
type view struct {
	Page       string // name of the page's template
	Status     int
	Title      string
	Query      string // what the search box shows
	Here       string // slug of the category in the menu, if any
	Body       any    // for the page's template
	Categories []*Category
	Cluster    string
	Public     bool // the same for everybody: may be cached
}

// parsePages reads one template set per page: the layout and the page's own body.
func parsePages(styleVersion string) (map[string]*template.Template, error) {
	funcs := template.FuncMap{
		"euros":   Euros,
		"style":   func() string { return styleVersion },
		"between": between,
	}
	all, err := template.New("layout").Funcs(funcs).Parse(layoutHTML)
	if err == nil {
		all, err = all.Parse(pagesHTML)
	}
	if err != nil {
		return nil, fmt.Errorf("shop: templates: %w", err)
	}
	pages := map[string]*template.Template{}
	for _, name := range []string{"home", "list", "product", "basket", "checkout", "order", "error"} {
		page, err := all.Clone()
		if err == nil {
			page, err = page.Parse(`{{define "body"}}{{template "` + name + `" .}}{{end}}`)
		}
		if err != nil {
			return nil, fmt.Errorf("shop: template %s: %w", name, err)
		}
		pages[name] = page
	}
	return pages, nil
}

// between counts from low to high, for the page numbers.
func between(low, high int) []int {
	var all []int
	for i := low; i <= high; i++ {
		all = append(all, i)
	}
	return all
}

// render writes a page. Everything is made before the first byte leaves, so that a fault in
// a template is an honest 500 and not half a page.
func (s *Shop) render(w http.ResponseWriter, r *http.Request, v view) {
	v.Categories, v.Cluster = s.catalogue.Categories(), s.cfg.Cluster
	var out bytes.Buffer
	if err := s.pages[v.Page].ExecuteTemplate(&out, "page", v); err != nil {
		s.cfg.Logger.Error("shop: a template failed", "page", v.Page, "error", err)
		http.Error(w, "This page is broken. We have been told.", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	if v.Public {
		writePublic(w, r, out.Bytes())
		return
	}
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", cachePrivate)
	}
	h.Set("Content-Length", strconv.Itoa(out.Len()))
	if v.Status != 0 {
		w.WriteHeader(v.Status)
	}
	_, _ = w.Write(out.Bytes())
}

func (s *Shop) getHome(w http.ResponseWriter, r *http.Request) {
	all := s.catalogue.Products()
	var featured []*Product
	for i, c := range s.catalogue.Categories() {
		if i < 8 {
			featured = append(featured, c.products[(i*5+3)%len(c.products)])
		}
	}
	s.render(w, r, view{Page: "home", Title: "Fernway", Public: true, Body: map[string]any{
		"Featured": featured, "Count": len(all),
	}})
}

// listing is one page of a list of products.
type listing struct {
	Heading, Blurb string
	Products       []*Product
	Total          int
	Page, Pages    int
	Base           string // the link to a page, up to its number
}

// paged cuts one page out of all. ok is false when there is no such page.
func paged(all []*Product, page int) (l listing, ok bool) {
	pages := max(1, (len(all)+pageSize-1)/pageSize)
	if page < 1 || page > pages {
		return listing{}, false
	}
	from := (page - 1) * pageSize
	return listing{Products: all[from:min(from+pageSize, len(all))], Total: len(all), Page: page, Pages: pages}, true
}

// pageNumber reads ?page=, which is 1 when it is missing and 0 when it makes no sense.
func pageNumber(r *http.Request) int {
	text := r.URL.Query().Get("page")
	if text == "" {
		return 1
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > 10_000 {
		return 0
	}
	return n
}

func (s *Shop) getCategory(w http.ResponseWriter, r *http.Request) {
	c := s.catalogue.Category(r.PathValue("category"))
	if c == nil {
		s.notFound(w, r)
		return
	}
	l, ok := paged(c.products, pageNumber(r))
	if !ok {
		s.notFound(w, r)
		return
	}
	l.Heading, l.Blurb, l.Base = c.Title, c.Blurb, "/c/"+c.Slug+"?page="
	s.render(w, r, view{Page: "list", Title: c.Title, Here: c.Slug, Public: true, Body: l})
}

// searchTerm reads ?q= and makes it safe to look at: valid UTF-8, printable, of bounded
// length. It does not escape; the templates do.
func searchTerm(r *http.Request) string {
	q := strings.ToValidUTF8(r.URL.Query().Get("q"), "")
	q = strings.Map(func(c rune) rune {
		if !unicode.IsPrint(c) {
			return ' '
		}
		return c
	}, q)
	q = strings.Join(strings.Fields(q), " ")
	for i := 0; utf8.RuneCountInString(q) > maxQuery; i++ {
		_, size := utf8.DecodeLastRuneInString(q)
		q = q[:len(q)-size]
	}
	return q
}

func (s *Shop) getSearch(w http.ResponseWriter, r *http.Request) {
	q := searchTerm(r)
	l, ok := paged(s.catalogue.Search(q), pageNumber(r))
	if !ok {
		s.notFound(w, r)
		return
	}
	l.Heading, l.Base = "Search", "/search?q="+template.URLQueryEscaper(q)+"&page="
	switch {
	case q == "":
		l.Blurb = "Type what you are looking for."
	case l.Total == 0:
		l.Blurb = "Nothing matches “" + q + "”. Try fewer words, or a category above."
	case l.Total == 1:
		l.Blurb = "One find for “" + q + "”."
	default:
		l.Blurb = fmt.Sprintf("%d finds for “%s”.", l.Total, q)
	}
	s.render(w, r, view{Page: "list", Title: "Search", Query: q, Public: true, Body: l})
}

func (s *Shop) getProduct(w http.ResponseWriter, r *http.Request) {
	p := s.catalogue.Product(r.PathValue("sku"))
	if p == nil {
		s.notFound(w, r)
		return
	}
	c := s.catalogue.Category(p.Category)
	var related []*Product
	for i, q := range c.products {
		if q == p {
			for k := 1; k <= 4; k++ {
				related = append(related, c.products[(i+k*9)%len(c.products)])
			}
		}
	}
	s.render(w, r, view{Page: "product", Title: p.Name, Here: c.Slug, Public: true, Body: map[string]any{
		"P": p, "Category": c, "Related": related,
	}})
}
