package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const plain = `apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "%s"}
---
apiVersion: relais/v1
kind: Site
metadata: {name: s}
spec:
  hostnames: ["*"]
  routes: [{pool: o, filters: {responseHeaders: {set: [{name: X-Revision, value: "%s"}]}}}]
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: o}
spec: {tiers: [{origins: [{address: "%s"}]}]}
`

func TestAReloadUnderLoadFailsNoRequest(t *testing.T) {
	addr := ports(t, 1)[0]
	back := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	file := filepath.Join(t.TempDir(), "edge.yaml")
	write(t, file, fmt.Sprintf(plain, addr, "0", back))
	serve(t, addr, file)

	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var good, bad atomic.Int64
	for i := range 8 {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 0}, Timeout: 10 * time.Second}
		wg.Go(func() {
			for ctx.Err() == nil {
				resp, err := client.Get("http://" + addr + "/")
				if err != nil {
					bad.Add(1)
					t.Log(err)
					continue
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || resp.StatusCode != 200 || string(b) != "ok" {
					bad.Add(1)
					t.Log(resp.Status, string(b), err)
					continue
				}
				good.Add(1)
			}
		})
	}
	for i := range 10 {
		want := fmt.Sprint(i + 1)
		write(t, file, fmt.Sprintf(plain, addr, want, back))
		eventually(t, "revision "+want+" is served", func() bool {
			resp, _ := get(t, "http://"+addr+"/")
			return resp.Header.Get("X-Revision") == want
		})
	}
	cancel()
	wg.Wait()
	if bad.Load() != 0 || good.Load() < 100 {
		t.Errorf("%d good, %d failed", good.Load(), bad.Load())
	}
}

func TestTheAccessLogIsBegunAnewAtSIGHUP(t *testing.T) {
	addr := ports(t, 1)[0]
	back := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	dir := t.TempDir()
	file, log := filepath.Join(dir, "edge.yaml"), filepath.Join(dir, "access.log")
	write(t, file, fmt.Sprintf(plain, addr, "0", back))
	p, _ := start(t, addr, nil, "serve", "-f", file, "--access-log", log)
	if err := os.Rename(log, log+".1"); err != nil {
		t.Fatal(err)
	}
	signal(t, p, syscall.SIGHUP)
	eventually(t, "a new file", func() bool { _, err := os.Stat(log); return err == nil })
	resp, err := http.Get("http://" + addr + "/after")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	eventually(t, "a line in it", func() bool {
		b, _ := os.ReadFile(log)
		return strings.Contains(string(b), `"path":"/after"`)
	})
}

func TestABadDocumentChangesNothingAndSaysWhy(t *testing.T) {
	addr := ports(t, 1)[0]
	back := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	file := filepath.Join(t.TempDir(), "edge.yaml")
	good := fmt.Sprintf(plain, addr, "1", back)
	write(t, file, good)
	_, log := serve(t, addr, file)
	write(t, file, strings.Replace(good, "pool: o,", "pool: oo,", 1))
	eventually(t, "the problem is logged", func() bool { return logHas(t, log, "edge.yaml:11") && logHas(t, log, `\"oo\"`) })
	if resp, body := get(t, "http://"+addr+"/"); resp.StatusCode != 200 || body != "ok" || resp.Header.Get("X-Revision") != "1" {
		t.Errorf("%s %s", resp.Status, body)
	}
	code, out := run(t, nil, "validate", "-f", file)
	if code != 2 || !strings.Contains(out, "edge.yaml:11") || !strings.Contains(out, `did you mean "o"`) {
		t.Errorf("validate: %d %s", code, out)
	}
	var result struct {
		Valid    bool
		Problems []map[string]any
	}
	code, out = run(t, nil, "validate", "-o", "json", "-f", file)
	if err := json.Unmarshal([]byte(out), &result); err != nil || code != 2 || result.Valid || len(result.Problems) != 1 {
		t.Errorf("validate -o json: %d %v %s", code, err, out)
	}
	write(t, file, good)
	if code, out := run(t, nil, "validate", "-f", file); code != 0 || !strings.Contains(out, "valid") {
		t.Errorf("validate: %d %s", code, out)
	}
}

