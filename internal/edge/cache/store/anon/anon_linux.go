package anon

import (
	"fmt"
	"syscall"
)

// Map reserves at least one and at most bytes, rounded up to 8, of zeroed memory. It is an error
// when the address space, or what a limit leaves of it, does not hold it.
func Map(bytes int) (*Region, error) {
	if bytes <= 0 {
		return nil, fmt.Errorf("anonymous memory: %d bytes asked for, want at least 1", bytes)
	}
	b, err := syscall.Mmap(-1, 0, (bytes+7)&^7, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("anonymous memory: mmap of %d bytes: %w; raise the limit of address space (ulimit -v) or ask for less", bytes, err)
	}
	return &Region{b}, nil
}

// Huge asks the kernel for huge pages, which make reads in random order cheaper. It is advice: a
// kernel that cannot or may not goes on with small ones. A page of 2 MiB is then resident as a whole.
func (r *Region) Huge() {
	_ = syscall.Madvise(r.b, syscall.MADV_HUGEPAGE)
}

// Discard gives the pages back. The memory reads as zeros from now on, also for who still reads it.
func (r *Region) Discard() error {
	if err := syscall.Madvise(r.b, syscall.MADV_DONTNEED); err != nil {
		return fmt.Errorf("anonymous memory: madvise: %w", err)
	}
	return nil
}

// Close gives the memory back. Nobody may use it any more.
func (r *Region) Close() error {
	b := r.b
	r.b = nil
	if b == nil {
		return nil
	}
	if err := syscall.Munmap(b); err != nil {
		return fmt.Errorf("anonymous memory: munmap: %w", err)
	}
	return nil
}
