package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// An edge keeps requests, is killed, and another one with the same folder gives them back; documents that
// would let an attack pass are found.
func TestRecordedRequestsOutliveAKilledEdgeAndAreReplayed(t *testing.T) {
	a := ports(t, 2)
	dir := t.TempDir()
	back := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	env := []string{"LISTEN=" + a[0], "LISTEN_TLS=" + a[1], "ORIGIN=" + back, "RELAIS_DATA=" + filepath.Join(dir, "data")}
	args := []string{"serve", "-f", "../../examples/waf.yaml", "--record", "100%", "--record-file", "1MiB"}
	p := startWith(t, a[0], env, args...)
	for range 3 {
		get(t, "http://"+a[0]+"/page", "Accept", "text/html", "User-Agent", "Mozilla/5.0", "Cookie", "sid=verysecret1")
	}
	blocked, _ := get(t, "http://"+a[0]+"/?q=1%27%20OR%20%271%27=%271", "Accept", "text/html", "User-Agent", "Mozilla/5.0")
	id := blocked.Header.Get("X-Request-Id")
	file := filepath.Join(dir, "data", "record", "requests.ndjson")
	eventually(t, "four requests are in the file", func() bool {
		b, _ := os.ReadFile(file)
		return strings.Count(string(b), "\n") == 4
	})
	if err := syscall.Kill(p.Pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	p.Stop(10 * time.Second)
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.WriteString(f, `{"v":1,"id":"torn`)
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	startWith(t, a[0], env, args...)
	recorded := filepath.Join(dir, "recorded.ndjson")
	eventually(t, "the record is whole", func() bool {
		code, out := run(t, env, "record", "export", "--to", recorded)
		if code != 0 {
			t.Fatal(out)
		}
		b, _ := os.ReadFile(recorded)
		return strings.Count(string(b), "\n") == 4
	})
	b, err := os.ReadFile(recorded)
	if err != nil || strings.Contains(string(b), "verysecret1") || !strings.Contains(string(b), id) {
		t.Errorf("%v %s", err, b)
	}
	text, err := os.ReadFile("../../examples/waf.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shadow := filepath.Join(dir, "shadow.yaml")
	write(t, shadow, strings.Replace(string(text), "mode: enforce", "mode: shadow", 1))
	for _, c := range []struct {
		args []string
		code int
		has  string
	}{
		{[]string{"--against", "../../examples/waf.yaml", recorded}, 0, "4 requests"},
		{[]string{"--against", shadow}, 1, id},
		{[]string{"-f", "../../examples/waf.yaml", "--against", shadow, "--allow", "waf", "--allow", "status=1", recorded}, 0, "nothing differs"},
		{[]string{"-f", "../../examples/waf.yaml", "--against", shadow, "--allow", "waf", "-o", "json", recorded}, 1, `"over": [`},
		{[]string{"--against", shadow, "--allow", "nonsense", recorded}, 2, "no such kind"},
		{[]string{"--against", filepath.Join(dir, "none.yaml"), recorded}, 2, "none.yaml"},
		{[]string{"--against", shadow, filepath.Join(dir, "none.ndjson")}, 1, "none.ndjson"},
	} {
		if code, out := run(t, env, append([]string{"replay"}, c.args...)...); code != c.code || !strings.Contains(out, c.has) {
			t.Errorf("replay %q: %d, want %d and %q in\n%s", c.args, code, c.code, c.has, out)
		}
	}
}

// A false alarm is explained, and a replay of real requests proves of the exclusion that the explanation names that
// it is enough for that request and changes nothing else.
func TestTheExclusionThatExplainNamesIsEnoughAndNoWider(t *testing.T) {
	a := ports(t, 2)
	dir := t.TempDir()
	back := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	env := []string{"LISTEN=" + a[0], "LISTEN_TLS=" + a[1], "ORIGIN=" + back, "RELAIS_DATA=" + filepath.Join(dir, "data")}
	startWith(t, a[0], env, "serve", "-f", "../../examples/waf.yaml", "--record", "100%")
	ask := func(target string) (status int, id string) {
		resp, _ := get(t, "http://"+a[0]+target, "Accept", "text/html", "User-Agent", "Mozilla/5.0")
		return resp.StatusCode, resp.Header.Get("X-Request-Id")
	}
	status, planted := ask("/search?q=sleep(8)+pillow")
	if status != 403 {
		t.Fatal(status)
	}
	// What a wider exclusion would let pass too: another path, another argument, another rule.
	for _, target := range []string{"/find?q=sleep(8)+pillow", "/search/x?q=sleep(8)+pillow", "/search?p=sleep(8)+pillow", "/search?q=%3Cscript%3Ealert(1)%3C/script%3E"} {
		if status, _ := ask(target); status != 403 {
			t.Fatalf("%s: %d", target, status)
		}
	}
	ask("/search?q=blue+pillow")
	_, explained := run(t, env, "explain", planted)
	var lines strings.Builder
	for l := range strings.Lines(explained) {
		if l = strings.TrimSpace(l); strings.HasPrefix(l, "- {rules:") {
			lines.WriteString("    " + l + "\n")
		}
	}
	if !strings.Contains(explained, "942") || !strings.Contains(explained, "ARGS:q") || lines.Len() == 0 {
		t.Fatal(explained)
	}
	recorded := filepath.Join(dir, "recorded.ndjson")
	eventually(t, "six requests are kept", func() bool {
		if code, out := run(t, env, "record", "export", "--to", recorded); code != 0 {
			t.Fatal(out)
		}
		b, _ := os.ReadFile(recorded)
		return strings.Count(string(b), "\n") == 6
	})
	text, err := os.ReadFile("../../examples/waf.yaml")
	if err != nil {
		t.Fatal(err)
	}
	const mode = "  mode: enforce"
	if strings.Count(string(text), mode) != 1 {
		t.Fatal("the example has no mode: enforce")
	}
	changed := filepath.Join(dir, "changed.yaml")
	write(t, changed, strings.Replace(string(text), mode, "  exclusions:\n"+lines.String()+mode, 1))
	code, out := run(t, env, "replay", "-f", "../../examples/waf.yaml", "--against", changed, "-o", "json", recorded)
	if code != 1 || !strings.Contains(out, `"different": 1,`) || !strings.Contains(out, planted) {
		t.Errorf("%d\n%s", code, out)
	}
	if code, out := run(t, env, "replay", "-f", "../../examples/waf.yaml", "--against", changed, "--allow", "waf=1", "--allow", "status=1", recorded); code != 0 || !strings.Contains(out, "942100 942160 → pass") {
		t.Errorf("%d\n%s", code, out)
	}
}
