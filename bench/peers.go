package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/relais-edge/relais/test/proc"
)

// serverCore runs the server that is measured; loadCore runs the load
// generator, the backend and this program.
const (
	serverCore = 0
	loadCore   = 1
)

// server is a program under test. It may be several processes, all of which
// are on its bill.
type server struct {
	name    string
	program string                                 // its binary, for the version and to see whether it is there
	version []string                               // arguments that print the version
	await   string                                 // name of a port that it listens on when it is ready
	specs   func(s *site) ([][]string, error)      // command lines, in order of start
	env     func(s *site) []string                 // nil: nothing to add
	mend    string                                 // how to get it
	log     func(s *site, sink *syslogSink) logger // where its access log goes
}

// servers are the product and its peers.
func servers(s *site) map[string]server {
	file := func(name string) func(*site, *syslogSink) logger {
		return func(s *site, _ *syslogSink) logger { return fileLog(s.Log(name)) }
	}
	const install = "install it with: go run ./bench install"
	return map[string]server{
		"nginx": {
			name: "nginx", program: "nginx", version: []string{"-v"}, await: "nginx-file", mend: install, log: file("nginx"),
			specs: configured("nginx.conf", func(s *site, conf string) [][]string { return [][]string{{"nginx", "-p", s.Dir, "-c", conf}} }),
		},
		"haproxy": {
			name: "haproxy", program: "haproxy", version: []string{"-v"}, await: "haproxy-cache", mend: install,
			log:   func(_ *site, sink *syslogSink) logger { return sink },
			specs: configured("haproxy.cfg", func(_ *site, conf string) [][]string { return [][]string{{"haproxy", "-db", "-f", conf}} }),
		},
		"varnish": {
			name: "varnish", program: "varnishd", version: []string{"-V"}, await: "varnish", mend: install, log: file("varnish"),
			specs: configured("varnish.vcl", varnishCommands),
		},
		"caddy": {
			name: "caddy", program: s.binary("caddy"), version: []string{"version"}, await: "caddy-file", mend: install, log: file("caddy"),
			env: func(s *site) []string { return []string{"XDG_DATA_HOME=" + s.Dir, "XDG_CONFIG_HOME=" + s.Dir} },
			specs: configured("Caddyfile", func(s *site, conf string) [][]string {
				return [][]string{{s.binary("caddy"), "run", "--config", conf, "--adapter", "caddyfile"}}
			}),
		},
		"reverseproxy": {
			name: "ReverseProxy", program: s.binary("reverseproxy"), await: "reverseproxy", log: file("reverseproxy"),
			specs: func(s *site) ([][]string, error) {
				addr, err := s.Addr("reverseproxy")
				return [][]string{{s.binary("reverseproxy"), "-listen", addr, "-backend", s.Backend, "-log", s.Log("reverseproxy")}}, err
			},
		},
		"relais": {
			name: "relais", program: s.relais, version: []string{"version"}, await: "relais-clear", mend: "build it with: make build", log: file("relais"),
			specs: relaisCommands,
		},
		"relais disk": {
			name: "relais disk", program: s.relais, version: []string{"version"}, await: "relais-disk", mend: "build it with: make build", log: file("relais-disk"),
			specs: configured("relais-disk.yaml", diskCommands),
		},
	}
}

// configured makes command lines from a template's file.
func configured(file string, commands func(s *site, conf string) [][]string) func(*site) ([][]string, error) {
	return func(s *site) ([][]string, error) {
		conf, err := s.fill(file)
		if err != nil {
			return nil, err
		}
		return commands(s, conf), nil
	}
}

// varnishCommands start the cache and the process that writes its access log.
func varnishCommands(s *site, vcl string) [][]string {
	dir := filepath.Join(s.Dir, "varnish")
	return [][]string{
		{
			"varnishd", "-F", "-j", "none", "-a", proc.Addr(s.ports["varnish"]), "-f", vcl, "-s", "malloc,64m", "-n", dir,
			"-p", "thread_pools=1", "-p", "thread_pool_min=100", "-T", "none",
		},
		{"varnishncsa", "-n", dir, "-a", "-w", s.Log("varnish")},
	}
}

// relaisCommands read the arguments from a template, one a line, so that all
// that depends on the product's documents and flags is in peers/relais.*.
func relaisCommands(s *site) ([][]string, error) {
	if _, err := s.fill("relais.yaml"); err != nil {
		return nil, err
	}
	path, err := s.fill("relais.args")
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return [][]string{append([]string{s.relais}, strings.Fields(string(b))...)}, nil
}

// diskCommands start a cache that has hardly any memory, so that hits come from its disk.
func diskCommands(s *site, documents string) [][]string {
	return [][]string{{
		s.relais, "serve", "-f", documents, "--data", filepath.Join(s.Dir, "relais-disk-data"), "--access-log", s.Log("relais-disk"),
		"--cache-memory", "256KiB", "--cache-disk", filepath.Join(s.Dir, "relais-disk"), "--cache-disk-size", "1GiB",
	}}
}

// running is a server that has been started.
type running struct {
	server
	processes []*proc.Process
	access    logger
}

var errNotInstalled = errors.New("not installed")

// start starts the processes of a server on its core and waits until it
// listens. What was started is in the result also after an error.
func (v server) start(ctx context.Context, s *site, sink *syslogSink) (*running, error) {
	r := &running{server: v, access: v.log(s, sink)}
	if _, err := exec.LookPath(v.program); err != nil {
		return r, fmt.Errorf("%s: %w; %s", v.name, errNotInstalled, v.mend)
	}
	commands, err := v.specs(s)
	if err != nil {
		return r, fmt.Errorf("configure %s: %w", v.name, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, 30*time.Second, errors.New("30 s are over"))
	defer cancel()
	for i, args := range commands {
		spec := proc.Spec{Name: v.name, Args: args, Dir: s.Dir, Core: serverCore, Log: filepath.Join(s.Dir, "logs", fmt.Sprintf("%s-%d.output", filepath.Base(args[0]), i))}
		if v.env != nil {
			spec.Env = v.env(s)
		}
		p, err := proc.Start(spec)
		if err != nil {
			return r, err
		}
		r.processes = append(r.processes, p)
		if i == 0 {
			if err := p.WaitListen(ctx, proc.Addr(s.ports[v.await])); err != nil {
				return r, err
			}
		}
	}
	return r, nil
}

func (r *running) stop() {
	for _, p := range r.processes {
		p.Stop(3 * time.Second)
	}
}

func (r *running) pids() []int {
	pids := make([]int, 0, len(r.processes))
	for _, p := range r.processes {
		pids = append(pids, p.Pid())
	}
	return pids
}

// dead names a process of the server that has ended.
func (r *running) dead() error {
	for _, p := range r.processes {
		select {
		case <-p.Done():
			return fmt.Errorf("a process of %s ended during the run: %w", r.name, p.Err())
		default:
		}
	}
	return nil
}

// versionOf is the first line that the program prints about itself.
func (v server) versionOf(ctx context.Context) string {
	if v.version == nil {
		return ""
	}
	out, _ := exec.CommandContext(ctx, v.program, v.version...).CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}
