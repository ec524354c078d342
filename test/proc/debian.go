package proc

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// Lacking are the Debian packages, sorted, whose programs are not in PATH. Packages gives them by program.
func Lacking(packages map[string]string) []string {
	seen := map[string]bool{}
	for program, pkg := range packages {
		if _, err := exec.LookPath(program); err != nil {
			seen[pkg] = true
		}
	}
	return slices.Sorted(maps.Keys(seen))
}

// Install brings what is Lacking, when this is root on a system with apt-get; else the error says what to run.
func Install(ctx context.Context, packages map[string]string, out io.Writer) error {
	missing := Lacking(packages)
	if len(missing) == 0 {
		return nil
	}
	command := append([]string{"apt-get", "install", "-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"}, missing...)
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 {
		return fmt.Errorf("missing: %s; as root run: %s", strings.Join(missing, ", "), strings.Join(command, " "))
	}
	fmt.Fprintln(out, "installing", strings.Join(missing, ", "))
	for _, args := range [][]string{{"apt-get", "update"}, command} {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		cmd.Stdout, cmd.Stderr = out, out
		cmd.WaitDelay = time.Second
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(args, " "), err)
		}
	}
	return nil
}
