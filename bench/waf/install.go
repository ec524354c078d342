package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

// module is nginx's connector to ModSecurity, and base the configuration that comes with it. Both are of the Debian
// packages.
const (
	module = "/usr/lib/nginx/modules/ngx_http_modsecurity_module.so"
	base   = "/etc/nginx/modsecurity.conf"
)

var packages = []string{"nginx", "libnginx-mod-http-modsecurity", "libmodsecurity3"}

// lacking says whether the peer is not all there.
func lacking() bool {
	if _, err := exec.LookPath("nginx"); err != nil {
		return true
	}
	for _, f := range []string{module, base} {
		if _, err := os.Stat(f); err != nil {
			return true
		}
	}
	return false
}

// install brings nginx with ModSecurity when this is root on a system with apt-get.
func install(ctx context.Context, out io.Writer) error {
	if !lacking() {
		return nil
	}
	command := append([]string{"apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"}, packages...)
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("nginx with ModSecurity is missing; as root run: %s", strings.Join(command, " "))
	}
	fmt.Fprintln(out, "installing", strings.Join(packages, ", "))
	for _, args := range [][]string{{"apt-get", "update"}, command} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = out, out
		cmd.WaitDelay = time.Second
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
	}
	if lacking() {
		return errors.New("the packages are installed, and " + module + " or " + base + " is not there")
	}
	return nil
}
