package shop

import (
	"context"
	"crypto/rand"
	"errors"
	"net/http"
	"net/mail"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// basketCookie is the name of the cookie that says whose basket it is.
const basketCookie = "basket"

// orderTimeout bounds the write of an order. It does not end with the client's patience:
// an order that was begun is finished, so that the buyer's retry finds it.
const orderTimeout = 15 * time.Second

// basketID returns the basket that the client holds, or "".
func basketID(r *http.Request) string {
	c, err := r.Cookie(basketCookie)
	if err != nil || len(c.Value) != len(rand.Text()) || !isToken(c.Value, 1, 64) {
		return ""
	}
	return c.Value
}

// giveBasket returns the client's basket, and makes one with its cookie when there is none.
func (s *Shop) giveBasket(w http.ResponseWriter, r *http.Request) string {
	if id := basketID(r); id != "" {
		return id
	}
	id := rand.Text()
	http.SetCookie(w, &http.Cookie{
		Name:     basketCookie,
		Value:    id,
		Path:     "/",
		MaxAge:   int(s.cfg.BasketTTL / time.Second),
		HttpOnly: true,
		Secure:   r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
		SameSite: http.SameSiteLaxMode,
	})
	return id
}

func (s *Shop) readBasket(r *http.Request) ([]line, error) {
	id := basketID(r)
	if id == "" {
		return nil, nil
	}
	return basketLines(r.Context(), s.store.reads, s.catalogue, id)
}

// basketView is what the basket, checkout and order pages show.
type basketView struct {
	Lines   []line
	Total   int
	Notice  string
	Key     string // of the checkout form
	Buyer   map[string]string
	Problem map[string]string // field of the form: what is wrong with it
	Order   Order
}

func (s *Shop) getBasket(w http.ResponseWriter, r *http.Request) {
	lines, err := s.readBasket(r)
	if err != nil {
		s.fault(w, r, err)
		return
	}
	s.render(w, r, view{Page: "basket", Title: "Your basket", Body: basketView{Lines: lines, Total: total(lines)}})
}

// foreign reports whether a browser says that another site sent this form.
func foreign(r *http.Request) bool { return r.Header.Get("Sec-Fetch-Site") == "cross-site" }

// readForm parses a form. When it returns false the answer is written.
func (s *Shop) readForm(w http.ResponseWriter, r *http.Request) bool {
	if foreign(r) {
		s.fail(w, r, http.StatusForbidden, "This form was sent from another site. Please use the shop's own pages.")
		return false
	}
	if err := r.ParseForm(); err != nil {
		if tooLarge(err) {
			s.fail(w, r, http.StatusRequestEntityTooLarge, "That was far more than this form can hold.")
		} else {
			s.fail(w, r, http.StatusBadRequest, "This form did not arrive whole. Please send it again.")
		}
		return false
	}
	return true
}

// newChange checks an edit of a basket. problem is "" when it is sound.
func (s *Shop) newChange(action, sku, quantity string) (c change, problem string) {
	c = change{sku: sku, quantity: 1, add: action == "add"}
	if s.catalogue.Product(sku) == nil {
		return c, "We do not sell that."
	}
	if quantity != "" {
		n, err := strconv.Atoi(quantity)
		if err != nil || n < 0 || n > maxQuantity {
			return c, "A quantity is a number from 0 to " + strconv.Itoa(maxQuantity) + "."
		}
		c.quantity = n
	}
	switch action {
	case "add":
		if c.quantity == 0 {
			return c, "How many would you like?"
		}
	case "set":
	case "remove":
		c.quantity = 0
	default:
		return c, "A basket knows the actions add, set and remove."
	}
	return c, ""
}

func (s *Shop) postBasket(w http.ResponseWriter, r *http.Request) {
	if !s.readForm(w, r) {
		return
	}
	c, problem := s.newChange(r.PostForm.Get("action"), r.PostForm.Get("sku"), r.PostForm.Get("quantity"))
	if problem != "" {
		s.fail(w, r, http.StatusUnprocessableEntity, problem)
		return
	}
	err := s.store.changeBasket(r.Context(), s.giveBasket(w, r), c)
	switch {
	case errors.Is(err, errBasketFull):
		s.fail(w, r, http.StatusConflict, "The basket is full. Please take something out first.")
	case err != nil:
		s.fault(w, r, err)
	default:
		w.Header().Set("Cache-Control", cachePrivate)
		http.Redirect(w, r, "/basket", http.StatusSeeOther)
	}
}

func (s *Shop) getCheckout(w http.ResponseWriter, r *http.Request) {
	lines, err := s.readBasket(r)
	if err != nil {
		s.fault(w, r, err)
		return
	}
	if len(lines) == 0 {
		w.Header().Set("Cache-Control", cachePrivate)
		http.Redirect(w, r, "/basket", http.StatusSeeOther)
		return
	}
	s.render(w, r, view{Page: "checkout", Title: "Checkout", Body: basketView{
		Lines: lines, Total: total(lines), Key: rand.Text(),
	}})
}

// idempotencyKey reads the key from the header (with or without the quotes that
// draft-ietf-httpapi-idempotency-key-header asks for) or the form. problem is "" when it is
// sound.
func idempotencyKey(r *http.Request, field string) (key, problem string) {
	header := r.Header.Get("Idempotency-Key")
	if n := len(header); n >= 2 && header[0] == '"' && header[n-1] == '"' {
		header = header[1 : n-1]
	}
	key = header
	if key == "" {
		key = field
	}
	switch {
	case key == "":
		return "", "An order needs an Idempotency-Key, so that sending it twice does not order twice."
	case header != "" && field != "" && header != field:
		return "", "The Idempotency-Key of the header and that of the form differ."
	case !isToken(key, 8, 128):
		return "", "An Idempotency-Key has 8 to 128 letters, digits, '-', '.', '_', '~' or ':'."
	}
	return key, ""
}

// newBuyer checks who orders. problems maps a field to what is wrong with it.
func newBuyer(name, email, address string) (b buyer, problems map[string]string) {
	b = buyer{strings.TrimSpace(name), strings.TrimSpace(email), strings.TrimSpace(address)}
	problems = map[string]string{}
	if n := utf8.RuneCountInString(b.name); n < 2 || n > 100 || !printable(b.name) {
		problems["name"] = "Please tell us your name (2 to 100 characters)."
	}
	if parsed, err := mail.ParseAddress(b.email); err != nil || parsed.Address != b.email || len(b.email) > 254 {
		problems["email"] = "This does not look like an e-mail address."
	}
	if n := utf8.RuneCountInString(b.address); n < 5 || n > 400 || !printable(b.address) {
		problems["address"] = "Where shall we send it (5 to 400 characters)?"
	}
	return b, problems
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(c rune) bool {
		return !unicode.IsPrint(c) && c != '\n' && c != '\r'
	})
}

