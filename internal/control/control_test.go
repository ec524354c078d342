package control_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/control"
	"github.com/relais-edge/relais/internal/control/store"
	"github.com/relais-edge/relais/internal/control/tenant"
	"github.com/relais-edge/relais/internal/control/tenant/audit"
)

// told counts the entries of acme's audit log with an action.
func told(t *testing.T, k *control.Control, action string) (n int) {
	t.Helper()
	err := k.Store().View(t.Context(), func(r *store.Reader) error {
		list, err := audit.Entries(t.Context(), r, "acme", 0, 1000)
		for _, e := range list {
			if e.Action == action {
				n++
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestTheAddressIsChecked refuses what identity providers cannot send back to.
func TestTheAddressIsChecked(t *testing.T) {
	for _, url := range []string{"control.example.com", "http://control.example.com", "https://control.example.com/console", "https://"} {
		if _, err := control.Open(t.Context(), control.Config{Data: t.TempDir(), URL: url}); err == nil || !strings.Contains(err.Error(), "--url") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

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
		bob := tenant.Actor{Organization: "acme", Login: "bob"}
		if round == 0 {
			if err := k.Tenant.CreateUser(t.Context(), tenant.Actor{Organization: "acme", Login: "root"}, "acme", "bob", "another good password", false); err != nil {
				t.Fatal(err)
			}
			for range 25 { // five more than are told one by one
				if _, _, err := k.Tenant.Children(t.Context(), bob, "acme", "", 10); !errors.Is(err, tenant.ErrDenied) {
					t.Fatal(err)
				}
			}
		} else if n := told(t, k, "denied.more"); n != 1 {
			t.Errorf("%d entries sum up what was denied before the end, want 1", n)
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
