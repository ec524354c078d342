package balance

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
	"github.com/relais-edge/relais/internal/observe"
	"github.com/relais-edge/relais/internal/stage"
)

// slowBody gives its pieces and then an error, and counts the pulls.
type slowBody struct {
	list  []string
	err   error
	pulls int
}

func (b *slowBody) Next(context.Context) ([]byte, error) {
	b.pulls++
	if len(b.list) == 0 {
		return nil, b.err
	}
	piece := b.list[0]
	b.list = b.list[1:]
	return []byte(piece), nil
}

func (b *slowBody) Close(error) {}

func memory(limit int64) *bodyMemory {
	return &bodyMemory{limit: limit, refused: observe.New().Counters("refused", "", 1).With()}
}

func drained(t *testing.T, r *replay) string {
	t.Helper()
	var all strings.Builder
	for {
		b, err := r.Next(t.Context())
		all.Write(b)
		if err == io.EOF {
			return all.String()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestABodyIsHereBeforeAnOriginIsAsked(t *testing.T) {
	big := strings.Repeat("x", 3000)
	for name, tt := range map[string]struct {
		list   []string
		length int64
		limit  int64
		pulls  int // before an origin is asked
		again  bool
	}{
		"small":                  {[]string{"a", "b", "c"}, 3, 1 << 20, 3, true},
		"more than a small one":  {[]string{big, big, big}, 9000, 1 << 20, 3, true},
		"too large to keep":      {[]string{"a"}, maxReplay + 1, 1 << 20, 0, false},
		"of unknown length":      {[]string{"a", "b"}, -1, 1 << 20, 0, true},
		"no memory":              {[]string{"a", "b"}, 2, 0, 1, false},
		"no memory for the rest": {[]string{big, big, big}, 9000, smallBody, 2, false},
	} {
		t.Run(name, func(t *testing.T) {
			src, m := &slowBody{list: tt.list, err: io.EOF}, memory(tt.limit)
			want := strings.Join(tt.list, "")
			var r replay
			r.begin(src, m, tt.length)
			if err := r.ahead(t.Context(), tt.length); err != nil || src.pulls != tt.pulls {
				t.Fatalf("%d pulls, %v", src.pulls, err)
			}
			if got := drained(t, &r); got != want {
				t.Errorf("%d bytes, want %d", len(got), len(want))
			}
			if again := r.Rewind(); again != tt.again {
				t.Errorf("can be sent again: %v", again)
			} else if again {
				if got := drained(t, &r); got != want {
					t.Errorf("again: %d bytes, want %d", len(got), len(want))
				}
			}
			if r.end(); m.used.Load() != 0 {
				t.Errorf("%d bytes are not given back", m.used.Load())
			}
		})
	}
}

func TestABodyThatDoesNotComeCostsNoOrigin(t *testing.T) {
	for _, bad := range []*message.BodyError{message.ErrBodySlow, message.ErrBodyTruncated} {
		var r replay
		r.begin(&slowBody{list: []string{"a"}, err: bad}, memory(1<<20), 9)
		var e *stage.Error
		if err := r.ahead(t.Context(), 9); !errors.As(err, &e) || e.Status != bad.Status || e.Side != stage.SideClient || !e.Close {
			t.Errorf("%v: %v", bad, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var r replay
	r.begin(&slowBody{err: context.Canceled}, memory(1<<20), 9)
	var e *stage.Error
	if err := r.ahead(ctx, 9); !errors.As(err, &e) || e.Code != "client_gone" {
		t.Errorf("a client that has gone: %v", err)
	}
}
