package netlab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// serveEcho serves UDP and TCP echoes at port 7 until the test ends.
func serveEcho(t *testing.T, h *Host) {
	t.Helper()
	pc, err := h.ListenPacket(t.Context(), "udp", ":7")
	must(t, err)
	ln, err := h.Listen(t.Context(), "tcp", ":7")
	must(t, err)
	done := make(chan struct{}, 2)
	go func() {
		b := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(b)
			if err != nil {
				break
			}
			_, _ = pc.WriteTo(b[:n], from)
		}
		done <- struct{}{}
	}()
	go func() {
		echo(ln)
		done <- struct{}{}
	}()
	t.Cleanup(func() {
		_ = pc.Close()
		_ = ln.Close()
		<-done
		<-done
	})
}

// pinger asks a UDP echo.
type pinger struct {
	t *testing.T
	c net.Conn
	n uint64
}

func newPinger(t *testing.T, from *Host, to string) *pinger {
	t.Helper()
	c, err := from.Dial(t.Context(), "udp", to)
	must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return &pinger{t: t, c: c}
}

// ping sends one datagram and waits so long for its echo.
func (p *pinger) ping(wait time.Duration) (rtt time.Duration, ok bool) {
	p.t.Helper()
	p.n++
	start := time.Now()
	must(p.t, p.c.SetReadDeadline(start.Add(wait)))
	if _, err := p.c.Write(binary.BigEndian.AppendUint64(nil, p.n)); err != nil {
		p.t.Fatal(err)
	}
	b := make([]byte, 64)
	for {
		n, err := p.c.Read(b)
		if err != nil {
			return 0, false
		}
		if n == 8 && binary.BigEndian.Uint64(b) == p.n {
			return time.Since(start), true
		}
	}
}

// reaches pings until an echo comes.
func (p *pinger) reaches(what string) {
	p.t.Helper()
	until(p.t, what, func() bool { _, ok := p.ping(200 * time.Millisecond); return ok })
}

// takes holds that no echo is earlier than rtt, and that, a busy machine aside, they are not much later.
func (p *pinger) takes(rtt time.Duration) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("an echo comes soon after %v", rtt), func() bool {
		got, ok := p.ping(10 * time.Second)
		if ok && got < rtt {
			p.t.Fatalf("an echo after %v, of a way that takes %v", got, rtt)
		}
		return ok && got < rtt+5*time.Millisecond
	})
}

func TestDelayIsThatOfTheWay(t *testing.T) {
	t.Parallel()
	l := newLab(t, Config{})
	a, b := newHost(t, l, "a", Profile{Delay: 15 * time.Millisecond}), newHost(t, l, "b", Profile{Delay: 10 * time.Millisecond})
	c := newHost(t, l, "c", Profile{})
	serveEcho(t, b)
	serveEcho(t, c)
	newPinger(t, a, "b:7").takes(50 * time.Millisecond)
	newPinger(t, a, "c:7").takes(30 * time.Millisecond)
	if a.Addr6().IsValid() {
		c, err := a.Dial(t.Context(), "udp6", "b:7")
		must(t, err)
		defer c.Close()
		(&pinger{t: t, c: c}).takes(50 * time.Millisecond)
	}
	must(t, l.Link(a, b, Profile{Delay: 3 * time.Millisecond}))
	p := newPinger(t, a, "b:7")
	p.takes(6 * time.Millisecond)
	must(t, l.Unlink(a, b))
	must(t, b.Set(Profile{Delay: 5 * time.Millisecond}, Profile{}))
	p.takes(35 * time.Millisecond)
	if up, down := b.Profiles(); up.Delay != 5*time.Millisecond || down != (Profile{}) {
		t.Errorf("%v up, %v down", up, down)
	}
	if s := stats(t, l); s.Late.Count == 0 || s.Hosts["a"].Up.Packets == 0 || s.Hosts["b"].Down.Bytes == 0 {
		t.Errorf("%+v", s)
	}
}

