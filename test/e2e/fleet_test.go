package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/relais-edge/relais/test/proc"
)

const fleetDocuments = `
apiVersion: relais/v1
kind: Listener
metadata: {name: http}
spec: {address: "LISTEN"}
---
apiVersion: relais/v1
kind: Pop
metadata: {name: fra1}
spec: {region: eu}
---
apiVersion: relais/v1
kind: RolloutPolicy
metadata: {name: at-once}
spec: {rings: [{share: 100%, wait: 0s}]}
---
apiVersion: relais/v1
kind: Site
metadata: {name: shop}
spec:
  hostnames: [shop.example]
  routes: [{respond: {body: TEXT}}]
`

// operator is somebody with a control plane, a PoP and a shell.
type operator struct {
	t                      *testing.T
	dir, api, visitors     string
	env                    []string
	controlArgs            []string
	control, pop           *proc.Process
	popLog                 string
	busAddress, joinServer string
}

func newOperator(t *testing.T) *operator {
	a := ports(t, 4)
	o := &operator{t: t, dir: t.TempDir(), api: a[0], busAddress: a[1], joinServer: a[2], visitors: a[3]}
	o.env = []string{"XDG_CONFIG_HOME=" + filepath.Join(o.dir, "home"), "HOME=" + filepath.Join(o.dir, "home")}
	o.says("correct horse battery\n", "control", "init", "--data", o.path("control"), "--organization", "acme", "--login", "root")
	o.controlArgs = []string{"control", "--data", o.path("control"), "--listen", o.api, "--bus", o.busAddress, "--enrol", o.joinServer}
	o.startControl()
	o.says("correct horse battery\n", "login", "--api", "https://"+o.api, "--ca", o.path("control", "control.pem"), "--organization", "acme", "--login", "root")
	return o
}

func (o *operator) path(elements ...string) string {
	return filepath.Join(append([]string{o.dir}, elements...)...)
}

// does runs a command that must succeed.
func (o *operator) does(args ...string) string {
	o.t.Helper()
	code, out := run(o.t, o.env, args...)
	if code != 0 {
		o.t.Fatalf("relais %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// says is does with something to read.
func (o *operator) says(in string, args ...string) {
	o.t.Helper()
	cmd := exec.CommandContext(o.t.Context(), binary(o.t), args...)
	cmd.Env = append(os.Environ(), o.env...)
	cmd.Stdin = strings.NewReader(in)
	if out, err := cmd.CombinedOutput(); err != nil {
		o.t.Fatalf("relais %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (o *operator) startControl() {
	o.t.Helper()
	o.control, _ = start(o.t, o.api, o.env, o.controlArgs...)
}

func (o *operator) apply(text string) {
	o.t.Helper()
	file := o.path("documents.yaml")
	write(o.t, file, strings.NewReplacer("LISTEN", o.visitors, "TEXT", text).Replace(fleetDocuments))
	o.does("apply", "-f", file)
}

// serves says whether visitors see a text.
func (o *operator) serves(text string) func() bool {
	return func() bool {
		req, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, "http://"+o.visitors+"/", nil)
		if err != nil {
			o.t.Fatal(err)
		}
		req.Host = "shop.example"
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		b := make([]byte, 100)
		n, _ := resp.Body.Read(b)
		return resp.StatusCode == 200 && string(b[:n]) == text
	}
}

func TestAFleetFromDocumentsToVisitors(t *testing.T) {
	o := newOperator(t)
	o.apply("one")
	token := strings.TrimSpace(o.does("pop", "token", "fra1"))
	if out := o.does("pop", "join", token, "--data", o.path("fra1")); !strings.Contains(out, "fra1") {
		t.Errorf("%s", out)
	}
	if code, out := run(t, o.env, "pop", "join", token, "--data", o.path("thief")); code != 1 || !strings.Contains(out, "not valid") {
		t.Errorf("a token that was used: %d %s", code, out)
	}
	if code, out := run(t, o.env, "pop", "--data", o.path("nothing")); code != 1 || !strings.Contains(out, "relais pop join") {
		t.Errorf("a machine that has not joined: %d %s", code, out)
	}
	o.pop, o.popLog = start(t, o.visitors, o.env, "pop", "--data", o.path("fra1"))
	eventually(t, "visitors see the first text", o.serves("one"))
	o.apply("two")
	eventually(t, "visitors see the second text", o.serves("two"))
	eventually(t, "the control plane knows", func() bool { return strings.Contains(o.does("pop", "list"), "good") })
	if out := o.does("rollout"); !strings.Contains(out, "done") {
		t.Errorf("%s", out)
	}

	signal(t, o.control, syscall.SIGKILL)
	signal(t, o.pop, syscall.SIGKILL)
	eventually(t, "nobody serves", func() bool { return !o.serves("two")() })
	o.pop, o.popLog = start(t, o.visitors, o.env, "pop", "--data", o.path("fra1"))
	eventually(t, "the PoP serves without a control plane", o.serves("two"))
	o.startControl()
	history := o.does("history")
	o.apply("three") // the session outlived the process
	eventually(t, "visitors see what changed after both came back", o.serves("three"))
	o.does("rollback", strings.Fields(history)[0], "--reason", "a mistake")
	eventually(t, "visitors see what was before", o.serves("two"))
	o.asks(strings.Fields(history)[0])
}

// asks is what the engineer on call asks a fleet of one.
func (o *operator) asks(revision string) {
	t := o.t
	if out := o.does("diff", revision, "--organization", "acme"); out != "" {
		t.Errorf("after the way back there is a difference: %s", out)
	}
	if out := o.does("diff", "0", "r"+revision); !strings.Contains(out, "Site shop created") {
		t.Errorf("%s", out)
	}
	if code, out := run(t, o.env, "diff", "yesterday"); code != 2 || !strings.Contains(out, "relais history") {
		t.Errorf("%d %s", code, out)
	}
	if out := o.does("rollout", "log"); !strings.Contains(out, "ring 1: 1 of 1 PoPs") {
		t.Errorf("%s", out)
	}
	if out := o.does("purge", "--site", "shop", "--all", "--wait", "30s"); !strings.Contains(out, "obeys") {
		t.Errorf("%s", out)
	}
	if out := o.does("purge", "show", "1"); !strings.Contains(out, "fra1") || !strings.Contains(out, "obeys") {
		t.Errorf("%s", out)
	}
	if code, out := run(t, o.env, "purge", "show", "7"); code != 1 || !strings.Contains(out, "no such thing") {
		t.Errorf("%d %s", code, out)
	}
	write(t, o.path("documents.yaml"), strings.NewReplacer("LISTEN", o.visitors, "TEXT", "four").Replace(fleetDocuments))
	if out := o.does("apply", "-f", o.path("documents.yaml"), "--wait", "1m"); !strings.Contains(out, "is at all PoPs") {
		t.Errorf("%s", out)
	}
	if !o.serves("four")() {
		t.Error("what apply waited for is not served")
	}
	o.does("pop", "revoke", "fra1", "--reason", "sold")
	eventually(t, "nothing is heard of who was revoked", func() bool { return strings.Contains(o.does("pop", "list"), "not heard of") })
	if !o.serves("four")() {
		t.Error("who was revoked ended its service")
	}
}
