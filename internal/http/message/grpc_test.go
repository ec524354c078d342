package message

import (
	"testing"
	"time"
)

func TestIsGRPC(t *testing.T) {
	for v, want := range map[string]bool{
		"application/grpc": true, "Application/gRPC+proto": true, "application/grpc; x=y": true, "application/grpc-web": false,
		"application/grpcx": false, "application/json": false, "": false,
	} {
		var f Fields
		f.AddString(ContentType, v)
		if IsGRPC(&f) != want {
			t.Errorf("%q is %t", v, !want)
		}
	}
	if IsGRPC(&Fields{}) {
		t.Error("no Content-Type")
	}
}

func TestGRPCTimeout(t *testing.T) {
	for v, want := range map[string]time.Duration{
		"1S": time.Second, "99999999n": 99999999, "100m": 100 * time.Millisecond, "5u": 5 * time.Microsecond, "2M": 2 * time.Minute,
		"99999999H": 1<<63 - 1, "": -1, "S": -1, "1s": -1, "123456789S": -1, "-1S": -1, "1": -1,
	} {
		var f Fields
		f.AddLine([]byte("grpc-timeout"), []byte(v))
		got, ok := GRPCTimeout(&f)
		if !ok {
			got = -1
		}
		if got != want {
			t.Errorf("%q is %v, want %v", v, got, want)
		}
	}
}
