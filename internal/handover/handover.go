// Package handover passes the listening sockets of one process to the next, so that a new
// program takes over without refusing anybody. It also takes sockets from systemd (socket
// activation) and tells systemd how the process is.
//
// The process before starts the new one with its sockets as inherited descriptors and waits
// until that says it is ready. Until then it goes on as if nothing had happened.
package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// variable is the environment variable with the inventory, as JSON.
const variable = "RELAIS_HANDOVER"

// firstDescriptor is the first that is inherited, for our own handover and for systemd.
const firstDescriptor = 3

// maxSockets bounds the sockets that change hands at once.
const maxSockets = 4096

// Socket is a listening socket that is to change hands.
type Socket struct {
	Network string // tcp, udp or unix
	Address string // as the documents, or flags, write it
	Key     string // of its owner where Address does not say it all: a port that the system chose
	Conn    syscall.Conn
	// Mark tells this process's datagrams from others; a way back is made for them. Empty means
	// none. What it is, is the owner's matter.
	Mark string
	// Past are the ways back to processes before this one, which the next one takes over.
	Past []Way
}

// Way leads datagrams that one process receives to another, whose they are.
type Way struct {
	Mark string
	Conn *net.UnixConn
}

// inventory is what is written in variable.
type inventory struct {
	Ready   int    `json:"ready"` // descriptor on which to say it
	Sockets []item `json:"sockets"`
}

type item struct {
	Network string `json:"network"`
	Address string `json:"address,omitempty"`
	Key     string `json:"key,omitempty"`
	FD      int    `json:"fd"`
	Ways    []way  `json:"ways,omitempty"`
	local   netip.AddrPort
	path    string
	file    *os.File
}

type way struct {
	Mark string `json:"mark"`
	FD   int    `json:"fd"`
	file *os.File
}

// Inherited are the sockets that were passed to this process. Its methods are safe for
// concurrent use, and work on nil: then nothing was passed.
type Inherited struct {
	mu    sync.Mutex
	list  []*item
	ready *os.File // nil when nobody waits
}

// Receive takes what was passed to this process, and takes the news of it out of the
// environment. It is called once, at the start; nil means that nothing was passed.
func Receive() (*Inherited, error) {
	text, pid, count := os.Getenv(variable), os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	for _, name := range []string{variable, "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(name)
	}
	if text != "" {
		return receive(text)
	}
	if pid != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	n, err := strconv.Atoi(count)
	if err != nil || n < 0 || n > maxSockets {
		return nil, fmt.Errorf("LISTEN_FDS is %q; systemd gives a number up to %d", count, maxSockets)
	}
	in := &Inherited{}
	for fd := firstDescriptor; fd < firstDescriptor+n; fd++ {
		it := &item{FD: fd}
		if err := it.open(); err != nil {
			return nil, fmt.Errorf("the socket that systemd passes as descriptor %d: %w", fd, err)
		}
		in.list = append(in.list, it)
	}
	return in, nil
}

func receive(text string) (*Inherited, error) {
	var inv inventory
	if err := json.Unmarshal([]byte(text), &inv); err != nil || len(inv.Sockets) > maxSockets || inv.Ready < firstDescriptor {
		return nil, fmt.Errorf("%s is not what an older relais writes; take it out of the environment", variable)
	}
	in := &Inherited{ready: adopt(inv.Ready, "ready")}
	for i := range inv.Sockets {
		it := &inv.Sockets[i]
		if err := it.open(); err != nil {
			return nil, fmt.Errorf("the socket of %s %s that was handed over: %w", it.Network, it.Address, err)
		}
		for i := range it.Ways {
			it.Ways[i].file = adopt(it.Ways[i].FD, "way")
		}
		in.list = append(in.list, it)
	}
	return in, nil
}

// adopt makes a file of a descriptor, which children shall not have.
func adopt(fd int, name string) *os.File {
	syscall.CloseOnExec(fd)
	_ = syscall.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name)
}

