package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/control/store"
)

// TestTheCommandsOfTenancy builds a tree, lets people in and out, and looks at what they may.
func TestTheCommandsOfTenancy(t *testing.T) {
	c := startControl(t)
	c.login("acme", "root", rootPassword)
	c.must("", "root@acme", "whoami")
	c.must("", "organization shop created", "org", "create", "shop", "--title", "The shop")
	c.must("", "shop", "org", "list")
	c.must("", "acme > shop", "org", "show", "shop")
	c.must("", `"title": "The shop"`, "org", "show", "shop", "-o", "json")
	c.refused(exitFailed, "", "", "org", "create", "shop")
	c.refused(exitUsage, "", "text or json", "org", "list", "-o", "xml")

	shop := []string{"--organization", "shop"}
	at := func(args ...string) []string { return append(args, shop...) }
	c.must("", `"items": []`, at("user", "list", "-o", "json")...)
	c.must("another good password\n", "user joe created", at("user", "create", "joe")...)
	c.refused(exitUsage, "short\n", "password", at("user", "create", "eve")...)
	link := strings.TrimSpace(c.must("", "", at("user", "invite", "zoe")...))
	if who, reset, err := c.k.Tenant.Invited(t.Context(), link); err != nil || who.Login != "zoe" || reset {
		t.Errorf("%v %v %v", who, reset, err)
	}
	c.must("", "user joe disabled", at("user", "disable", "joe")...)
	c.must("", "disabled", at("user", "list")...)
	c.must("", "user joe enabled", at("user", "enable", "joe")...)
	c.must("", "role viewer given to joe", at("role", "bind", "joe", "viewer")...)
	c.must("", "joe@shop", at("role", "bindings")...)
	c.refused(exitUsage, "", "--expires", at("role", "bind", "joe", "viewer", "--expires", "soon")...)

	c.login("shop", "joe", "another good password\n")
	c.must("", "joe@shop", "whoami")
	c.refused(exitFailed, "", "Not allowed", "user", "create", "mallory", "--service")
	c.login("acme", "root", rootPassword)
	c.must("", "127.0.0.1", at("user", "sessions", "joe")...)
	c.must("", "user joe logged out", at("user", "logout", "joe")...)
	if out := c.must("", "", at("user", "sessions", "joe")...); out != "" {
		t.Errorf("still there: %s", out)
	}
	c.must("", "role viewer taken from joe", at("role", "unbind", "joe", "viewer")...)
	c.must("", "user joe deleted", at("user", "delete", "joe")...)
	c.must("", "user zoe deleted", at("user", "delete", "zoe")...)

	c.must("", "plan small written", "plan", "put", "small", "--limit", "sites=10", "--limit", "requests=1000:bill")
	c.must("", "requests=1000:bill sites=10:refuse", "plan", "list")
	c.refused(exitUsage, "", "METRIC=MOST", "plan", "put", "small", "--limit", "sites")
	c.must("", "given to shop", at("plan", "assign", "small", "--of", "acme")...)
	c.must("", "0 of 10 sites", at("plan", "usage", "sites")...)

	c.must("", "TXT", at("claim", "add", "shop.example.com")...)
	c.must("", "pending", at("claim", "list")...)
	c.must("", "claim shop.example.com deleted", at("claim", "delete", "shop.example.com")...)
	c.refused(exitUsage, "", "dns or http", at("claim", "add", "x.example.com", "--method", "mail")...)

	c.refused(exitFailed, "no\n", "not confirmed", "org", "delete", "shop")
	c.must("yes\n", "organization shop deleted", "org", "delete", "shop")
}

// TestTokensAndLogout has a program ask with a token, and takes it away again.
func TestTokensAndLogout(t *testing.T) {
	c := startControl(t)
	c.login("acme", "root", rootPassword)
	c.refused(exitUsage, "", "--rule", "token", "create")
	c.refused(exitUsage, "", "VERBS:KINDS", "token", "create", "--rule", "everything")
	text := strings.TrimSpace(c.must("", "", "token", "create", "--title", "ci", "--rule", "read:document", "--expires", "12h"))
	var l struct{ Items []token }
	if err := json.Unmarshal([]byte(c.must("", "ci", "token", "list", "-o", "json")), &l); err != nil || len(l.Items) != 1 {
		t.Fatalf("%v %+v", err, l)
	}
	t.Setenv("RELAIS_TOKEN", text)
	c.must("", "by token "+l.Items[0].ID, "whoami")
	c.must("", "", "get")
	c.refused(exitFailed, "", "Not allowed", "user", "list")
	t.Setenv("RELAIS_TOKEN", "")
	c.must("", "revoked", "token", "revoke", l.Items[0].ID)
	t.Setenv("RELAIS_TOKEN", text)
	c.refused(exitFailed, "", "token", "get")
	t.Setenv("RELAIS_TOKEN", "")
	c.must("", "logged out", "logout")
	c.refused(exitFailed, "", "nobody is logged in", "logout")
	c.refused(exitFailed, "", "not known", "whoami")
}

