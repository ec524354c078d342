package hold

import (
	"context"
	"errors"
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
)

// pieces is a body in pieces; err comes in place of its end.
type pieces struct {
	list   []string
	err    error
	closed bool
}

func (p *pieces) Next(context.Context) ([]byte, error) {
	if len(p.list) == 0 {
		return nil, p.err
	}
	b := p.list[0]
	p.list = p.list[1:]
	return []byte(b), nil
}

func (p *pieces) Close(error) { p.closed = true }

func refusals(r *observe.Registry) *observe.Family[observe.Counter] {
	return r.Counters("refused_total", "Bodies.", 2, "why")
}

func keeper(limit int64) *Bodies { return New(limit, refusals(observe.New())) }

func rest(t *testing.T, b message.Body) (string, error) {
	t.Helper()
	var out strings.Builder
	for {
		chunk, err := b.Next(t.Context())
		out.Write(chunk)
		if err != nil {
			return out.String(), err
		}
	}
}

func TestABodyIsHeldAndGivenAgain(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		limit int
		end   error
		held  string
		whole bool
	}{{100, io.EOF, "abcdef", true}, {6, io.EOF, "abcdef", true}, {3, io.EOF, "abcd", false}, {0, io.EOF, "ab", false}, {3, broken, "abcd", false}} {
		k := keeper(1000)
		src := &pieces{list: []string{"ab", "cd", "ef"}, err: c.end}
		r, err := k.Account("o").Read(t.Context(), src, c.limit, false)
		if err != nil {
			t.Fatal(err)
		}
		if held, whole := r.Held(); string(held) != c.held || whole != c.whole || k.Used() != int64(len(c.held)) {
			t.Errorf("limit %d: held %q whole %v, %d bytes counted", c.limit, held, whole, k.Used())
		}
		if all, err := rest(t, r); all != "abcdef" || !errors.Is(err, c.end) {
			t.Errorf("limit %d: given again %q, %v", c.limit, all, err)
		}
		if r.Close(nil); !src.closed || k.Used() != 0 {
			t.Errorf("limit %d: closed %v, %d bytes counted", c.limit, src.closed, k.Used())
		}
	}
}

func TestABodyThatFailsWhileItIsReadIsNotHeld(t *testing.T) {
	k, broken := keeper(1000), errors.New("broken")
	r, err := k.Account("o").Read(t.Context(), &pieces{list: []string{"ab"}, err: broken}, 100, false)
	if r != nil || !errors.Is(err, broken) || k.Used() != 0 {
		t.Errorf("%v, %v, %d bytes counted", r, err, k.Used())
	}
}

func TestMemoryIsBoundedUnlessForced(t *testing.T) {
	k := keeper(3)
	r, err := k.Account("o").Read(t.Context(), &pieces{list: []string{"ab", "cd", "ef"}, err: io.EOF}, 100, false)
	if !errors.Is(err, ErrMemory) {
		t.Fatal(err)
	}
	if all, err := rest(t, r); all != "abcdef" || err != io.EOF {
		t.Errorf("%q, %v", all, err)
	}
	r, err = k.Account("o").Read(t.Context(), &pieces{list: []string{"ab", "cd", "ef"}, err: io.EOF}, 100, true)
	if held, whole := r.Held(); err != nil || string(held) != "abcdef" || !whole {
		t.Errorf("%q, %v", held, err)
	}
	// A body that nobody reads is taken from the count at the request's end.
	r.End(message.Outcome{})
	r.End(message.Outcome{})
	if n := k.Used(); n != 0 {
		t.Errorf("%d bytes counted", n)
	}
}

// One tenant takes three quarters at most, so that the next one finds some, and what it gives back is there for all.
func TestATenantLeavesMemoryForOthers(t *testing.T) {
	reg := observe.New()
	k := New(1000, refusals(reg))
	take := func(tenant string, n int, force bool) (held int, all []*Body, err error) {
		for held < n {
			var r *Body
			r, err = k.Account(tenant).Read(t.Context(), &pieces{list: []string{strings.Repeat("x", 10)}, err: io.EOF}, 100, force)
			if err != nil {
				r.Close(nil) // what was refused is not kept
				return held, all, err
			}
			all = append(all, r)
			held += 10
		}
		return held, all, nil
	}
	for k.Account("a") == k.Account("b") || k.Account("b") == k.Account("c") || k.Account("a") == k.Account("c") {
		k = New(1000, refusals(observe.New()))
	}
	alone, first, err := take("a", 2000, false)
	if alone != 750 || err != ErrPart || !errors.Is(err, ErrMemory) {
		t.Fatalf("one alone has %d of 1000: %v", alone, err)
	}
	second, _, err := take("b", 2000, false)
	if second < 150 || second > 200 || err != ErrPart {
		t.Errorf("the next one has %d of the 250 that are left: %v", second, err)
	}
	if third, _, _ := take("c", 2000, false); third < 30 {
		t.Errorf("and one more has %d", third)
	}
	if more, _, _ := take("a", 10, false); more != 0 {
		t.Errorf("who has most gets %d more", more)
	}
	if more, _, err := take("a", 500, true); more != 500 || err != nil {
		t.Errorf("by force: %d, %v", more, err)
	}
	if _, _, err := take("b", 10, false); err != ErrMemory {
		t.Errorf("nothing is left, and %v", err)
	}
	for _, r := range first {
		r.Close(nil)
	}
	if more, _, err := take("b", 100, false); more != 100 || err != nil {
		t.Errorf("once there is room again: %d, %v", more, err)
	}
}

func TestRefusedBodiesAreCountedByWhy(t *testing.T) {
	reg := observe.New()
	k := New(100, refusals(reg))
	for _, size := range []int{90, 200} { // by its part, and as there is no memory
		r, err := k.Account("a").Read(t.Context(), &pieces{list: []string{strings.Repeat("x", size), "y"}, err: io.EOF}, 1000, false)
		if err == nil {
			t.Errorf("%d of 100 are kept", size)
		}
		r.Close(nil)
	}
	if k.Used() != 0 || k.Account("a").used.Load() != 0 {
		t.Errorf("%d bytes counted", k.Used())
	}
	w := httptest.NewRecorder()
	reg.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
	for _, want := range []string{`refused_total{why="memory"} 1`, `refused_total{why="part"} 1`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s is not in\n%s", want, w.Body)
		}
	}
}
