//go:build linux || darwin

package segment

import "syscall"

// Free is how many bytes a process like this one may still write where path is; false when that cannot be told.
func Free(path string) (int64, bool) {
	var st syscall.Statfs_t
	if syscall.Statfs(path, &st) != nil {
		return 0, false
	}
	return int64(st.Bavail) * int64(st.Bsize), true
}
