// Package proc runs the children of a test or a benchmark: servers in process
// groups of their own, pinned to a core if asked, that never outlive the run.
// It is Linux only.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

// AnyCore in Spec.Core leaves the child on every core the parent may use.
const AnyCore = -1

// Spec says how to start a child.
type Spec struct {
	Name string   // label in errors
	Args []string // program and its arguments
	Env  []string // added to the environment of this process
	Dir  string   // working directory; "" is that of this process
	Log  string   // file that receives stdout and stderr; emptied first, then appended to
	Core int      // CPU to run on, or AnyCore
}

// Process is a running child and everything that it starts.
type Process struct {
	spec Spec
	cmd  *exec.Cmd
	done chan struct{}
	stop sync.Once

	mu  sync.Mutex
	err error
}

// Start starts the child in its own process group. The kernel ends it with
// SIGTERM when this process dies without stopping it.
func Start(spec Spec) (*Process, error) {
	if len(spec.Args) == 0 {
		return nil, fmt.Errorf("start %s: no program given", spec.Name)
	}
	cmd := exec.Command(spec.Args[0], spec.Args[1:]...)
	cmd.Env = append(os.Environ(), spec.Env...)
	cmd.Dir = spec.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if spec.Log != "" {
		f, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o644)
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", spec.Name, err)
		}
		defer f.Close()
		cmd.Stdout, cmd.Stderr = f, f
	}
	if err := onCore(spec.Core, cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	p := &Process{spec: spec, cmd: cmd, done: make(chan struct{})}
	go func() {
		err := cmd.Wait()
		p.mu.Lock()
		p.err = err
		p.mu.Unlock()
		close(p.done)
	}()
	return p, nil
}

// Pid is the process id of the child, which is also its process group.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is how the child ended; nil while it runs or after a clean end.
func (p *Process) Err() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Stop ends the child's process group: SIGTERM, then SIGKILL after grace.
// It returns when the child has ended and may be called more than once.
func (p *Process) Stop(grace time.Duration) {
	p.stop.Do(func() {
		group := -p.Pid()
		_ = syscall.Kill(group, syscall.SIGTERM)
		select {
		case <-p.done:
		case <-time.After(grace):
		}
		// What the child left behind in its group goes too.
		_ = syscall.Kill(group, syscall.SIGKILL)
		<-p.done
	})
}

// WaitListen waits until addr (host:port) accepts a TCP connection. It fails
// when ctx ends or the child ends first, and then shows the end of its log.
func (p *Process) WaitListen(ctx context.Context, addr string) error {
	var dialer net.Dialer
	for {
		conn, err := dialer.DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.done:
			return fmt.Errorf("%s ended before it listened on %s: %w%s", p.spec.Name, addr, orExited(p.Err()), p.logTail())
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen on %s: %w%s", p.spec.Name, addr, context.Cause(ctx), p.logTail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

var errExited = errors.New("exit status 0")

func orExited(err error) error {
	if err == nil {
		return errExited
	}
	return err
}

// logTail gives the last lines of the child's log, ready to follow an error.
func (p *Process) logTail() string {
	if p.spec.Log == "" {
		return ""
	}
	b, err := os.ReadFile(p.spec.Log)
	b = bytes.TrimSpace(b)
	if err != nil || len(b) == 0 {
		return ""
	}
	const most = 2000
	if len(b) > most {
		b = b[len(b)-most:]
	}
	return "\n" + string(b)
}

// onCore runs start with this thread pinned to a core, so that the child of the
// fork inherits the mask, and gives the thread its mask back.
func onCore(core int, start func() error) error {
	if core == AnyCore {
		return start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var old cpuSet
	if err := affinity(syscall.SYS_SCHED_GETAFFINITY, &old); err != nil {
		return fmt.Errorf("read CPU mask: %w", err)
	}
	var one cpuSet
	if core < 0 || core >= len(one)*64 {
		return fmt.Errorf("no CPU %d", core)
	}
	one[core/64] = 1 << (core % 64)
	if err := affinity(syscall.SYS_SCHED_SETAFFINITY, &one); err != nil {
		return fmt.Errorf("pin to CPU %d: %w", core, err)
	}
	err := start()
	return errors.Join(err, affinity(syscall.SYS_SCHED_SETAFFINITY, &old))
}

// PinSelf moves every thread of this process, and so those that they start and
// the children with AnyCore, to one core.
func PinSelf(core int) error {
	var one cpuSet
	if core < 0 || core >= len(one)*64 {
		return fmt.Errorf("no CPU %d", core)
	}
	one[core/64] = 1 << (core % 64)
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, uintptr(tid), unsafe.Sizeof(one), uintptr(unsafe.Pointer(&one)))
		if errno != 0 && errno != syscall.ESRCH {
			return fmt.Errorf("pin thread %d to CPU %d: %w", tid, core, errno)
		}
	}
	return nil
}

// cpuSet is the kernel's cpu_set_t, 1024 CPUs.
type cpuSet [16]uint64

func affinity(call uintptr, set *cpuSet) error {
	_, _, errno := syscall.RawSyscall(call, 0, unsafe.Sizeof(*set), uintptr(unsafe.Pointer(set)))
	if errno != 0 {
		return errno
	}
	return nil
}
