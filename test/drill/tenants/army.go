//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// flood is the process that floods, and holds the flooded site's origin. It is one of its own, with the least priority,
// so that what the visitors wait is not what they wait for the flood's generator.
type flood struct {
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	origin string
}

// startFlood starts the process. It is quiet until it is told.
func startFlood(s settings) (*flood, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-role", "flood", "-connections", strconv.Itoa(s.connections), "-rate", strconv.FormatFloat(s.rate, 'f', -1, 64))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	f := &flood{cmd, in, bufio.NewReader(out), ""}
	if _, err := fmt.Fscanln(f.out, &f.origin); err != nil {
		f.stop()
		return nil, fmt.Errorf("the flood's process did not say its origin: %w", err)
	}
	return f, nil
}

// tell sends an address to flood, or off, or count, and returns how many requests were sent and answered as asked so far.
func (f *flood) tell(word string) (sent, served int64, err error) {
	if _, err := fmt.Fprintln(f.in, word); err != nil {
		return 0, 0, err
	}
	_, err = fmt.Fscanln(f.out, &sent, &served)
	return sent, served, err
}

// stop ends the process.
func (f *flood) stop() {
	_ = f.cmd.Process.Kill()
	_ = f.cmd.Wait()
}

// beFlood is the other side of a flood: it obeys the words on in until that ends.
func beFlood(ctx context.Context, s settings, in io.Reader, out io.Writer) error {
	if err := syscall.Setpriority(syscall.PRIO_PROCESS, 0, 19); err != nil {
		return fmt.Errorf("lower the priority: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	home, closeHome, err := origin(ctx, 0)
	if err != nil {
		return err
	}
	defer closeHome()
	fmt.Fprintln(out, home)
	a := &army{s: s}
	var wg sync.WaitGroup
	wg.Go(func() { a.attack(ctx) })
	defer wg.Wait()
	defer cancel()
	words := bufio.NewScanner(in)
	for words.Scan() {
		switch w := strings.TrimSpace(words.Text()); w {
		case "count":
		case "off":
			a.on.Store(nil)
		default:
			a.on.Store(&w)
		}
		fmt.Fprintln(out, a.sent.Load(), a.served.Load())
	}
	return words.Err()
}

// army is the flood: each of its connections comes from an address of its own and asks for a picture, one time in ten
// for a page that is nowhere kept.
type army struct {
	s            settings
	on           atomic.Pointer[string] // the address, while it floods
	sent, served atomic.Int64
}

// network is where the flood comes from.
const network = "127.5.0.0/16"

// attack floods while on is set, until ctx ends.
func (a *army) attack(ctx context.Context) {
	every := time.Duration(float64(a.s.connections) / a.s.rate * float64(time.Second))
	first := netip.MustParsePrefix(network).Addr().As4()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range a.s.connections {
		source := net.IPv4(first[0], first[1], byte(i>>8), byte(i))
		wg.Go(func() {
			for ctx.Err() == nil {
				addr := a.on.Load()
				if addr == nil {
					pause(ctx, time.Duration(100+rand.IntN(900))*time.Millisecond)
					continue
				}
				a.connection(ctx, *addr, source, every)
				pause(ctx, every)
			}
		})
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// connection asks until it is closed, or the flood ends.
func (a *army) connection(ctx context.Context, addr string, source net.IP, every time.Duration) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: source}, Timeout: 5 * time.Second, KeepAlive: -1}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	var buf [8 << 10]byte
	for a.on.Load() != nil && ctx.Err() == nil {
		next := time.Now().Add(every)
		target := "/picture"
		if rand.IntN(10) == 0 {
			target = "/page?" + strconv.FormatUint(rand.Uint64(), 36)
		}
		b := append(append(append(buf[:0], "GET "...), target...), " HTTP/1.1\r\nHost: "+flooded+"\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n"...)
		if c.SetDeadline(time.Now().Add(10*time.Second)) != nil {
			return
		}
		a.sent.Add(1)
		if _, err := c.Write(b); err != nil {
			return
		}
		status, err := answer(c, buf[:])
		if err != nil {
			return
		}
		if status == http.StatusOK {
			a.served.Add(1)
		}
		if rest := time.Until(next); rest > 0 {
			pause(ctx, rest)
		}
	}
}

// answer reads an answer that has a Content-Length, and nothing behind it.
func answer(c net.Conn, buf []byte) (status int, err error) {
	have := 0
	for {
		n, err := c.Read(buf[have:])
		if err != nil {
			return 0, err
		}
		have += n
		end := bytes.Index(buf[:have], []byte("\r\n\r\n"))
		if end < 0 && have < len(buf) {
			continue
		}
		length, err := contentLength(buf[:max(end, 0)])
		if err != nil || have < len("HTTP/1.1 200") {
			return 0, fmt.Errorf("an answer that the drill cannot read: %q: %w", buf[:min(have, 80)], err)
		}
		status, err = strconv.Atoi(string(buf[9:12]))
		if err != nil {
			return 0, err
		}
		closes := bytes.Contains(bytes.ToLower(buf[:end]), []byte("connection: close"))
		for left := end + 4 + length - have; left > 0; {
			n, err := c.Read(buf[:min(left, len(buf))])
			if err != nil {
				return 0, err
			}
			left -= n
		}
		if closes {
			return status, io.EOF
		}
		return status, nil
	}
}

func contentLength(head []byte) (int, error) {
	low := bytes.ToLower(head)
	at := bytes.Index(low, []byte("content-length: "))
	if at < 0 {
		return 0, fmt.Errorf("no content-length")
	}
	v := low[at+len("content-length: "):]
	if end := bytes.IndexByte(v, '\r'); end >= 0 {
		v = v[:end]
	}
	return strconv.Atoi(string(v))
}
