package main

import (
	"context"
	"embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"

	"github.com/relais-edge/relais/test/proc"
)

//go:embed peers/*.tmpl peers/*.lua
var peerFiles embed.FS

// site holds what the peers' configurations need. Its exported fields and
// methods are used by the templates.
type site struct {
	Dir     string // work directory
	Files   string // document root
	Keys    proc.KeyPair
	Backend string // host:port
	Syslog  string // host:port of the datagram sink
	Sites   int    // that relais is loaded with
	Root    bool   // the servers run as root

	root   string // of the repository
	relais string // path of the binary
	ports  map[string]int
}

// newSite fills a fresh work directory: bodies, certificate, ports.
func newSite(root, relais, syslog string, sites int) (*site, error) {
	dir := filepath.Join(root, "bench", ".work", "run")
	if err := os.RemoveAll(dir); err != nil {
		return nil, err
	}
	s := &site{
		Dir: dir, Files: filepath.Join(dir, "files"), Syslog: syslog, Sites: sites, Root: os.Geteuid() == 0,
		root: root, relais: relais, ports: map[string]int{},
	}
	for _, d := range []string{"files/hit", "nginx", "varnish", "logs"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(s.Files, "hit", "1k"), []byte(strings.Repeat("x", 1<<10)), 0o644); err != nil {
		return nil, err
	}
	var err error
	if s.Keys, err = proc.Certificate(dir); err != nil {
		return nil, err
	}
	numbers, err := proc.Ports(len(ports()))
	if err != nil {
		return nil, err
	}
	for i, name := range ports() {
		s.ports[name] = numbers[i]
	}
	s.Backend = proc.Addr(s.ports["backend"])
	return s, nil
}

// Port is a port by name.
func (s *site) Port(name string) (int, error) {
	p, ok := s.ports[name]
	if !ok {
		return 0, fmt.Errorf("no port is named %q", name)
	}
	return p, nil
}

// Addr is a port by name as host:port.
func (s *site) Addr(name string) (string, error) {
	p, err := s.Port(name)
	return proc.Addr(p), err
}

// BackendPort is the port of the backend.
func (s *site) BackendPort() int { return s.ports["backend"] }

// Kilobyte is the body of 1 KB.
func (s *site) Kilobyte() string { return strings.Repeat("x", 1<<10) }

// Log is the access log of a server.
func (s *site) Log(server string) string { return filepath.Join(s.Dir, "logs", server+".access") }

// SiteNumbers counts the sites of relais.
func (s *site) SiteNumbers() []int {
	n := make([]int, s.Sites)
	for i := range n {
		n[i] = i
	}
	return n
}

// MeasuredSite is the number of the site that is asked.
func (s *site) MeasuredSite() int { return s.Sites / 2 }

// host is the Host field of every request, to every server.
func (s *site) host() string { return fmt.Sprintf("site-%05d.bench.test", s.MeasuredSite()) }

// fill executes a template of peers/ into a file of the work directory and
// gives its path.
func (s *site) fill(name string) (string, error) {
	t, err := template.ParseFS(peerFiles, "peers/"+name+".tmpl")
	if err != nil {
		return "", err
	}
	path := filepath.Join(s.Dir, name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if err := t.Execute(f, s); err != nil {
		return "", err
	}
	return path, f.Close()
}

// alone takes the lock that keeps two runs from disturbing each other. The
// kernel gives it back when release is called or the process ends.
func alone(root string) (release func(), err error) {
	dir := filepath.Join(root, "bench", ".work")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another run is measuring in %s; wait for it to end: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil
}

// dropLogs removes the access logs, which are large.
func (s *site) dropLogs() {
	logs, _ := filepath.Glob(filepath.Join(s.Dir, "logs", "*.access"))
	for _, l := range logs {
		_ = os.Remove(l)
	}
}

// binary is the path of one of our own helper programs.
func (s *site) binary(name string) string {
	return filepath.Join(s.root, "bench", ".work", "bin", name)
}

// build compiles our own helper programs.
func build(ctx context.Context, root string) error {
	for _, p := range []string{"backend", "h3load", "peers/reverseproxy"} {
		out := filepath.Join(root, "bench", ".work", "bin", filepath.Base(p))
		if err := goBuild(ctx, filepath.Join(root, "bench", p), out); err != nil {
			return err
		}
	}
	return nil
}

func goBuild(ctx context.Context, dir, out string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-o", out, ".")
	cmd.Dir = dir
	cmd.WaitDelay = time.Second
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", dir, err, b)
	}
	return nil
}

// repoRoot is the directory of the product's go.mod at or above the working directory.
func repoRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		b, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module github.com/relais-edge/relais\n") {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s is not inside the repository", dir)
		}
	}
}
