package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// packages are the Debian packages that bring the programs.
func packages() map[string]string {
	return map[string]string{"nginx": "nginx", "haproxy": "haproxy", "varnishd": "varnish", "varnishncsa": "varnish", "wrk": "wrk"}
}

// lacking are the packages whose programs are not in PATH.
func lacking() []string {
	seen := map[string]bool{}
	for program, pkg := range packages() {
		if _, err := exec.LookPath(program); err != nil {
			seen[pkg] = true
		}
	}
	return sortedKeys(seen)
}

// install brings what is missing: Debian packages when this is root on a
// system with apt-get, and Caddy from its Go module.
func install(ctx context.Context, root string, out io.Writer) error {
	if missing := lacking(); len(missing) > 0 {
		command := append([]string{"apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"}, missing...)
		_, err := exec.LookPath("apt-get")
		if err != nil || os.Geteuid() != 0 {
			return fmt.Errorf("missing: %s; as root run: %s", strings.Join(missing, ", "), strings.Join(command, " "))
		}
		fmt.Fprintln(out, "installing", strings.Join(missing, ", "))
		if err := shell(ctx, out, "apt-get", "update"); err != nil {
			return err
		}
		if err := shell(ctx, out, command...); err != nil {
			return err
		}
	}
	caddy := filepath.Join(root, "bench", ".work", "bin", "caddy")
	if _, err := os.Stat(caddy); err == nil {
		return nil
	}
	fmt.Fprintln(out, "building Caddy from its Go module; this takes some minutes")
	return goBuild(ctx, filepath.Join(root, "bench", "peers", "caddy"), caddy)
}

func shell(ctx context.Context, out io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
	}
	return nil
}