// shoot sends n numbered datagrams to a socket at to and gives the numbers as they arrived, once the lab carries nothing
// any more.
func shoot(t *testing.T, l *Lab, from, to *Host, n int) (got []uint64) {
	t.Helper()
	pc, err := to.ListenPacket(t.Context(), "udp4", ":9")
	must(t, err)
	defer pc.Close()
	must(t, pc.(*net.UDPConn).SetReadBuffer(1<<20))
	c, err := from.Dial(t.Context(), "udp4", netip.AddrPortFrom(to.Addr(), 9).String())
	must(t, err)
	defer c.Close()
	before := stats(t, l)
	for sent := 0; sent < n; {
		for range min(100, n-sent) { // no more than the receiver's buffer holds
			_, err := c.Write(binary.BigEndian.AppendUint64(nil, uint64(sent)))
			must(t, err)
			sent++
		}
		until(t, "all are read and carried", func() bool {
			s := stats(t, l)
			return s.Hosts[from.Name()].Up.Packets-before.Hosts[from.Name()].Up.Packets >= uint64(sent) && s.InFlight == 0
		})
		arrived := func() int { s := stats(t, l); return int(came(s, to) - came(before, to)) }()
		b := make([]byte, 64)
		for len(got) < arrived {
			must(t, pc.SetReadDeadline(time.Now().Add(30*time.Second)))
			_, _, err := pc.ReadFrom(b)
			if err != nil {
				t.Fatalf("%d of %d arrived: %v", len(got), arrived, err)
			}
			got = append(got, binary.BigEndian.Uint64(b))
		}
	}
	return got
}

// came is how many packets have been handed to a host.
func came(s Stats, h *Host) uint64 {
	d := s.Hosts[h.Name()].Down
	return d.Packets + d.Duplicated - d.Lost - d.Full - d.Cut - uint64(d.Inside)
}

func TestLossIsTheShareThatIsAskedFor(t *testing.T) {
	t.Parallel()
	lose := func() []uint64 {
		l := newLab(t, Config{Seed: 4})
		a, b := newHost(t, l, "a", Profile{}), newHost(t, l, "b", Profile{})
		must(t, a.Set(Profile{Loss: 0.2}, Profile{}))
		const n = 5000
		got := shoot(t, l, a, b, n)
		if lost := n - len(got); lost < 850 || lost > 1150 { // 5 sigma
			t.Errorf("%d of %d lost", lost, n)
		}
		if s := stats(t, l).Hosts["a"]; int(s.Up.Lost) != n-len(got) || s.Overrun != 0 {
			t.Errorf("%+v", s)
		}
		return got
	}
	first, second := lose(), lose()
	if fmt.Sprint(first) != fmt.Sprint(second) {
		t.Error("the same seed loses others")
	}
}

func TestReorderedAndDoubledPacketsAreSeen(t *testing.T) {
	t.Parallel()
	l := newLab(t, Config{Seed: 1})
	a, b := newHost(t, l, "a", Profile{}), newHost(t, l, "b", Profile{})
	must(t, l.LinkOneWay(a, b, Profile{Reorder: 0.05, Detour: 20 * time.Millisecond, Duplicate: 0.05}))
	pc, err := b.ListenPacket(t.Context(), "udp4", ":9")
	must(t, err)
	defer pc.Close()
	c, err := a.Dial(t.Context(), "udp4", "b:9")
	must(t, err)
	defer c.Close()
	const n = 200
	for i := range n {
		_, err := c.Write([]byte{byte(i)})
		must(t, err)
	}
	until(t, "all are carried", func() bool {
		s := stats(t, l)
		return s.Pairs[Pair{"a", "b"}].Packets >= n && s.InFlight == 0
	})
	s := stats(t, l).Pairs[Pair{"a", "b"}]
	overtaken, highest := 0, -1
	for range n + int(s.Duplicated) {
		b := make([]byte, 16)
		must(t, pc.SetReadDeadline(time.Now().Add(30*time.Second)))
		_, _, err := pc.ReadFrom(b)
		must(t, err)
		if int(b[0]) < highest {
			overtaken++
		}
		highest = max(highest, int(b[0]))
	}
	if overtaken != int(s.Reordered) || overtaken == 0 || s.Duplicated == 0 || s.Packets != n {
		t.Errorf("%d overtaken, %+v", overtaken, s)
	}
}

