package edge

import (
	"cmp"
	"errors"
	"net/http"
	"net/netip"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
	"github.com/relais-edge/relais/internal/edge/flood"
)

// ShieldOrder is what POST /flood/shield of the admin socket reads: a person's hand on the measures against floods.
type ShieldOrder struct {
	// Site is its key, organization/name; a name alone is of the organization default, and none is every site.
	Site string `json:"site,omitempty"`
	// Order is on, off or auto.
	Order string `json:"order"`
	// Step that is taken with on: stale, cache, challenge or limit; challenge when it is empty.
	Step string `json:"step,omitempty"`
	// For is how long it holds, as Go writes durations; an hour when it is empty.
	For string `json:"for,omitempty"`
}

// Pardon is what POST /flood/unblock reads: who is spared from limits.
type Pardon struct {
	// Address or network.
	Address string `json:"address"`
	// For is how long it holds; an hour when it is empty.
	For string `json:"for,omitempty"`
}

// Pardoned is the answer to it.
type Pardoned struct {
	Network string    `json:"network"`
	Until   time.Time `json:"until"`
}

// FloodDoor answers for the admin socket what people ask of the detector of floods, and takes their orders.
func (e *Edge) FloodDoor() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /flood/status", func(w http.ResponseWriter, r *http.Request) {
		key := bundle.Key(siteKey(r.FormValue("site")))
		reply(w, http.StatusOK, e.orders.Waiting(key, e.flood.Status(key)), nil)
	})
	mux.HandleFunc("POST /flood/shield", func(w http.ResponseWriter, r *http.Request) {
		var q ShieldOrder
		if !question(w, r, &q) {
			return
		}
		d, err := heldFor(q.For)
		if err == nil {
			err = e.orders.Shield(order{bundle.Key(siteKey(q.Site)), q.Order, q.Step, time.Now().Add(d)})
		}
		if err != nil {
			reply(w, refused(err), nil, err)
			return
		}
		reply(w, http.StatusOK, e.flood.Status(bundle.Key(siteKey(q.Site))), nil)
	})
	mux.HandleFunc("POST /flood/unblock", func(w http.ResponseWriter, r *http.Request) {
		var q Pardon
		if !question(w, r, &q) {
			return
		}
		p, err := e.unblock(&q)
		if err != nil {
			reply(w, refused(err), nil, err)
			return
		}
		reply(w, http.StatusOK, p, nil)
	})
	return mux
}

func (e *Edge) unblock(q *Pardon) (*Pardoned, error) {
	network, err := netip.ParsePrefix(q.Address)
	if a, bad := netip.ParseAddr(q.Address); bad == nil {
		a = a.Unmap()
		network, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil {
		return nil, errors.New("write an address or a network, such as 192.0.2.7 or 2001:db8::/48")
	}
	d, err := heldFor(q.For)
	if err != nil {
		return nil, err
	}
	until := time.Now().Add(d)
	return &Pardoned{network.Masked().String(), until}, e.orders.Unblock(network, until)
}

// refused is the status of an order that is not taken, or not kept.
func refused(err error) int {
	if errors.Is(err, errKept) {
		return http.StatusInternalServerError
	}
	return http.StatusBadRequest
}

// heldFor reads how long an order holds.
func heldFor(text string) (time.Duration, error) {
	d, err := time.ParseDuration(cmp.Or(text, "1h"))
	if err != nil || d <= 0 || d > flood.LongestHand {
		return 0, errors.New("how long it holds is a time from 1s to 720h, such as 30m or 2h")
	}
	return d, nil
}
