package netlab

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	deviceName = "lab0"
	// deviceQueue is how many packets wait in the kernel until the lab reads them.
	deviceQueue = 4096
)

// device is a TUN device, which is gone when its descriptor is closed.
type device struct{ fd int }

func (d *device) read(b []byte) (int, error) { return unix.Read(d.fd, b) }
func (d *device) write(b []byte) error       { _, err := unix.Write(d.fd, b); return err }

// newDevice makes a TUN device in the namespace of the calling thread and gives it addresses and the default routes.
func newDevice(mtu int, addrs []netip.Prefix) (*device, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, noTUN(err)
	}
	d := &device{fd}
	if err := d.configure(mtu, addrs); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return d, nil
}

func noTUN(err error) error {
	return fmt.Errorf("netlab: /dev/net/tun: %w; run as root, on a kernel with CONFIG_TUN (modprobe tun), in a container with --device /dev/net/tun", err)
}

func (d *device) configure(mtu int, addrs []netip.Prefix) error {
	req, err := unix.NewIfreq(deviceName)
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(d.fd, unix.TUNSETIFF, req); err != nil {
		return fmt.Errorf("netlab: a TUN device: %w; run as root (CAP_NET_ADMIN)", err)
	}
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("netlab: the loopback device of a namespace: %w", err)
	}
	dev, err := net.InterfaceByName(deviceName)
	if err != nil {
		return fmt.Errorf("netlab: the device of a host: %w", err)
	}
	nl, err := openRoutes()
	if err != nil {
		return err
	}
	defer nl.close()
	if err := nl.up(lo.Index, 0, 0); err != nil {
		return err
	}
	if err := nl.up(dev.Index, mtu, deviceQueue); err != nil {
		return err
	}
	for _, a := range addrs {
		if err := nl.addAddress(dev.Index, a); err != nil {
			return err
		}
		if err := nl.addDefault(dev.Index, a.Addr().Is6()); err != nil {
			return err
		}
	}
	return nil
}

// overrun reads how many packets the device of the calling thread's namespace dropped because nobody read them.
func overrun() (uint64, error) {
	f, err := os.Open("/proc/thread-self/net/dev")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		name, counters, ok := strings.Cut(strings.TrimSpace(s.Text()), ":")
		if !ok || name != deviceName {
			continue
		}
		// Eight of receiving, then bytes, packets, errs and drop of sending.
		if fields := strings.Fields(counters); len(fields) > 11 {
			return strconv.ParseUint(fields[11], 10, 64)
		}
	}
	return 0, fmt.Errorf("netlab: no %s in /proc/net/dev", deviceName)
}