// download sends so many bytes from b to a and holds that all arrive as they were. It says how long that took.
func download(t *testing.T, a, b *Host, size int) time.Duration {
	t.Helper()
	data := make([]byte, size)
	g := rand.New(rand.NewPCG(1, 1))
	for i := range data {
		data[i] = byte(g.Uint32())
	}
	ln, err := b.Listen(t.Context(), "tcp", ":80")
	must(t, err)
	defer ln.Close()
	sent := make(chan error, 1)
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, err = c.Write(data)
			err = errors.Join(err, c.Close())
		}
		sent <- err
	}()
	start := time.Now()
	c, err := a.Dial(t.Context(), "tcp", b.Name()+":80")
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(start.Add(2*time.Minute)))
	got, err := io.ReadAll(c)
	must(t, err)
	must(t, <-sent)
	if sha256.Sum256(got) != sha256.Sum256(data) {
		t.Errorf("%d bytes arrived of %d, and not the same", len(got), len(data))
	}
	return time.Since(start)
}

func TestTCPComesThroughLoss(t *testing.T) {
	t.Parallel()
	for _, loss := range []float64{0.01, 0.05} {
		l := newLab(t, Config{Seed: 1})
		p := Profile{Delay: time.Millisecond, Loss: loss / 2, Jitter: time.Millisecond, Reorder: 0.01, Duplicate: 0.01}
		a, b := newHost(t, l, "a", p), newHost(t, l, "b", p)
		download(t, a, b, 500_000)
		if s := stats(t, l).Hosts; s["a"].Down.Lost+s["b"].Up.Lost == 0 {
			t.Errorf("nothing was lost: %+v", s)
		}
	}
}

func TestARateBoundsWhatComesThrough(t *testing.T) {
	t.Parallel()
	l := newLab(t, Config{})
	a, b := newHost(t, l, "a", Profile{}), newHost(t, l, "b", Profile{Rate: 8_000_000})
	const size = 400_000
	if took := download(t, a, b, size); took < 400*time.Millisecond {
		t.Errorf("a megabyte a second carried %d bytes in %v", size, took)
	}
	s := stats(t, l).Hosts["b"].Up
	if s.Bytes < size {
		t.Errorf("%+v", s)
	}
}

func TestCutAndHealed(t *testing.T) {
	t.Parallel()
	l := newLab(t, Config{})
	a, b, c := newHost(t, l, "a", Profile{}), newHost(t, l, "b", Profile{}), newHost(t, l, "c", Profile{})
	serveEcho(t, b)
	serveEcho(t, c)
	toB, toC := newPinger(t, a, "b:7"), newPinger(t, a, "c:7")
	silent := func(what string, p *pinger) {
		t.Helper()
		if _, ok := p.ping(30 * time.Millisecond); ok {
			t.Error("an echo through a cut: ", what)
		}
	}
	toB.reaches("b at first")
	must(t, l.CutPair(a, b))
	silent("of the pair", toB)
	toC.reaches("c while a and b are cut")
	must(t, l.HealPair(a, b))
	toB.reaches("b after healing")
	must(t, l.CutOneWay(b, a))
	silent("of the answers", toB)
	must(t, l.HealAll())
	toB.reaches("b after healing all")
	must(t, l.Cut(a))
	silent("of the host", toB)
	silent("of the host", toC)
	must(t, l.Heal(a))
	toB.reaches("b after healing the host")
	toC.reaches("c after healing the host")
	if s := stats(t, l).Hosts; s["a"].Up.Cut < 3 || s["b"].Up.Cut < 1 {
		t.Errorf("%+v", s)
	}

	// A connection outlives a cut, as TCP does.
	conn, err := a.Dial(t.Context(), "tcp", "b:7")
	must(t, err)
	defer conn.Close()
	must(t, l.Cut(b))
	_, err = io.WriteString(conn, "later")
	must(t, err)
	before := stats(t, l).Hosts["b"].Down.Cut
	until(t, "it is sent again and runs into the cut", func() bool { return stats(t, l).Hosts["b"].Down.Cut > before })
	must(t, l.Heal(b))
	got := make([]byte, 5)
	must(t, conn.SetReadDeadline(time.Now().Add(time.Minute)))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "later" {
		t.Errorf("%q, %v", got, err)
	}
}

