package observe

import (
	"os"
	"runtime"
	"testing"
	"testing/fstest"
)

func TestTheShareOfMemoryIsOfTheLeastLimit(t *testing.T) {
	base := map[string]string{
		"proc/self/statm": "500000 131072 20000 1 0 90000 0\n", // 512 MiB with pages of 4 KiB
		"proc/meminfo":    "MemTotal:        8388608 kB\nMemFree:          12 kB\n",
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  float64
	}{
		"the machine's alone":     {nil, 0.5 / 8},
		"no limit in the group":   {map[string]string{"proc/self/cgroup": "0::/relais\n", "sys/fs/cgroup/relais/memory.max": "max\n"}, 0.5 / 8},
		"the group's":             {map[string]string{"proc/self/cgroup": "0::/relais\n", "sys/fs/cgroup/relais/memory.max": "1073741824\n"}, 0.5},
		"of a group above":        {map[string]string{"proc/self/cgroup": "0::/a/b/c\n", "sys/fs/cgroup/a/b/memory.max": "4294967296", "sys/fs/cgroup/a/memory.max": "2147483648"}, 0.25},
		"the container's root":    {map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 0.5},
		"outside of what is seen": {map[string]string{"proc/self/cgroup": "0::/../host\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 0.5},
		"version 1":               {map[string]string{"proc/self/cgroup": "9:cpu,memory:/x\n1:name=systemd:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "2147483648\n"}, 0.25},
		"version 1 without":       {map[string]string{"proc/self/cgroup": "9:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n"}, 0.5 / 8},
		"beyond it":               {map[string]string{"proc/self/cgroup": "0::/x\n", "sys/fs/cgroup/x/memory.max": "1048576\n"}, 1},
		"no system that tells":    {map[string]string{"proc/self/statm": ""}, 0},
		"no limit at all":         {map[string]string{"proc/meminfo": "MemFree: 1 kB\n"}, 0},
		"nonsense":                {map[string]string{"proc/self/statm": "1 x\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			files := fstest.MapFS{}
			for k, v := range base {
				files[k] = &fstest.MapFile{Data: []byte(v)}
			}
			for k, v := range c.files {
				files[k] = &fstest.MapFile{Data: []byte(v)}
			}
			m := &Memory{files: files, page: 4096}
			if got := m.Share(); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

func TestThisProcessHasMemory(t *testing.T) {
	share := NewMemory(New()).Share()
	if _, err := os.Stat("/proc/self/statm"); err != nil && runtime.GOOS != "linux" {
		if share != 0 {
			t.Errorf("%v on a system that does not tell", share)
		}
		return
	}
	if share <= 0 || share > 1 {
		t.Errorf("%v", share)
	}
}
