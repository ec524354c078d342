package proc

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStopEndsTheWholeGroup(t *testing.T) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "grandchild")
	p, err := Start(Spec{
		Name: "sh", Core: AnyCore,
		// The child ignores SIGTERM, so only the SIGKILL of the group ends both.
		Args: []string{"sh", "-c", `trap "" TERM; sleep 600 & echo $! > ` + pidFile + `; wait`},
	})
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	var pid string
	for pid == "" && time.Now().Before(deadline) {
		b, _ := os.ReadFile(pidFile)
		pid = strings.TrimSpace(string(b))
		time.Sleep(5 * time.Millisecond)
	}
	if pid == "" {
		t.Fatal("the grandchild did not start")
	}
	p.Stop(50 * time.Millisecond)
	// The grandchild is dead once the kernel has delivered the signal, and stays
	// a zombie where nobody reaps orphans.
	var state []byte
	for gone := false; !gone && time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		state, err = os.ReadFile("/proc/" + pid + "/stat")
		gone = err != nil || strings.Contains(string(state), ") Z ")
		if gone {
			state = nil
		}
	}
	if state != nil {
		t.Errorf("grandchild %s still runs: %s", pid, state)
	}
	p.Stop(time.Second)
}

func TestStartPinsTheChildOnly(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	var before, after cpuSet
	if err := affinity(syscall.SYS_SCHED_GETAFFINITY, &before); err != nil {
		t.Fatal(err)
	}
	p, err := Start(Spec{Name: "grep", Args: []string{"grep", "Cpus_allowed_list", "/proc/self/status"}, Log: log, Core: 0})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if err := affinity(syscall.SYS_SCHED_GETAFFINITY, &after); err != nil {
		t.Fatal(err)
	}
	out, _ := os.ReadFile(log)
	if got := strings.Fields(string(out)); len(got) != 2 || got[1] != "0" {
		t.Errorf("child runs on %q, want CPU 0", out)
	}
	if before != after {
		t.Errorf("mask of the parent changed from %v to %v", before[0], after[0])
	}
}

func TestWaitListenShowsWhyTheChildEnded(t *testing.T) {
	p, err := Start(Spec{Name: "broken", Args: []string{"sh", "-c", "echo no such option >&2; exit 3"}, Log: filepath.Join(t.TempDir(), "log"), Core: AnyCore})
	if err != nil {
		t.Fatal(err)
	}
	ports, err := Ports(1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err = p.WaitListen(ctx, Addr(ports[0]))
	if err == nil || !strings.Contains(err.Error(), "no such option") || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("error %v does not tell the exit status and the log", err)
	}
}

func TestPortsAreDistinct(t *testing.T) {
	ports, err := Ports(50)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, p := range ports {
		if seen[p] {
			t.Errorf("port %d given twice", p)
		}
		seen[p] = true
	}
}

func TestCertificateLoads(t *testing.T) {
	pair, err := Certificate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(pair.Cert, pair.Key); err != nil {
		t.Error(err)
	}
	if _, err := tls.LoadX509KeyPair(pair.Both, pair.Both); err != nil {
		t.Error(err)
	}
}
