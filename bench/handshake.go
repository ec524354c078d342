package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// opener opens connections for one request each.
type opener struct {
	addr, path, host string
	tls              *tls.Config // nil in clear
}

func newOpener(s *site, address string) (*opener, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	o := &opener{addr: net.JoinHostPort("127.0.0.1", u.Port()), path: u.Path, host: s.host()}
	if u.Scheme == "https" {
		// One key exchange for everybody, and no session cache: each handshake is a full one.
		o.tls = &tls.Config{
			ServerName: u.Hostname(), InsecureSkipVerify: true, MinVersion: tls.VersionTLS13,
			CurvePreferences: []tls.CurveID{tls.X25519}, NextProtos: []string{"http/1.1"},
		}
	}
	return o, nil
}

// open connects and asks once. The connection stays open when keep is set.
func (o *opener) open(ctx context.Context, keep bool) (nc net.Conn, status int, err error) {
	nc, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", o.addr)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil || !keep {
			_ = nc.Close()
		}
	}()
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	if o.tls != nil {
		tc := tls.Client(nc, o.tls)
		if err := tc.HandshakeContext(ctx); err != nil {
			return nc, 0, err
		}
		if s := tc.ConnectionState(); s.DidResume || s.CurveID != tls.X25519 {
			return nc, 0, errors.New("the handshake was not a full one with X25519")
		}
		nc = tc
	}
	word := "close"
	if keep {
		word = "keep-alive"
	}
	if _, err := fmt.Fprintf(nc, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: %s\r\n\r\n", o.path, o.host, word); err != nil {
		return nc, 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReaderSize(nc, 2048), nil)
	if err != nil {
		return nc, 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	return nc, resp.StatusCode, err
}

// loadHandshakes opens connections one after the other, each with a full handshake and one
// request, in a few goroutines on the core of this program.
func loadHandshakes(ctx context.Context, s *site, address string, conns, seconds int) (loadResult, error) {
	o, err := newOpener(s, address)
	if err != nil {
		return loadResult{}, err
	}
	var mu sync.Mutex
	var r loadResult
	var took []float64
	began := time.Now()
	end := began.Add(time.Duration(seconds) * time.Second)
	var wg sync.WaitGroup
	for range min(conns, 16) {
		wg.Go(func() {
			for ctx.Err() == nil && time.Now().Before(end) {
				t := time.Now()
				_, status, err := o.open(ctx, false)
				mu.Lock()
				r.requests++
				took = append(took, float64(time.Since(t).Microseconds()))
				if err != nil {
					r.errors++
				} else if status >= 400 {
					r.badStatus++
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	r.elapsed = time.Since(began)
	if r.requests == 0 {
		return r, errors.New("no handshake was made")
	}
	slices.Sort(took)
	r.p50 = took[len(took)/2]
	return r, nil
}