// TestImportShowsAndAsks deletes what is not in the files once that was confirmed, and not before.
func TestImportShowsAndAsks(t *testing.T) {
	c := startControl(t)
	c.login("acme", "root", rootPassword)
	one, two := filepath.Join(c.dir, "one.yaml"), filepath.Join(c.dir, "two.yaml")
	for file, name := range map[string]string{one: "one", two: "two"} {
		text := "apiVersion: relais/v1\nkind: OriginPool\nmetadata: {name: " + name + "}\nspec: {tiers: [{origins: [{address: '192.0.2.9:80'}]}]}\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.must("", "one created", "import", "-f", one, "--yes")
	c.refused(exitFailed, "no\n", "one deleted", "import", "-f", two)
	c.refused(exitFailed, "", "not confirmed", "import", "-f", two)
	c.refused(exitUsage, "", "--yes", "import", "-f", "-")
	c.must("", "192.0.2.9", "get", "OriginPool", "one")
	c.must("yes\n", "one deleted", "import", "-f", two)
	c.refused(exitFailed, "", "", "get", "OriginPool", "one")
}

// TestTheAuditLogIsVerified reads it, verifies it here, and finds an entry that was changed in the database.
func TestTheAuditLogIsVerified(t *testing.T) {
	c := startControl(t)
	c.login("acme", "root", rootPassword)
	c.must("", "organization shop created", "org", "create", "shop", "--title", "<Käse & Brot>")
	c.must("", "organization.create", "audit")
	var v struct {
		Last struct {
			Seq  int64
			Hash string
		}
	}
	if err := json.Unmarshal([]byte(c.must("", `"ok": true`, "audit", "verify", "-o", "json")), &v); err != nil {
		t.Fatal(err)
	}
	anchor := func(n int64, hash string) string {
		b, _ := json.Marshal(n)
		return string(b) + "=" + hash
	}
	c.must("", "good:", "audit", "verify", "--anchor", anchor(v.Last.Seq, v.Last.Hash))
	c.refused(exitFound, "", "noted", "audit", "verify", "--anchor", anchor(v.Last.Seq, strings.Repeat("0", 64)))
	c.refused(exitFound, "", "missing", "audit", "verify", "--anchor", anchor(v.Last.Seq+1000, v.Last.Hash))
	c.refused(exitUsage, "", "NUMBER=HASH", "audit", "verify", "--anchor", "1")
	_, err := c.k.Marked.Update(t.Context(), store.Change{Author: "somebody"}, func(tx *store.Tx) error {
		_, err := tx.Append(t.Context(), "acme", "audit", []byte(`{"organization":"acme","seq":1,"action":"forged"}`))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	c.refused(exitFound, "", "not as it was written", "audit", "verify")
}

// shared is a buffer that a command writes and a test reads.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *shared) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestWatchTellsAndEnds sees changes as they are made and those from before, and ends when it is told to.
func TestWatchTellsAndEnds(t *testing.T) {
	c := startControl(t)
	c.login("acme", "root", rootPassword)
	file := filepath.Join(c.dir, "a.yaml")
	text := "apiVersion: relais/v1\nkind: OriginPool\nmetadata: {name: seen}\nspec: {tiers: [{origins: [{address: '192.0.2.9:80'}]}]}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.must("", "created", "apply", "-f", file, "--reason", "first")
	revision := strings.Fields(c.must("", "first", "history"))[0]
	out := &shared{}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	cmd := root(out, out)
	cmd.SetArgs([]string{"watch", "--after", revision})
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	c.must("", "deleted", "delete", "OriginPool", "seen")
	for end := time.Now().Add(30 * time.Second); !strings.Contains(out.String(), "OriginPool seen deleted"); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not told: %s", out)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	got := c.must("", `"reason":"first"`, "watch", "--after", "1", "--count", "1000", "-o", "json", "--count", "2")
	if strings.Count(got, "\n") != 2 {
		t.Errorf("two events, one to a line: %s", got)
	}
	c.refused(exitFailed, "", "", "watch", "--organization", "nowhere")
	c.refused(exitUsage, "", "", "watch", "--after", "999999")
}

// TestEveryCommandHasAnExample walks all commands: who reads --help sees how it is used.
func TestEveryCommandHasAnExample(t *testing.T) {
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%s has no example, or does not say what it does", cmd.CommandPath())
		}
		for _, c := range cmd.Commands() {
			walk(c)
		}
	}
	walk(root(&bytes.Buffer{}, &bytes.Buffer{}))
}
