package e2e

import (
	"crypto/tls"
	"net/http"
	"testing"
	"time"

	"github.com/relais-edge/relais/test/proc"
)

// clients speak each protocol; those over TLS send no SNI, because they dial an address, and
// accept the internal CA.
func clients() map[string]*http.Client {
	make1 := func(set func(*http.Protocols)) *http.Client {
		p := new(http.Protocols)
		set(p)
		return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
			Protocols: p, TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		}}
	}
	return map[string]*http.Client{
		"http1":     make1(func(p *http.Protocols) { p.SetHTTP1(true) }),
		"h2c":       make1(func(p *http.Protocols) { p.SetUnencryptedHTTP2(true) }),
		"tls-http1": make1(func(p *http.Protocols) { p.SetHTTP1(true) }),
		"tls-h2":    make1(func(p *http.Protocols) { p.SetHTTP2(true) }),
	}
}

// startWith is start with an environment that has its own data folder.
func startWith(t *testing.T, addr string, env []string, args ...string) *proc.Process {
	t.Helper()
	p, _ := start(t, addr, env, args...)
	return p
}