// place writes the order of the client's basket.
func (s *Shop) place(r *http.Request, key string, b buyer) (Order, bool, error) {
	basket := basketID(r)
	if basket == "" {
		return Order{}, false, ErrEmptyBasket
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), orderTimeout)
	defer cancel()
	o, created, err := s.store.placeOrder(ctx, s.catalogue, Order{
		Key: key, Cluster: s.cfg.Cluster, Name: b.name, Email: b.email, Address: b.address, basket: basket,
	})
	if created {
		s.orders.Add(1)
	}
	return o, created, err
}

// placed is the status of an order that is in the ledger: 201 the first time, 200 for a
// repeated key.
func placed(created bool) int {
	if created {
		return http.StatusCreated
	}
	return http.StatusOK
}

func (s *Shop) postCheckout(w http.ResponseWriter, r *http.Request) {
	if !s.readForm(w, r) {
		return
	}
	form := r.PostForm
	key, problem := idempotencyKey(r, form.Get("idempotency_key"))
	if problem != "" {
		s.fail(w, r, http.StatusBadRequest, problem)
		return
	}
	b, problems := newBuyer(form.Get("name"), form.Get("email"), form.Get("address"))
	if len(problems) > 0 {
		s.askAgain(w, r, http.StatusUnprocessableEntity, basketView{
			Key: key, Problem: problems, Notice: "Please look at the marked fields.",
		})
		return
	}
	o, created, err := s.place(r, key, b)
	switch {
	case errors.Is(err, ErrKeyTaken):
		s.fail(w, r, http.StatusConflict, "This order form was already used by somebody else. Please start again from your basket.")
	case errors.Is(err, ErrEmptyBasket):
		w.Header().Set("Cache-Control", cachePrivate)
		http.Redirect(w, r, "/basket", http.StatusSeeOther)
	case err != nil:
		s.cfg.Logger.Error("shop: an order could not be written", "error", hint(err))
		w.Header().Set("Retry-After", "1")
		s.askAgain(w, r, http.StatusServiceUnavailable, basketView{
			Key: key, Notice: "We could not write your order down. Please send it again: it will be placed only once.",
		})
	default:
		w.Header().Set("Location", "/order/"+o.ID)
		s.showOrder(w, r, placed(created), o)
	}
}

// askAgain shows the checkout form with what was typed and the same key.
func (s *Shop) askAgain(w http.ResponseWriter, r *http.Request, status int, v basketView) {
	v.Buyer = map[string]string{
		"name": r.PostForm.Get("name"), "email": r.PostForm.Get("email"), "address": r.PostForm.Get("address"),
	}
	// Without the list the form still works, so a fault here is no reason to fail.
	if lines, err := s.readBasket(r); err == nil {
		v.Lines, v.Total = lines, total(lines)
	}
	s.render(w, r, view{Page: "checkout", Status: status, Title: "Checkout", Body: v})
}

func (s *Shop) showOrder(w http.ResponseWriter, r *http.Request, status int, o Order) {
	if o.Lines == nil {
		// A repeated key returns the order without its lines; the page shows them if it can.
		if full, err := s.store.order(r.Context(), o.ID); err == nil {
			o = full
		}
	}
	s.render(w, r, view{Page: "order", Status: status, Title: "Thank you", Body: basketView{
		Lines: o.Lines, Total: o.Total, Order: o,
	}})
}

func (s *Shop) getOrder(w http.ResponseWriter, r *http.Request) {
	o, err := s.store.order(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, ErrNoOrder):
		s.fail(w, r, http.StatusNotFound, "We have no order of that number.")
	case err != nil:
		s.fault(w, r, err)
	default:
		s.showOrder(w, r, http.StatusOK, o)
	}
}
