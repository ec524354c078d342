package pop

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/relais-edge/relais/internal/bundle"
)

const good = `apiVersion: relais/v1
kind: Site
metadata: {name: s}
spec:
  hostnames: [HOST]
  routes: [{respond: {body: hello}}]
---
` + listener

const listener = `apiVersion: relais/v1
kind: Listener
metadata: {name: http}
spec: {address: "127.0.0.1:8080"}
`

type edge struct {
	mu    sync.Mutex
	hosts []string
	err   error
}

func (e *edge) Apply(_ context.Context, b *bundle.Bundle) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.err != nil {
		return e.err
	}
	e.hosts = b.Sites[0].Hostnames
	return nil
}

func (e *edge) serves() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.hosts, " ")
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTheLastGoodDocumentsStayInService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "site.yaml")
		write(t, file, strings.Replace(good, "HOST", "a.test", 1))
		var e edge
		var reports []Change
		f := New(Config{Paths: []string{file}, Env: os.LookupEnv, Apply: &e, Report: func(c Change) { reports = append(reports, c) }})
		ctx, cancel := context.WithCancel(t.Context())
		if c := f.Load(ctx); c.Err != nil || len(c.Problems) > 0 || e.serves() != "a.test" || len(c.Revision) != 12 || c.Sites != 1 {
			t.Fatalf("first: %+v", c)
		}
		wake := make(chan os.Signal)
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx, wake) }()
		step := func(text string, applyErr error) Change {
			t.Helper()
			e.mu.Lock()
			e.err = applyErr
			e.mu.Unlock()
			n := len(reports)
			write(t, file, text)
			time.Sleep(1500 * time.Millisecond)
			synctest.Wait()
			if len(reports) != n+1 {
				t.Fatalf("%d reports for one change", len(reports)-n)
			}
			return reports[n]
		}
		if c := step(strings.Replace(good, "HOST", "b.test", 1), nil); len(c.Problems) > 0 || e.serves() != "b.test" {
			t.Errorf("second: %+v, serves %s", c, e.serves())
		}
		if c := step(strings.Replace(good, "HOST", "c.test, bogus: [", 1), nil); len(c.Problems) == 0 || e.serves() != "b.test" || f.State().Problem == "" {
			t.Errorf("bad: %+v, serves %s", c, e.serves())
		}
		silent, _, _ := strings.Cut(strings.Replace(good, "HOST", "x.test", 1), "---")
		if c := step(silent, nil); len(c.Problems) != 1 || e.serves() != "b.test" || !strings.Contains(f.State().Problem, "neither a Listener nor a Service") {
			t.Errorf("no listener: %+v, serves %s", c, e.serves())
		}
		if c := step(strings.Replace(good, "HOST", "d.test", 1), errors.New("port in use")); c.Err == nil || e.serves() != "b.test" || f.State().Problem != "port in use" {
			t.Errorf("refused: %+v, serves %s", c, e.serves())
		}
		e.mu.Lock()
		e.err = nil
		e.mu.Unlock()
		wake <- os.Interrupt // the same files, once more
		synctest.Wait()
		if e.serves() != "d.test" || f.State().Problem != "" || f.State().Sites != 1 {
			t.Errorf("after a wake: serves %s, %+v", e.serves(), f.State())
		}
		n := len(reports)
		time.Sleep(time.Minute)
		if len(reports) != n {
			t.Error("it loads files that did not change")
		}
		cancel()
		<-done
	})
}

func TestDocumentsThatServeNothingAreRefusedWithAWayToMendThem(t *testing.T) {
	site, _, _ := strings.Cut(strings.Replace(good, "HOST", "a.test", 1), "---\n")
	file := filepath.Join(t.TempDir(), "site.yaml")
	write(t, file, site)
	b, problems := Compile([]string{file}, os.LookupEnv)
	if b != nil || len(problems) != 1 || problems[0].File != file {
		t.Fatalf("%v, %v", b, problems)
	}
	// What the problem proposes mends it.
	_, rest, _ := strings.Cut(problems[0].Fix, "{")
	i := strings.LastIndexByte(rest, '}')
	write(t, file, site+"---\n{"+rest[:i+1]+"\n")
	if b, problems := Compile([]string{file}, os.LookupEnv); b == nil || len(b.Listeners) != 1 {
		t.Errorf("%v, %v", b, problems)
	}
	write(t, file, "not: [a document")
	if _, problems := Compile([]string{file}, os.LookupEnv); len(problems) != 1 || strings.Contains(problems[0].What, "Listener") {
		t.Errorf("a listener is missed where nothing could be read: %v", problems)
	}
}

// TestAPipeAmongTheDocumentsHoldsNothingUp: nobody may ever write into it.
func TestAPipeAmongTheDocumentsHoldsNothingUp(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.yaml"), good)
	f := New(Config{Paths: []string{dir}})
	before := f.stamp()
	if err := syscall.Mkfifo(filepath.Join(dir, "b.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	if f.stamp() == before {
		t.Error("the pipe is not noticed")
	}
}

// What a document names beside itself is followed as the document is.
func TestAFileThatADocumentNamesIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file, beside := filepath.Join(dir, "site.yaml"), filepath.Join(dir, "openapi", "shop.yaml")
		if err := os.Mkdir(filepath.Dir(beside), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, beside, "openapi: 3.1.0\npaths: {/a: {get: {}}}\n")
		write(t, file, strings.Replace(good, "spec:\n  hostnames", "spec:\n  api: shop\n  hostnames", 1)+`---
apiVersion: relais/v1
kind: ApiPolicy
metadata: {name: shop}
spec: {document: {file: openapi/shop.yaml}}
`)
		write(t, file, strings.ReplaceAll(read(t, file), "HOST", "a.test"))
		var e edge
		var reports []Change
		f := New(Config{Paths: []string{file}, Env: os.LookupEnv, Apply: &e, Report: func(c Change) { reports = append(reports, c) }})
		ctx, cancel := context.WithCancel(t.Context())
		first := f.Load(ctx)
		if first.Err != nil || len(first.Problems) > 0 {
			t.Fatal(first)
		}
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx, nil) }()
		time.Sleep(5 * time.Second)
		if synctest.Wait(); len(reports) != 1 {
			t.Errorf("%d loads without a change", len(reports))
		}
		write(t, beside, "openapi: 3.1.0\npaths: {/b: {get: {}}}\n")
		time.Sleep(2 * time.Second)
		if synctest.Wait(); len(reports) != 2 || len(reports[1].Problems) > 0 || reports[1].Revision == first.Revision {
			t.Fatalf("a change beside: %+v", reports)
		}
		write(t, beside, "openapi: 2.0\n")
		time.Sleep(2 * time.Second)
		if synctest.Wait(); len(reports) != 3 || len(reports[2].Problems) != 1 || !strings.Contains(reports[2].Problems[0].String(), "spec.document.file") {
			t.Errorf("a bad change beside: %+v", reports)
		}
		cancel()
		<-done
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
