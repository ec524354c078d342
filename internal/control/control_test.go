package control_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/control"
	"github.com/relais-edge/relais/internal/control/store"
)

// TestAControlPlaneServesAndLeads makes the operator, asks over TLS, stops, and finds everything again after a restart.
func TestAControlPlaneServesAndLeads(t *testing.T) {
	data := filepath.Join(t.TempDir(), "control")
	const login = `{"organization":"acme","login":"root","password":"correct horse battery"}`
	session := ""
	for round := range 2 {
		k, err := control.Open(t.Context(), control.Config{Data: data})
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			if _, err := k.Tenant.Setup(t.Context(), "acme", "root", "correct horse battery"); err != nil {
				t.Fatal(err)
			}
		}
		cert, path, err := control.Certificate(data, "", "", []string{"localhost", "127.0.0.1"})
		if err != nil {
			t.Fatal(err)
		}
		worked := make(chan int64, 1)
		k.Add("test", func(ctx context.Context, l *store.Lease) error {
			worked <- l.Term()
			<-ctx.Done()
			return nil
		})
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- k.Run(ctx, l, cert, nil) }()
		pool := x509.NewCertPool()
		pem, err := os.ReadFile(path)
		if err != nil || !pool.AppendCertsFromPEM(pem) {
			t.Fatal("no certificate", err)
		}
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
		resp, err := client.Post("https://"+l.Addr().String()+"/v1/login", "application/json", strings.NewReader(login))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(body), `"token"`) {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		var in struct{ Token string }
		if err := json.Unmarshal(body, &in); err != nil {
			t.Error(err)
		}
		if session == "" {
			session = in.Token
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+l.Addr().String()+"/v1/session", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+session)
		if resp, err = client.Do(req); err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("round %d: the first session is not resumed: %d", round, resp.StatusCode)
		}
		if term := <-worked; term != int64(round+1) {
			t.Errorf("leads in term %d, want %d", term, round+1)
		}
		client.CloseIdleConnections()
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if err := k.Close(); err != nil {
			t.Error(err)
		}
	}
	if info, err := os.Stat(filepath.Join(data, "vault.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the vault's key: %v %v", info, err)
	}
}
