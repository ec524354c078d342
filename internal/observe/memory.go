package observe

import (
	"bytes"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// Memory measures how much memory the process has of what it may have: its resident pages, those of mapped files with them, over
// the least of the machine's memory and the limits of its control groups (version 1 or 2).
type Memory struct {
	files fs.FS // the system's root
	page  int64
}

// NewMemory returns one. Its metric is relais_memory_share.
func NewMemory(r *Registry) *Memory {
	m := &Memory{files: os.DirFS("/"), page: int64(os.Getpagesize())}
	r.GaugeFunc("relais_memory_share", "Share of the memory that the process may have which it has.", m.Share)
	return m
}

// Share is from 0 to 1, read anew each time, as limits may change; 0 where the system does not tell.
func (m *Memory) Share() float64 {
	statm := strings.Fields(m.read("proc/self/statm")) // proc(5): size, resident ... in pages
	if len(statm) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(statm[1], 10, 64)
	limit := m.limit()
	if err != nil || pages < 0 || limit == math.MaxInt64 {
		return 0
	}
	return min(float64(pages)*float64(m.page)/float64(limit), 1)
}

// limit is the least that bounds the process, in bytes.
func (m *Memory) limit() int64 {
	least := int64(math.MaxInt64)
	for line := range strings.Lines(m.read("proc/meminfo")) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			if n, err := strconv.ParseInt(f[1], 10, 54); err == nil && n > 0 {
				least = n << 10
			}
		}
	}
	for line := range strings.Lines(m.read("proc/self/cgroup")) { // cgroups(7): hierarchy:controllers:path
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) < 3 {
			continue
		}
		switch {
		case f[0] == "0" && f[1] == "":
			least = min(least, m.bound("sys/fs/cgroup", f[2], "memory.max"))
		case strings.Contains(","+f[1]+",", ",memory,"):
			least = min(least, m.bound("sys/fs/cgroup/memory", f[2], "memory.limit_in_bytes"))
		}
	}
	return least
}

// bound is the least limit of a group and those it is in.
func (m *Memory) bound(mount, group, file string) int64 {
	least := int64(math.MaxInt64)
	for g := path.Clean("/" + group); ; g = path.Dir(g) {
		if n, err := strconv.ParseInt(m.read(path.Join(mount, g, file)), 10, 64); err == nil && n > 0 {
			least = min(least, n)
		}
		if g == "/" {
			return least
		}
	}
}

// read gives what a small file says; nothing where there is none.
func (m *Memory) read(name string) string {
	b, err := fs.ReadFile(m.files, name)
	if err != nil {
		return ""
	}
	return string(bytes.TrimSpace(b))
}
