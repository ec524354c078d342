package shop

import (
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"strconv"
)

// writeJSON answers with v. Public answers may be cached, others may not.
func (s *Shop) writeJSON(w http.ResponseWriter, r *http.Request, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		s.fault(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if status == 0 {
		writePublic(w, r, body)
		return
	}
	w.Header().Set("Cache-Control", cachePrivate)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// readJSON decodes a body strictly. When it returns false the answer is written. Asking for
// the JSON media type keeps plain forms of other sites out.
func (s *Shop) readJSON(w http.ResponseWriter, r *http.Request, into any) bool {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		s.problem(w, http.StatusUnsupportedMediaType, "send Content-Type: application/json")
		return false
	}
	decoder := json.NewDecoder(r.Body)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		if tooLarge(err) {
			s.problem(w, http.StatusRequestEntityTooLarge, "the body may have "+strconv.Itoa(maxBodyBytes)+" bytes")
		} else {
			s.problem(w, http.StatusBadRequest, "the body is not the JSON that is asked for: "+err.Error())
		}
		return false
	}
	if decoder.More() {
		s.problem(w, http.StatusBadRequest, "the body holds more than one JSON value")
		return false
	}
	return true
}

type apiList struct {
	Products []*Product `json:"products"`
	Total    int        `json:"total"`
	Page     int        `json:"page"`
	Pages    int        `json:"pages"`
}

// apiProducts lists products: all, or those of ?category=, or those that match ?q=.
func (s *Shop) apiProducts(w http.ResponseWriter, r *http.Request) {
	all := s.catalogue.Products()
	query := r.URL.Query()
	switch {
	case query.Has("q"):
		all = s.catalogue.Search(searchTerm(r))
	case query.Has("category"):
		c := s.catalogue.Category(query.Get("category"))
		if c == nil {
			s.fail(w, r, http.StatusNotFound, "no such category")
			return
		}
		all = c.products
	}
	l, ok := paged(all, pageNumber(r))
	if !ok {
		s.fail(w, r, http.StatusNotFound, "no such page")
		return
	}
	if l.Products == nil {
		l.Products = []*Product{}
	}
	s.writeJSON(w, r, 0, apiList{l.Products, l.Total, l.Page, l.Pages})
}

func (s *Shop) apiProduct(w http.ResponseWriter, r *http.Request) {
	p := s.catalogue.Product(r.PathValue("sku"))
	if p == nil {
		s.fail(w, r, http.StatusNotFound, "no such product")
		return
	}
	s.writeJSON(w, r, 0, p)
}

type apiBasket struct {
	Lines []line `json:"lines"`
	Total int    `json:"total"`
}

func (s *Shop) answerBasket(w http.ResponseWriter, r *http.Request, basket string) {
	lines := []line{}
	if basket != "" {
		found, err := basketLines(r.Context(), s.store.reads, s.catalogue, basket)
		if err != nil {
			s.fault(w, r, err)
			return
		}
		lines = append(lines, found...)
	}
	s.writeJSON(w, r, http.StatusOK, apiBasket{lines, total(lines)})
}

func (s *Shop) apiGetBasket(w http.ResponseWriter, r *http.Request) {
	s.answerBasket(w, r, basketID(r))
}

// apiPostBasket changes the basket: {"action": "add", "sku": "LMP-0100", "quantity": 2}.
func (s *Shop) apiPostBasket(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Action   string `json:"action"`
		SKU      string `json:"sku"`
		Quantity *int   `json:"quantity"`
	}
	if !s.readJSON(w, r, &in) {
		return
	}
	quantity := ""
	if in.Quantity != nil {
		quantity = strconv.Itoa(*in.Quantity)
	}
	c, problem := s.newChange(in.Action, in.SKU, quantity)
	if problem != "" {
		s.problem(w, http.StatusUnprocessableEntity, problem)
		return
	}
	basket := s.giveBasket(w, r)
	switch err := s.store.changeBasket(r.Context(), basket, c); {
	case errors.Is(err, errBasketFull):
		s.problem(w, http.StatusConflict, err.Error())
	case err != nil:
		s.fault(w, r, err)
	default:
		s.answerBasket(w, r, basket)
	}
}

// apiPostOrder places the order of the basket: {"name": "", "email": "", "address": ""}
// under the header Idempotency-Key.
func (s *Shop) apiPostOrder(w http.ResponseWriter, r *http.Request) {
	var in struct{ Name, Email, Address string }
	if !s.readJSON(w, r, &in) {
		return
	}
	key, problem := idempotencyKey(r, "")
	if problem != "" {
		s.problem(w, http.StatusBadRequest, problem)
		return
	}
	b, problems := newBuyer(in.Name, in.Email, in.Address)
	for field, what := range problems {
		s.problem(w, http.StatusUnprocessableEntity, field+": "+what)
		return
	}
	o, created, err := s.place(r, key, b)
	switch {
	case errors.Is(err, ErrKeyTaken), errors.Is(err, ErrEmptyBasket):
		s.problem(w, http.StatusConflict, err.Error())
	case err != nil:
		s.fault(w, r, err)
	default:
		w.Header().Set("Location", "/api/orders/"+o.ID)
		s.writeJSON(w, r, placed(created), o)
	}
}

func (s *Shop) apiGetOrder(w http.ResponseWriter, r *http.Request) {
	o, err := s.store.order(r.Context(), r.PathValue("id"))
	switch {
	case errors.Is(err, ErrNoOrder):
		s.fail(w, r, http.StatusNotFound, "no such order")
	case err != nil:
		s.fault(w, r, err)
	default:
		s.writeJSON(w, r, http.StatusOK, o)
	}
}
