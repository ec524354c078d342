package tenant

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "github.com/relais-edge/relais/api/v1"
	"github.com/relais-edge/relais/internal/control/store"
)

// Bound is a floor or a ceiling of one field of the documents of a kind. It holds in its organization and in all below,
// where it can be tightened and never loosened.
type Bound struct {
	Kind    string   `json:"kind"`
	Path    string   `json:"path"`              // names in the document's JSON, with dots; * is each element of a list
	Unit    string   `json:"unit,omitempty"`    // number, duration or size; empty: number
	Min     string   `json:"min,omitempty"`     // in the unit
	Max     string   `json:"max,omitempty"`     // in the unit
	Order   []string `json:"order,omitempty"`   // words from weak to strong
	AtLeast string   `json:"atLeast,omitempty"` // one of Order
	Allowed []string `json:"allowed,omitempty"` // the only words
}

// Guardrails are an organization's bounds: those that who stands above imposed on it, and its own.
type Guardrails struct {
	Bounds []Bound `json:"bounds"`
}

// Violation is a field that is out of bounds.
type Violation struct {
	Path         string // in the document
	Organization string // whose bound it is
	Why          string
}

const (
	guardImposed = "imposed"
	guardOwn     = "own"
)

func guardrailsKey(org, name string) store.Key {
	return store.Key{Organization: org, Kind: KindGuardrails, Name: name}
}

// owned is a bound and whose it is.
type owned struct {
	Bound
	organization string
}

// bounds collects what holds in an organization, from the operator down. All of them hold: so the tightest does, and one
// that was written below cannot loosen one from above, whichever came first.
func bounds(ctx context.Context, r *store.Reader, path []string) ([]owned, error) {
	var list []owned
	for _, at := range path {
		for _, name := range []string{guardImposed, guardOwn} {
			var g Guardrails
			if _, err := read(ctx, r, guardrailsKey(at, name), &g); ignoreNotFound(err) != nil {
				return nil, err
			}
			for _, b := range g.Bounds {
				list = append(list, owned{b, at})
			}
		}
	}
	return list, nil
}

// SetGuardrails replaces an organization's own bounds, which hold for it and all below, or those that who manages it from
// above imposes on it. A bound that is looser than one above it is refused, because it would have no effect.
func (s *Service) SetGuardrails(ctx context.Context, actor Actor, org string, imposed bool, g Guardrails) error {
	if len(g.Bounds) > maxBounds {
		return &store.LimitError{What: "bounds of an organization", Have: int64(len(g.Bounds)), Most: maxBounds}
	}
	for _, b := range g.Bounds {
		if err := b.check(); err != nil {
			return err
		}
	}
	name, log := guardOwn, org
	if imposed {
		parent, err := s.parentOf(ctx, actor, org)
		if err != nil {
			return err
		}
		name, log = guardImposed, parent
	}
	return s.change(ctx, act{actor: actor, organization: log, action: "guardrails." + name, target: org, details: g}, func(tx *store.Tx) error {
		o, _, err := organization(ctx, &tx.Reader, org)
		if err == nil && imposed {
			_, _, err = s.belowAuthorized(ctx, tx, actor, org)
		} else if err == nil {
			err = s.Authorize(ctx, &tx.Reader, actor, Access{VerbWrite, KindGuardrails, org, ""})
		}
		if err != nil {
			return deny(err, actor, org)
		}
		above, err := bounds(ctx, &tx.Reader, o.Path[:len(o.Path)-1])
		if err != nil {
			return err
		}
		if !imposed {
			var mine Guardrails
			if _, err := read(ctx, &tx.Reader, guardrailsKey(org, guardImposed), &mine); ignoreNotFound(err) != nil {
				return err
			}
			for _, b := range mine.Bounds {
				above = append(above, owned{b, org})
			}
		}
		for _, b := range g.Bounds {
			for _, a := range above {
				if err := b.tightens(a); err != nil {
					return err
				}
			}
		}
		return write(ctx, tx, guardrailsKey(org, name), g, store.Any)
	})
}

func (b Bound) check() error {
	invalid := func(why string) error { return fmt.Errorf("%w: bound of %s %s: %s", ErrInvalid, b.Kind, b.Path, why) }
	if b.Kind == "" || b.Path == "" || len(b.Kind) > maxLabel || len(b.Path) > maxTitle || len(b.Order)+len(b.Allowed) > maxWords {
		return invalid("give a kind and a path")
	}
	numeric, words := b.Min != "" || b.Max != "", b.AtLeast != "" || len(b.Allowed) > 0
	if numeric == words {
		return invalid("give min or max of a number, or atLeast or allowed of a word")
	}
	lo, err1 := b.number(b.Min, math.Inf(-1))
	hi, err2 := b.number(b.Max, math.Inf(1))
	switch {
	case err1 != nil || err2 != nil:
		return invalid(errors.Join(err1, err2).Error())
	case lo > hi:
		return invalid("min is more than max")
	case b.AtLeast != "" && !slices.Contains(b.Order, b.AtLeast):
		return invalid("atLeast is not one of order")
	}
	return nil
}

