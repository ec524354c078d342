// Package peer writes the configurations of the servers that drills compare: the product's documents, and nginx and
// HAProxy with one worker each, so that they are told the same.
package peer

import (
	"fmt"
	"path/filepath"
	"strings"
)

// Nginx is what drills tell nginx. HTTP stands in the block http, Location in that of the one location, which passes
// requests on to To: an upstream of HTTP, or an address.
type Nginx struct {
	Addr, Dir   string
	Connections int
	Logs        bool
	HTTP        string
	To          string
	Location    string
}

// Config is the text of the configuration.
func (n Nginx) Config() string {
	log := "off"
	if n.Logs {
		log = filepath.Join(n.Dir, "access.log") + " combined"
	}
	return fmt.Sprintf(`daemon off; pid %[1]s/nginx.pid; error_log %[1]s/error.log; worker_processes 1; user root; worker_rlimit_nofile %[2]d;
events { worker_connections %[3]d; }
http {
  access_log %[4]s;
  client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fcgi; uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
  %[5]s
  server {
    listen %[6]s;
    location / { proxy_pass http://%[7]s; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host; %[8]s }
  }
}
`, n.Dir, n.Connections*5/4, n.Connections, log, n.HTTP, n.Addr, n.To, n.Location)
}

// Args start it with the configuration in a file.
func (n Nginx) Args(file string) []string {
	return []string{"nginx", "-c", file, "-e", filepath.Join(n.Dir, "error.log")}
}

// HAProxy is what drills tell HAProxy. Defaults stand in that section, Frontend in that of the one frontend, each a
// line without indentation; Sections follow as they are. Server and Connect are limits of time.
type HAProxy struct {
	Addr            string
	Connections     int
	Server, Connect string
	Defaults        []string
	Frontend        []string
	Sections        string
}

// Config is the text of the configuration.
func (h HAProxy) Config() string {
	return fmt.Sprintf(`global
 maxconn %d
 no strict-limits
 nbthread 1
defaults
 mode http
 timeout client 30s
 timeout server %s
 timeout connect %s
%sfrontend web
 bind %s
%s%s
`, h.Connections, h.Server, h.Connect, lines(h.Defaults), h.Addr, lines(h.Frontend), strings.TrimSuffix(h.Sections, "\n"))
}

func lines(list []string) string {
	var b strings.Builder
	for _, l := range list {
		fmt.Fprintf(&b, " %s\n", l)
	}
	return b.String()
}

// Relais is what drills tell the product. Site stands in the spec of the one site, behind its host names; Pool is the
// spec of its pool, in lines of two spaces; Further are documents.
type Relais struct {
	Program, Addr, Dir string
	Logs               bool
	Site, Pool         string
	Further            string
}

// Config is the text of the documents.
func (r Relais) Config() string {
	text := fmt.Sprintf(`apiVersion: relais/v1
kind: Listener
metadata: {name: web}
spec: {address: "%s"}
---
apiVersion: relais/v1
kind: Site
metadata: {name: shop}
spec: {hostnames: ["*"], %s}
---
apiVersion: relais/v1
kind: OriginPool
metadata: {name: shop}
spec:
%s
`, r.Addr, r.Site, strings.TrimSuffix(r.Pool, "\n"))
	if r.Further != "" {
		text += "---\n" + r.Further
	}
	return text
}

// Args start it with the documents in a file.
func (r Relais) Args(file string) []string {
	args := []string{r.Program, "serve", "-f", file, "--data", filepath.Join(r.Dir, "data")}
	if r.Logs {
		args = append(args, "--access-log", filepath.Join(r.Dir, "access.log"))
	}
	return args
}

// ShopSite is the Site of a shop whose visitors with a basket are known, by Buyers.
const ShopSite = `visitor: buyers, routes: [{pool: shop}]`

// Buyers is the policy that ShopSite names.
const Buyers = `apiVersion: relais/v1
kind: VisitorPolicy
metadata: {name: buyers}
spec:
  basket: [{path: /basket, methods: [POST]}]
  ordered: [{path: /checkout, methods: [POST]}]
`
