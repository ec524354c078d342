package netlab

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// readsAtOnce is how many packets of one device are read before the others have their turn.
	readsAtOnce = 64
	// movesAtOnce is how many packets move between two looks at the devices.
	movesAtOnce = 256
	// heartbeat is how often the lab looks how late it gets to run.
	heartbeat = 10 * time.Millisecond
	// niceness of the thread: what is emulated is the time between the others' packets.
	niceness = -15
)

// What epoll says is ready, beside numbers of hosts.
const (
	readyTimer = -1 - iota
	readyWake
)

// loop is the one goroutine that reads, delays and writes packets. It waits in epoll itself and not in Go's poller,
// which rounds timers to milliseconds.
type loop struct {
	epoll, timer, wake int
	start              time.Time
	done               chan struct{}

	mu     sync.Mutex
	fabric *fabric
	stall  Histogram
	closed bool
	armed  int64 // when the timer fires; 0 when it has
	spare  packet
}

func newLoop(cfg Config) (*loop, error) {
	l := &loop{epoll: -1, timer: -1, wake: -1, start: time.Now(), done: make(chan struct{})}
	l.fabric = newFabric(cfg, func(to *node, b []byte) bool { return to.dev.write(b) == nil })
	l.spare = packet{buf: make([]byte, l.fabric.packets.size)}
	if err := l.open(); err != nil {
		l.closeFiles()
		return nil, fmt.Errorf("netlab: %w", err)
	}
	go l.run()
	return l, nil
}

func (l *loop) open() (err error) {
	if l.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return err
	}
	if l.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return err
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	l.arm(int64(heartbeat))
	// By edges, so that neither is ever read.
	return errors.Join(l.watch(l.timer, readyTimer, unix.EPOLLIN|unix.EPOLLET), l.watch(l.wake, readyWake, unix.EPOLLIN|unix.EPOLLET))
}

func (l *loop) watch(fd, tag int, events uint32) error {
	return unix.EpollCtl(l.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(tag)})
}

// closeFiles closes what open opened.
func (l *loop) closeFiles() {
	for _, fd := range []int{l.epoll, l.timer, l.wake} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (l *loop) now() int64 { return int64(time.Since(l.start)) }

// add begins to carry packets of a host that the fabric knows. The lock is held.
func (l *loop) add(n *node) error { return l.watch(n.dev.fd, n.number, unix.EPOLLIN) }

// stop ends the goroutine and closes its files; those of devices are their hosts'.
func (l *loop) stop() {
	l.mu.Lock()
	l.closed = true
	_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	l.mu.Unlock()
	<-l.done
	l.closeFiles()
}

func (l *loop) run() {
	defer close(l.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer hurry()()
	ready := make([]unix.EpollEvent, 64)
	timeout := -1
	for {
		n, err := unix.EpollWait(l.epoll, ready, timeout)
		if err != nil && !errors.Is(err, unix.EINTR) {
			panic("netlab: epoll_wait: " + err.Error()) // only a descriptor closed by somebody else does that
		}
		more, closed := l.round(ready[:max(n, 0)])
		if closed {
			return
		}
		if timeout = -1; more {
			timeout = 0
		}
	}
}

// hurry raises the priority of the calling thread, and gives what takes it back: the thread lives on (see elsewhere).
func hurry() (relax func()) {
	// The system call counts from 20 down to -19, so that it has no need for negative answers.
	was, err := unix.Getpriority(unix.PRIO_PROCESS, unix.Gettid())
	if err != nil || unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), niceness) != nil {
		return func() {} // slower, and Stats.Stall tells
	}
	return func() { _ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 20-was) }
}

// round reads what came and moves what is due. More says that it left some of it.
func (l *loop) round(ready []unix.EpollEvent) (more, closed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, true
	}
	for i := range ready {
		switch tag := int(ready[i].Fd); tag {
		case readyWake:
		case readyTimer:
			l.stall.add(time.Duration(l.now() - l.armed))
			l.armed = 0
		default:
			if n := l.fabric.nodes[tag]; n != nil {
				l.read(n)
			}
		}
	}
	l.fabric.run(l.now, movesAtOnce)
	return l.rearm(), false
}

// read takes packets from a device.
func (l *loop) read(from *node) {
	for range readsAtOnce {
		p := l.fabric.packets.get()
		full := p == nil
		if full {
			p = &l.spare
		}
		n, err := from.dev.read(p.buf)
		switch {
		case err != nil || n <= 0: // EAGAIN: all are read
			if !full {
				l.fabric.packets.put(p)
			}
			return
		case full:
			l.fabric.refuse(from, n)
		default:
			p.n = n
			l.fabric.receive(l.now(), from, p)
		}
	}
}

// rearm sets the timer to when the next packet is due, rounded up so that several share a wake-up.
func (l *loop) rearm() (more bool) {
	now := l.now()
	at := now + int64(heartbeat)
	if due, ok := l.fabric.queue.next(); ok {
		if due <= now {
			return true
		}
		grain := int64(l.fabric.cfg.Grain)
		at = min(at, (due+grain-1)/grain*grain)
	}
	if l.armed == 0 || at < l.armed {
		l.arm(at)
	}
	return false
}

// arm sets the timer. A timer of no time would be none, so it is a nanosecond at least.
func (l *loop) arm(at int64) {
	in := max(at-l.now(), 1)
	spec := unix.ItimerSpec{Value: unix.NsecToTimespec(in)}
	if err := unix.TimerfdSettime(l.timer, 0, &spec, nil); err != nil {
		panic("netlab: timerfd_settime: " + err.Error()) // as above
	}
	l.armed = at
}
