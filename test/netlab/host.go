package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Host is a network namespace with a loopback device and one that leads into the lab.
type Host struct {
	lab   *Lab
	name  string
	ns    *os.File
	inode string // as links in /proc show it
	dev   *device
	node  *node
	addr  netip.Addr
	addr6 netip.Addr
}

// Name is what the host was called.
func (h *Host) Name() string { return h.name }

// Addr is the host's IPv4 address.
func (h *Host) Addr() netip.Addr { return h.addr }

// Addr6 is the host's IPv6 address; not valid on a kernel without IPv6.
func (h *Host) Addr6() netip.Addr { return h.addr6 }

// Set gives the host's access link other profiles, for what it sends (up) and what it receives (down). Packets that
// are on the way arrive as they would have, and may be overtaken.
func (h *Host) Set(up, down Profile) error {
	if err := errors.Join(up.check(), down.check()); err != nil {
		return err
	}
	return h.lab.change(func(*fabric) { h.node.up.set(up); h.node.down.set(down) }, h)
}

// Profiles are those of the access link.
func (h *Host) Profiles() (up, down Profile) {
	h.lab.loop.mu.Lock()
	defer h.lab.loop.mu.Unlock()
	return h.node.up.profile, h.node.down.profile
}

// Do runs f on the calling goroutine, whose thread is in the namespace until f returns. What f opens or starts there
// stays there: sockets may then be used by any goroutine, processes are the host's. Goroutines that f starts are not
// in the namespace.
func (h *Host) Do(f func() error) error {
	if err := inside(h.ns, f); err != nil {
		if errors.Is(err, os.ErrClosed) {
			return fmt.Errorf("netlab: host %s is closed: %w", h.name, err)
		}
		return err
	}
	return nil
}

// Args put before a program and its arguments have it run in the namespace, until the host is closed. The program
// takes nsenter's place, so its process is the one that was started.
func (h *Host) Args(args ...string) []string {
	at := fmt.Sprintf("--net=/proc/%d/fd/%d", os.Getpid(), h.ns.Fd())
	return append([]string{h.lab.nsenter, at, "--"}, args...)
}

// Command is exec.CommandContext for a process of the host. The kernel ends it with SIGKILL when this process dies,
// and Close ends it too.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	line := h.Args(append([]string{name}, args...)...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// Listen is net.Listen at the host. The host of addr is empty, an address, or the name of a host of the lab.
func (h *Host) Listen(ctx context.Context, network, addr string) (l net.Listener, err error) {
	if addr, err = h.lab.resolve(network, addr); err != nil {
		return nil, err
	}
	err = h.Do(func() error {
		l, err = (&net.ListenConfig{}).Listen(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	return l, nil
}

// ListenPacket is net.ListenPacket at the host, with addresses as Listen takes them.
func (h *Host) ListenPacket(ctx context.Context, network, addr string) (c net.PacketConn, err error) {
	if addr, err = h.lab.resolve(network, addr); err != nil {
		return nil, err
	}
	err = h.Do(func() error {
		c, err = (&net.ListenConfig{}).ListenPacket(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Dial is net.Dialer.DialContext from the host, fit for http.Transport. The host of addr is an address or the name of a
// host of the lab. It keeps a thread of its own until it has connected.
func (h *Host) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	if addr, err = h.lab.resolve(network, addr); err != nil {
		return nil, err
	}
	err = h.Do(func() error {
		c, err = (&net.Dialer{}).DialContext(ctx, network, addr)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// resolve puts addresses in place of names of hosts. Anything else would be asked of a name server, from outside.
func (l *Lab) resolve(network, addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", fmt.Errorf("netlab: %w", err)
	}
	if host == "" {
		return addr, nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return addr, nil
	}
	h, ok := l.Named(host)
	if !ok {
		return "", fmt.Errorf("netlab: %s is neither an address nor the name of a host", host)
	}
	to := h.addr
	if strings.HasSuffix(network, "6") {
		to = h.addr6
	}
	return net.JoinHostPort(to.String(), port), nil
}

// Close ends the host's processes with SIGKILL and removes it with its address, as Lab.Close does with all.
func (h *Host) Close() error {
	l := h.lab
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || h.node.gone { // gone changes under l.mu too
		return nil
	}
	l.loop.mu.Lock()
	_ = unix.EpollCtl(l.loop.epoll, unix.EPOLL_CTL_DEL, h.dev.fd, nil)
	l.loop.fabric.remove(h.node)
	l.loop.mu.Unlock()
	l.hosts[h.node.number] = nil
	delete(l.byName, h.name)
	return errors.Join(leftovers(map[string]bool{h.inode: true}), h.free())
}

// free closes the files of the host.
func (h *Host) free() error {
	if h.dev != nil {
		_ = unix.Close(h.dev.fd)
	}
	return h.ns.Close()
}

func (h *Host) overrun() (n uint64, err error) {
	err = h.Do(func() error {
		n, err = overrun()
		return err
	})
	return n, err
}