// child is this binary in a role at a host.
func child(t *testing.T, h *Host, as string, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := h.Command(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), role+"="+as, "GORACE=atexit_sleep_ms=0") // or each takes a second to end
	return cmd
}

func TestTwentyHostsReachEachOther(t *testing.T) {
	t.Parallel()
	l := newLab(t, Config{})
	var hosts []*Host
	var listening []*exec.Cmd
	for i := range 20 {
		h := newHost(t, l, fmt.Sprintf("pop%d", i), Profile{Delay: time.Millisecond})
		hosts = append(hosts, h)
		if i%5 != 0 { // four processes, sixteen listeners of this process
			serveEcho(t, h)
			continue
		}
		cmd := child(t, h, "echo", ":7")
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		listening = append(listening, cmd)
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "listening\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	for i, h := range hosts {
		other := hosts[(i*7+3)%20]
		if i%4 == 0 {
			out, err := child(t, h, "ask", net.JoinHostPort(other.Addr().String(), "7")).CombinedOutput()
			if string(out) != "hello" || err != nil {
				t.Errorf("%s asked %s: %q, %v", h.Name(), other.Name(), out, err)
			}
			continue
		}
		c, err := h.Dial(t.Context(), "tcp", other.Name()+":7")
		must(t, err)
		_, err = io.WriteString(c, "hello")
		must(t, err)
		must(t, c.(*net.TCPConn).CloseWrite())
		if got, err := io.ReadAll(c); string(got) != "hello" || err != nil {
			t.Errorf("%s asked %s: %q, %v", h.Name(), other.Name(), got, err)
		}
		_ = c.Close()
	}
	must(t, l.Close()) // ends the children
	for _, cmd := range listening {
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.ProcessState.Success() {
			t.Error(err)
		}
	}
}

func TestNothingIsLeftBehind(t *testing.T) {
	// Not parallel, because it looks at all descriptors of the process.
	l := newLab(t, Config{})
	a, b := newHost(t, l, "a", Profile{}), newHost(t, l, "b", Profile{})
	serveEcho(t, b)
	newPinger(t, a, "b:7").reaches("b")
	sh := a.Command(t.Context(), "sh", "-c", "sleep 600 & sleep 600 & wait")
	must(t, sh.Start())
	inodes := map[string]bool{a.inode: true, b.inode: true}
	until(t, "the children are there", func() bool { return len(residents(t, inodes)) >= 3 })
	c := newHost(t, l, "c", Profile{})
	cAddr, cNode := c.Addr(), c.inode
	sleep := c.Command(context.Background(), "sleep", "600")
	must(t, sleep.Start())
	until(t, "the child is there", func() bool { return len(residents(t, map[string]bool{cNode: true})) > 0 })
	must(t, c.Close())
	if err := sleep.Wait(); err == nil {
		t.Error("it slept to its end")
	}
	must(t, c.Close())
	if err := c.Do(func() error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	if err := c.Set(Profile{}, Profile{}); err == nil || !strings.Contains(err.Error(), "host c is closed") {
		t.Error(err)
	}
	if again := newHost(t, l, "c", Profile{}); again.Addr() != cAddr {
		t.Errorf("%v is not free again", cAddr)
	} else {
		inodes[again.inode] = true
	}
	delete(inodes, cNode) // the number may be used again
	must(t, l.Close())
	must(t, l.Close())
	_ = sh.Wait()
	until(t, "the children have ended", func() bool { return len(residents(t, inodes)) == 0 })
	fds, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	for _, fd := range fds {
		if at, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && (at == "/dev/net/tun" || inodes[strings.TrimPrefix(at, "net:")]) {
			t.Errorf("%s is open", at)
		}
	}
	if _, err := l.Host("d", Profile{}); !errors.Is(err, errClosed) {
		t.Error(err)
	}
	if _, err := l.Stats(); !errors.Is(err, errClosed) {
		t.Error(err)
	}
	if err := l.Cut(a); !errors.Is(err, errClosed) {
		t.Error(err)
	}
	must(t, a.Close())
}

// residents are the processes in namespaces, and those of this process's threads.
func residents(t *testing.T, inodes map[string]bool) (pids []string) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*")
	must(t, err)
	for _, task := range tasks {
		if isIn(strings.TrimPrefix(task, "/proc/"), inodes) {
			pids = append(pids, task)
		}
	}
	return pids
}

