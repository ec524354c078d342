package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"github.com/relais-edge/relais/internal/http/message"
)

func TestRequestIDReadsBack(t *testing.T) {
	for _, id := range []RequestID{{}, {0xff}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}, {15: 0xff}} {
		s := id.String()
		back, ok := ParseRequestID(s)
		if len(s) != IDLen || !ok || back != id {
			t.Errorf("%x became %q became %x", id, s, back)
		}
	}
	for _, s := range []string{"", "short", "ilou5678901234567890123456", "00000000000000000000000000x"} {
		if _, ok := ParseRequestID(s); ok {
			t.Errorf("%q was taken for an id", s)
		}
	}
}

type ender struct {
	name string
	to   *[]string
}

func (e ender) End(message.Outcome) { *e.to = append(*e.to, e.name) }

func TestEndTellsEachOnceTheLastAddedFirst(t *testing.T) {
	x, got := &Exchange{}, []string{}
	x.OnEnd(ender{"a", &got})
	x.OnEnd(ender{"b", &got})
	x.End(message.Outcome{})
	x.End(message.Outcome{})
	if !slices.Equal(got, []string{"b", "a"}) {
		t.Errorf("told %v", got)
	}
}

func TestATrailIsBounded(t *testing.T) {
	x := &Exchange{}
	for range maxMarks + 5 {
		x.Mark("s", "c")
	}
	if len(x.Trail.Marks()) != maxMarks || x.Trail.Dropped != 5 {
		t.Errorf("%d marks, %d dropped", len(x.Trail.Marks()), x.Trail.Dropped)
	}
	x.Reset()
	if len(x.Trail.Marks()) != 0 || x.Trail.Dropped != 0 {
		t.Error("Reset left marks")
	}
}

func TestAForkOwnsItsRequest(t *testing.T) {
	x, f := &Exchange{In: &message.Request{}}, &Exchange{}
	x.In.SetPath([]byte("/a"))
	x.In.AddString(message.Accept, "*/*")
	x.SetHost([]byte("h"))
	x.Path = x.In.Path()
	x.ForkInto(f)
	x.In.Reset()
	x.In.SetPath([]byte("/other"))
	if string(f.In.Path()) != "/a" || string(f.Path) != "/a" || string(f.Host) != "h" || string(f.In.Get(message.Accept)) != "*/*" {
		t.Errorf("the fork sees %s %s", f.In.Path(), f.Path)
	}
}

type pass string

func (p pass) Name() string { return string(p) }

func (p pass) Serve(ctx context.Context, x *Exchange, next Handler) (*message.Response, error) {
	x.Mark(string(p), "down")
	resp, err := next.Serve(ctx, x)
	x.Mark(string(p), "up")
	return resp, err
}

type fails struct{}

func (fails) Serve(context.Context, *Exchange) (*message.Response, error) {
	return nil, fmt.Errorf("wrapped: %w", &Error{Code: "dns_error", Side: SideOrigin, Status: 502, Err: io.EOF})
}

func TestAChainGoesDownInOrderAndUpAgain(t *testing.T) {
	x := &Exchange{}
	_, err := Chain(fails{}, pass("a"), pass("b")).Serve(t.Context(), x)
	var got []string
	for _, m := range x.Trail.Marks() {
		got = append(got, m.Stage+" "+m.Code)
	}
	if !slices.Equal(got, []string{"a down", "b down", "b up", "a up"}) {
		t.Errorf("order %v", got)
	}
	if e := AsError(err); e.Code != "dns_error" || !errors.Is(err, io.EOF) {
		t.Errorf("error %v", e)
	}
	if e := AsError(io.EOF); e.Status != 500 || e.Side != SideEdge {
		t.Errorf("foreign error %+v", e)
	}
}

func TestWhoseFaultAnErrorIs(t *testing.T) {
	own := &Error{Code: "destination_unavailable", Side: SideOrigin, Status: 503}
	for _, tc := range []struct {
		err    error
		side   Side
		status int
	}{
		{own, SideOrigin, 503},
		{fmt.Errorf("wrapped: %w", own), SideOrigin, 503},
		{fmt.Errorf("waf: %w", message.ErrBodyMalformed), SideClient, 400},
		{message.ErrBodySlow, SideClient, 408},
		{fmt.Errorf("waiting: %w", context.Canceled), SideClient, 499},
		{errors.New("a defect"), SideEdge, 500},
	} {
		if e := AsError(tc.err); e.Side != tc.side || e.Status != tc.status || !errors.Is(e, tc.err) && !errors.Is(tc.err, e) {
			t.Errorf("%v: %s %d", tc.err, e.Side, e.Status)
		}
	}
}
