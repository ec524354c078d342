package fleet

import (
	"bytes"
	"errors"
	"testing"
)

func TestPieces(t *testing.T) {
	for _, data := range [][]byte{{}, {0}, bytes.Repeat([]byte("x"), Piece)} {
		got, err := ReadPiece(PieceAnswer(data))
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d bytes: %d, %v", len(data), len(got), err)
		}
	}
	if _, err := ReadPiece(PieceAnswer(nil)); !errors.Is(err, ErrGone) {
		t.Errorf("%v", err)
	}
	for _, bad := range [][]byte{nil, {2, 1}, make([]byte, Piece+2)} {
		if _, err := ReadPiece(bad); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
}

func TestLatencyHasItsBucket(t *testing.T) {
	for b := range Buckets - 1 {
		if got := Bucket(Bound(b)); got != b {
			t.Errorf("the bound of %d is in %d", b, got)
		}
		if got := Bucket(Bound(b) * 1.01); got != b+1 {
			t.Errorf("above the bound of %d is in %d", b, got)
		}
	}
	if Bucket(0) != 0 || Bucket(1e9) != Buckets-1 {
		t.Error("the ends")
	}
	var s Sample
	s.Requests = 200
	s.Latency[10], s.Latency[20] = 198, 2
	if s.P99() != 10 || s.Tail(10) != 2 {
		t.Errorf("%d, %d", s.P99(), s.Tail(10))
	}
	s.Latency[10], s.Latency[20] = 197, 3
	if s.P99() != 20 {
		t.Errorf("%d", s.P99())
	}
}

func TestAPoPThatBeganAnewCountsFromZero(t *testing.T) {
	a, b := Sample{Requests: 10, Errors: 1}, Sample{Requests: 15, Errors: 3}
	if d := b.Sub(a); d.Requests != 5 || d.Errors != 2 {
		t.Errorf("%+v", d)
	}
	if d := a.Sub(b); d != a {
		t.Errorf("%+v", d)
	}
}