func TestDocumentsWithoutAListenerAreRefusedAndTheLastGoodOnesStay(t *testing.T) {
	addr := ports(t, 1)[0]
	back := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	dir := t.TempDir()
	file, silent := filepath.Join(dir, "edge.yaml"), filepath.Join(dir, "silent")
	good := fmt.Sprintf(plain, addr, "1", back)
	_, site, _ := strings.Cut(good, "---\n") // the listener comes first
	write(t, file, good)
	write(t, silent, site)
	const says = "neither a Listener nor a Service"
	for _, args := range [][]string{{"validate", "-f", silent}, {"serve", "-f", silent}} {
		if code, out := run(t, []string{"RELAIS_DATA=" + filepath.Join(dir, "data")}, args...); code != 2 || !strings.Contains(out, says) || !strings.Contains(out, "kind: Listener") {
			t.Errorf("%s: %d %s", args[0], code, out)
		}
	}
	_, log := serve(t, addr, file)
	write(t, file, site)
	eventually(t, "the problem is logged", func() bool { return logHas(t, log, says) })
	if resp, body := get(t, "http://"+addr+"/"); resp.StatusCode != 200 || body != "ok" {
		t.Errorf("%s %s", resp.Status, body)
	}
}

func TestWhatCannotStartSaysWhatToDo(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	dir := t.TempDir()
	file := filepath.Join(dir, "edge.yaml")
	env := []string{"RELAIS_DATA=" + filepath.Join(dir, "data")}
	write(t, file, fmt.Sprintf(plain, ln.Addr(), "1", "127.0.0.1:1"))
	if code, out := run(t, env, "serve", "-f", file); code != 1 || !strings.Contains(out, ln.Addr().String()) || !strings.Contains(out, "in use") {
		t.Errorf("port in use: %d %s", code, out)
	}
	cert := strings.Replace(fmt.Sprintf(plain, ports(t, 1)[0], "1", "127.0.0.1:1"), `"}`, `", tls: {certificates: [c]}}`, 1) +
		"---\napiVersion: relais/v1\nkind: Certificate\nmetadata: {name: c}\nspec: {files: {certificate: /nowhere/c.pem, key: /nowhere/k.pem}}\n"
	write(t, file, cert)
	if code, out := run(t, env, "serve", "-f", file); code != 1 || !strings.Contains(out, "/nowhere/c.pem") {
		t.Errorf("missing certificate: %d %s", code, out)
	}
	if code, out := run(t, env, "serve", "-f", filepath.Join(dir, "none.yaml")); code != 2 || !strings.Contains(out, "none.yaml") {
		t.Errorf("missing file: %d %s", code, out)
	}
	if code, out := run(t, env, "serve"); code != 2 || !strings.Contains(out, "file") {
		t.Errorf("no flag: %d %s", code, out)
	}
	blocked := filepath.Join(dir, "afile")
	write(t, blocked, "")
	write(t, file, strings.Replace(fmt.Sprintf(plain, ports(t, 1)[0], "1", "127.0.0.1:1"), `"}`, `", tls: {}}`, 1))
	if code, out := run(t, []string{"RELAIS_DATA=" + filepath.Join(blocked, "data")}, "serve", "-f", file); code != 1 || !strings.Contains(out, "--data") {
		t.Errorf("data folder that cannot be made: %d %s", code, out)
	}
}

