package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync/atomic"
	"time"
)

// cluster is one cluster of the demo shop: a child process that is started again when it dies.
type cluster struct {
	name     string
	addr     string
	data     string
	capacity int
	service  time.Duration
	pid      atomic.Int64
	died     func(name string)
}

// freeAddr finds an address on loopback that nobody uses now.
func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer ln.Close()
	return ln.Addr().String(), nil
}

// run keeps the cluster alive until ctx ends. Started is called once, when it first serves.
func (c *cluster) run(ctx context.Context, started func()) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	for first := true; ; first = false {
		begin := time.Now()
		err := c.once(ctx, self, func() {
			if first {
				started()
			}
		})
		c.pid.Store(0)
		if ctx.Err() != nil {
			return nil
		}
		if first && time.Since(begin) < time.Second {
			return fmt.Errorf("shop cluster %s does not start: %w", c.name, err)
		}
		c.died(c.name)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(restartPause):
		}
	}
}

// restartPause is long enough to see what an edge does when a cluster is away.
const restartPause = 5 * time.Second

// once runs the child until it ends.
func (c *cluster) once(ctx context.Context, self string, serves func()) error {
	cmd := exec.CommandContext(ctx, self, "shop", "--tied", "--cluster", c.name, "--listen", c.addr, "--data", c.data,
		"--capacity", strconv.Itoa(c.capacity), "--service-time", c.service.String())
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.pid.Store(int64(cmd.Process.Pid))
	if bufio.NewScanner(out).Scan() {
		serves()
	}
	err = cmd.Wait()
	if err == nil {
		err = errors.New("it ended")
	}
	return err
}