// open finds out what kind of socket the item is.
func (it *item) open() error {
	kind, err := syscall.GetsockoptInt(it.FD, syscall.SOL_SOCKET, syscall.SO_TYPE)
	if err != nil {
		return os.NewSyscallError("getsockopt", err)
	}
	sa, err := syscall.Getsockname(it.FD)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	network := map[int]string{syscall.SOCK_STREAM: "tcp", syscall.SOCK_DGRAM: "udp"}[kind]
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		it.local = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		it.local = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	case *syscall.SockaddrUnix:
		it.path, network = sa.Name, "unix"
	}
	if network == "" || it.Network != "" && it.Network != network {
		return errors.New("it is not of the kind it should be")
	}
	it.Network = network
	it.file = adopt(it.FD, network)
	return nil
}

// Listener returns the TCP or Unix socket of an address, as the documents or flags write it;
// nil when none was passed.
func (in *Inherited) Listener(network, address, key string) (net.Listener, error) {
	it := in.take(network, address, key)
	if it == nil {
		return nil, nil
	}
	defer it.close()
	ln, err := net.FileListener(it.file)
	if err != nil {
		return nil, fmt.Errorf("the socket of %s that was handed over: %w", address, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(true) // it is ours now, and so is its file
	}
	return ln, nil
}

// Datagrams is a UDP socket that was passed on.
type Datagrams struct {
	Conn *net.UDPConn
	// Past are the ways to the processes before, for datagrams of their connections.
	Past []Way
}

// Datagrams returns the UDP socket of an address; nil when none was passed.
func (in *Inherited) Datagrams(address, key string) (*Datagrams, error) {
	it := in.take("udp", address, key)
	if it == nil {
		return nil, nil
	}
	defer it.close()
	pc, err := net.FilePacketConn(it.file)
	if err != nil {
		return nil, fmt.Errorf("the socket of %s that was handed over: %w", address, err)
	}
	d := &Datagrams{Conn: pc.(*net.UDPConn)}
	for _, w := range it.Ways {
		c, err := net.FileConn(w.file)
		if err != nil {
			_ = pc.Close()
			return nil, fmt.Errorf("the way back to a process before: %w", err)
		}
		d.Past = append(d.Past, Way{w.Mark, c.(*net.UnixConn)})
	}
	return d, nil
}

// take finds a socket and takes it off the list: by what it was called, or, for those of
// systemd, by where it is bound.
func (in *Inherited) take(network, address, key string) *item {
	if in == nil {
		return nil
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, it := range in.list {
		if it.Network == network && it.matches(address, key) {
			in.list = append(in.list[:i], in.list[i+1:]...)
			return it
		}
	}
	return nil
}

func (it *item) matches(address, key string) bool {
	if it.Address != "" {
		return it.Address == address && it.Key == key
	}
	if it.Network == "unix" {
		return it.path == address
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port != strconv.Itoa(int(it.local.Port())) {
		return false
	}
	if host == "" {
		return it.local.Addr().IsUnspecified()
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && (ip.Unmap() == it.local.Addr() || ip.IsUnspecified() && it.local.Addr().IsUnspecified())
}

func (it *item) close() {
	_ = it.file.Close()
	for _, w := range it.Ways {
		_ = w.file.Close()
	}
}

// Ready tells the process before that this one serves, closes the sockets that nobody took,
// and returns their addresses.
func (in *Inherited) Ready() (unused []string) {
	if in == nil {
		return nil
	}
	in.say(wordReady)
	in.mu.Lock()
	defer in.mu.Unlock()
	for _, it := range in.list {
		where := it.path
		if it.local.IsValid() {
			where = it.local.String()
		}
		unused = append(unused, it.Network+" "+where)
		it.close()
	}
	in.list = nil
	return unused
}

// Failed tells the process before why this one cannot serve.
func (in *Inherited) Failed(why string) {
	if in != nil {
		in.say(wordFailed + why)
	}
}

// What the new process says.
const (
	wordReady  = "ready\n"
	wordFailed = "failed: "
)

func (in *Inherited) say(word string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ready == nil {
		return
	}
	_, _ = in.ready.WriteString(word) // the process before may be gone: then nobody waits
	_ = in.ready.Close()
	in.ready = nil
}
