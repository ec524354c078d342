// Command caddy is the Caddy web server with its standard modules, built here so
// that the benchmark compares with a known version and the product's go.mod stays free of it.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
)

func main() {
	caddycmd.Main()
}
