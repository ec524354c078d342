package egress_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/relais-edge/relais/internal/control/egress"
)

func TestOnlyThePublicIsReached(t *testing.T) {
	var hits atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		hits.Add(1)
		_, _ = w.Write(make([]byte, 1000))
	}))
	defer server.Close()
	get := func(rt http.RoundTripper, url string) (int, error) {
		a, err := (&http.Client{Transport: rt}).Get(url)
		if err != nil {
			return 0, err
		}
		defer a.Body.Close()
		b, err := io.ReadAll(a.Body)
		return len(b), err
	}
	port := server.URL[strings.LastIndex(server.URL, ":"):]
	for _, at := range []string{"127.0.0.1", "[::ffff:127.0.0.1]", "localhost"} {
		if _, err := get(egress.Transport(nil, time.Minute), "http://"+at+port); !errors.Is(err, egress.ErrAddress) {
			t.Errorf("%s: %v", at, err)
		}
	}
	if n := hits.Load(); n != 0 {
		t.Fatalf("it was reached %d times", n)
	}
	local := egress.Transport(func(a netip.Addr) bool { return a.IsLoopback() }, time.Minute)
	if n, err := get(local, server.URL); err != nil || n != 1000 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if _, err := get(egress.Secure(local, false, 1000), server.URL); !errors.Is(err, egress.ErrScheme) {
		t.Errorf("in clear: %v", err)
	}
	if n, err := get(egress.Secure(local, true, 1000), server.URL); err != nil || n != 1000 {
		t.Errorf("%d bytes, %v", n, err)
	}
	var most *http.MaxBytesError
	if _, err := get(egress.Secure(local, true, 999), server.URL); !errors.As(err, &most) {
		t.Errorf("more than it may be: %v", err)
	}
}

func TestAddressesAndURLs(t *testing.T) {
	for text, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1": true, "10.0.0.1": false, "172.16.0.1": false, "192.168.1.1": false, "127.0.0.1": false, "169.254.169.254": false,
		"100.64.0.1": false, "0.0.0.0": false, "255.255.255.255": false, "224.0.0.1": false, "192.0.2.1": false, "::1": false, "::": false, "fe80::1": false,
		"fd00::1": false, "ff02::1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "2001:db8::1": false,
	} {
		if got := egress.Public(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s is public: %v", text, got)
		}
	}
	for text, want := range map[string][2]bool{ // by itself, and with loopback
		"https://example.com/x": {true, true}, "http://example.com": {false, false}, "http://127.0.0.1:80/": {false, true}, "http://[::1]/": {false, true},
		"https://127.0.0.1": {true, true}, "http://127.0.0.1.example.com": {false, false}, "http://localhost": {false, false}, "ftp://127.0.0.1": {false, false},
		"https://u@example.com": {false, false}, "https:///x": {false, false}, "file:///x": {false, false}, "": {false, false},
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		for i, loopback := range []bool{false, true} {
			if err := egress.CheckURL(u, loopback); (err == nil) != want[i] {
				t.Errorf("%q, loopback %v: %v", text, loopback, err)
			}
		}
	}
}
