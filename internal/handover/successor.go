package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Plan says how the next process is started.
type Plan struct {
	Path    string   // of the program
	Args    []string // the first is the program's name
	Env     []string
	Sockets []Socket
	// Within is how long it may take to be ready.
	Within         time.Duration
	Stdout, Stderr *os.File
}

// Successor is the process that has taken over.
type Successor struct {
	Pid int
	// Relays bring datagrams that reached it and belong to this process, by the index of
	// their socket in the plan. Who reads one closes it.
	Relays map[int]*net.UnixConn
}

// maxWord bounds what the new process may say.
const maxWord = 4 << 10

// Start starts the next process and waits until it is ready. An error says why it is not;
// then it has been ended, and nothing has changed for this process.
func Start(ctx context.Context, p Plan) (*Successor, error) {
	if len(p.Sockets) > maxSockets {
		return nil, fmt.Errorf("%d sockets are too many to hand over; the most is %d", len(p.Sockets), maxSockets)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.Within, fmt.Errorf("it was not ready within %s", p.Within))
	defer cancel()
	b := bag{next: firstDescriptor}
	defer b.close()
	hear, err := b.fill(p.Sockets)
	if err != nil {
		b.closeRelays()
		return nil, fmt.Errorf("the sockets cannot be passed on: %w", err)
	}
	defer hear.Close()
	text, err := json.Marshal(b.inventory)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: p.Path, Args: p.Args, Env: append(p.Env, variable+"="+string(text)),
		Stdout: p.Stdout, Stderr: p.Stderr, ExtraFiles: b.files,
	}
	if err := cmd.Start(); err != nil {
		b.closeRelays()
		return nil, fmt.Errorf("the new program cannot be started: %w", err)
	}
	b.close() // ours of the files that it has now, the other end of hear too
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := await(ctx, hear, ended); err != nil {
		_ = cmd.Process.Kill()
		b.closeRelays()
		return nil, err
	}
	return &Successor{Pid: cmd.Process.Pid, Relays: b.relays}, nil
}

// await waits for the word of the new process.
func await(ctx context.Context, hear *os.File, ended <-chan error) error {
	word := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(hear, maxWord))
		word <- string(b)
	}()
	select {
	case <-ctx.Done():
		_ = hear.Close() // wakes the reader
		return fmt.Errorf("the new process was ended: %w", context.Cause(ctx))
	case w := <-word:
		if w == wordReady {
			return nil
		}
		if why, ok := strings.CutPrefix(w, wordFailed); ok {
			return fmt.Errorf("the new process cannot serve: %s", strings.TrimSpace(why))
		}
	}
	select {
	case err := <-ended:
		if err == nil {
			err = errors.New("exit status 0")
		}
		return fmt.Errorf("the new process ended before it was ready: %w; what it wrote before that says more", err)
	case <-ctx.Done():
		return fmt.Errorf("the new process was ended: %w", context.Cause(ctx))
	}
}

// bag holds what the new process inherits.
type bag struct {
	inventory inventory
	files     []*os.File
	next      int
	relays    map[int]*net.UnixConn
}

// add puts a file in and returns the descriptor that it will have.
func (b *bag) add(f *os.File) int {
	b.files = append(b.files, f)
	b.next++
	return b.next - 1
}

func (b *bag) close() {
	for _, f := range b.files {
		_ = f.Close()
	}
}

func (b *bag) closeRelays() {
	for _, c := range b.relays {
		_ = c.Close()
	}
}

func (b *bag) fill(sockets []Socket) (hear *os.File, err error) {
	b.relays = map[int]*net.UnixConn{}
	for i, s := range sockets {
		f, err := duplicate(s.Conn, s.Network)
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", s.Network, s.Address, err)
		}
		it := item{Network: s.Network, Address: s.Address, Key: s.Key, FD: b.add(f)}
		if s.Mark != "" {
			ours, theirs, err := pair()
			if err != nil {
				return nil, err
			}
			b.relays[i] = ours
			it.Ways = append(it.Ways, way{Mark: s.Mark, FD: b.add(theirs)})
		}
		for _, w := range s.Past[:min(len(s.Past), maxPast)] {
			f, err := duplicate(w.Conn, "way")
			if err != nil {
				continue // it is closed: that process has ended
			}
			it.Ways = append(it.Ways, way{Mark: w.Mark, FD: b.add(f)})
		}
		b.inventory.Sockets = append(b.inventory.Sockets, it)
	}
	hear, say, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	b.inventory.Ready = b.add(say)
	return hear, nil
}

// maxPast bounds how many processes before this one may still be ending.
const maxPast = 8

// duplicate returns a file of a socket. The File methods of package net would have it block
// when it is passed on, for this process too.
func duplicate(c syscall.Conn, name string) (*os.File, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	var f *os.File
	var failed error
	err = raw.Control(func(fd uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		n, err := syscall.Dup(int(fd))
		if err != nil {
			failed = os.NewSyscallError("dup", err)
			return
		}
		syscall.CloseOnExec(n)
		f = os.NewFile(uintptr(n), name)
	})
	return f, errors.Join(err, failed)
}

// relayBuffer is how many bytes of datagrams may wait between the processes.
const relayBuffer = 1 << 20

// pair makes a way for datagrams between the processes.
func pair() (ours *net.UnixConn, theirs *os.File, err error) {
	syscall.ForkLock.RLock()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_DGRAM, 0)
	if err == nil {
		syscall.CloseOnExec(fds[0])
		syscall.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	_ = syscall.SetsockoptInt(fds[1], syscall.SOL_SOCKET, syscall.SO_SNDBUF, relayBuffer)
	f := os.NewFile(uintptr(fds[0]), "relay")
	defer f.Close()
	theirs = os.NewFile(uintptr(fds[1]), "relay")
	c, err := net.FileConn(f)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), theirs, nil
}
