package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/relais-edge/relais/internal/edge/admin"
	"github.com/relais-edge/relais/internal/handover"
)

// metricsKey tells the socket of --metrics from a listener's of the same address.
const metricsKey = "--metrics"

func upgradeCommand() *cobra.Command {
	var data string
	var within time.Duration
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Have a running edge hand over to the program that is on disk now",
		Long: "Upgrade asks the edge that runs on this machine to start the program that is on disk now, with\n" +
			"the same arguments, and to hand its sockets over once that serves. No connection is refused.\n" +
			"When the new program cannot serve, the old one goes on and this command says why.\n" +
			"SIGUSR2 does the same.",
		Example: "  install relais-new /usr/local/bin/relais && relais upgrade --data /var/lib/relais",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), within)
			defer cancel()
			pid, err := admin.NewClient(filepath.Join(data, adminSocket)).Upgrade(ctx)
			if err != nil {
				return failed(err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "process %d serves; the one before answers what is under way and ends\n", pid)
			return nil
		},
	}
	dataFlag(cmd, &data)
	cmd.Flags().DurationVar(&within, "timeout", 5*time.Minute, "how long to wait; the edge's own bound is its --upgrade-within")
	return cmd
}

// upgrade is a wish to be replaced; the outcome is sent to done, which has room for it.
type upgrade struct{ done chan<- upgraded }

type upgraded struct {
	pid int
	err error
}

// program is the absolute path of the program's file, by the name with which it was started:
// what lies there later is the new program.
func program() (string, error) {
	path, err := exec.LookPath(os.Args[0])
	if err != nil {
		path, err = os.Executable()
	}
	if err != nil {
		return "", fmt.Errorf("the program's own file: %w", err)
	}
	return filepath.Abs(path)
}

// takeOver ends the start: the process before and the service manager are told.
func (in *instance) takeOver() {
	if err := handover.Notify(handover.StateReady); err != nil {
		in.logger.Warn("the service manager cannot be told that this edge is ready", "err", err)
	}
	if path := in.flags.pidFile; path != "" {
		if err := writePid(path); err != nil {
			in.logger.Warn("the process id is not kept; choose another file with --pid-file", "err", err)
		}
	}
	for _, s := range in.inherited.Ready() { // last: the process before goes now
		in.logger.Warn("a socket that was passed to this process is not used, and closed", "socket", s)
	}
}

// writePid replaces the file whole, so that nobody reads half a number.
func writePid(path string) error {
	next := path + ".new"
	if err := os.WriteFile(next, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// stay waits until the process shall end, and upgrades when asked. It says whether another
// process has taken over.
func (in *instance) stay(ctx, life context.Context) (handed bool) {
	var usr2 chan os.Signal
	if in.upgrades != nil {
		usr2 = make(chan os.Signal, 1)
		signal.Notify(usr2, syscall.SIGUSR2)
		defer signal.Stop(usr2)
		defer in.removePid()
	}
	for {
		var wish upgrade
		select {
		case <-ctx.Done():
			return false
		case <-life.Done():
			return false
		case wish = <-in.upgrades:
		case <-usr2:
		}
		pid, err := in.upgrade(ctx)
		if wish.done != nil {
			wish.done <- upgraded{pid, err}
		}
		if err == nil {
			return true
		}
	}
}

// removePid removes the file if it still names this process.
func (in *instance) removePid() {
	b, err := os.ReadFile(in.flags.pidFile)
	if err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid()) {
		_ = os.Remove(in.flags.pidFile)
	}
}

// askUpgrade is upgrade for the admin socket.
func (in *instance) askUpgrade(ctx context.Context) (int, error) {
	done := make(chan upgraded, 1)
	select {
	case in.upgrades <- upgrade{done}:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case <-time.After(time.Second):
		return 0, errors.New("an upgrade is under way, or this process is ending")
	}
	u := <-done // bounded by --upgrade-within
	return u.pid, u.err
}

// upgrade starts the program that is on disk now and hands the sockets over. An error says
// why this process goes on instead.
func (in *instance) upgrade(ctx context.Context) (int, error) {
	started := time.Now()
	in.logger.Info("starting the program that is on disk now, to hand over to it", "program", in.self)
	next, sockets, err := in.succeed(ctx)
	if err != nil {
		in.logger.Error("the upgrade has failed; this process goes on serving", "err", err)
		return 0, err
	}
	if u, ok := in.admin.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the file is the new process's
	}
	in.edge.HandOver(func(network, address, key string) *net.UnixConn {
		i := slices.IndexFunc(sockets, func(s handover.Socket) bool {
			return s.Network == network && s.Address == address && s.Key == key
		})
		return next.Relays[i]
	})
	if err := handover.Notify(handover.StateMainPID(next.Pid)); err != nil {
		in.logger.Warn("the service manager cannot be told of the new process", "err", err)
	}
	in.logger.Info("the new process serves", "pid", next.Pid, "took", time.Since(started).Round(time.Millisecond))
	return next.Pid, nil
}

func (in *instance) succeed(ctx context.Context) (*handover.Successor, []handover.Socket, error) {
	if slices.Contains(in.flags.files, "-") {
		return nil, nil, errors.New("the documents came from standard input, which a new process cannot read again; give them as files")
	}
	sockets := in.edge.Sockets()
	if c, ok := in.admin.(syscall.Conn); ok {
		sockets = append(sockets, handover.Socket{Network: "unix", Address: filepath.Join(in.flags.data, adminSocket), Conn: c})
	}
	if c, ok := in.scrape.(syscall.Conn); ok {
		sockets = append(sockets, handover.Socket{Network: "tcp", Address: in.flags.metrics, Key: metricsKey, Conn: c})
	}
	next, err := handover.Start(ctx, handover.Plan{
		Path: in.self, Args: os.Args, Env: os.Environ(), Sockets: sockets, Within: in.flags.within,
		Stdout: os.Stdout, Stderr: os.Stderr,
	})
	return next, sockets, err
}