func TestSIGTERMAnswersWhatIsUnderWay(t *testing.T) {
	addr := ports(t, 1)[0]
	entered, leave := make(chan struct{}), make(chan struct{})
	back := origin(t, func(w http.ResponseWriter, _ *http.Request) {
		close(entered)
		<-leave
		fmt.Fprint(w, "late but whole")
	})
	file := filepath.Join(t.TempDir(), "edge.yaml")
	write(t, file, fmt.Sprintf(plain, addr, "1", back))
	p, _ := serve(t, addr, file)
	answer := make(chan string, 1)
	go func() {
		_, body := get(t, "http://"+addr+"/")
		answer <- body
	}()
	<-entered
	signal(t, p, syscall.SIGTERM)
	eventually(t, "no new connection is taken", func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(leave)
	if body := <-answer; body != "late but whole" {
		t.Errorf("answer %q", body)
	}
	<-p.Done()
	if err := p.Err(); err != nil {
		t.Errorf("exit: %v", err)
	}
}

func TestABlockedAttackIsExplainedByItsID(t *testing.T) {
	a := ports(t, 2)
	dir := t.TempDir()
	back := origin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	log := filepath.Join(dir, "access.json")
	env := []string{"LISTEN=" + a[0], "LISTEN_TLS=" + a[1], "ORIGIN=" + back, "RELAIS_DATA=" + filepath.Join(dir, "data")}
	startWith(t, a[0], env, "serve", "-f", "../../examples/waf.yaml", "--access-log", log)
	resp, body := get(t, "http://"+a[0]+"/?q=1%27%20OR%20%271%27=%271", "Accept", "text/html", "User-Agent", "Mozilla/5.0", "Accept-Language", "fr-FR")
	id := resp.Header.Get("X-Request-Id")
	if resp.StatusCode != 403 || len(id) != 26 || !strings.Contains(body, id) || !strings.Contains(body, "bloquée") {
		t.Fatalf("%s %q %s", resp.Status, id, body)
	}
	code, out := run(t, env, "explain", id)
	if code != 0 || !regexp.MustCompile(`waf\s+deny\s.*942`).MatchString(out) {
		t.Errorf("explain: %d %s", code, out)
	}
	code, out = run(t, env, "explain", "-o", "json", id)
	var e map[string]any
	if err := json.Unmarshal([]byte(out), &e); err != nil || code != 0 || e["status"] != 403.0 {
		t.Errorf("explain -o json: %d %v %s", code, err, out)
	}
	eventually(t, "the access log has the line", func() bool { return logHas(t, log, id) })
	if code, out = run(t, env, "explain", "00000000000000000000000000"); code != 1 || !strings.Contains(out, "no request") {
		t.Errorf("explain of an unknown id: %d %s", code, out)
	}
}

func TestExamplesAnswerAnyHostOnEveryProtocol(t *testing.T) {
	files, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(files) < 5 {
		t.Fatalf("%v %v", files, err)
	}
	back := origin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s", r.Host, r.URL.Path) })
	for _, file := range files {
		if filepath.Base(file) == "acme.yaml" || filepath.Base(file) == "fleet.yaml" {
			continue // it is for one host and asks a public authority (test/acme proves what is in it); it is for a control plane
		}
		t.Run(filepath.Base(file), func(t *testing.T) {
			a := ports(t, 4)
			serve(t, a[0], file, "LISTEN="+a[0], "LISTEN_TLS="+a[1], "LISTEN_TCP="+a[2], "LISTEN_UDP="+a[3], "ORIGIN="+back, "ORIGIN_OVERFLOW="+ports(t, 1)[0])
			for name, c := range clients() {
				scheme, addr := "http", a[0]
				if strings.HasPrefix(name, "tls") {
					scheme, addr = "https", a[1]
				}
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, scheme+"://"+addr+"/a/b", nil)
				req.Host = "any.example.org"
				req.Header.Set("User-Agent", "Mozilla/5.0")
				req.Header.Set("Accept", "*/*")
				resp, err := c.Do(req)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				b, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				if resp.StatusCode != 200 || string(b) != "any.example.org /a/b" {
					t.Errorf("%s: %s %s", name, resp.Status, b)
				}
				if want := map[string]int{"h2c": 2, "tls-h2": 2}[name]; want != 0 && resp.ProtoMajor != want {
					t.Errorf("%s: spoke %s", name, resp.Proto)
				}
			}
		})
	}
}

func readAll(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
