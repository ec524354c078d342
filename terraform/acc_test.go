package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/relais-edge/relais/api/client"
)

// bed is a control plane that runs, OpenTofu, and a folder with the configuration.
type bed struct {
	*testing.T
	dir, tofu string
	env       []string
}

const (
	source   = "resource \"relais_site\" \"shop\""
	password = "correct horse battery"
)

// build makes a program, without cgo; what runs elsewhere is named in the environment, to save the minutes that it takes.
func build(t *testing.T, named, dir, pkg, out string, args ...string) string {
	t.Helper()
	if p := os.Getenv(named); p != "" {
		return p
	}
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-o", out}, args...), pkg)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, b)
	}
	return out
}

// plane starts a control plane, and gives its address, its CA and a token.
func plane(t *testing.T, relais, dir string) (api, ca, token string) {
	t.Helper()
	data := filepath.Join(dir, "control")
	setup := exec.CommandContext(t.Context(), relais, "control", "init", "--data", data, "--organization", "acme")
	setup.Stdin = strings.NewReader(password + "\n")
	if b, err := setup.CombinedOutput(); err != nil {
		t.Fatalf("control init: %v\n%s", err, b)
	}
	ctx, stop := context.WithCancel(context.Background())
	run := exec.CommandContext(ctx, relais, "control", "--data", data, "--listen", "127.0.0.1:0")
	out, err := run.StdoutPipe()
	if err == nil {
		err = run.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = run.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := fmt.Sscanf(line, "control plane on %s certificate %s", &api, &ca); n != 2 {
		t.Fatalf("the control plane says %q", line)
	}
	api = strings.TrimSuffix(api, ",")
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(api, "", pem)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := json.Marshal(map[string]string{"organization": "acme", "login": "root", "password": password})
	var got struct {
		Token string `json:"token"`
	}
	if _, err := c.Do(t.Context(), client.Request{Method: http.MethodPost, Path: client.Path("login"), Body: body}, &got); err != nil {
		t.Fatal(err)
	}
	return api, ca, got.Token
}

// run starts OpenTofu and wants an exit code.
func (b *bed) run(want int, args ...string) string {
	b.Helper()
	cmd := exec.CommandContext(b.Context(), b.tofu, args...)
	cmd.Dir, cmd.Env = b.dir, b.env
	out, _ := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != want {
		b.Fatalf("tofu %q: exit code %d, not %d\n%s", args, got, want, out)
	}
	return string(out)
}

func (b *bed) write(name, text string) {
	b.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

// example is what docs/terraform.md shows.
func example(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("../docs/terraform.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "```hcl\n")
	text, _, ok := strings.Cut(rest, "```")
	if !ok || !strings.Contains(text, source) {
		t.Fatal("docs/terraform.md has no example")
	}
	return text
}

// TestOpenTofuKeepsDocuments applies the example of the documentation to a real control plane: nothing drifts after it, nor
// after a change; what means the same is no change; documents are imported, and destroyed.
func TestOpenTofuKeepsDocuments(t *testing.T) {
	dir := t.TempDir()
	tofu := build(t, "TOFU", "tools", "github.com/opentofu/opentofu/cmd/tofu", filepath.Join(dir, "tofu"))
	relais := build(t, "RELAIS", "..", "./cmd/relais", filepath.Join(dir, "relais"), "-tags", "no_fs_access,nodynamic")
	plugins := filepath.Join(dir, "plugins")
	build(t, "", ".", ".", filepath.Join(plugins, "terraform-provider-relais"))
	api, ca, token := plane(t, relais, dir)
	b := &bed{T: t, dir: filepath.Join(dir, "shop"), tofu: tofu}
	if err := os.Mkdir(b.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	b.env = append(
		os.Environ(), "RELAIS_API="+api, "RELAIS_CA="+ca, "RELAIS_TOKEN="+token, "RELAIS_ORGANIZATION=acme",
		"TF_CLI_CONFIG_FILE="+filepath.Join(b.dir, "tofu.rc"), "TF_IN_AUTOMATION=1", "NO_COLOR=1",
	)
	b.write("tofu.rc", fmt.Sprintf("provider_installation {\n  dev_overrides { \"relais-edge/relais\" = %q }\n  direct {}\n}\n", plugins))
	text := example(t)
	b.write("main.tf", text)

	b.run(2, "plan", "-detailed-exitcode")
	b.run(0, "apply", "-auto-approve")
	b.run(0, "plan", "-detailed-exitcode")

	text = strings.Replace(text, `default_ttl = "60s"`, `default_ttl = "1m"`, 1)
	b.write("main.tf", text)
	b.run(0, "plan", "-detailed-exitcode")

	text = strings.Replace(text, `default_ttl = "1m"`, `default_ttl = "2m"`, 1)
	text = strings.Replace(text, "secret-of-this-shop", "secret-of-that-shop", 1)
	b.write("main.tf", text)
	b.run(2, "plan", "-detailed-exitcode")
	b.run(0, "apply", "-auto-approve")
	b.run(0, "plan", "-detailed-exitcode")

	b.run(0, "state", "rm", "relais_site.shop", "relais_cache_policy.pages")
	b.run(0, "import", "relais_site.shop", "acme/shop")
	b.run(0, "import", "relais_cache_policy.pages", "acme/pages")
	b.run(0, "apply", "-auto-approve")
	b.run(0, "plan", "-detailed-exitcode")

	b.write("main.tf", strings.Replace(text, `paranoia = 2`, `paranoia = 9`, 1))
	if out := b.run(1, "plan"); !strings.Contains(out, "from 1 to 4") {
		t.Errorf("a number out of bounds is told as\n%s", out)
	}
	b.write("main.tf", text)
	b.run(0, "destroy", "-auto-approve")
	b.run(2, "plan", "-detailed-exitcode")
}