func TestALabThatIsKilledLeavesNothing(t *testing.T) {
	t.Parallel()
	newLab(t, Config{}) // or skip
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"=lab")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "[") {
		t.Errorf("%q, %v", line, err)
	}
	inodes := map[string]bool{strings.TrimSpace(line): true}
	if len(residents(t, inodes)) == 0 {
		t.Error("nobody is in the child's namespace")
	}
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	until(t, "its process is gone too", func() bool { return len(residents(t, inodes)) == 0 })
}

func TestTheContextClosesTheLab(t *testing.T) {
	t.Parallel()
	newLab(t, Config{}) // or skip
	ctx, cancel := context.WithCancel(t.Context())
	l, err := New(ctx, Config{})
	must(t, err)
	newHost(t, l, "a", Profile{})
	cancel()
	until(t, "the lab is closed", func() bool { _, err := l.Stats(); return errors.Is(err, errClosed) })
	must(t, l.Close())
}

func TestStrangePacketsDoNoHarm(t *testing.T) {
	t.Parallel()
	l := newLab(t, Config{})
	a, b := newHost(t, l, "a", Profile{}), newHost(t, l, "b", Profile{})
	serveEcho(t, b)
	var fd int
	must(t, a.Do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		dev, err := net.InterfaceByName(deviceName)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: dev.Index})
	}))
	defer unix.Close(fd)
	for _, raw := range [][]byte{
		{0}, {0x45}, bytes.Repeat([]byte{0x45}, 1500), bytes.Repeat([]byte{0x60}, 1500), bytes.Repeat([]byte{0xff}, 100), datagram(b.Addr(), 1, 99)[:60],
	} {
		_, err := unix.Write(fd, raw)
		must(t, err)
	}
	// One that only looks well: the kernel at b drops it for its checksum.
	_, err := unix.Write(fd, datagram(b.Addr(), 1, 100))
	must(t, err)
	nobody, err := a.Dial(t.Context(), "udp", "192.0.2.1:9")
	must(t, err)
	defer nobody.Close()
	_, err = io.WriteString(nobody, "x")
	must(t, err)
	pc, err := a.ListenPacket(t.Context(), "udp4", ":0")
	must(t, err)
	defer pc.Close()
	_, err = pc.WriteTo([]byte("x"), &net.UDPAddr{IP: net.IPv4(239, 1, 2, 3), Port: 9})
	must(t, err)
	until(t, "all are counted", func() bool {
		s := stats(t, l).Hosts["a"]
		return s.Malformed == 6 && s.Unroutable == 1 && s.Multicast >= 1
	})
	newPinger(t, a, "b:7").reaches("b after all that")

	// A device that is down takes nothing.
	must(t, b.Do(func() error {
		out, err := exec.Command("ip", "link", "set", deviceName, "down").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}))
	p := newPinger(t, a, "b:7")
	until(t, "packets are refused", func() bool { _, ok := p.ping(time.Millisecond); return !ok && stats(t, l).Hosts["b"].Refused > 0 })
}

func TestTheLabsMemoryIsBounded(t *testing.T) {
	t.Parallel()
	l := newLab(t, Config{Packets: 40})
	a := newHost(t, l, "a", Profile{Delay: time.Hour})
	newHost(t, l, "b", Profile{})
	c, err := a.Dial(t.Context(), "udp4", "b:9")
	must(t, err)
	defer c.Close()
	for range 200 {
		_, err := c.Write([]byte("x"))
		must(t, err)
	}
	until(t, "all are read", func() bool { return stats(t, l).Hosts["a"].Up.Packets >= 200 })
	if s := stats(t, l); s.InFlight != 40 || s.Hosts["a"].Up.Inside != 40 || s.Hosts["a"].Up.Full < 160 {
		t.Errorf("%+v", s)
	}
}

