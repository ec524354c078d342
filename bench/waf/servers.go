package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	crs "github.com/corazawaf/coraza-coreruleset/v4"

	"github.com/relais-edge/relais/test/proc"
)

// server is a program under test, with a door that is guarded by the firewall and one that is not.
type server struct {
	name           string
	guarded, plain string // host:port
	process        *proc.Process
}

// wire is what the parts over the wire share: both servers before the same origin.
type wire struct {
	dir     string
	origin  *origin
	relais  *server
	nginx   *server
	running []*proc.Process
}

// newWire starts the origin and both servers, in a folder of its own. stop must be called in any case.
func (s *settings) newWire(ctx context.Context) (w *wire, stop func(), err error) {
	w = &wire{}
	ctx, cancel := context.WithCancel(ctx)
	stop = func() {
		for _, p := range w.running {
			p.Stop(3 * time.Second)
		}
		cancel()
		if w.dir != "" {
			_ = os.RemoveAll(w.dir)
		}
	}
	if w.dir, err = os.MkdirTemp("", "bench-waf-"); err != nil {
		return w, stop, err
	}
	if w.origin, err = newOrigin(); err != nil {
		return w, stop, err
	}
	go w.origin.run(ctx)
	ports, err := proc.Ports(4)
	if err != nil {
		return w, stop, err
	}
	w.relais = &server{name: "relais", guarded: proc.Addr(ports[0]), plain: proc.Addr(ports[1])}
	w.nginx = &server{name: "nginx + ModSecurity", guarded: proc.Addr(ports[2]), plain: proc.Addr(ports[3])}
	if err := w.startRelais(ctx, s.relais); err != nil {
		return w, stop, err
	}
	return w, stop, w.startNginx(ctx)
}

func (w *wire) start(ctx context.Context, v *server, args ...string) error {
	p, err := proc.Start(proc.Spec{Name: v.name, Args: args, Dir: w.dir, Log: filepath.Join(w.dir, filepath.Base(args[0])+".output"), Core: proc.AnyCore})
	if err != nil {
		return err
	}
	v.process, w.running = p, append(w.running, p)
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("a minute is over"))
	defer cancel()
	for _, addr := range []string{v.guarded, v.plain} {
		if err := p.WaitListen(ctx, addr); err != nil {
			return err
		}
	}
	return nil
}

// startRelais runs the product with the firewall on for one listener and off for the other.
func (w *wire) startRelais(ctx context.Context, program string) error {
	text := fmt.Sprintf(`apiVersion: relais/v1
kind: Listener
metadata: {name: guarded}
spec: {address: "%s"}
---
apiVersion: relais/v1
kind: Listener
metadata: {name: plain}
spec: {address: "%s"}
---
apiVersion: relais/v1
kind: WafPolicy
metadata: {name: crs}
spec: {paranoia: 1}
---
apiVersion: relais/v1
kind: Site
metadata: {name: guarded}
spec: {hostnames: ["*"], listeners: [guarded], routes: [{waf: crs, pool: shop}]}
---
apiVersion: relais/v1
kind: Site
metadata: {name: plain}
spec: {hostnames: ["*"], listeners: [plain], routes: [{pool: shop}]}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop}
spec:
  tiers:
    - origins: [{address: "%s"}]
`, w.relais.guarded, w.relais.plain, w.origin.addr())
	file := filepath.Join(w.dir, "relais.yaml")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	return w.start(ctx, w.relais, program, "serve", "-f", file, "--data", filepath.Join(w.dir, "data"), "--access-log", filepath.Join(w.dir, "relais.access"))
}

// startNginx runs nginx with ModSecurity and the rules that the product has embedded.
func (w *wire) startNginx(ctx context.Context) error {
	rules, err := w.writeRules()
	if err != nil {
		return err
	}
	text := fmt.Sprintf(`load_module %[1]s;
daemon off; pid %[2]s/nginx.pid; error_log %[2]s/nginx.error crit; worker_processes auto; user root;
events { worker_connections 1024; }
http {
  access_log %[2]s/nginx.access combined; default_type text/plain; keepalive_requests 1000000000; tcp_nodelay on;
  ignore_invalid_headers off; underscores_in_headers on; merge_slashes off; large_client_header_buffers 8 64k; client_max_body_size 0;
  client_body_buffer_size 256k;
  client_body_temp_path %[2]s/body; proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fcgi; uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
  upstream shop { server %[3]s; keepalive 64; keepalive_requests 1000000000; }
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
  server { listen %[4]s; modsecurity on; modsecurity_rules_file %[5]s; location / { proxy_pass http://shop; } }
  server { listen %[6]s; location / { proxy_pass http://shop; } }
}
`, module, w.dir, w.origin.addr(), w.nginx.guarded, rules, w.nginx.plain)
	file := filepath.Join(w.dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		return err
	}
	return w.start(ctx, w.nginx, "nginx", "-c", file, "-e", filepath.Join(w.dir, "nginx.error"))
}

// writeRules puts the rule set that the product embeds on the disk, for ModSecurity, with its own recommended
// configuration before it, and returns the file that includes all.
func (w *wire) writeRules() (string, error) {
	dir := filepath.Join(w.dir, "rules")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	err := fs.WalkDir(crs.FS, "@owasp_crs", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(crs.FS, name)
		if err != nil {
			return err
		}
		if strings.HasSuffix(name, ".conf") {
			// ModSecurity takes a rule right behind one without actions for its actions.
			b = bytes.ReplaceAll(b, []byte("\nSec"), []byte("\n\nSec"))
		}
		return os.WriteFile(filepath.Join(dir, filepath.Base(name)), b, 0o644)
	})
	if err != nil {
		return "", err
	}
	setup, err := fs.ReadFile(crs.FS, "@crs-setup.conf.example")
	if err != nil {
		return "", err
	}
	recommended, err := os.ReadFile(base)
	if err != nil {
		return "", err
	}
	if mapping, err := os.ReadFile(filepath.Join(filepath.Dir(base), "unicode.mapping")); err == nil {
		if err := os.WriteFile(filepath.Join(dir, "unicode.mapping"), mapping, 0o644); err != nil {
			return "", err
		}
	}
	var own strings.Builder
	for l := range strings.Lines(string(recommended)) {
		switch f := strings.Fields(l); {
		case len(f) > 0 && (f[0] == "SecRuleEngine" || f[0] == "SecAuditEngine" || f[0] == "SecResponseBodyAccess" || f[0] == "SecAuditLog"):
		default:
			own.WriteString(l)
		}
	}
	own.WriteString("\nSecRuleEngine On\nSecAuditEngine Off\nSecResponseBodyAccess Off\n")
	all := fmt.Sprintf("Include %[1]s/modsecurity.conf\nInclude %[1]s/crs-setup.conf\nInclude %[1]s/*-*-*.conf\nSecRuleRemoveById 905100 905110\n", dir)
	for name, text := range map[string]string{"modsecurity.conf": own.String(), "crs-setup.conf": string(setup), "main": all} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return filepath.Join(dir, "main"), nil
}