// number reads a number in the bound's unit; the empty text is what is given for it.
func (b Bound) number(s string, empty float64) (float64, error) {
	if s == "" {
		return empty, nil
	}
	switch b.Unit {
	case "", "number":
		n, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
		if err != nil || math.IsNaN(n) {
			return 0, fmt.Errorf("%q is no number", s)
		}
		return n, nil
	case "duration":
		d, err := time.ParseDuration(s)
		return float64(d), err
	case "size":
		var n v1.Size
		err := n.UnmarshalText([]byte(s))
		return float64(n), err
	}
	return 0, fmt.Errorf("there is no unit %q", b.Unit)
}

// tightens refuses a bound that is looser than one above it of the same field.
func (b Bound) tightens(above owned) error {
	if b.Kind != above.Kind || b.Path != above.Path {
		return nil
	}
	looser := func(why string) error {
		return fmt.Errorf("%w: the bound of %s %s is looser than that of %s: %s", ErrInvalid, b.Kind, b.Path, above.organization, why)
	}
	if above.Min != "" || above.Max != "" {
		lo, err1 := b.number(b.Min, math.Inf(-1))
		hi, err2 := b.number(b.Max, math.Inf(1))
		floor, err3 := above.number(above.Min, math.Inf(-1))
		ceiling, err4 := above.number(above.Max, math.Inf(1))
		switch {
		case errors.Join(err1, err2, err3, err4) != nil:
			return looser("they cannot be compared")
		case b.Min != "" && lo < floor:
			return looser("min is below " + above.Min)
		case b.Max != "" && hi > ceiling:
			return looser("max is above " + above.Max)
		case b.Min != "" && lo > ceiling, b.Max != "" && hi < floor:
			return looser("nothing would be allowed by both")
		}
	}
	if above.AtLeast != "" && b.AtLeast != "" && slices.Index(above.Order, b.AtLeast) < slices.Index(above.Order, above.AtLeast) {
		return looser("atLeast is below " + above.AtLeast)
	}
	if len(above.Allowed) > 0 {
		for _, w := range b.Allowed {
			if !slices.Contains(above.Allowed, w) {
				return looser(w + " is not allowed there")
			}
		}
	}
	return nil
}

// CheckGuardrails holds a document, with its defaults filled in, against all bounds of its organization. Whoever writes
// documents calls it in the transaction that writes them.
func CheckGuardrails(ctx context.Context, r *store.Reader, org, kind string, body []byte) ([]Violation, error) {
	rails, err := LoadRails(ctx, r, org)
	if err != nil {
		return nil, err
	}
	return rails.Check(kind, body)
}

// Rails are all bounds that hold in an organization.
type Rails struct{ bounds []owned }

// LoadRails reads the bounds of an organization and of those above it.
func LoadRails(ctx context.Context, r *store.Reader, org string) (Rails, error) {
	o, _, err := organization(ctx, r, org)
	if err != nil {
		return Rails{}, err
	}
	all, err := bounds(ctx, r, o.Path)
	return Rails{all}, err
}

// Check holds a document, with its defaults filled in, against the bounds.
func (g Rails) Check(kind string, body []byte) ([]Violation, error) {
	if !slices.ContainsFunc(g.bounds, func(b owned) bool { return b.Kind == kind }) {
		return nil, nil
	}
	var doc any
	if err := json.Unmarshal(body, &doc); err != nil {
		return nil, fmt.Errorf("%w: the document is not JSON: %w", ErrInvalid, err)
	}
	var list []Violation
	for _, b := range g.bounds {
		if b.Kind == kind {
			walk(doc, strings.Split(b.Path, "."), "", func(path string, v any) {
				if why := b.judge(v); why != "" {
					list = append(list, Violation{path, b.organization, why})
				}
			})
		}
	}
	return list, nil
}

// walk finds the values at a path; a name that is not there is a nil value.
func walk(v any, rest []string, path string, fn func(path string, v any)) {
	if len(rest) == 0 {
		fn(strings.TrimPrefix(path, "."), v)
		return
	}
	if rest[0] == "*" {
		if list, ok := v.([]any); ok {
			for i, e := range list {
				walk(e, rest[1:], path+"."+strconv.Itoa(i), fn)
			}
		}
		return
	}
	m, _ := v.(map[string]any)
	walk(m[rest[0]], rest[1:], path+"."+rest[0], fn)
}

// judge says what is wrong with a value; empty: nothing. A field that is not there satisfies no floor: its default would
// have been filled in.
func (b Bound) judge(v any) string {
	if v == nil {
		if b.Min != "" || b.AtLeast != "" || len(b.Allowed) > 0 || b.Max != "" {
			return "it must be given"
		}
		return ""
	}
	text := fmt.Sprint(v)
	if n, ok := v.(float64); ok {
		text = strconv.FormatFloat(n, 'f', -1, 64)
	}
	switch {
	case b.Min != "" || b.Max != "":
		n, err := b.number(text, 0)
		lo, err1 := b.number(b.Min, math.Inf(-1))
		hi, err2 := b.number(b.Max, math.Inf(1))
		switch {
		case errors.Join(err, err1, err2) != nil:
			return text + " cannot be compared with the bound"
		case n < lo:
			return text + " is below " + b.Min
		case n > hi:
			return text + " is above " + b.Max
		}
	case b.AtLeast != "" && slices.Index(b.Order, text) < slices.Index(b.Order, b.AtLeast):
		return text + " is weaker than " + b.AtLeast
	case len(b.Allowed) > 0 && !slices.Contains(b.Allowed, text):
		return text + " is not one of " + strings.Join(b.Allowed, ", ")
	}
	return ""
}
