package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/relais-edge/relais/test/proc"
)

// packages are the Debian packages that bring the programs.
func packages() map[string]string {
	return map[string]string{"nginx": "nginx", "haproxy": "haproxy", "varnishd": "varnish", "varnishncsa": "varnish", "wrk": "wrk"}
}

// install brings what is missing: Debian packages when this is root on a
// system with apt-get, and Caddy from its Go module.
func install(ctx context.Context, root string, out io.Writer) error {
	if err := proc.Install(ctx, packages(), out); err != nil {
		return err
	}
	caddy := filepath.Join(root, "bench", ".work", "bin", "caddy")
	if _, err := os.Stat(caddy); err == nil {
		return nil
	}
	fmt.Fprintln(out, "building Caddy from its Go module; this takes some minutes")
	return goBuild(ctx, filepath.Join(root, "bench", "peers", "caddy"), caddy)
}
