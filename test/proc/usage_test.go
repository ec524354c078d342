package proc

import (
	"context"
	"os"
	"testing"
	"time"
)

func TestCPUCountsTheWholeTree(t *testing.T) {
	p, err := Start(Spec{Name: "sh", Core: AnyCore, Args: []string{"sh", "-c", "sh -c 'while :; do :; done' & wait"}})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(time.Second)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for {
		// Only the grandchild is busy.
		used, err := CPU(p.Pid())
		if err == nil && used > 100*time.Millisecond {
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("counted %v, %v", used, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if Memory(p.Pid()) <= 0 {
		t.Error("no memory counted")
	}
}

func TestCPUOfNothingIsAnError(t *testing.T) {
	p, err := Start(Spec{Name: "true", Core: AnyCore, Args: []string{"true"}})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if used, err := CPU(p.Pid()); err == nil {
		t.Errorf("%v for a process that ended", used)
	}
	if used, err := CPU(os.Getpid()); err != nil || used <= 0 {
		t.Errorf("%v, %v for this process", used, err)
	}
}
