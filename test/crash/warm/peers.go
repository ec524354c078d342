package warm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/relais-edge/relais/test/proc"
)

// Peer is another cache that keeps answers on a disk.
type Peer struct {
	Server
	Program, Package string // of Debian
}

// Peers are nginx, Varnish and Apache Traffic Server, each with 256 MiB of disk. Traffic Server writes its directory each second
// in place of each minute, as it is killed after seconds. Varnish's store on a disk is not meant to
// outlive its process.
func Peers() []Peer {
	return []Peer{
		{Server{Name: "nginx", Prepare: nginx}, "nginx", "nginx"},
		{Server{Name: "varnish", Prepare: varnish}, "varnishd", "varnish"},
		{Server{Name: "trafficserver", Prepare: trafficServer}, "traffic_server", "trafficserver"},
	}
}

const nginxConf = `daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log; worker_rlimit_nofile 4096;
events { worker_connections 1024; }
http {
  access_log off; client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/f; uwsgi_temp_path %[1]s/u; scgi_temp_path %[1]s/s;
  proxy_cache_path %[1]s/cache levels=1:2 keys_zone=objects:16m max_size=256m inactive=1d;
  server { listen %[2]s; location / { proxy_cache objects; proxy_pass http://%[3]s; } }
}
`

func nginx(dir, addr, origin string) (proc.Spec, error) {
	file := filepath.Join(dir, "nginx.conf")
	return proc.Spec{Name: "nginx", Core: proc.AnyCore, Log: filepath.Join(dir, "log"), Dir: dir, Args: []string{"nginx", "-p", dir, "-c", file}},
		os.WriteFile(file, fmt.Appendf(nil, nginxConf, dir, addr, origin), 0o600)
}

func varnish(dir, addr, origin string) (proc.Spec, error) {
	file := filepath.Join(dir, "vcl")
	host, port, _ := strings.Cut(origin, ":")
	return proc.Spec{Name: "varnish", Core: proc.AnyCore, Log: filepath.Join(dir, "log"), Dir: dir, Args: []string{
		"varnishd", "-F", "-j", "none", "-a", addr, "-f", file, "-s", "file," + filepath.Join(dir, "cache") + ",256m", "-n", filepath.Join(dir, "work"), "-T", "none",
	}}, os.WriteFile(file, fmt.Appendf(nil, "vcl 4.1;\nbackend default { .host = %q; .port = %q; }\n", host, port), 0o600)
}

const (
	tsRoot = `prefix: %[1]s
exec_prefix: %[1]s
bindir: /usr/bin
sbindir: /usr/bin
sysconfdir: %[1]s
datadir: /usr/share/trafficserver
libexecdir: /usr/lib/trafficserver/modules
localstatedir: %[1]s
runtimedir: %[1]s
logdir: %[1]s
cachedir: %[1]s/cache
`
	tsRecords = `CONFIG proxy.config.http.server_ports STRING %s
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.diags.logfile.filename STRING stderr
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.cache.ram_cache.size INT 8388608
CONFIG proxy.config.cache.dir.sync_frequency INT 1
CONFIG proxy.config.body_factory.template_sets_dir STRING /etc/trafficserver/body_factory
`
)

func trafficServer(dir, addr, origin string) (proc.Spec, error) {
	if err := os.MkdirAll(filepath.Join(dir, "cache"), 0o755); err != nil {
		return proc.Spec{}, err
	}
	for name, text := range map[string]string{
		"runroot.yaml":   fmt.Sprintf(tsRoot, dir),
		"records.config": fmt.Sprintf(tsRecords, addr),
		"storage.config": filepath.Join(dir, "cache") + " 256M\n",
		"remap.config":   "map / http://" + origin + "/\n",
		"ip_allow.yaml":  "ip_allow:\n  - {apply: in, ip_addrs: 127.0.0.1, action: allow, methods: ALL}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			return proc.Spec{}, err
		}
	}
	return proc.Spec{Name: "trafficserver", Core: proc.AnyCore, Log: filepath.Join(dir, "log"), Dir: dir, Args: []string{"traffic_server", "--run-root=" + dir}}, nil
}
