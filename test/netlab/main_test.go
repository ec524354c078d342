package netlab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// role is set for children: this binary as a process of a host.
const role = "NETLAB_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		goleak.VerifyTestMain(m)
	case "echo":
		os.Exit(echoChild(os.Args[1]))
	case "ask":
		os.Exit(askChild(os.Args[1]))
	case "lab":
		os.Exit(labChild())
	}
}

// echoChild serves echoes over TCP until it is killed.
func echoChild(addr string) int {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println("listening")
	echo(ln)
	return 0
}

// echo serves until the listener is closed, and then closes all connections: once the lab is gone, no end of one comes.
func echo(ln net.Listener) {
	var conns []net.Conn
	var work sync.WaitGroup
	for {
		c, err := ln.Accept()
		if err != nil {
			break
		}
		conns = append(conns, c)
		work.Go(func() {
			_, _ = io.Copy(c, c)
			_ = c.Close()
		})
	}
	for _, c := range conns {
		_ = c.Close()
	}
	work.Wait()
}

// askChild asks an echo and says what it heard.
func askChild(addr string) int {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	_, _ = io.WriteString(c, "hello")
	_ = c.(*net.TCPConn).CloseWrite()
	b, err := io.ReadAll(c)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Print(string(b))
	return 0
}

// labChild makes a lab with a process in it, says which namespace that is, and waits for its end.
func labChild() int {
	lab, err := New(context.Background(), Config{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	h, err := lab.Host("a", Profile{})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	cmd := h.Command(context.Background(), "sleep", "600")
	if err := cmd.Start(); err != nil {
		fmt.Println(err)
		return 1
	}
	for !isIn(fmt.Sprint(cmd.Process.Pid), map[string]bool{h.inode: true}) {
		time.Sleep(time.Millisecond) // nsenter is on its way
	}
	fmt.Println(h.inode)
	_ = cmd.Wait()
	return 0
}

// hasTUN says whether the kernel gives TUN devices to this user.
func hasTUN() bool {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return os.Geteuid() != 0 // root asked for all that can be had
	}
	_ = f.Close()
	return true
}

// newLab makes a lab that is closed with the test. Where the machine cannot carry one, the test is skipped, or fails
// where skips are not allowed; a kernel without TUN devices is no fault of who runs the test.
func newLab(t testing.TB, cfg Config) *Lab {
	t.Helper()
	l, err := New(t.Context(), cfg)
	if err != nil {
		lacks := errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, exec.ErrNotFound)
		if !lacks || os.Getenv("CI") == "true" && hasTUN() {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if s, err := l.Stats(); err == nil {
				t.Logf("late %v, stalled %v, hosts %+v, pairs %+v", s.Late.String(), s.Stall.String(), s.Hosts, s.Pairs)
			}
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func newHost(t testing.TB, l *Lab, name string, p Profile) *Host {
	t.Helper()
	h, err := l.Host(name, p)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// must holds that something went well.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for something to come true.
func until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); !is(); {
		if time.Now().After(end) {
			t.Fatal("did not come true: ", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func stats(t testing.TB, l *Lab) Stats {
	t.Helper()
	s, err := l.Stats()
	if err != nil {
		t.Fatal(err)
	}
	return s
}
