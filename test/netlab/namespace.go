package netlab

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// ownNetwork is the network namespace of the calling thread. /proc/self would be that of the first thread.
const ownNetwork = "/proc/thread-self/ns/net"

// newNamespace makes a network namespace that lives as long as the file is open, or a process is in it.
func newNamespace() (ns *os.File, err error) {
	err = elsewhere(func() error { return unix.Unshare(unix.CLONE_NEWNET) }, func() error {
		ns, err = os.Open(ownNetwork)
		return err
	})
	if errors.Is(err, unix.EPERM) {
		err = fmt.Errorf("netlab: a network namespace: %w; run as root (CAP_SYS_ADMIN)", err)
	}
	return ns, err
}

// enter makes the thread one of the namespace.
func enter(ns *os.File) error {
	raw, err := ns.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if raw.Control(func(fd uintptr) { failed = unix.Setns(int(fd), unix.CLONE_NEWNET) }) != nil {
		return os.ErrClosed
	}
	return failed
}

// inside runs f on the calling goroutine, on a thread that is in the namespace until f returns, panics or exits.
func inside(ns *os.File, f func() error) error {
	return elsewhere(func() error { return enter(ns) }, f)
}

// elsewhere runs f on a thread that move has brought to another namespace, and brings the thread back. To have the
// thread end instead, as a locked goroutine does that returns, would be simpler. But it would end with it all processes
// that were once started from this thread with a signal for the death of their parent (Pdeathsig).
func elsewhere(move, f func() error) (err error) {
	runtime.LockOSThread()
	back, err := os.Open(ownNetwork)
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer back.Close()
	if err := move(); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer func() {
		if e := enter(back); e != nil {
			// Still locked, so that nobody else gets this thread.
			err = errors.Join(err, fmt.Errorf("netlab: the thread cannot go back to its namespace: %w", e))
			return
		}
		runtime.UnlockOSThread()
	}()
	return f()
}

// inode names a namespace: all descriptors and processes of one have the same.
func inode(ns *os.File) (uint64, error) {
	raw, err := ns.SyscallConn()
	if err != nil {
		return 0, err
	}
	var st unix.Stat_t
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = unix.Fstat(int(fd), &st) }); err != nil {
		return 0, err
	}
	return st.Ino, failed
}

// leftovers ends processes that are still in one of these namespaces: children whose starter forgot them, and theirs.
func leftovers(inodes map[string]bool) error {
	dir, err := os.Open("/proc")
	if err != nil {
		return err
	}
	names, err := dir.Readdirnames(-1)
	_ = dir.Close()
	var faults []error
	for _, name := range names {
		var pid int
		if _, e := fmt.Sscanf(name, "%d", &pid); e != nil || pid == os.Getpid() || !isIn(name, inodes) {
			continue
		}
		// The number may have gone to another process since; the descriptor is of one for good.
		fd, e := unix.PidfdOpen(pid, 0)
		if e != nil {
			continue // it ended
		}
		if isIn(name, inodes) {
			if e := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); e != nil && !errors.Is(e, unix.ESRCH) {
				faults = append(faults, fmt.Errorf("netlab: process %d is left in a namespace: %w", pid, e))
			}
		}
		_ = unix.Close(fd)
	}
	return errors.Join(append(faults, err)...)
}

func isIn(pid string, inodes map[string]bool) bool {
	at, err := os.Readlink("/proc/" + pid + "/ns/net")
	return err == nil && inodes[strings.TrimPrefix(at, "net:")]
}