func TestDoComesBack(t *testing.T) {
	t.Parallel()
	l := newLab(t, Config{})
	a := newHost(t, l, "a", Profile{})
	here, err := os.Readlink(ownNetwork)
	must(t, err)
	stays := func() {
		t.Helper()
		if at, err := os.Readlink(ownNetwork); err != nil || at != here {
			t.Errorf("left in %s, %v", at, err)
		}
	}
	fault := errors.New("a fault")
	if err := a.Do(func() error { return fault }); !errors.Is(err, fault) {
		t.Error(err)
	}
	stays()
	func() {
		defer func() { _ = recover() }()
		_ = a.Do(func() error { panic("x") })
	}()
	stays()
	b := newHost(t, l, "b", Profile{})
	must(t, a.Do(func() error {
		return b.Do(func() error {
			at, err := os.Readlink(ownNetwork)
			if at != "net:"+b.inode {
				t.Errorf("in %s", at)
			}
			return err
		})
	}))
	stays()
	// What Do starts is a process of the host, and outlives Do.
	cmd := exec.Command("cat", "/proc/self/net/dev")
	var out bytes.Buffer
	cmd.Stdout = &out
	must(t, a.Do(cmd.Start))
	must(t, cmd.Wait())
	if !strings.Contains(out.String(), deviceName) {
		t.Errorf("not in the namespace: %s", out.String())
	}
}

func TestWrongUseIsSaid(t *testing.T) {
	t.Parallel()
	l, other := newLab(t, Config{Hosts: 2}), newLab(t, Config{})
	a := newHost(t, l, "a", Profile{})
	x := newHost(t, other, "x", Profile{})
	errOf := func(_ any, err error) error { return err }
	_, errHost := l.Host("b", Profile{Loss: 2})
	for want, err := range map[string]error{
		"there is a host a already":            errOf(l.Host("a", Profile{})),
		"ambiguous":                            errOf(l.Host("10.0.0.1", Profile{})),
		"wants a name":                         errOf(l.Host("", Profile{})),
		"Loss is 2":                            errHost,
		"is of another lab":                    l.CutPair(a, x),
		"is no pair":                           l.Link(a, a, Profile{}),
		"Delay is -1ns":                        l.Link(a, x, Profile{Delay: -1}),
		"Delay is -2ns":                        a.Set(Profile{}, Profile{Delay: -2}),
		"neither an address nor the name":      errOf(a.Dial(t.Context(), "tcp", "example.com:80")),
		"missing port":                         errOf(a.Listen(t.Context(), "tcp", "a")),
		"no suitable address":                  errOf(a.ListenPacket(t.Context(), "udp6", "10.77.0.1:1")),
		"cannot assign requested address":      errOf(a.Listen(t.Context(), "tcp", "10.1.2.3:80")),
		"neither an address nor the name of a": errOf(a.ListenPacket(t.Context(), "udp", "nobody:1")),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v; want %q", err, want)
		}
	}
	newHost(t, l, "b", Profile{})
	if _, err := l.Host("c", Profile{}); err == nil || !strings.Contains(err.Error(), "raise Config.Hosts") {
		t.Error(err)
	}
	if h, ok := l.Named("b"); !ok || h.Name() != "b" {
		t.Error(h, ok)
	}
}

func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t, Config{})
	a, b := newHost(t, l, "a", Profile{Delay: time.Millisecond}), newHost(t, l, "b", Profile{})
	serveEcho(t, b)
	const n = 100
	var good atomic.Int64
	done := make(chan error, n)
	for range n {
		go func() {
			done <- func() error {
				c, err := a.Dial(t.Context(), "tcp", "b:7")
				if err != nil {
					return err
				}
				defer c.Close()
				if _, err := io.WriteString(c, "hello"); err != nil {
					return err
				}
				got := make([]byte, 5)
				if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
					return fmt.Errorf("%q, %w", got, err)
				}
				good.Add(1)
				return nil
			}()
		}()
	}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if good.Load() != n {
		t.Errorf("%d of %d", good.Load(), n)
	}
}
