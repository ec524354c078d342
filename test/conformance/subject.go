package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"
	"time"

	"github.com/relais-edge/relais/test/conformance/smug"
	"github.com/relais-edge/relais/test/proc"
)

//go:embed peers/*.tmpl
var peerFiles embed.FS

// Lane is one running copy of the subject with its own recording origin.
type Lane struct {
	HTTP1    string // host:port of HTTP/1.1 in clear
	H2C      string // host:port of HTTP/2 with prior knowledge; may equal HTTP1
	TLS      string // host:port of HTTP/1.1 and HTTP/2 over TLS
	Recorder *smug.Recorder
}

// Subject is the proxy under test.
type Subject struct {
	Name  string
	Lanes []Lane
}

// launch says how to run one copy of a kind of subject.
type launch struct {
	dir  string       // its own, empty
	keys proc.KeyPair // a throw-away certificate
	lane Lane         // where it must listen
	// Origin is the host:port that it must forward to.
	origin string
	root   string // of the repository
	relais string // path of the binary
	doc    string // path of the document that relais serves
}

// kinds are the subjects that can be named. Each gives the command line, and
// writes what the command needs into the launch's directory.
func kinds() map[string]func(launch) (proc.Spec, error) {
	return map[string]func(launch) (proc.Spec, error){
		"relais":  relaisSpec,
		"nginx":   nginxSpec,
		"haproxy": haproxySpec,
		"caddy":   caddySpec,
	}
}

func relaisSpec(l launch) (proc.Spec, error) {
	for what, path := range map[string]string{"binary": l.relais, "document": l.doc} {
		if _, err := os.Stat(path); err != nil {
			return proc.Spec{}, fmt.Errorf("no %s of relais: %w; run make build, or name another with a flag", what, err)
		}
	}
	return proc.Spec{
		Args: []string{l.relais, "serve", "-f", l.doc},
		Env:  []string{"LISTEN=" + l.lane.HTTP1, "LISTEN_TLS=" + l.lane.TLS, "ORIGIN=" + l.origin},
	}, nil
}

func nginxSpec(l launch) (proc.Spec, error) {
	err := l.write("nginx.conf")
	return proc.Spec{Args: []string{"nginx", "-p", l.dir, "-c", filepath.Join(l.dir, "nginx.conf")}}, err
}

func haproxySpec(l launch) (proc.Spec, error) {
	err := l.write("haproxy.cfg")
	return proc.Spec{Args: []string{"haproxy", "-db", "-f", filepath.Join(l.dir, "haproxy.cfg")}}, err
}

func caddySpec(l launch) (proc.Spec, error) {
	program, err := exec.LookPath("caddy")
	if err != nil {
		program = filepath.Join(l.root, "bench", ".work", "bin", "caddy")
		if _, err := os.Stat(program); err != nil {
			return proc.Spec{}, fmt.Errorf("no caddy in PATH or in bench/.work; build it with: go run ./bench install")
		}
	}
	err = l.write("Caddyfile")
	return proc.Spec{
		Args: []string{program, "run", "--config", filepath.Join(l.dir, "Caddyfile"), "--adapter", "caddyfile"},
		Env:  []string{"XDG_DATA_HOME=" + l.dir, "XDG_CONFIG_HOME=" + l.dir},
	}, err
}

// write fills the template of a peer's configuration file.
func (l launch) write(name string) error {
	t, err := template.ParseFS(peerFiles, "peers/"+name+".tmpl")
	if err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(l.dir, name))
	if err != nil {
		return err
	}
	defer f.Close()
	_, httpPort, _ := net.SplitHostPort(l.lane.HTTP1)
	_, tlsPort, _ := net.SplitHostPort(l.lane.TLS)
	return t.Execute(f, map[string]any{
		"Dir": l.dir, "Keys": l.keys, "HTTP1": l.lane.HTTP1, "H2C": l.lane.H2C, "TLS": l.lane.TLS,
		"HTTP1Port": httpPort, "TLSPort": tlsPort, "Origin": l.origin, "Root": os.Geteuid() == 0,
	})
}

// startConfig says what to start.
type startConfig struct {
	kind   string // a key of kinds
	copies int
	work   string // directory for configurations and logs
	root   string // of the repository
	relais string // path of the relais binary
	doc    string // the document that relais serves
}

// start runs the copies of a subject and their origins. stop ends them all; it
// is never nil and must be called also after an error.
func start(ctx context.Context, c startConfig) (_ *Subject, stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var running []*proc.Process
	stop = func() {
		for _, p := range running {
			p.Stop(3 * time.Second)
		}
		cancel()
	}
	spec, ok := kinds()[c.kind]
	if !ok {
		return nil, stop, fmt.Errorf("no subject %q; there are relais, nginx, haproxy and caddy", c.kind)
	}
	keys, err := proc.Certificate(c.work)
	if err != nil {
		return nil, stop, err
	}
	s := &Subject{Name: c.kind}
	for i := range c.copies {
		l := launch{dir: filepath.Join(c.work, fmt.Sprintf("%s-%d", c.kind, i)), keys: keys, root: c.root, relais: c.relais, doc: c.doc}
		if err := os.MkdirAll(l.dir, 0o755); err != nil {
			return nil, stop, err
		}
		if err := l.reserve(ctx, c.kind); err != nil {
			return nil, stop, err
		}
		sp, err := spec(l)
		if err != nil {
			return nil, stop, err
		}
		sp.Name, sp.Log, sp.Core = c.kind, filepath.Join(l.dir, "output.log"), proc.AnyCore
		p, err := proc.Start(sp)
		if err != nil {
			return nil, stop, explainMissing(err)
		}
		running = append(running, p)
		if err := l.await(ctx, p); err != nil {
			return nil, stop, err
		}
		s.Lanes = append(s.Lanes, l.lane)
	}
	return s, stop, nil
}

// reserve chooses the ports of a lane and starts its recording origin.
func (l *launch) reserve(ctx context.Context, kind string) error {
	ports, err := proc.Ports(3)
	if err != nil {
		return err
	}
	l.lane = Lane{HTTP1: proc.Addr(ports[0]), H2C: proc.Addr(ports[1]), TLS: proc.Addr(ports[2]), Recorder: smug.NewRecorder()}
	if kind == "relais" || kind == "caddy" {
		l.lane.H2C = l.lane.HTTP1 // they tell the protocols apart on one port
	}
	origin, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	l.origin = origin.Addr().String()
	go func() { _ = l.lane.Recorder.Serve(ctx, origin) }()
	return nil
}

func (l *launch) await(ctx context.Context, p *proc.Process) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Second, errors.New("20 s are over"))
	defer cancel()
	for _, addr := range []string{l.lane.HTTP1, l.lane.H2C, l.lane.TLS} {
		if err := p.WaitListen(ctx, addr); err != nil {
			return err
		}
	}
	return nil
}

func explainMissing(err error) error {
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w; install the peers with: go run ./bench install", err)
	}
	return err
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
