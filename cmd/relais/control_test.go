package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relais-edge/relais/internal/control"
)

// commands runs commands as a person does, against a control plane of its own. It has an operator acme with a user root, and
// nobody is logged in.
type commands struct {
	*testing.T
	dir, api, ca string
	k            *control.Control
}

const rootPassword = "correct horse battery\n"

func startControl(t *testing.T) *commands {
	t.Helper()
	c := &commands{T: t, dir: t.TempDir()}
	data := filepath.Join(c.dir, "control")
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(c.dir, "config"))
	t.Setenv("HOME", c.dir)
	for _, name := range []string{"RELAIS_API", "RELAIS_TOKEN", "RELAIS_CA", "RELAIS_ORGANIZATION", "RELAIS_DATA", "RELAIS_POSTGRES"} {
		t.Setenv(name, "")
	}
	c.must(rootPassword, "made root@acme", "control", "init", "--data", data, "--organization", "acme")
	k, err := control.Open(t.Context(), control.Config{Data: data})
	if err != nil {
		t.Fatal(err)
	}
	c.k = k
	cert, ca, err := control.Certificate(data, "", "", []string{"127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx, l, cert, nil) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_ = k.Close()
	})
	c.api, c.ca = "https://"+l.Addr().String(), ca
	return c
}

func (c *commands) run(in string, args ...string) (string, error) {
	c.Helper()
	var out bytes.Buffer
	cmd := root(&out, &out)
	cmd.SetIn(strings.NewReader(in))
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(c.Context())
	return out.String(), err
}

func (c *commands) must(in, has string, args ...string) string {
	c.Helper()
	out, err := c.run(in, args...)
	if err != nil || !strings.Contains(out, has) {
		c.Fatalf("%q: %v\n%s", args, err, out)
	}
	return out
}

// refused wants an exit code, and a text that says why.
func (c *commands) refused(code int, in, has string, args ...string) {
	c.Helper()
	out, err := c.run(in, args...)
	var e *exitError
	if !errors.As(err, &e) || e.code != code || !strings.Contains(out+e.Error(), has) {
		c.Errorf("%q: %v, want exit code %d\n%s", args, err, code, out)
	}
}

func (c *commands) login(org, login, password string) {
	c.Helper()
	c.must(password, "logged in until", "login", "--api", c.api, "--ca", c.ca, "--organization", org, "--login", login)
}

// TestTheCommandsOfAControlPlane makes an operator, logs in, and changes documents as a person does.
func TestTheCommandsOfAControlPlane(t *testing.T) {
	c := startControl(t)
	dir, must, run := c.dir, c.must, c.run
	c.refused(exitFailed, "wrong\n", "wrong", "login", "--api", c.api, "--ca", c.ca, "--organization", "acme", "--login", "root")
	c.login("acme", "root", rootPassword)
	if info, err := os.Stat(filepath.Join(dir, "config", "relais", "context.json")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the context: %v %v", info, err)
	}
	file := filepath.Join(dir, "shop.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("ORIGIN", "192.0.2.9:80")
	write("apiVersion: relais/v1\nkind: OriginPool\nmetadata: {name: shop, organization: acme}\nspec: {tiers: [{origins: [{address: '${ORIGIN}'}]}], connection: {signature: {secret: 'a long secret, and then some'}}}\n")
	must("", "nothing was changed", "diff", "-f", file)
	must("", "OriginPool shop created", "apply", "-f", file, "--reason", "first")
	must("", "OriginPool shop unchanged", "apply", "-f", file)
	exported := must("", "192.0.2.9:80", "export")
	if strings.Contains(exported, "a long secret") {
		t.Errorf("a secret is exported:\n%s", exported)
	}
	write(exported)
	must("", "OriginPool shop unchanged", "apply", "-f", file, "--prune")
	must("", `"shop"`, "get", "OriginPool", "shop")
	history := must("", "first", "history")
	revision := strings.Fields(history)[0]
	write(strings.Replace(exported, "192.0.2.9", "192.0.2.10", 1))
	must("", "/spec/tiers/0/origins/0/address", "apply", "-f", file)
	must("", "192.0.2.9:80", "rollback", revision)
	write("apiVersion: relais/v1\nkind: Site\nmetadata: {name: s, organization: acme}\nspec: {hostnames: [a.example], routes: [{pool: none}]}\n")
	out, err := run("", "apply", "-f", file)
	if e, is := err.(*exitError); !is || e.code != exitUsage || !strings.Contains(out, `spec.routes[0].pool: there is no OriginPool "none"`) {
		t.Errorf("%v %s", err, out)
	}
	must("", "OriginPool shop deleted", "delete", "OriginPool", "shop")
	if out, err := run("", "delete", "OriginPool", "shop"); err == nil {
		t.Errorf("deleted twice: %s", out)
	}
}
