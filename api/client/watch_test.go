package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/relais-edge/relais/api/client"
)

var errEnd = errors.New("seen")

// TestWatchGoesOnWhereItWas has a server that breaks off after each event: each is told once, and none is left out, also
// when the connection broke before the first one.
func TestWatchGoesOnWhereItWas(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Header.Get("Last-Event-ID"))
		switch len(asked) {
		case 1:
			fmt.Fprint(w, ": hello\nid: 7\n\n")
		case 2:
			fmt.Fprint(w, ": hello\nid: 7\n\nid: 8\nevent: revision\ndata: {\"organization\":\"acme\",\"revision\":8}\n\nid: 9\nevent: revi")
		case 3:
			w.WriteHeader(http.StatusBadGateway)
		case 4:
			fmt.Fprint(w, "id: 9\nevent: revision\ndata: {\"organization\":\"acme\",\"revision\":9}\n\nevent: of the future\ndata: what\n\n")
		default:
			fmt.Fprint(w, "id: 12\nevent: reset\ndata: {}\n\n")
		}
	}))
	defer s.Close()
	c, err := client.New(s.URL, "token", nil)
	if err != nil {
		t.Fatal(err)
	}
	var seen []int64
	err = c.Watch(t.Context(), "acme", 0, func(e client.Event) error {
		seen = append(seen, e.Revision)
		if e.Reset {
			return errEnd
		}
		return nil
	})
	if !errors.Is(err, errEnd) || !slices.Equal(seen, []int64{8, 9, 12}) {
		t.Errorf("%v %v", err, seen)
	}
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"", "7", "8", "8", "9"}; !slices.Equal(asked, want) {
		t.Errorf("asked after %q, want %q", asked, want)
	}
}

// TestWatchEndsWhereItMayNot gives the refusal.
func TestWatchEndsWhereItMayNot(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"title":"Not allowed","status":403}`)
	}))
	defer s.Close()
	c, err := client.New(s.URL, "token", nil)
	if err != nil {
		t.Fatal(err)
	}
	var p *client.Problem
	if err := c.Watch(t.Context(), "acme", 0, nil); !errors.As(err, &p) || p.Status != 403 {
		t.Error(err)
	}
}
