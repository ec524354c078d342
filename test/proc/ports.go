package proc

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
)

// Ports finds n distinct TCP ports that are free on 127.0.0.1. They lie below
// the kernel's usual ephemeral range, so that an outgoing connection does not
// take one between the look and the use.
func Ports(n int) ([]int, error) {
	const first, span, tries = 18000, 14000, 2000
	held := make([]net.Listener, 0, n)
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	ports := make([]int, 0, n)
	for range tries {
		if len(ports) == n {
			return ports, nil
		}
		port := first + rand.IntN(span)
		l, err := net.Listen("tcp", Addr(port))
		if err != nil {
			continue
		}
		held = append(held, l)
		ports = append(ports, port)
	}
	if len(ports) == n {
		return ports, nil
	}
	return nil, fmt.Errorf("found %d of %d free ports between %d and %d on 127.0.0.1", len(ports), n, first, first+span)
}

// Addr is port on 127.0.0.1 as host:port.
func Addr(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}
