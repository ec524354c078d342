package main

import "syscall"

// leastReserve and reservePart are what is kept of the process's descriptors for origins, files
// and the rest: a fourth, and no less than 64.
const (
	leastReserve = 64
	reservePart  = 4
)

// fileLimit is how many descriptors the process may have, and how many of them visitors'
// connections may use; 0 when the system has no limit. Go has raised the soft limit to the
// hard one by now.
func fileLimit() (all, visitors int) {
	var l syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l) != nil || l.Cur > 1<<30 {
		return 0, 0
	}
	all = int(l.Cur)
	return all, max(1, all-max(leastReserve, all/reservePart))
}

// warnOfFiles says when the documents allow more connections than the process can have.
func (in *instance) warnOfFiles() {
	all, visitors := fileLimit()
	if wanted := in.edge.Connections(); all > 0 && wanted > visitors {
		in.logger.Warn("the limit of open files allows fewer connections than limits.connections of the listeners; raise it (ulimit -n, LimitNOFILE=)",
			"files", all, "connections", visitors, "listeners", wanted)
	}
}
