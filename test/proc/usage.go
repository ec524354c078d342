package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// CPU is the processor time that the trees under the given processes have
// used, from the scheduler's own count in nanoseconds. Threads and children
// that have ended are not in it, so compare two readings of one steady tree.
func CPU(pids ...int) (time.Duration, error) {
	var total time.Duration
	for _, pid := range pids {
		for _, p := range tree(pid) {
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p))
			for _, t := range tasks {
				b, err := os.ReadFile(t)
				if err != nil {
					continue // the thread ended
				}
				first, _, _ := strings.Cut(string(b), " ")
				ns, err := strconv.ParseInt(first, 10, 64)
				if err != nil {
					return 0, fmt.Errorf("%s: %w", t, err)
				}
				total += time.Duration(ns)
			}
		}
	}
	if total == 0 {
		return 0, fmt.Errorf("no scheduler count for processes %v; the kernel needs CONFIG_SCHED_INFO", pids)
	}
	return total, nil
}

// Memory is the resident memory of the trees under the given processes, in
// bytes. Pages that processes share are counted in each.
func Memory(pids ...int) int64 {
	var pages int64
	for _, pid := range pids {
		for _, p := range tree(pid) {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p))
			if err != nil {
				continue
			}
			if f := strings.Fields(string(b)); len(f) > 1 {
				n, _ := strconv.ParseInt(f[1], 10, 64)
				pages += n
			}
		}
	}
	return pages * int64(os.Getpagesize())
}

// tree lists a process and its descendants.
func tree(pid int) []int {
	pids := []int{pid}
	for i := 0; i < len(pids); i++ {
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		for _, l := range lists {
			b, _ := os.ReadFile(l)
			for _, f := range strings.Fields(string(b)) {
				if child, err := strconv.Atoi(f); err == nil {
					pids = append(pids, child)
				}
			}
		}
	}
	return pids
}
